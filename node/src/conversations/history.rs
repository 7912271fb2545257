//! The history: each message once, in one order that all members agree on.
//!
//! The key of a row is conversation, Lamport number, author, message id. A message that comes
//! late by another path stands where it belongs, between its neighbours.

use serde::{Deserialize, Serialize};
use sremp_common::id::{GroupId, IdentityKey, MessageId};
use sremp_common::time::Timestamp;

use super::content::Lifetime;
use super::conversation::ConversationId;
use crate::api::MessageState;
use crate::delivery::Parcel;
use crate::groups::StateId;
use crate::store::{StoreError, Table, Tx, decode_row};

/// Messages under one id that are looked at: their authors choose ids, and only a liar chooses one
/// that is in use.
const MAX_NAMESAKES: usize = 16;

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    /// A text.
    Text,
    /// Something happened to the conversation; written by this node.
    Notice,
    /// From then on messages vanish after another time, or not any more.
    Timer,
    /// What its author has deleted: nothing of it is left.
    Deleted,
    /// Our reaction to a message; not shown by itself.
    Reaction,
    /// Our edit of a message; not shown by itself.
    Edit,
    /// Our wish that a message is deleted; not shown by itself.
    Delete,
    /// A kind of a newer version.
    #[serde(other)]
    Unknown,
}

/// A message as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageRow {
    /// Its id, the author's choice.
    pub message_id: MessageId,
    /// Where it belongs.
    pub conversation: ConversationId,
    /// Where it stands there.
    pub lamport: u64,
    /// What it is.
    pub kind: RowKind,
    /// The author, as MLS authenticated it.
    pub from: IdentityKey,
    /// We wrote it.
    pub outgoing: bool,
    /// What it says.
    pub text: String,
    /// The message that it answers, or changes.
    pub reply_to: Option<MessageId>,
    /// The author's clock.
    pub sent_at: Timestamp,
    /// Our clock, when it came; nil for our own.
    pub received_at: Option<Timestamp>,
    /// How far our own message has come; for others', whether we confirmed reading it.
    pub state: MessageState,
    /// Why it failed.
    pub error: Option<String>,
    /// The state of each recipient; the message's is the least of them. Empty until encrypted, and
    /// in groups too large for receipts: there the outbox knows who still waits.
    pub recipients: Vec<(IdentityKey, MessageState)>,
    /// The group and epoch's state that it was encrypted, or came, under.
    pub sealed_in: Option<(GroupId, StateId)>,
    /// Recipients confirm delivery; false in groups too large for it.
    pub receipts: bool,
    /// Who wrote the message that it changes.
    #[serde(default)]
    pub about: Option<IdentityKey>,
    /// When its text was replaced, by its author's clock.
    #[serde(default)]
    pub edited_at: Option<Timestamp>,
    /// How long it stays; of a timer's row: how long messages do from then on.
    #[serde(default)]
    pub lifetime: Option<Lifetime>,
    /// When it vanishes, by our clock.
    #[serde(default)]
    pub vanishes_at: Option<Timestamp>,
    /// Events that hold its text: the one of its coming, and the one of its last edit.
    #[serde(default)]
    pub told: Vec<u64>,
}

impl MessageRow {
    /// A row that says nothing yet, and is on its way to nobody.
    #[must_use]
    pub const fn new(
        conversation: ConversationId,
        (lamport, from, message_id): (u64, IdentityKey, MessageId),
        kind: RowKind,
        state: MessageState,
        sent_at: Timestamp,
    ) -> Self {
        Self {
            message_id,
            conversation,
            lamport,
            kind,
            from,
            outgoing: false,
            text: String::new(),
            reply_to: None,
            sent_at,
            received_at: None,
            state,
            error: None,
            recipients: Vec::new(),
            sealed_in: None,
            receipts: false,
            about: None,
            edited_at: None,
            lifetime: None,
            vanishes_at: None,
            told: Vec::new(),
        }
    }

