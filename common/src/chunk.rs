//! Chunks: the plaintext of every frame, so that a small message never waits behind a large one
//! (specification section 10.3).
//!
//! ```text
//! CHUNKED_MESSAGE = message_id u64le || chunk_index u16le || total_chunks u16le || chunk_size u16le || payload
//! ```
//! A message has one division: every chunk but the last carries [`CHUNK_PAYLOAD`] bytes, the last
//! one the rest, and none is empty. `message_id` counts the messages of one connection and direction
//! in the order of their first chunks. One message's chunks come in order; chunks of several messages
//! may come in turn. Anything else ends the connection.

mod incoming;
mod outgoing;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use incoming::Incoming;
pub use outgoing::Outgoing;

use crate::limit::{CHUNK_PAYLOAD, MAX_OPEN_REASSEMBLIES, MAX_REASSEMBLY_BYTES, NOISE_TAG};

/// Bytes in front of a chunk's payload.
pub const CHUNK_HEADER: usize = 14;

/// The longest frame after the handshake: a full chunk and its tag.
pub const MAX_CHUNK_FRAME: usize = CHUNK_HEADER + CHUNK_PAYLOAD + NOISE_TAG;

/// Why a chunk was refused. The connection is over in every case.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChunkError {
    /// Shorter than a chunk's header.
    #[error("a chunk without a whole header")]
    Truncated,
    /// `chunk_size` is not the number of bytes that follow.
    #[error("a chunk announced {announced} bytes and carries {carried}")]
    SizeLie {
        /// `chunk_size`.
        announced: usize,
        /// What follows the header.
        carried: usize,
    },
    /// A chunk that is not full, and not the last; or empty; or overfull.
    #[error("a chunk of illegal size")]
    IllegalSize,
    /// No chunks in total, or an index beyond their total.
    #[error("a chunk beyond the total that it announces")]
    BeyondTotal,
    /// Not the next message to begin, and none that is incomplete.
    #[error("a chunk of a message that is not open")]
    UnknownMessage,
    /// Repeated, or one before it is missing.
    #[error("chunk {found} where chunk {expected} is next")]
    OutOfOrder {
        /// Next index of this message.
        expected: u16,
        /// What came.
        found: u16,
    },
    /// Another total than in the message's first chunk.
    #[error("the number of chunks changed within a message")]
    TotalChanged,
    /// The whole message would be longer than this peer's messages may be.
    #[error("a message of more than {max} bytes")]
    TooLong {
        /// What is legal for this peer.
        max: usize,
    },
    /// More than [`MAX_OPEN_REASSEMBLIES`].
    #[error("more than {MAX_OPEN_REASSEMBLIES} incomplete messages")]
    TooManyOpen,
    /// More than [`MAX_REASSEMBLY_BYTES`].
    #[error("more than {MAX_REASSEMBLY_BYTES} bytes of incomplete messages")]
    TooManyBytes,
    /// The bound over all connections is reached: no fault of this peer.
    #[error("no room for incomplete messages")]
    NoRoom,
    /// A message was not completed in time.
    #[error("a message was not completed in time")]
    TimedOut,
}

/// The head of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    message_id: u64,
    index: u16,
    total: u16,
}

impl Header {
    fn append(self, payload: &[u8], out: &mut Vec<u8>) {
        // A payload has at most CHUNK_PAYLOAD bytes: the size fits.
        let size = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&self.message_id.to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.total.to_le_bytes());
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(payload);
    }

    /// Splits a plaintext, and checks everything that one chunk alone can be judged by.
    fn split(chunk: &[u8]) -> Result<(Self, &[u8]), ChunkError> {
        let (message_id, rest) = chunk.split_first_chunk().ok_or(ChunkError::Truncated)?;
        let (index, rest) = rest.split_first_chunk().ok_or(ChunkError::Truncated)?;
        let (total, rest) = rest.split_first_chunk().ok_or(ChunkError::Truncated)?;
        let (size, payload) = rest.split_first_chunk().ok_or(ChunkError::Truncated)?;
        let header = Self {
            message_id: u64::from_le_bytes(*message_id),
            index: u16::from_le_bytes(*index),
            total: u16::from_le_bytes(*total),
        };
        let announced = usize::from(u16::from_le_bytes(*size));
        if announced != payload.len() {
            return Err(ChunkError::SizeLie { announced, carried: payload.len() });
        }
        if header.index >= header.total {
            return Err(ChunkError::BeyondTotal);
        }
        let full = payload.len() == CHUNK_PAYLOAD;
        if !full && (!header.is_last() || payload.is_empty() || payload.len() > CHUNK_PAYLOAD) {
            return Err(ChunkError::IllegalSize);
        }
        Ok((header, payload))
    }

    const fn is_last(self) -> bool {
        self.index.saturating_add(1) == self.total
    }
}

/// Bytes that incomplete messages may hold over all connections of a process together. Clones share
/// one account.
#[derive(Clone, Debug)]
pub struct ReassemblyBudget {
    used: Arc<AtomicUsize>,
    cap: usize,
}

impl ReassemblyBudget {
    /// The bound for one process: sixteen of the longest messages.
    pub const DEFAULT_CAP: usize = 64 * 1024 * 1024;

    /// A budget of `cap` bytes.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { used: Arc::default(), cap }
    }

    /// Bytes held at present.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), ChunkError> {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= self.cap)
        });
        taken.map(|_| ()).map_err(|_| ChunkError::NoRoom)
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Default for ReassemblyBudget {
    fn default() -> Self {
        Self::new(Self::DEFAULT_CAP)
    }
}

#[cfg(test)]
mod tests;
