//! Relays that a session is kept with: when each is dialled again. It opens nothing itself.

use std::time::Duration;

use sremp_common::entropy::Entropy;
use sremp_common::time::Instant;

use super::address::Candidate;

/// Longest wait before the first repetition; doubled with each failure.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait at all.
const BACKOFF_MAX: Duration = Duration::from_secs(5 * 60);
/// A session must have lasted this long to count as success: a relay that accepts and hangs up
/// at once is not asked again and again without pause.
const SUCCESS_AFTER: Duration = Duration::from_secs(10);

/// One kept relay.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) candidates: Vec<Candidate>,
    failures: u32,
    up_since: Option<Instant>,
    /// The relay said that it is of no use before.
    not_before: Instant,
    /// When to dial; `None` while a session is up or a dial is under way.
    pub(super) next_dial: Option<Instant>,
}

impl Keep {
    pub(super) const fn new(candidates: Vec<Candidate>, now: Instant) -> Self {
        Self { candidates, failures: 0, up_since: None, not_before: now, next_dial: Some(now) }
    }

    pub(super) fn went_up(&mut self, now: Instant) {
        self.up_since = Some(now);
        self.next_dial = None;
    }

    /// The session has ended, or a dial was in vain: the next comes after a random wait.
    pub(super) fn went_down(&mut self, now: Instant, entropy: &mut Entropy) {
        if self.up_since.take().is_some_and(|since| now.since(since) >= SUCCESS_AFTER) {
            self.failures = 0;
        }
        let wait = full_jitter(self.failures, entropy);
        self.next_dial = Some(self.not_before.max(now) + wait);
        self.failures = self.failures.saturating_add(1);
    }

    /// Forgets the failures: something has changed for the better.
    pub(super) fn retry_at(&mut self, now: Instant) {
        self.failures = 0;
        if self.next_dial.is_some() {
            self.next_dial = Some(self.not_before.max(now));
        }
    }

    /// The relay refused, and said when it is worth coming again.
    pub(super) const fn wait_until(&mut self, until: Instant) {
        self.not_before = until;
    }
}

/// A uniformly random wait between a moment and a bound that doubles with each failure, so that
/// many clients of one relay do not come back together.
fn full_jitter(failures: u32, entropy: &mut Entropy) -> Duration {
    let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
    let bound = BACKOFF_FIRST.saturating_mul(factor).min(BACKOFF_MAX);
    let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(entropy.below(bound_ms).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_minutes_and_start_anew_after_success() {
        let mut entropy = Entropy::from_number(1);
        let mut keep = Keep::new(Vec::new(), Instant::from_millis(0));
        let mut now = Instant::from_millis(0);
        let mut waits = Vec::new();
        for _ in 0..200 {
            keep.went_down(now, &mut entropy);
            let next = keep.next_dial.unwrap();
            waits.push(next.since(now));
            now = next;
        }
        assert!(waits.iter().take(1).all(|wait| *wait <= BACKOFF_FIRST));
        assert!(waits.iter().all(|wait| *wait <= BACKOFF_MAX));
        assert!(waits.iter().any(|wait| *wait > BACKOFF_MAX / 2));

        keep.went_up(now);
        now = now + SUCCESS_AFTER;
        keep.went_down(now, &mut entropy);
        assert!(keep.next_dial.unwrap().since(now) <= BACKOFF_FIRST);
    }

    #[test]
    fn what_a_relay_says_about_coming_again_is_kept_to() {
        let mut entropy = Entropy::from_number(3);
        let now = Instant::from_millis(0);
        let until = now + Duration::from_secs(1_800);
        let mut keep = Keep::new(Vec::new(), now);
        keep.went_up(now);
        keep.wait_until(until);
        keep.went_down(now, &mut entropy);
        assert!(keep.next_dial.unwrap() > until, "nor all at that moment");
        keep.retry_at(now + Duration::from_secs(9));
        assert_eq!(keep.next_dial, Some(until));
    }

    #[test]
    fn a_session_that_ends_at_once_is_no_success() {
        let mut entropy = Entropy::from_number(2);
        let now = Instant::from_millis(0);
        let mut keep = Keep::new(Vec::new(), now);
        let mut longest = Duration::ZERO;
        for _ in 0..100 {
            keep.went_up(now);
            keep.went_down(now, &mut entropy);
            longest = longest.max(keep.next_dial.unwrap().since(now));
        }
        assert!(longest > Duration::from_secs(60));
    }
}
