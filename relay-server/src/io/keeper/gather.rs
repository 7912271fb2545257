//! Who shares a commit. Senders with one message under way answer each answer with their next
//! message, a moment after it. A transaction that closed at once would miss them all, and they would
//! wait for its commit and for their own: two groups that take turns, each at half of the pace.
//!
//! So a transaction stays open until as many stores have come as the commit before answered, and at
//! most for a share of what that commit took. On a fast disk that is nothing, and on a slow one it is
//! little beside what it saves.

use std::time::Duration;

use sremp_common::wire::Message;

/// The part of a commit's time that is waited at most.
const SHARE: u32 = 4;
/// However long a commit took.
const MOST: Duration = Duration::from_millis(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_micros(50);

/// Whom the open transaction waits for.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Stores that the last commit answered, and that were not followed by another one yet.
    expected: usize,
    /// How long to wait for them at most.
    limit: Duration,
}

impl Gather {
    /// The transaction is durable; what is answered from now on is its answers.
    pub(super) fn committed(&mut self, took: Duration) {
        let limit = took.checked_div(SHARE).unwrap_or_default().min(MOST);
        *self = Self { expected: 0, limit };
    }

    /// An answer leaves.
    pub(super) const fn answered(&mut self, message: &Message) {
        if matches!(message, Message::StoreResponse(_)) {
            self.expected = self.expected.saturating_add(1);
        }
    }

    /// A request came.
    pub(super) const fn came(&mut self, message: &Message) {
        if matches!(message, Message::StoreMessage(_)) {
            self.expected = self.expected.saturating_sub(1);
        }
    }

    /// How long to pause before the next look, when so much time has passed; nothing when there is
    /// nobody to wait for, or no more time.
    pub(super) fn goes_on(&self, passed: Duration) -> Option<Duration> {
        (self.expected > 0 && passed < self.limit).then_some(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sremp_common::wire::{Bin, List, StoreMessage, StoreResponse};

    #[test]
    fn a_commit_waits_for_those_whom_the_last_one_answered_and_not_for_long() {
        let store = Message::StoreMessage(StoreMessage {
            blob: Bin::new(vec![1]).unwrap(),
            recipients: List::truncated(Vec::new()),
        });
        let response = StoreResponse { results: List::truncated(Vec::new()) };
        let answer = Message::StoreResponse(response);
        let mut gather = Gather::default();
        assert_eq!(gather.goes_on(Duration::ZERO), None, "nothing is known yet");
        gather.committed(Duration::from_millis(4));
        assert_eq!(gather.goes_on(Duration::ZERO), None, "nobody was answered");
        gather.answered(&answer);
        gather.answered(&answer);
        gather.answered(&store);
        gather.came(&store);
        assert!(gather.goes_on(Duration::from_micros(999)).is_some());
        assert_eq!(gather.goes_on(Duration::from_millis(1)), None, "a quarter has passed");
        gather.came(&answer);
        gather.came(&store);
        assert_eq!(gather.goes_on(Duration::ZERO), None, "both are back");
        gather.came(&store);
        gather.answered(&answer);
        assert!(gather.goes_on(Duration::ZERO).is_some());
        gather.committed(Duration::from_secs(1));
        gather.answered(&answer);
        assert_eq!(gather.goes_on(MOST), None, "however slow the disk is");
    }
}