    /// The row's key.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let mut key = self.conversation.to_key();
        key.extend_from_slice(&self.lamport.to_be_bytes());
        key.extend_from_slice(self.from.as_bytes());
        key.extend_from_slice(self.message_id.as_bytes());
        key
    }

    /// Whether people see it as a line of the history.
    #[must_use]
    pub const fn is_shown(&self) -> bool {
        !matches!(self.kind, RowKind::Reaction | RowKind::Edit | RowKind::Delete)
    }

    /// Whether somebody wrote it: it can be reacted to, and deleted.
    #[must_use]
    pub const fn is_written(&self) -> bool {
        matches!(self.kind, RowKind::Text | RowKind::Unknown)
    }

    /// Whether it is ours, and there is something of it that can be sent.
    #[must_use]
    pub const fn can_be_sent(&self) -> bool {
        self.outgoing
            && match self.kind {
                RowKind::Text
                | RowKind::Timer
                | RowKind::Reaction
                | RowKind::Edit
                | RowKind::Delete => true,
                RowKind::Notice | RowKind::Deleted | RowKind::Unknown => false,
            }
    }

    /// Makes a tombstone of it: it keeps its place, and nothing of what it said.
    pub fn bury(&mut self) {
        self.kind = RowKind::Deleted;
        self.text = String::new();
        self.reply_to = None;
        self.edited_at = None;
        self.told = Vec::new();
    }

    /// Moves recipients forward; answers whether the whole message moved. A state never moves
    /// backwards, and what has failed may still arrive.
    pub fn advance(&mut self, recipients: &[IdentityKey], to: MessageState) -> bool {
        let mut wanted = recipients.to_vec();
        wanted.sort_unstable();
        for (key, state) in &mut self.recipients {
            let moves = *state < to || *state == MessageState::Failed;
            if moves && wanted.binary_search(key).is_ok() {
                *state = to;
            }
        }
        let least = self.recipients.iter().map(|(_, state)| *state).min();
        match least {
            Some(least) if least > self.state || self.state == MessageState::Failed => {
                let moved = least != self.state;
                self.state = least;
                moved
            }
            _ => false,
        }
    }
}

impl MessageRow {
    /// For a message without receipts: takes over how far its blob has come. Answers whether that
    /// moved the message.
    pub fn finish(&mut self, parcel: &Parcel) -> bool {
        let before = self.state;
        match parcel.is_done() {
            Some(true) => self.state = MessageState::Sent,
            Some(false) if before == MessageState::Queued => self.state = MessageState::Failed,
            Some(false) | None => {}
        }
        self.state != before
    }
}

/// Messages of a conversation among which our own are looked for.
pub const MAX_LOOKED_THROUGH: usize = 20_000;

/// The tables of messages.
#[derive(Debug)]
pub struct History;

