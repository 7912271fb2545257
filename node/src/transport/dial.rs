//! One search for a target: which candidate is tried next, and when. It opens nothing itself.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use sremp_common::time::Instant;

use super::address::{Candidate, in_dialling_order};
use super::{ConnId, DialError};

/// Time between the starts of two attempts (design: RFC 8305's connection attempt delay).
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Time for TCP to connect.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Time for the Noise handshake after that. The next candidate does not wait for it.
pub(super) const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// Candidates of one search: twice what an identity may register.
const MAX_CANDIDATES: usize = 16;

/// Candidates in order, and the attempts under way. The first attempt that becomes a session
/// ends the search.
#[derive(Debug)]
pub(super) struct Dial {
    waiting: VecDeque<Candidate>,
    /// Everything that was ever added, so that nothing is tried twice in one search.
    seen: BTreeSet<Candidate>,
    attempts: BTreeSet<ConnId>,
    next_start: Instant,
    /// What the last attempt came to.
    trouble: DialError,
}

impl Dial {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            seen: BTreeSet::new(),
            attempts: BTreeSet::new(),
            next_start: now,
            trouble: DialError::NoAddress,
        }
    }

    /// Adds the candidates that may be dialled and are new.
    pub(super) fn add(&mut self, candidates: &[Candidate], allow_private: bool) {
        if !candidates.is_empty() && self.seen.is_empty() {
            // What follows if none of them may be dialled.
            self.trouble = DialError::Private;
        }
        for candidate in in_dialling_order(candidates, allow_private) {
            if self.seen.len() < MAX_CANDIDATES && self.seen.insert(candidate.clone()) {
                self.waiting.push_back(candidate);
            }
        }
    }

    /// The candidate to try now, if any is due.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Candidate> {
        let is_due = self.attempts.is_empty() || self.next_start <= now;
        if is_due { self.waiting.pop_front() } else { None }
    }

    /// An attempt has begun.
    pub(super) fn started(&mut self, conn: ConnId, now: Instant) {
        self.attempts.insert(conn);
        self.next_start = now + ATTEMPT_DELAY;
    }

    /// An attempt has failed: the next need not wait for its turn.
    pub(super) fn failed(&mut self, conn: ConnId, why: DialError, now: Instant) {
        if self.attempts.remove(&conn) {
            self.next_start = now;
            self.trouble = why;
        }
    }

    /// Why it is in vain, once it is.
    pub(super) const fn trouble(&self) -> DialError {
        self.trouble
    }

    /// Nothing under way and nothing left.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.attempts.is_empty()
    }

    pub(super) const fn attempts(&self) -> &BTreeSet<ConnId> {
        &self.attempts
    }

    /// When to ask [`Self::next_due`] again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next_start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn candidates(n: u8) -> Vec<Candidate> {
        (0..n).map(|i| Candidate::told(format!("192.0.2.{i}:1").parse().unwrap())).collect()
    }

    #[test]
    fn attempts_start_250_ms_apart_or_as_soon_as_one_fails() {
        let mut dial = Dial::new(at(0));
        dial.add(&candidates(4), false);
        assert!(dial.next_due(at(0)).is_some());
        dial.started(1, at(0));
        assert_eq!(dial.next_due(at(249)), None);
        assert_eq!(dial.poll_timeout(), Some(at(250)));
        assert!(dial.next_due(at(250)).is_some());
        dial.started(3, at(250));
        dial.failed(1, DialError::Refused, at(300));
        assert!(dial.next_due(at(300)).is_some());
        dial.started(5, at(300));
        assert_eq!(dial.next_due(at(301)), None);
        assert!(!dial.is_over());
    }

    #[test]
    fn nothing_is_tried_twice_and_the_number_is_bounded() {
        let mut dial = Dial::new(at(0));
        dial.add(&candidates(3), false);
        dial.add(&candidates(200), false);
        let mut tried = BTreeSet::new();
        while let Some(candidate) = dial.next_due(at(0)) {
            assert!(tried.insert(candidate));
        }
        assert_eq!(tried.len(), MAX_CANDIDATES);
    }
}
