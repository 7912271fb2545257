//! Reactions, edits and deletions: ours on their way, and what all of them do here.
//!
//! One of ours travels as messages do: a row, an intent, sealed, confirmed, sent again when it is lost.
//! Another's has no row: it is a value that the last one of its author wins ([`Changes`]). Whoever
//! wrote a message may edit and delete it, and nobody else, admins included.

use sremp_common::id::{IdentityKey, MessageId};
use sremp_common::limit::{MAX_REACTION, MAX_TEXT};
use sremp_common::time::{Now, Timestamp};
use sremp_common::wire::Text;

use super::sending::{parse_message_id, sent_view};
use super::{Node, NodeError};
use crate::api::{ApiError, EventBody, MessageChange, MessageState, Reply};
use crate::conversations::content::{DeleteBody, EditBody, Lifetime, ReactionBody};
use crate::conversations::{
    ChangeKind, ChangeRow, Changes, Content, Conversation, ConversationId, History, Kind,
    MessageRow, RowKind, Target,
};
use crate::delivery::Verdict;
use crate::store::{Table, Tx};

/// What a content does to a message.
#[derive(Clone, Debug)]
pub(super) struct Change {
    target: Target,
    kind: ChangeKind,
    /// The reaction, or the text.
    value: String,
    /// The message's, as far as its author says so.
    lifetime: Option<Lifetime>,
}

/// Which of several changes comes last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    lamport: u64,
    id: MessageId,
    at: Timestamp,
}

impl From<&Content> for Stamp {
    fn from(content: &Content) -> Self {
        Self { lamport: content.lamport, id: content.message_id, at: content.sent_at }
    }
}

impl Change {
    /// What a content of somebody does; nothing when it does nothing to any message. Edits and
    /// deletions name no author: they are about the sender's own message.
    pub(super) fn read(
        conversation: ConversationId,
        sender: &IdentityKey,
        kind: &Kind,
    ) -> Option<Self> {
        let target = |author: &IdentityKey, message: &MessageId| Target {
            conversation,
            author: *author,
            message: *message,
        };
        match kind {
            Kind::Reaction(body) => Some(Self {
                target: target(&body.author, &body.target),
                kind: ChangeKind::Reaction,
                value: body.reaction.to_string(),
                lifetime: None,
            }),
            Kind::Edit(body) => Some(Self {
                target: target(sender, &body.target),
                kind: ChangeKind::Edit,
                value: body.text.to_string(),
                lifetime: body.lifetime,
            }),
            Kind::Delete(body) => Some(Self {
                target: target(sender, &body.target),
                kind: ChangeKind::Delete,
                value: String::new(),
                lifetime: None,
            }),
            Kind::Text(_)
            | Kind::Profile(_)
            | Kind::Timer(_)
            | Kind::FadingText(_)
            | Kind::Unknown(_) => None,
        }
    }
}

/// What is encrypted for a change of ours.
pub(super) fn kind_of_change(row: &MessageRow) -> Option<Kind> {
    let target = row.reply_to?;
    match row.kind {
        RowKind::Reaction => {
            let reaction = Text::truncated(&row.text);
            Some(Kind::Reaction(ReactionBody { author: row.about?, target, reaction }))
        }
        RowKind::Edit => {
            let (text, lifetime) = (Text::truncated(&row.text), row.lifetime);
            Some(Kind::Edit(EditBody { target, text, lifetime }))
        }
        RowKind::Delete => Some(Kind::Delete(DeleteBody { target })),
        RowKind::Text | RowKind::Notice | RowKind::Timer | RowKind::Deleted | RowKind::Unknown => {
            None
        }
    }
}

