//! What is still to be sent, cut into chunks one at a time.

use std::collections::VecDeque;

use super::{CHUNK_HEADER, Header};
use crate::limit::{CHUNK_PAYLOAD, MAX_MESSAGE, MAX_OPEN_REASSEMBLIES, MAX_REASSEMBLY_BYTES};

/// Queue of messages. Those of one chunk and those of many take turns; of the latter, as many are
/// open at a time as the receiver allows, and they take turns too. Bounded by its owner, who sees
/// [`Outgoing::queued_bytes`].
#[derive(Debug, Default)]
pub struct Outgoing {
    next_id: u64,
    /// Messages of one chunk, first in first out.
    small: VecDeque<Vec<u8>>,
    /// Messages of several chunks of which nothing was sent yet.
    waiting: VecDeque<Vec<u8>>,
    /// Messages of several chunks that are under way; the front one is next.
    open: VecDeque<UnderWay>,
    /// Goes out when everything else has gone.
    last: Option<Vec<u8>>,
    /// Bytes of small messages sent since the last chunk of a large one.
    small_sent: usize,
    queued_bytes: usize,
}

#[derive(Debug)]
struct UnderWay {
    message_id: u64,
    message: Vec<u8>,
    next_index: u16,
    total: u16,
}

impl Outgoing {
    /// Takes a message of 1 to [`MAX_MESSAGE`] bytes, or gives it back.
    ///
    /// # Errors
    /// The message, when it is empty or too long.
    pub fn push(&mut self, message: Vec<u8>) -> Result<(), Vec<u8>> {
        if message.is_empty() || message.len() > MAX_MESSAGE {
            return Err(message);
        }
        self.queued_bytes = self.queued_bytes.saturating_add(message.len());
        let queue =
            if message.len() <= CHUNK_PAYLOAD { &mut self.small } else { &mut self.waiting };
        queue.push_back(message);
        Ok(())
    }

    /// Takes a message of one chunk that goes out when everything else has gone.
    pub fn push_last(&mut self, message: Vec<u8>) {
        self.queued_bytes = self.queued_bytes.saturating_add(message.len());
        self.last = Some(message);
    }

    /// Forgets all messages of several chunks: what is under way stays incomplete.
    pub fn drop_large(&mut self) {
        let open = self.open.drain(..).map(|under_way| under_way.unsent());
        let waiting = self.waiting.drain(..).map(|message| message.len());
        let dropped = open.chain(waiting).fold(0_usize, usize::saturating_add);
        self.queued_bytes = self.queued_bytes.saturating_sub(dropped);
    }

    /// Bytes of messages that are not cut into chunks yet.
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Messages of which nothing was sent yet, or not all.
    #[must_use]
    pub fn queued_messages(&self) -> usize {
        let large = self.waiting.len().saturating_add(self.open.len());
        large.saturating_add(self.small.len()).saturating_add(usize::from(self.last.is_some()))
    }

    /// The next chunk, header included. `None` when nothing is queued.
    pub fn next_chunk(&mut self) -> Option<Vec<u8>> {
        self.admit();
        let chunk = if self.is_turn_of_small() {
            self.small.pop_front().map(|message| self.whole(&message))
        } else if let Some(under_way) = self.open.pop_front() {
            Some(self.part(under_way))
        } else {
            self.last.take().map(|message| self.whole(&message))
        };
        if chunk.is_none() {
            // An idle connection holds no queues.
            *self = Self { next_id: self.next_id, ..Self::default() };
        }
        chunk
    }

    /// Small messages may send as many bytes as one chunk of a large one before it is their turn again.
    fn is_turn_of_small(&mut self) -> bool {
        let turn =
            !self.small.is_empty() && (self.open.is_empty() || self.small_sent < CHUNK_PAYLOAD);
        if !turn {
            self.small_sent = 0;
        }
        turn
    }

    /// Opens waiting messages as far as the receiver has room for incomplete ones.
    fn admit(&mut self) {
        while self.open.len() < MAX_OPEN_REASSEMBLIES {
            let open_bytes: usize =
                self.open.iter().fold(0, |sum, open| sum.saturating_add(open.message.len()));
            let fits = self.waiting.front().is_some_and(|message| {
                open_bytes.saturating_add(message.len()) <= MAX_REASSEMBLY_BYTES
            });
            if !fits {
                return;
            }
            let Some(message) = self.waiting.pop_front() else { return };
            // At most MAX_MESSAGE bytes: 256 chunks.
            let total = u16::try_from(message.len().div_ceil(CHUNK_PAYLOAD)).unwrap_or(u16::MAX);
            // The receiver counts messages by their first chunks, so this one is named when its own
            // first chunk leaves.
            self.open.push_back(UnderWay { message_id: 0, message, next_index: 0, total });
        }
    }

    fn whole(&mut self, message: &[u8]) -> Vec<u8> {
        self.small_sent = self.small_sent.saturating_add(message.len());
        let header = Header { message_id: self.take_id(), index: 0, total: 1 };
        self.chunk(header, message)
    }

    fn part(&mut self, mut under_way: UnderWay) -> Vec<u8> {
        if under_way.next_index == 0 {
            under_way.message_id = self.take_id();
        }
        let header = Header {
            message_id: under_way.message_id,
            index: under_way.next_index,
            total: under_way.total,
        };
        let chunk = self.chunk(header, under_way.next_payload());
        if !header.is_last() {
            under_way.next_index = under_way.next_index.saturating_add(1);
            self.open.push_back(under_way);
        }
        chunk
    }

    fn chunk(&mut self, header: Header, payload: &[u8]) -> Vec<u8> {
        self.queued_bytes = self.queued_bytes.saturating_sub(payload.len());
        let mut chunk = Vec::with_capacity(payload.len().saturating_add(CHUNK_HEADER));
        header.append(payload, &mut chunk);
        chunk
    }

    const fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        id
    }
}

impl UnderWay {
    fn next_payload(&self) -> &[u8] {
        self.message.chunks(CHUNK_PAYLOAD).nth(self.next_index.into()).unwrap_or_default()
    }

    fn unsent(&self) -> usize {
        let sent = usize::from(self.next_index).saturating_mul(CHUNK_PAYLOAD);
        self.message.len().saturating_sub(sent)
    }
}
