//! What watchers are told: numbered, recorded in the transaction of what happened, bounded.

use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::time::Now;

use super::healing::Telling;
use super::{Node, NodeError};
use crate::api::{
    Change, ConnectionKind, Event, EventBody, EventPage, MAX_EVENT_PAGE, MessageKind, MessageState,
    Reply,
};
use crate::conversations::{Conversation, ConversationId, MessageRow};
use crate::identity::Contact;
use crate::store::{StoreError, Table, Tx};

/// Events that are kept for watchers that were away.
const KEPT: u64 = 10_000;
const ROW_NEXT: &[u8] = b"next-event";

impl Node {
    /// Records an event, and tells it once it is durable.
    pub(super) fn tell(&mut self, tx: &Tx, body: EventBody, now: Now) -> Result<(), NodeError> {
        self.tell_numbered(tx, body, now).map(|_| ())
    }

    /// As [`Self::tell`]; answers the event's number.
    pub(super) fn tell_numbered(
        &mut self,
        tx: &Tx,
        body: EventBody,
        now: Now,
    ) -> Result<u64, NodeError> {
        let seq: u64 = tx.read(Table::Meta, ROW_NEXT)?.unwrap_or(1);
        tx.write(Table::Meta, ROW_NEXT, &seq.saturating_add(1))?;
        let event = Event { seq, at: now.wall, body };
        let json = serde_json::to_vec(&event).map_err(|_| StoreError::Encode(Table::Events))?;
        tx.put(Table::Events, &seq.to_be_bytes(), json);
        if let Some(old) = seq.checked_sub(KEPT) {
            tx.delete(Table::Events, &old.to_be_bytes());
        }
        self.untold.push(event);
        Ok(seq)
    }

    /// Tells whoever watches now, and keeps nothing: the event has the number of the one before it.
    pub(super) fn tell_in_passing(
        &mut self,
        tx: &Tx,
        body: EventBody,
        now: Now,
    ) -> Result<(), NodeError> {
        let next: u64 = tx.read(Table::Meta, ROW_NEXT)?.unwrap_or(1);
        self.untold.push(Event { seq: next.saturating_sub(1), at: now.wall, body });
        Ok(())
    }

    /// Takes what was said out of a recorded event: its message was edited, deleted, or has vanished.
    pub(super) fn blank_event(tx: &Tx, seq: u64) -> Result<(), NodeError> {
        let key = seq.to_be_bytes();
        let Some(json) = tx.get(Table::Events, &key)? else { return Ok(()) };
        let Ok(mut event) = serde_json::from_slice::<Event>(&json) else { return Ok(()) };
        match &mut event.body {
            EventBody::Message(view) => {
                view.kind = MessageKind::Deleted;
                view.text = String::new();
                view.reply_to = None;
                // Those that came before it are written here.
                view.reactions.clear();
                view.edited_at = None;
            }
            EventBody::Changed { text, .. } => *text = None,
            EventBody::Ready { .. }
            | EventBody::State { .. }
            | EventBody::Request { .. }
            | EventBody::Contact { .. }
            | EventBody::Group { .. }
            | EventBody::Connection { .. }
            | EventBody::Typing { .. } => return Ok(()),
        }
        let json = serde_json::to_vec(&event).map_err(|_| StoreError::Encode(Table::Events))?;
        tx.put(Table::Events, &key, json);
        Ok(())
    }

    pub(super) fn events(
        tx: &Tx,
        after: Option<u64>,
        limit: u32,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let next: u64 = tx.read(Table::Meta, ROW_NEXT)?.unwrap_or(1);
        let oldest = tx.scan(Table::Events, &[], None, 1)?.into_iter().next();
        let first =
            oldest.and_then(|(key, _)| key.try_into().ok()).map_or(next, u64::from_be_bytes);
        let mut events = Vec::new();
        if let Some(after) = after {
            let from = after.saturating_add(1).to_be_bytes();
            let limit = usize::try_from(limit.min(MAX_EVENT_PAGE)).unwrap_or(0);
            for (_, json) in tx.scan(Table::Events, &from, None, limit)? {
                // A row of another version is passed over: the stream must not stop there.
                if let Ok(event) = serde_json::from_slice(&json) {
                    events.push(event);
                }
            }
        }
        Ok(Reply::Events(EventPage { events, first, last: next.saturating_sub(1), at: now.wall }))
    }

    pub(super) fn tell_message(
        &mut self,
        tx: &Tx,
        row: &MessageRow,
        now: Now,
    ) -> Result<u64, NodeError> {
        let view = self.message_view(tx, row, false)?;
        self.tell_numbered(tx, EventBody::Message(Box::new(view)), now)
    }

    pub(super) fn tell_state(
        &mut self,
        tx: &Tx,
        row: &MessageRow,
        now: Now,
    ) -> Result<(), NodeError> {
        self.tell(
            tx,
            EventBody::State {
                message_id: row.message_id.to_string(),
                conversation: row.conversation.text(),
                state: row.state,
                error: if row.state == MessageState::Failed { row.error.clone() } else { None },
            },
            now,
        )
    }

    pub(super) fn tell_contact(
        &mut self,
        tx: &Tx,
        contact: &Contact,
        change: Change,
        now: Now,
    ) -> Result<(), NodeError> {
        self.tell(
            tx,
            EventBody::Contact {
                id: contact.key.to_string(),
                name: contact.name().to_owned(),
                alias: contact.alias.clone(),
                change,
            },
            now,
        )
    }

    /// Tells of a change of a group; conversations of two have none that people see.
    pub(super) fn tell_group(
        &mut self,
        tx: &Tx,
        conversation: &Conversation,
        change: Change,
        by: Option<IdentityKey>,
        who: Option<IdentityKey>,
        now: Now,
    ) -> Result<(), NodeError> {
        let ConversationId::Group(group) = conversation.id else { return Ok(()) };
        let epoch = self.epoch_of(tx, &group)?;
        self.tell(
            tx,
            EventBody::Group {
                id: group.to_string(),
                name: conversation.name.clone(),
                change,
                by: by.map(|key| key.to_string()),
                who: who.map(|key| key.to_string()),
                epoch,
            },
            now,
        )
    }

    /// Somebody broke a group's rules. Nothing has changed by it; but who does that is worth knowing.
    pub(super) fn tell_forbidden(
        &mut self,
        tx: &Tx,
        group: GroupId,
        by: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(conversation) = Conversation::of_group(tx, &group)? else { return Ok(()) };
        if self.healing.may_tell(&group, &by, Telling::Forbidden, None, now) {
            self.tell_group(tx, &conversation, Change::Refused, Some(by), None, now)?;
        }
        Ok(())
    }

    fn epoch_of(&mut self, tx: &Tx, group: &GroupId) -> Result<u64, NodeError> {
        match self.groups.summary(tx, group) {
            Ok(summary) => Ok(summary.epoch),
            Err(crate::groups::GroupError::Store(error)) => Err(error.into()),
            Err(_) => Ok(0),
        }
    }

    pub(super) fn tell_connection(
        &mut self,
        tx: &Tx,
        key: &IdentityKey,
        kind: ConnectionKind,
        connected: bool,
        now: Now,
    ) -> Result<(), NodeError> {
        let name = self.plain_name_of(tx, key)?;
        self.tell(
            tx,
            EventBody::Connection {
                kind,
                id: key.to_string(),
                name: (!name.is_empty()).then_some(name),
                connected,
            },
            now,
        )
    }
}
