//! How often clients are asked to come back: at half of the time that they asked for, and less
//! often while more of them come than the operator wants.
//!
//! The answer carries the interval, so that load falls without anybody being refused. The clients'
//! moments are spread, so that a crowd that came at once does not come back at once.

use std::time::Duration;

use sremp_common::id::IdentityKey;
use sremp_common::limit::{REGISTRATION_TTL_MAX, REGISTRATION_TTL_MIN};
use sremp_common::time::Instant;

/// Time over which registrations are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// Factors are in percent. Without load.
const NORMAL: u32 = 100;

/// The most that an interval is stretched, in percent.
const SLOWEST: u32 = 2_400;

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Return {
    /// Seconds until it should register again.
    pub(super) interval: u32,
    /// Seconds that its registration stands: at least twice the interval.
    pub(super) ttl: u32,
}

/// Counts registrations and stretches intervals.
#[derive(Debug)]
pub(super) struct Pace {
    window: Instant,
    count: u32,
    factor: u32,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { window: Instant::from_millis(0), count: 0, factor: NORMAL }
    }

    /// How much intervals are stretched now, in percent.
    pub(super) const fn factor(&self) -> u32 {
        self.factor
    }

    /// Counts a registration of `key`, which asked for `ttl` seconds, and says when it should come
    /// back, if `wanted` registrations a second are what the operator wants.
    pub(super) fn registered(
        &mut self,
        key: &IdentityKey,
        ttl: u32,
        wanted: u32,
        now: Instant,
    ) -> Return {
        self.turn(wanted, now);
        self.count = self.count.saturating_add(1);
        let asked = ttl.clamp(REGISTRATION_TTL_MIN, REGISTRATION_TTL_MAX);
        let longest = REGISTRATION_TTL_MAX / 2;
        let stretched = (asked / 2).saturating_mul(self.factor).checked_div(NORMAL);
        let interval = stretched.unwrap_or(longest).min(longest);
        let ttl = asked.max(interval.saturating_mul(2));
        Return { interval: interval.saturating_sub(spread(key, interval)), ttl }
    }

    /// At the end of a window: half as slow again when a quarter too many came, a fifth faster when
    /// a quarter too few did.
    fn turn(&mut self, wanted: u32, now: Instant) {
        let passed = now.since(self.window);
        if passed < WINDOW {
            return;
        }
        let seconds = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX).max(1);
        let came = self.count.checked_div(seconds).unwrap_or_default();
        let quarter = wanted / 4;
        if came > wanted.saturating_add(quarter) {
            self.factor = self.factor.saturating_mul(3).div_ceil(2).min(SLOWEST);
        } else if came < wanted.saturating_sub(quarter) {
            self.factor = (self.factor.saturating_mul(4) / 5).max(NORMAL);
        }
        (self.window, self.count) = (now, 0);
    }
}

/// Up to an eighth of the interval, the same for a key each time.
fn spread(key: &IdentityKey, interval: u32) -> u32 {
    let [first, ..] = *key.as_bytes();
    (interval / 8).saturating_mul(first.into()) / 256
}

#[cfg(test)]
mod tests {
    use sremp_common::entropy::Entropy;
    use sremp_common::key::IdentitySecret;

    use super::*;

    fn key(number: u64) -> IdentityKey {
        IdentitySecret::generate(&mut Entropy::from_number(number)).public()
    }

    #[test]
    fn load_stretches_intervals_and_calm_brings_them_back() {
        let key = key(1);
        let mut pace = Pace::new();
        let mut second = 0;
        let mut run = |pace: &mut Pace, seconds: u64, per_second: u32| {
            let mut last = None;
            for _ in 0..seconds {
                second += 1;
                for _ in 0..per_second {
                    last =
                        Some(pace.registered(&key, 600, 100, Instant::from_millis(second * 1_000)));
                }
            }
            last.unwrap()
        };
        let calm = run(&mut pace, 60, 100);
        assert!(calm.interval <= 300 && calm.interval > 262 && calm.ttl == 600, "{calm:?}");
        let busy = run(&mut pace, 120, 200);
        assert_eq!(pace.factor(), SLOWEST);
        assert!(busy.interval > 6_000 && busy.ttl == 14_400, "{busy:?}");
        assert_eq!(run(&mut pace, 300, 50), calm);
        assert_eq!(pace.factor(), NORMAL);
    }

    #[test]
    fn nobody_is_kept_away_longer_than_a_registration_can_stand() {
        let mut pace = Pace { factor: SLOWEST, ..Pace::new() };
        for ttl in [0, 60, 3_600, 86_400, u32::MAX] {
            let told = pace.registered(&key(2), ttl, 1, Instant::from_millis(1));
            assert!(told.ttl <= REGISTRATION_TTL_MAX && told.interval <= told.ttl / 2, "{told:?}");
            assert!(told.interval > 0);
        }
    }

    #[test]
    fn a_crowd_does_not_come_back_at_once() {
        let mut pace = Pace::new();
        let mut intervals: Vec<u32> = (0..64)
            .map(|n| pace.registered(&key(n), 86_400, 1_000, Instant::from_millis(1)).interval)
            .collect();
        intervals.sort_unstable();
        intervals.dedup();
        assert!(intervals.len() > 40 && intervals[0] > 37_800, "{intervals:?}");
    }
}
