//! Puts messages together again, within bounds: for each message, for the connection, for all
//! connections, and in time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ChunkError, Header, ReassemblyBudget};
use crate::limit::{
    CHUNK_PAYLOAD, MAX_OPEN_REASSEMBLIES, MAX_REASSEMBLY_BYTES, REASSEMBLY_TIMEOUT,
};
use crate::time::Instant;

/// Time that every further chunk buys its message beyond [`REASSEMBLY_TIMEOUT`]. Without it a line
/// of 1 Mbit/s could never carry the longest message; with it whoever wants to hold memory must keep
/// sending 16 KiB a second for it.
const TIME_PER_CHUNK: Duration = Duration::from_secs(1);

/// The incomplete messages of one connection.
#[derive(Debug, Default)]
pub struct Incoming {
    next_id: u64,
    open: BTreeMap<u64, Partial>,
    bytes: usize,
    budget: Option<ReassemblyBudget>,
}

#[derive(Debug)]
struct Partial {
    total: u16,
    next_index: u16,
    bytes: Vec<u8>,
    deadline: Instant,
    /// Where the bytes are accounted for; they are given back with the message, or with the connection.
    account: Account,
}

impl Incoming {
    /// Accounts the bytes of messages that begin from now on in `budget`.
    pub fn set_budget(&mut self, budget: ReassemblyBudget) {
        self.budget = Some(budget);
    }

    /// Takes one chunk; gives the message that it completes. `max_message` is what this peer's
    /// messages may be long.
    ///
    /// # Errors
    /// [`ChunkError`], naming the broken rule; the connection has to end.
    pub fn handle_chunk(
        &mut self,
        chunk: &[u8],
        max_message: usize,
        now: Instant,
    ) -> Result<Option<Vec<u8>>, ChunkError> {
        let (header, payload) = Header::split(chunk)?;
        check_length(header, payload, max_message)?;
        if header.message_id == self.next_id {
            return self.begin(header, payload, now);
        }
        self.proceed(header, payload)
    }

    /// When the first incomplete message runs out of time.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|partial| partial.deadline).min()
    }

    /// # Errors
    /// [`ChunkError::TimedOut`] from [`Self::deadline`] on.
    pub fn check_time(&self, now: Instant) -> Result<(), ChunkError> {
        match self.deadline() {
            Some(deadline) if deadline <= now => Err(ChunkError::TimedOut),
            _ => Ok(()),
        }
    }

    /// Bytes of incomplete messages.
    #[must_use]
    pub const fn buffered_bytes(&self) -> usize {
        self.bytes
    }

    fn begin(
        &mut self,
        header: Header,
        payload: &[u8],
        now: Instant,
    ) -> Result<Option<Vec<u8>>, ChunkError> {
        if header.index != 0 {
            return Err(ChunkError::OutOfOrder { expected: 0, found: header.index });
        }
        self.next_id = self.next_id.saturating_add(1);
        if header.is_last() {
            return Ok(Some(payload.to_vec()));
        }
        if self.open.len() >= MAX_OPEN_REASSEMBLIES {
            return Err(ChunkError::TooManyOpen);
        }
        let mut partial = Partial {
            total: header.total,
            next_index: 0,
            bytes: Vec::new(),
            deadline: now + REASSEMBLY_TIMEOUT,
            account: Account { budget: self.budget.clone(), taken: 0 },
        };
        self.bytes = grown(self.bytes, payload)?;
        partial.append(payload)?;
        self.open.insert(header.message_id, partial);
        Ok(None)
    }

    fn proceed(&mut self, header: Header, payload: &[u8]) -> Result<Option<Vec<u8>>, ChunkError> {
        let partial = self.open.get_mut(&header.message_id).ok_or(ChunkError::UnknownMessage)?;
        if header.total != partial.total {
            return Err(ChunkError::TotalChanged);
        }
        if header.index != partial.next_index {
            return Err(ChunkError::OutOfOrder {
                expected: partial.next_index,
                found: header.index,
            });
        }
        self.bytes = grown(self.bytes, payload)?;
        partial.append(payload)?;
        partial.deadline = partial.deadline + TIME_PER_CHUNK;
        if !header.is_last() {
            return Ok(None);
        }
        let whole = self.open.remove(&header.message_id).map(|partial| partial.bytes);
        let length = whole.as_ref().map_or(0, Vec::len);
        self.bytes = self.bytes.saturating_sub(length);
        Ok(whole)
    }
}

/// The shortest message that such a chunk can belong to must be legal.
fn check_length(header: Header, payload: &[u8], max: usize) -> Result<(), ChunkError> {
    let before_last = usize::from(header.total.saturating_sub(1)).saturating_mul(CHUNK_PAYLOAD);
    let last = if header.is_last() { payload.len() } else { 1 };
    if before_last.saturating_add(last) > max {
        return Err(ChunkError::TooLong { max });
    }
    Ok(())
}

fn grown(bytes: usize, payload: &[u8]) -> Result<usize, ChunkError> {
    let sum = bytes.saturating_add(payload.len());
    if sum > MAX_REASSEMBLY_BYTES { Err(ChunkError::TooManyBytes) } else { Ok(sum) }
}

impl Partial {
    fn append(&mut self, payload: &[u8]) -> Result<(), ChunkError> {
        self.account.take(payload.len())?;
        self.bytes.extend_from_slice(payload);
        self.next_index = self.next_index.saturating_add(1);
        Ok(())
    }
}

/// A share of the budget over all connections.
#[derive(Debug)]
struct Account {
    budget: Option<ReassemblyBudget>,
    taken: usize,
}

impl Account {
    fn take(&mut self, bytes: usize) -> Result<(), ChunkError> {
        if let Some(budget) = &self.budget {
            budget.take(bytes)?;
            self.taken = self.taken.saturating_add(bytes);
        }
        Ok(())
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.give_back(self.taken);
        }
    }
}