impl Node {
    /// Our reaction to a message; none takes it back.
    pub(super) fn react(
        &mut self,
        tx: &Tx,
        with: &str,
        message: &str,
        reaction: Option<&str>,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let reaction = reaction.unwrap_or_default().trim();
        if reaction.len() > MAX_REACTION || reaction.chars().any(char::is_control) {
            return Err(ApiError::usage(format!(
                "a reaction is one emoji or a short word, of at most {MAX_REACTION} bytes"
            ))
            .into());
        }
        let (conversation, row) = self.changeable(tx, with, message)?;
        self.make_change(tx, conversation, &row, ChangeKind::Reaction, reaction.to_owned(), now)
    }

    /// Another text for a message of ours.
    pub(super) fn edit(
        &mut self,
        tx: &Tx,
        with: &str,
        message: &str,
        text: &str,
        now: Now,
    ) -> Result<Reply, NodeError> {
        if text.trim().is_empty() {
            return Err(ApiError::usage(
                "an empty message says nothing; type a text, or delete the message with: \
                 sremp delete CONVERSATION MESSAGE",
            )
            .into());
        }
        if text.len() > MAX_TEXT {
            return Err(ApiError::usage(format!("a message has at most {MAX_TEXT} bytes")).into());
        }
        let (conversation, row) = self.changeable(tx, with, message)?;
        self.require_own(&row, "edit")?;
        if row.kind != RowKind::Text {
            return Err(ApiError::refused("only texts can be edited").into());
        }
        self.make_change(tx, conversation, &row, ChangeKind::Edit, text.to_owned(), now)
    }

    /// A message of ours is to be deleted everywhere.
    pub(super) fn delete(
        &mut self,
        tx: &Tx,
        with: &str,
        message: &str,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let (conversation, row) = self.changeable(tx, with, message)?;
        self.require_own(&row, "delete")?;
        self.make_change(tx, conversation, &row, ChangeKind::Delete, String::new(), now)
    }

    fn require_own(&self, row: &MessageRow, what: &str) -> Result<(), ApiError> {
        if row.from == self.own.key() {
            return Ok(());
        }
        Err(ApiError::refused(format!("only its author can {what} a message, admins neither")))
    }

    /// A message that somebody wrote in a conversation that we may write in. Others may have taken the
    /// id of one of ours, which is found first.
    fn changeable(
        &mut self,
        tx: &Tx,
        with: &str,
        message: &str,
    ) -> Result<(Conversation, MessageRow), NodeError> {
        self.require_room(tx)?;
        let id = self.resolve_conversation(tx, with)?;
        let conversation = self.writable(tx, id)?;
        let message_id = parse_message_id(message)?;
        let is_here = |row: &MessageRow| row.conversation == id && row.is_shown();
        let own = History::find(tx, &message_id, &self.own.key())?.filter(is_here);
        let found = if own.is_some() { own } else { History::find_in(tx, id, &message_id)? };
        let Some(row) = found else {
            return Err(ApiError::not_found(format!(
                "no message {message} in this conversation; see the ids with: sremp history --ids WITH"
            ))
            .into());
        };
        if row.kind == RowKind::Deleted {
            return Err(ApiError::refused("this message was deleted").into());
        }
        if !row.is_written() {
            return Err(ApiError::refused(
                "nobody wrote this line: it says what happened to the conversation",
            )
            .into());
        }
        Ok((conversation, row))
    }

    fn make_change(
        &mut self,
        tx: &Tx,
        mut conversation: Conversation,
        target: &MessageRow,
        kind: ChangeKind,
        value: String,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let own = self.own.key();
        let row_kind = match kind {
            ChangeKind::Edit => RowKind::Edit,
            ChangeKind::Delete => RowKind::Delete,
            ChangeKind::Reaction => RowKind::Reaction,
        };
        let mut row = self.own_row(&mut conversation, row_kind, now);
        row.text.clone_from(&value);
        row.reply_to = Some(target.message_id);
        row.about = Some(target.from);
        row.lifetime = target.lifetime;
        conversation.save(tx)?;
        History::save(tx, &row)?;
        tx.put(Table::Intents, &row.key(), Vec::new());
        let target = target_of(target);
        let change = Change { target, kind, value, lifetime: row.lifetime };
        let stamp = Stamp { lamport: row.lamport, id: row.message_id, at: row.sent_at };
        self.change(tx, &own, change, stamp, now)?;
        self.flush_intents(tx, &mut conversation, now)?;
        Ok(sent_view(&row))
    }

