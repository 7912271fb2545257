//! One message, as it is answered.

use std::fmt;

use serde::{Deserialize, Serialize};
use sremp_common::time::Timestamp;

use super::super::{MessageState, word};

/// A message was queued, or has come so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentView {
    /// Id of the message.
    pub message_id: String,
    /// Id of the conversation: the contact's, or the group's.
    pub conversation: String,
    /// How far it has come.
    pub state: MessageState,
}

/// What a row of history is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// A text; an answer when `reply_to` is there.
    Text,
    /// From then on messages vanish after `lifetime`, or not any more.
    Timer,
    /// Deleted by its author: nothing of it is left.
    Deleted,
    /// An own reaction to the message in `reply_to`; never in a history.
    Reaction,
    /// An own edit of the message in `reply_to`; never in a history.
    Edit,
    /// An own deletion of the message in `reply_to`; never in a history.
    Delete,
    /// Something happened to the conversation itself: members came or went, it was renamed.
    Notice,
    /// A kind that this version does not know.
    #[serde(other)]
    Unsupported,
}

word::text_form!(MessageKind, "a kind of message", {
    Text = "text", Timer = "timer", Deleted = "deleted", Reaction = "reaction", Edit = "edit",
    Delete = "delete", Notice = "notice", Unsupported = "unsupported",
});

/// Which way something went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To this node.
    In,
    /// From this node.
    Out,
}

word::text_form!(Direction, "a direction", { In = "in", Out = "out" });

/// One row of history.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageView {
    /// Id of the message.
    pub message_id: String,
    /// Id of the conversation: the contact's, or the group's.
    pub conversation: String,
    /// What it is.
    pub kind: MessageKind,
    /// Id of the author.
    pub from: String,
    /// How the author is called here: alias, else name.
    pub from_name: String,
    /// The author is a bot, as far as known here.
    #[serde(default)] // younger than the first recorded events
    pub from_is_machine_account: bool,
    /// Which way it went.
    pub direction: Direction,
    /// The text; for a notice, the sentence that says what happened.
    pub text: String,
    /// Id of the message that it answers.
    pub reply_to: Option<String>,
    /// When its author sent it, by the author's clock.
    pub sent_at: Timestamp,
    /// When it came; [`None`] for own messages.
    pub received_at: Option<Timestamp>,
    /// How far it has come; in a group, the least of its members'.
    pub state: MessageState,
    /// Why it failed, or what it waits for.
    pub error: Option<String>,
    /// How far it can come: in groups whose members no longer confirm, `sent` is the end.
    pub final_state: MessageState,
    /// When its author gave it another text last, by the author's clock.
    #[serde(default)] // younger than the first recorded events
    pub edited_at: Option<Timestamp>,
    /// What people think of it, the most frequent first.
    #[serde(default)] // younger than the first recorded events
    pub reactions: Vec<ReactionView>,
    /// Seconds that it stays; of a timer, that messages stay from then on.
    #[serde(default)] // younger than the first recorded events
    pub lifetime: Option<u32>,
    /// When it vanishes here.
    #[serde(default)] // younger than the first recorded events
    pub vanishes_at: Option<Timestamp>,
    /// Own messages: how far each recipient's copy has come. Empty in history.
    pub recipients: Vec<RecipientView>,
}

/// A reaction to a message.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReactionView {
    /// Most often an emoji.
    pub reaction: String,
    /// How many react so.
    pub count: u32,
    /// The owner of this node does.
    pub mine: bool,
    /// Who. Empty in history.
    pub from: Vec<PersonView>,
}

/// All but what was said.
impl fmt::Debug for ReactionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactionView").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonView {
    /// Id.
    pub id: String,
    /// How they are called here.
    pub name: String,
}

/// After which time messages of a conversation vanish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerView {
    /// Id of the conversation: the contact's, or the group's.
    pub conversation: String,
    /// Seconds; nothing: they stay.
    pub seconds: Option<u32>,
}

/// Everything but what was said.
impl fmt::Debug for MessageView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageView")
            .field("message_id", &self.message_id)
            .field("kind", &self.kind)
            .field("direction", &self.direction)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// How far one recipient's copy of a message has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientView {
    /// Id.
    pub id: String,
    /// How they are called here.
    pub name: String,
    /// They are a bot, as far as known here.
    #[serde(default)] // younger than the first recorded events
    pub is_machine_account: bool,
    /// How far.
    pub state: MessageState,
    /// Why it failed, or what it waits for.
    pub error: Option<String>,
}