impl History {
    /// Writes a message, and its index row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn save(tx: &Tx, row: &MessageRow) -> Result<(), StoreError> {
        let key = row.key();
        tx.write(Table::Messages, &key, row)?;
        tx.put(Table::MessageIndex, &index_key(&row.message_id, &row.from), key);
        Ok(())
    }

    /// Writes a message whose index row stands already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn update(tx: &Tx, row: &MessageRow) -> Result<(), StoreError> {
        tx.write(Table::Messages, &row.key(), row)
    }

    /// The message of an author under an id: two authors may choose the same.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find(
        tx: &Tx,
        id: &MessageId,
        from: &IdentityKey,
    ) -> Result<Option<MessageRow>, StoreError> {
        match tx.get(Table::MessageIndex, &index_key(id, from))? {
            Some(key) => tx.read(Table::Messages, &key),
            None => Ok(None),
        }
    }

    /// The message under an id, whoever wrote it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find_any(tx: &Tx, id: &MessageId) -> Result<Option<MessageRow>, StoreError> {
        match tx.scan_prefix(Table::MessageIndex, id.as_bytes(), 1)?.into_iter().next() {
            Some((_, key)) => tx.read(Table::Messages, &key),
            None => Ok(None),
        }
    }

    /// The message under an id in one conversation, whoever wrote it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find_in(
        tx: &Tx,
        conversation: ConversationId,
        id: &MessageId,
    ) -> Result<Option<MessageRow>, StoreError> {
        for (_, key) in tx.scan_prefix(Table::MessageIndex, id.as_bytes(), MAX_NAMESAKES)? {
            let row = tx.read::<MessageRow>(Table::Messages, &key)?;
            if let Some(row) = row.filter(|row| row.conversation == conversation && row.is_shown())
            {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Whether a message of an author came once under this id, even if it has vanished since.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_seen(tx: &Tx, id: &MessageId, from: &IdentityKey) -> Result<bool, StoreError> {
        Ok(tx.get(Table::MessageIndex, &index_key(id, from))?.is_some())
    }

    /// Deletes a message that vanishes. What is left is that it was here, so that it does not come
    /// again.
    pub fn vanish(tx: &Tx, row: &MessageRow) {
        tx.delete(Table::Messages, &row.key());
    }

    /// Deletes a message of ours as if it had never been: something later has taken its place.
    pub fn remove(tx: &Tx, row: &MessageRow) {
        tx.delete(Table::Messages, &row.key());
        tx.delete(Table::MessageIndex, &index_key(&row.message_id, &row.from));
    }

    /// As [`Self::page`], but only what people see.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn page_shown(
        tx: &Tx,
        conversation: ConversationId,
        before: Option<&MessageRow>,
        limit: usize,
    ) -> Result<Vec<MessageRow>, StoreError> {
        Self::wanted(tx, conversation, before.cloned(), (limit, usize::MAX), MessageRow::is_shown)
    }

    /// The newest `limit` messages of ours of which something can be sent, oldest first, among the
    /// newest [`MAX_LOOKED_THROUGH`] of all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn own(
        tx: &Tx,
        conversation: ConversationId,
        limit: usize,
    ) -> Result<Vec<MessageRow>, StoreError> {
        let bounds = (limit, MAX_LOOKED_THROUGH);
        Self::wanted(tx, conversation, None, bounds, MessageRow::can_be_sent)
    }

    /// The newest `limit` messages before one (or of all) that are wanted, oldest first, among the newest
    /// `most` or somewhat more.
    fn wanted(
        tx: &Tx,
        conversation: ConversationId,
        mut before: Option<MessageRow>,
        (limit, most): (usize, usize),
        is_wanted: fn(&MessageRow) -> bool,
    ) -> Result<Vec<MessageRow>, StoreError> {
        let (mut wanted, mut looked) = (Vec::new(), 0_usize);
        loop {
            let rows = Self::page(tx, conversation, before.as_ref(), limit)?;
            let was_all = rows.len() < limit;
            looked = looked.saturating_add(rows.len());
            before = rows.first().cloned();
            wanted.extend(rows.into_iter().rev().filter(is_wanted));
            if was_all || wanted.len() >= limit || looked >= most {
                break;
            }
        }
        wanted.truncate(limit);
        wanted.reverse();
        Ok(wanted)
    }

    /// The newest `limit` messages before one (or the newest of all), oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn page(
        tx: &Tx,
        conversation: ConversationId,
        before: Option<&MessageRow>,
        limit: usize,
    ) -> Result<Vec<MessageRow>, StoreError> {
        let from = conversation.to_key();
        let until = before.map_or_else(|| after_prefix(&from), MessageRow::key);
        let mut page: Vec<MessageRow> = tx
            .scan_back(Table::Messages, &from, &until, limit)?
            .into_iter()
            .map(|(_, value)| decode_row(Table::Messages, &value))
            .collect::<Result<_, _>>()?;
        page.reverse();
        Ok(page)
    }

    /// Forgets a conversation's messages, at most `limit` at a time; answers whether all are gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget(tx: &Tx, conversation: ConversationId, limit: usize) -> Result<bool, StoreError> {
        let rows = tx.scan_prefix(Table::Messages, &conversation.to_key(), limit)?;
        for (key, value) in &rows {
            let row: MessageRow = decode_row(Table::Messages, value)?;
            tx.delete(Table::Messages, key);
            tx.delete(Table::MessageIndex, &index_key(&row.message_id, &row.from));
        }
        Ok(rows.len() < limit)
    }
}

fn index_key(id: &MessageId, from: &IdentityKey) -> Vec<u8> {
    [id.as_bytes().as_slice(), from.as_bytes()].concat()
}

/// The first key after all that begin with `prefix`. Conversation keys begin with a letter, so
/// there always is one.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if last < u8::MAX {
            key.push(last.saturating_add(1));
            break;
        }
    }
    key
}
