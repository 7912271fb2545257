//! From a mailbox to its owner: everything that waits, then what comes, within a window.
//!
//! A reader is not a queue: it remembers how far it has read, and which messages are under way.
//! The messages themselves stay in the store until they are acknowledged, so that a reader costs
//! the same whether ten messages wait or ten thousand.

use std::collections::BTreeMap;

use sremp_common::id::IdentityKey;
use sremp_common::limit::{MAX_ACKS, MAX_BATCH};
use sremp_common::wire::{List, Message, MessageBatch, RequestId, RetrieveMessages};

use super::{Engine, Mailbox, Output, Request, SessionId};
use crate::store::{Mailboxes, Page, PageLimit, StoreError};

/// Messages under way to one reader: as many as one acknowledgement can name.
const MAX_UNDER_WAY: usize = MAX_ACKS;
/// Bytes of blobs in one batch, unless a single blob is longer.
const BATCH_BYTES: u64 = 256 * 1024;
/// Bytes read from the store in one turn, over all readers: bounds memory when many come at once.
const TURN_BYTES: u64 = 16 * 1024 * 1024;

/// An owner that reads its mailbox in a session.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) session: SessionId,
    request_id: RequestId,
    /// Bytes of blobs that may be under way.
    window: u64,
    /// Pushed and not acknowledged: sequence and bytes.
    under_way: BTreeMap<u64, u64>,
    bytes_under_way: u64,
    /// The highest sequence that was pushed.
    pushed: u64,
    /// More waits in the store than the window let out.
    has_more: bool,
    /// The request was answered at least once.
    is_answered: bool,
    /// Stands in the queue of those that may have something.
    is_queued: bool,
}

impl Reader {
    /// A message is gone. True when that lets out another one.
    pub(super) fn release(&mut self, sequence: u64) -> bool {
        let Some(bytes) = self.under_way.remove(&sequence) else { return false };
        self.bytes_under_way = self.bytes_under_way.saturating_sub(bytes);
        self.has_more
    }

    /// Marks the reader as queued. False when it was already.
    pub(super) const fn queue(&mut self) -> bool {
        !std::mem::replace(&mut self.is_queued, true)
    }

    /// The next messages that the window lets out.
    fn next<S: Mailboxes + ?Sized>(
        &self,
        store: &mut S,
        owner: &IdentityKey,
    ) -> Result<Page, StoreError> {
        let room = self.window.saturating_sub(self.bytes_under_way);
        let always_one = self.under_way.is_empty();
        let messages = MAX_BATCH.min(MAX_UNDER_WAY.saturating_sub(self.under_way.len()));
        if messages == 0 || (room == 0 && !always_one) {
            return Ok(Page { messages: Vec::new(), has_more: true });
        }
        let limit = PageLimit { messages, bytes: room.min(BATCH_BYTES), always_one };
        let page = store.list(owner, self.pushed, limit)?;
        // A blob longer than a batch has a batch of its own, as soon as the window has room.
        if page.messages.is_empty() && page.has_more && room > BATCH_BYTES {
            let limit = PageLimit { messages: 1, bytes: room, always_one };
            return store.list(owner, self.pushed, limit);
        }
        Ok(page)
    }

    /// What holds after every step.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let bytes: u64 = self.under_way.values().sum();
        assert_eq!(bytes, self.bytes_under_way);
        assert!(bytes <= self.window || self.under_way.len() == 1, "more than the window");
        assert!(self.under_way.len() <= MAX_UNDER_WAY);
    }

    /// Notes what is pushed; gives its bytes.
    fn push(&mut self, page: &Page) -> u64 {
        let mut pushed = 0_u64;
        for message in &page.messages {
            let bytes = u64::try_from(message.blob.len()).unwrap_or(u64::MAX);
            self.under_way.insert(message.sequence, bytes);
            self.pushed = self.pushed.max(message.sequence);
            pushed = pushed.saturating_add(bytes);
        }
        self.bytes_under_way = self.bytes_under_way.saturating_add(pushed);
        self.has_more = page.has_more;
        pushed
    }
}

impl Engine {
    /// Starts delivery in this session, from the first message that waits. A session that read
    /// before is no longer pushed to.
    pub(super) fn retrieve(
        &mut self,
        request: Request,
        owner: IdentityKey,
        body: RetrieveMessages,
        mailbox: Mailbox,
    ) {
        let known = self.readers.remove(&owner);
        let reader = Reader {
            session: request.session,
            request_id: request.request_id,
            window: body.window.min(self.config.max_window).into(),
            under_way: BTreeMap::new(),
            bytes_under_way: 0,
            pushed: 0,
            has_more: mailbox.messages > 0,
            is_answered: false,
            is_queued: known.is_some_and(|known| known.is_queued),
        };
        self.readers.insert(owner, reader);
        self.mark_due(owner);
    }

    /// The mailbox may have something for its reader.
    pub(super) fn mark_due(&mut self, owner: IdentityKey) {
        if let Some(reader) = self.readers.get_mut(&owner)
            && reader.queue()
        {
            self.due.push_back(owner);
        }
    }

    /// Pushes to the readers in turn, one batch each, until nothing is left or the turn is over.
    pub(super) fn push_due<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
    ) -> Result<(), StoreError> {
        let mut pushed = 0_u64;
        while pushed < TURN_BYTES {
            let Some(owner) = self.due.pop_front() else { break };
            let Some(reader) = self.readers.get_mut(&owner) else { continue };
            reader.is_queued = false;
            let page = reader.next(store, &owner)?;
            if page.messages.is_empty() && reader.is_answered {
                reader.has_more = page.has_more;
                continue;
            }
            pushed = pushed.saturating_add(reader.push(&page));
            reader.is_answered = true;
            let (session, request_id) = (reader.session, reader.request_id);
            if page.has_more && !page.messages.is_empty() {
                reader.is_queued = true;
                self.due.push_back(owner);
            }
            let Page { messages, has_more } = page;
            let batch = MessageBatch { messages: List::truncated(messages), has_more };
            let message = Message::MessageBatch(batch);
            self.outputs.push_back(Output::Answer { session, request_id, message });
        }
        Ok(())
    }
}
