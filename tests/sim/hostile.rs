//! A relay that lies to the owners of its mailboxes: batches with messages of others, with old ones
//! again, in another order, cut short, under other numbers, and always with more to come.

use sremp_common::entropy::Entropy;
use sremp_common::id::BlobId;
use sremp_common::wire::{Bin, List, Message, MessageBatch, StoredMessage};

/// Messages that it keeps to show them again.
const MEMORY: usize = 200;
/// Batches that it makes of one.
const BATCHES: usize = 4;

/// What it has seen, and how it chooses.
#[derive(Debug)]
pub struct Hostile {
    entropy: Entropy,
    seen: Vec<StoredMessage>,
    /// Batches that it made up.
    pub lies: u64,
}

impl Hostile {
    /// One that has seen nothing yet.
    #[must_use]
    pub const fn new(entropy: Entropy) -> Self {
        Self { entropy, seen: Vec::new(), lies: 0 }
    }

    /// What it answers in place of a message.
    pub fn instead_of(&mut self, message: Message) -> Vec<Message> {
        let Message::MessageBatch(batch) = message else { return vec![message] };
        let mut honest = batch.messages.into_vec();
        let mut batches = Vec::new();
        for _ in 0..BATCHES {
            let mut messages = vec![self.invented()];
            messages.extend(self.remembered());
            messages.extend(honest.first().cloned().map(|message| self.spoilt(message)));
            self.shuffle(&mut messages);
            batches.push(messages);
        }
        for message in &honest {
            self.seen.push(message.clone());
        }
        let forgotten = self.seen.len().saturating_sub(MEMORY);
        self.seen.drain(..forgotten);
        // Somewhere among the lies is what really waits: without the last ones, in no order, twice.
        if honest.len() > 3 {
            honest.pop();
        }
        self.shuffle(&mut honest);
        batches.insert(1, honest.clone());
        batches.push(honest);
        self.lies += u64::try_from(batches.len()).unwrap();
        let batch = |messages| MessageBatch { messages: List::truncated(messages), has_more: true };
        batches.into_iter().map(|messages| Message::MessageBatch(batch(messages))).collect()
    }

    /// Bytes that nobody wrote.
    fn invented(&mut self) -> StoredMessage {
        let length = 32 + usize::try_from(self.entropy.below(4096)).unwrap();
        let mut blob = vec![0; length];
        blob.iter_mut().for_each(|byte| *byte = self.entropy.array::<1>()[0]);
        StoredMessage {
            sequence: u64::MAX - self.entropy.below(1000),
            blob_id: BlobId::new(self.entropy.array()),
            stored_at: sremp_common::time::Timestamp::from_millis(u64::MAX),
            blob: Bin::new(blob).unwrap(),
        }
    }

    /// Something that it showed before, perhaps to somebody else, under a number of its own.
    fn remembered(&mut self) -> Option<StoredMessage> {
        let count = u64::try_from(self.seen.len()).ok().filter(|count| *count > 0)?;
        let index = usize::try_from(self.entropy.below(count)).unwrap();
        let sequence = u64::MAX - 5000 - self.entropy.below(1000);
        Some(StoredMessage { sequence, ..self.seen[index].clone() })
    }

    /// Half of a message, or one with a bit turned, under another number: what it is acknowledged
    /// under must not be that of the message itself.
    fn spoilt(&mut self, mut message: StoredMessage) -> StoredMessage {
        let mut blob = message.blob.to_vec();
        if self.entropy.below(2) == 0 {
            blob.truncate(blob.len() / 2);
        } else if let Some(byte) = blob.last_mut() {
            *byte ^= 1;
        }
        message.blob = Bin::new(blob).unwrap();
        message.sequence = u64::MAX - 10_000;
        message
    }

    fn shuffle(&mut self, messages: &mut [StoredMessage]) {
        for index in (1..messages.len()).rev() {
            let other = self.entropy.below(u64::try_from(index).unwrap() + 1);
            messages.swap(index, usize::try_from(other).unwrap());
        }
    }
}
