//! Who shares a commit. Senders with one message under way answer each answer with their next
//! message, a moment after it. A transaction that closed at once would miss them all, and they would
//! wait for its commit and for their own: two groups that take turns, each at half of the pace.
//!
//! So a transaction stays open until as many stores have come as the commit before answered, and at
//! most for a share of what that commit took. On a fast disk that is nothing, and on a slow one it is
//! little beside what it saves.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use sremp_common::wire::Message;
use tokio::sync::mpsc;

/// The part of a commit's time that is waited at most.
const SHARE: u32 = 4;
/// However long a commit took.
const MOST: Duration = Duration::from_millis(5);

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

    /// How long to wait at most, when so much time has passed; nothing when there is nobody to wait
    /// for, or no more time.
    pub(super) fn patience(&self, passed: Duration) -> Option<Duration> {
        let left = self.limit.saturating_sub(passed);
        (self.expected > 0 && !left.is_zero()).then_some(left)
    }
}

/// Waits until something is in the queue, and takes at most `max` of it; false when nothing came in
/// time. The runtime's timers are too coarse for this: they count milliseconds.
pub(super) fn receive<T>(
    queue: &mut mpsc::Receiver<T>,
    batch: &mut Vec<T>,
    max: usize,
    patience: Duration,
) -> bool {
    let began = Instant::now();
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(count) = queue.poll_recv_many(&mut context, batch, max) {
            return count > 0;
        }
        let left = patience.saturating_sub(began.elapsed());
        if left.is_zero() {
            return false;
        }
        thread::park_timeout(left);
    }
}

/// Wakes a thread that waits without the runtime.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
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
        assert_eq!(gather.patience(Duration::ZERO), None, "nothing is known yet");
        gather.committed(Duration::from_millis(4));
        assert_eq!(gather.patience(Duration::ZERO), None, "nobody was answered");
        gather.answered(&answer);
        gather.answered(&answer);
        gather.answered(&store);
        gather.came(&store);
        let moment = Duration::from_micros(1);
        assert_eq!(gather.patience(Duration::from_micros(999)), Some(moment));
        assert_eq!(gather.patience(Duration::from_millis(1)), None, "a quarter has passed");
        gather.came(&answer);
        gather.came(&store);
        assert_eq!(gather.patience(Duration::ZERO), None, "both are back");
        gather.came(&store);
        gather.answered(&answer);
        assert!(gather.patience(Duration::ZERO).is_some());
        gather.committed(Duration::from_secs(1));
        gather.answered(&answer);
        assert_eq!(gather.patience(MOST), None, "however slow the disk is");
    }

    #[test]
    fn what_is_there_is_taken_and_nothing_is_waited_for_in_vain() {
        let (sender, mut queue) = mpsc::channel(8);
        let mut batch = Vec::new();
        assert!(!receive(&mut queue, &mut batch, 2, Duration::ZERO));
        (1..=3).for_each(|number| sender.try_send(number).unwrap());
        assert!(receive(&mut queue, &mut batch, 2, Duration::ZERO));
        assert_eq!(batch, [1, 2]);
        let other = thread::spawn(move || {
            sender.blocking_send(4).unwrap();
        });
        while batch.len() < 4 {
            assert!(receive(&mut queue, &mut batch, 2, Duration::from_secs(3600)));
        }
        other.join().unwrap();
        assert_eq!(batch, [1, 2, 3, 4]);
        assert!(!receive(&mut queue, &mut batch, 2, Duration::from_secs(3600)), "nobody is left");
    }
}