    /// Does what a change says, whoever made it, if it is the last of its kind.
    pub(super) fn change(
        &mut self,
        tx: &Tx,
        actor: &IdentityKey,
        change: Change,
        stamp: Stamp,
        now: Now,
    ) -> Result<Verdict, NodeError> {
        let Change { target, kind, value, lifetime } = change;
        let Stamp { lamport, id, at } = stamp;
        let mut new = ChangeRow { lamport, id, at, value, early: None, told: None };
        let before = Changes::find(tx, &target, kind, actor)?;
        if before.as_ref().is_some_and(|before| !new.is_after(before)) {
            return Ok(Verdict::Applied);
        }
        let Some(row) = History::find(tx, &target.message, &target.author)? else {
            if History::has_seen(tx, &target.message, &target.author)? {
                // It has vanished.
                return Ok(Verdict::Applied);
            }
            return self.change_early(tx, &target, kind, actor, (new, lifetime), now);
        };
        if row.conversation != target.conversation || !(row.is_written() || is_buried(&row)) {
            self.count_refused();
            let why = "it changes what is no message of its conversation";
            return Ok(Verdict::Invalid(why.to_owned()));
        }
        if is_buried(&row) {
            return Ok(Verdict::Applied);
        }
        if let Some(before) = before {
            self.forget_change(tx, actor, &before)?;
        }
        match kind {
            ChangeKind::Edit => self.apply_edit(tx, row, new, now)?,
            ChangeKind::Delete => self.apply_delete(tx, row, now)?,
            ChangeKind::Reaction => {
                let reaction = (!new.value.is_empty()).then(|| new.value.clone());
                let said = MessageChange::Reaction;
                new.told = Some(self.tell_change(tx, &row, said, *actor, reaction, now)?);
                Changes::write(tx, &target, kind, actor, &new)?;
            }
        }
        Ok(Verdict::Applied)
    }

    /// A change whose message is not here: it waits. One of another author's message waits in vain;
    /// but that other may have taken the id of a message that is still to come, to have its edits
    /// refused.
    fn change_early(
        &mut self,
        tx: &Tx,
        target: &Target,
        kind: ChangeKind,
        actor: &IdentityKey,
        (new, lifetime): (ChangeRow, Option<Lifetime>),
        now: Now,
    ) -> Result<Verdict, NodeError> {
        if kind != ChangeKind::Reaction {
            if History::find_in(tx, target.conversation, &target.message)?.is_some() {
                self.count_refused();
            }
            if Changes::find(tx, target, ChangeKind::Delete, actor)?.is_some() {
                return Ok(Verdict::Applied);
            }
            if kind == ChangeKind::Delete {
                Changes::remove(tx, target, ChangeKind::Edit, actor)?;
            }
        }
        Changes::keep_early(tx, target, kind, actor, new, lifetime, now)?;
        Ok(Verdict::Applied)
    }

    const fn count_refused(&mut self) {
        self.changes_refused = self.changes_refused.saturating_add(1);
    }

    fn apply_edit(
        &mut self,
        tx: &Tx,
        mut row: MessageRow,
        mut change: ChangeRow,
        now: Now,
    ) -> Result<(), NodeError> {
        if row.kind != RowKind::Text {
            return Ok(());
        }
        row.text = std::mem::take(&mut change.value);
        row.edited_at = Some(change.at);
        // The text that is in force is enough to keep: of its coming, and of its last edit.
        for seq in row.told.drain(1.min(row.told.len())..) {
            Self::blank_event(tx, seq)?;
        }
        Changes::write(tx, &target_of(&row), ChangeKind::Edit, &row.from, &change)?;
        let (from, text) = (row.from, row.text.clone());
        let seq = self.tell_change(tx, &row, MessageChange::Edit, from, Some(text), now)?;
        row.told.push(seq);
        Ok(History::update(tx, &row)?)
    }

