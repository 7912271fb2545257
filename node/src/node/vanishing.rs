//! Messages that vanish: the timer of a conversation, and what it does.
//!
//! A message carries how long it stays, so that nobody has to agree on which timer was in force when;
//! the timer only says what those who write from now on put there. Vanishing is an input like any
//! other: time has come, and in one transaction the row, its changes and its events are gone.

use sremp_common::id::GroupId;
use sremp_common::time::{Instant, Now, Timestamp};

use super::sending::sent_view;
use super::{Node, NodeError};
use crate::api::{ApiError, MessageChange, MessageState, Reply, TimerView};
use crate::conversations::content::Lifetime;
use crate::conversations::{Conversation, ConversationId, History, MessageRow, RowKind, Standing};
use crate::store::{Table, Tx};

/// Messages that vanish in one transaction: the others have their turn in the next.
const MAX_AT_ONCE: usize = 256;

impl Node {
    /// After which time messages of a conversation vanish.
    pub(super) fn timer_show(&self, tx: &Tx, with: &str) -> Result<Reply, NodeError> {
        let id = self.resolve_conversation(tx, with)?;
        let lifetime = Conversation::find(tx, id)?.and_then(|found| found.lifetime());
        let seconds = lifetime.map(Lifetime::seconds);
        Ok(Reply::Timer(TimerView { conversation: id.text(), seconds }))
    }

    /// Sets it. In a group admins may, in a chat of two both.
    pub(super) fn timer_set(
        &mut self,
        tx: &Tx,
        with: &str,
        seconds: Option<u32>,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let lifetime = seconds.map(Lifetime::try_from).transpose();
        let lifetime = lifetime.map_err(|error| ApiError::usage(error.to_string()))?;
        self.require_room(tx)?;
        let id = self.resolve_conversation(tx, with)?;
        let conversation = self.writable(tx, id)?;
        if let ConversationId::Group(group) = id
            && !self.may_set_timer(tx, &group)?
        {
            return Err(ApiError::refused("only admins of the group may set its timer").into());
        }
        self.say_timer(tx, conversation, lifetime, now)
    }

    fn say_timer(
        &mut self,
        tx: &Tx,
        mut conversation: Conversation,
        lifetime: Option<Lifetime>,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let mut row = self.own_row(&mut conversation, RowKind::Timer, now);
        row.lifetime = lifetime;
        let sent = sent_view(&row);
        tx.put(Table::Intents, &row.key(), Vec::new());
        self.file_row(tx, &mut conversation, row, now)?;
        self.flush_intents(tx, &mut conversation, now)?;
        Ok(sent)
    }

    /// Whether others would take a timer from us now.
    pub(super) fn may_set_timer(&mut self, tx: &Tx, group: &GroupId) -> Result<bool, NodeError> {
        let (tip, own) = (self.groups.tip(tx, group)?, self.own.key());
        Ok(self.groups.was_admin(tx, group, tip, &own)?)
    }

    /// Says the timer again, for those whom we have added.
    pub(super) fn send_due_timer(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(mut conversation) = Conversation::of_group(tx, group)? else { return Ok(()) };
        if !conversation.timer_due || conversation.standing != Standing::Active {
            return Ok(());
        }
        conversation.timer_due = false;
        conversation.save(tx)?;
        let lifetime = conversation.lifetime();
        if lifetime.is_some() && self.may_set_timer(tx, group)? {
            self.say_timer(tx, conversation, lifetime, now)?;
        }
        Ok(())
    }

    /// A row is new: it may have to vanish.
    pub(super) fn let_vanish(&mut self, tx: &Tx, row: &MessageRow, now: Now) {
        let Some(at) = row.vanishes_at else { return };
        tx.put(Table::Vanishing, &key(at, row), row.key());
        let wake = wake_for(at, now);
        self.vanishing_at = Some(self.vanishing_at.map_or(wake, |before| before.min(wake)));
    }

    /// Finds out when the next message vanishes: after a start, after some have, and now and then,
    /// because the wall clock may have been set.
    pub(super) fn wake_for_vanishing(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        let first = tx.scan(Table::Vanishing, &[], None, 1)?.into_iter().next();
        let at = first.and_then(|(key, _)| key.first_chunk().copied());
        let at = at.map(|at| Timestamp::from_millis(u64::from_be_bytes(at)));
        self.vanishing_at = at.map(|at| wake_for(at, now));
        Ok(())
    }

    /// Deletes what has been here for long enough.
    pub(super) fn vanish(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        if self.vanishing_at.is_none_or(|at| at > now.instant) {
            return Ok(());
        }
        let until = now.wall.as_millis().saturating_add(1).to_be_bytes();
        for (key, place) in tx.scan(Table::Vanishing, &[], Some(&until), MAX_AT_ONCE)? {
            tx.delete(Table::Vanishing, &key);
            if let Some(row) = tx.read::<MessageRow>(Table::Messages, &place)? {
                self.vanish_row(tx, row, now)?;
            }
        }
        self.wake_for_vanishing(tx, now)
    }

    fn vanish_row(&mut self, tx: &Tx, mut row: MessageRow, now: Now) -> Result<(), NodeError> {
        self.forget_said(tx, &row)?;
        if tx.get(Table::Intents, &row.key())?.is_some() {
            tx.delete(Table::Intents, &row.key());
            row.state = MessageState::Failed;
            row.error = Some("it vanished before it could be sent".to_owned());
            self.tell_state(tx, &row, now)?;
        }
        History::vanish(tx, &row);
        self.tell_change(tx, &row, MessageChange::Vanished, row.from, None, now).map(|_| ())
    }
}

fn wake_for(at: Timestamp, now: Now) -> Instant {
    now.instant + at.since(now.wall)
}

fn key(at: Timestamp, row: &MessageRow) -> Vec<u8> {
    let at = at.as_millis().to_be_bytes();
    [at.as_slice(), row.message_id.as_bytes(), row.from.as_bytes()].concat()
}
