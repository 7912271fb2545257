//! What the node tells unasked. Events carry sequence numbers that never repeat and never go back,
//! so that a watcher that was away can ask for what it missed.

use std::fmt;

use serde::{Deserialize, Serialize};
use sremp_common::time::Timestamp;

use super::view::{FlagsView, MessageView};
use super::{MessageState, word};

/// Something happened: `{event, seq, at, ...}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Rises with every event of this node.
    pub seq: u64,
    /// When, by this node's clock.
    pub at: Timestamp,
    /// What; its fields stand beside `seq` and `at`.
    #[serde(flatten)]
    pub body: EventBody,
}

/// Number and kind only: texts do not belong into logs.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({} {})", self.seq, self.body.kind())
    }
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventBody {
    /// First line of a stream. Its `seq` is where the stream starts: what follows is newer.
    Ready {
        /// Own id.
        id: String,
        /// Own name.
        name: String,
        /// Oldest event still recorded: when it is beyond `seq + 1`, something was missed.
        first: u64,
    },
    /// A message came, or an own one was queued.
    Message(Box<MessageView>),
    /// An own message has come further.
    State {
        /// Id of the message.
        message_id: String,
        /// Id of the conversation.
        conversation: String,
        /// How far.
        state: MessageState,
        /// Why it failed.
        error: Option<String>,
    },
    /// Something was done to a message after it was written.
    Changed {
        /// Id of the message.
        message_id: String,
        /// Id of the conversation.
        conversation: String,
        /// What.
        change: MessageChange,
        /// Id of whoever did it; of a message that vanished, its author.
        by: String,
        /// How they are called here.
        by_name: String,
        /// The reaction (nothing: taken back), or the new text.
        text: Option<String>,
    },
    /// A stranger asks for a first contact.
    Request {
        /// Id of the stranger.
        id: String,
        /// What they call themselves.
        name: String,
        /// What they say about themselves.
        flags: FlagsView,
        /// Name of the group that they invite to.
        group: Option<String>,
    },
    /// Something changed about a contact.
    Contact {
        /// Id.
        id: String,
        /// What they call themselves.
        name: String,
        /// What the owner calls them.
        alias: Option<String>,
        /// What changed.
        change: Change,
    },
    /// Something changed about a group.
    Group {
        /// Id.
        id: String,
        /// What it is called.
        name: String,
        /// What changed.
        change: Change,
        /// Id of the member who did it.
        by: Option<String>,
        /// Id of the member whom it happened to.
        who: Option<String>,
        /// Epoch after it.
        epoch: u64,
    },
    /// A session was opened or lost.
    Connection {
        /// What is at the other end.
        kind: ConnectionKind,
        /// Id of a peer or relay, `HOST:PORT` of a rendezvous server.
        id: String,
        /// Name, as far as there is one.
        name: Option<String>,
        /// Whether it is up now.
        connected: bool,
    },
    /// Somebody writes at this moment, or has stopped. Never recorded: it has the number of the event
    /// before it.
    Typing {
        /// Id of the conversation.
        conversation: String,
        /// Id of whoever writes.
        by: String,
        /// How they are called here.
        by_name: String,
        /// Whether they do.
        typing: bool,
    },
}

/// The word in the field `event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// See [`EventBody::Ready`].
    Ready,
    /// See [`EventBody::Message`].
    Message,
    /// See [`EventBody::State`].
    State,
    /// See [`EventBody::Changed`].
    Changed,
    /// See [`EventBody::Request`].
    Request,
    /// See [`EventBody::Contact`].
    Contact,
    /// See [`EventBody::Group`].
    Group,
    /// See [`EventBody::Connection`].
    Connection,
    /// See [`EventBody::Typing`].
    Typing,
}

word::text_form!(EventKind, "a kind of event", {
    Ready = "ready", Message = "message", State = "state", Changed = "changed", Request = "request",
    Contact = "contact", Group = "group", Connection = "connection", Typing = "typing",
});

impl EventBody {
    /// The word in the field `event`.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Ready { .. } => EventKind::Ready,
            Self::Message(_) => EventKind::Message,
            Self::State { .. } => EventKind::State,
            Self::Changed { .. } => EventKind::Changed,
            Self::Request { .. } => EventKind::Request,
            Self::Contact { .. } => EventKind::Contact,
            Self::Group { .. } => EventKind::Group,
            Self::Connection { .. } => EventKind::Connection,
            Self::Typing { .. } => EventKind::Typing,
        }
    }
}

impl fmt::Debug for EventBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventBody({})", self.kind())
    }
}

/// What was done to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageChange {
    /// Somebody reacted to it, or took that back.
    Reaction,
    /// Its author gave it another text.
    Edit,
    /// Its author deleted it.
    Delete,
    /// It was here for as long as it was to be.
    Vanished,
}

/// What changed about a contact or group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// New: a contact, or a member of a group.
    Added,
    /// Gone.
    Removed,
    /// A member left by itself.
    Left,
    /// The owner joined the group.
    Joined,
    /// Another name.
    Renamed,
    /// Trust, verification, alias or policy changed here.
    Edited,
    /// A new version of the identity, or new keys of a member.
    Updated,
    /// A member became an admin.
    Promoted,
    /// An admin became a member.
    Demoted,
    /// Two branches of the group met, and this node went over to the other one.
    Switched,
    /// Something does not fit: other members are asked where they stand.
    Checking,
    /// This node's state of the group is of no use any more: a way back in is looked for.
    Rejoining,
    /// Nobody offers one: an admin is asked to remove and add this node.
    WaitingForAdmin,
    /// This node, or a member, had lost its state of the group, and joined it anew.
    Rejoined,
    /// The group was out of step here, and was healed.
    Recovered,
    /// A member made a change that the group's rules forbid: it was refused.
    Refused,
    /// A second contact with a name that is known already.
    NameClash,
    /// A contact whose name is written otherwise than another one's and looks like it.
    NameLookalike,
    /// An identity of a contact was refused: an older version was shown as the present one.
    OldIdentity,
    /// An identity of a contact was refused: a second form of the version that is known.
    SecondIdentity,
}

/// What is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionKind {
    /// Somebody's own node.
    Peer,
    /// A relay that holds a mailbox for this node.
    Relay,
    /// A rendezvous server.
    Rendezvous,
}
