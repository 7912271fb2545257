//! When to try again: exponential, with full jitter, so that a crowd does not come back at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::entropy::Entropy;

/// First wait.
const BASE: Duration = Duration::from_secs(1);
/// Longest wait.
const CAP: Duration = Duration::from_secs(300);

/// Failed attempts in a row, of one recipient, relay or server. Persisted with what waits.
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

    /// Counts a failure; answers how long to wait: between half and all of the doubled time.
    pub fn fail(&mut self, entropy: &mut Entropy) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let ceiling = BASE.saturating_mul(1_u32 << doublings).min(CAP);
        let half = u64::try_from(ceiling.as_millis() / 2).unwrap_or(u64::MAX);
        Duration::from_millis(half.saturating_add(entropy.below(half.saturating_add(1))))
    }

    /// Something worked: the next failure waits briefly again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failed attempts in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_again() {
        let mut entropy = Entropy::from_number(1);
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            let ceiling = BASE.saturating_mul(1 << backoff.failures().min(16)).min(CAP);
            let wait = backoff.fail(&mut entropy);
            assert!(wait <= ceiling && wait >= ceiling / 2, "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.fail(&mut entropy) <= BASE);
    }
}
