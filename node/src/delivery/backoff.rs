//! When to try again: exponential, with full jitter, so that a crowd does not come back at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::entropy::Entropy;

/// First wait.
const BASE: Duration = Duration::from_secs(1);
/// Longest wait.
const CAP: Duration = Duration::from_secs(300);
/// Failures from which on the longest wait is the cap: more need not be counted, or written down.
const COUNTED: u32 = 9;

/// Failed attempts in a row, of one recipient, relay or server. Those of recipients outlive a
/// restart, with what waits for them (`outbox`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// No failures yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { failures: 0 }
    }

    /// Counts a failure; answers how long to wait: any part of the doubled time, but not nothing.
    pub fn fail(&mut self, entropy: &mut Entropy) -> Duration {
        let ceiling = BASE.saturating_mul(1_u32 << self.failures.min(COUNTED)).min(CAP);
        self.failures = self.failures.saturating_add(1).min(COUNTED);
        let ceiling = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(entropy.below(ceiling).saturating_add(1))
    }

    /// Something worked: the next failure waits briefly again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_again() {
        let mut entropy = Entropy::from_number(1);
        let mut backoff = Backoff::default();
        let mut parts = [0_u32; 4];
        for round in 0..400 {
            let ceiling = BASE.saturating_mul(1 << round.min(9)).min(CAP);
            let wait = backoff.fail(&mut entropy);
            assert!(!wait.is_zero() && wait <= ceiling, "{wait:?}");
            let quarter = wait.as_millis() * 4 / (ceiling.as_millis() + 1);
            parts[usize::try_from(quarter).unwrap()] += 1;
        }
        assert!(parts.iter().all(|count| *count > 60), "no part of the time is spared: {parts:?}");
        backoff.reset();
        assert!(backoff.fail(&mut entropy) <= BASE);
    }
}