    fn apply_delete(&mut self, tx: &Tx, mut row: MessageRow, now: Now) -> Result<(), NodeError> {
        let never_left = row.outgoing && row.sealed_in.is_none();
        self.forget_said(tx, &row)?;
        row.bury();
        if never_left {
            row.state = MessageState::Failed;
            row.error = Some("it was deleted before it was sent".to_owned());
        }
        tx.delete(Table::Intents, &row.key());
        History::update(tx, &row)?;
        let from = row.from;
        self.tell_change(tx, &row, MessageChange::Delete, from, None, now)?;
        if never_left {
            self.tell_state(tx, &row, now)?;
        }
        Ok(())
    }

    /// Takes away everything that repeats a message, or is about it: events, and changes.
    pub(super) fn forget_said(&mut self, tx: &Tx, row: &MessageRow) -> Result<(), NodeError> {
        for seq in &row.told {
            Self::blank_event(tx, *seq)?;
        }
        let target = target_of(row);
        for (kind, actor, change) in Changes::of(tx, &target)? {
            Changes::remove(tx, &target, kind, &actor)?;
            self.forget_change(tx, &actor, &change)?;
        }
        Ok(())
    }

    /// A change counts no more: what repeats it goes, and one of ours with the row that it travels by.
    fn forget_change(
        &self,
        tx: &Tx,
        actor: &IdentityKey,
        change: &ChangeRow,
    ) -> Result<(), NodeError> {
        if let Some(seq) = change.told {
            Self::blank_event(tx, seq)?;
        }
        if *actor == self.own.key()
            && let Some(row) = History::find(tx, &change.id, actor)?
        {
            tx.delete(Table::Intents, &row.key());
            History::remove(tx, &row);
        }
        Ok(())
    }

    /// A message comes: what was done to it before is done now.
    pub(super) fn meet_changes(&mut self, tx: &Tx, row: &mut MessageRow) -> Result<(), NodeError> {
        let target = target_of(row);
        let mut changes = Changes::of(tx, &target)?;
        if changes.iter().any(|(kind, _, _)| *kind == ChangeKind::Delete) && row.is_written() {
            for (kind, actor, _) in changes {
                Changes::remove(tx, &target, kind, &actor)?;
            }
            row.bury();
            return Ok(());
        }
        for (kind, actor, change) in &mut changes {
            if change.early.take().is_none() {
                continue;
            }
            if *kind == ChangeKind::Edit && row.kind == RowKind::Text {
                row.text = std::mem::take(&mut change.value);
                row.edited_at = Some(change.at);
            }
            let is_of_use =
                row.is_written() && (*kind == ChangeKind::Reaction || row.kind == RowKind::Text);
            Changes::remove(tx, &target, *kind, actor)?;
            if is_of_use {
                Changes::write(tx, &target, *kind, actor, change)?;
            }
        }
        Ok(())
    }

    pub(super) fn tell_change(
        &mut self,
        tx: &Tx,
        row: &MessageRow,
        change: MessageChange,
        by: IdentityKey,
        text: Option<String>,
        now: Now,
    ) -> Result<u64, NodeError> {
        let body = EventBody::Changed {
            message_id: row.message_id.to_string(),
            conversation: row.conversation.text(),
            change,
            by: by.to_string(),
            by_name: self.name_of(tx, &by)?,
            text,
        };
        self.tell_numbered(tx, body, now)
    }
}

/// What names a message.
pub(super) fn target_of(row: &MessageRow) -> Target {
    Target { conversation: row.conversation, author: row.from, message: row.message_id }
}

fn is_buried(row: &MessageRow) -> bool {
    row.kind == RowKind::Deleted
}

#[cfg(test)]
mod tests;
