//! What work costs: the operator's price, and more while many strangers pay it.
//!
//! Proofs that were taken are counted in windows of ten seconds. A window with more than its share
//! of `pow_per_minute` makes the next proof dearer, one bit for each doubling; a window with less
//! than half makes it one bit cheaper, down to the operator's price. Whoever began to work before
//! the price rose is not cheated of it: for two minutes the price before is good, too.

use std::time::Duration;

use sremp_common::time::Instant;

use super::EngineConfig;

/// How long proofs are counted before the price is set anew.
const WINDOW: Duration = Duration::from_secs(10);
/// Windows of a minute.
const WINDOWS_PER_MINUTE: u32 = 6;
/// Time in which a proof at the price before is taken.
const GRACE: Duration = Duration::from_secs(120);
/// Bits that demand adds at most.
const MAX_EXTRA: u8 = 8;
/// Bits that a proof costs at most: beyond it, nobody could pay.
const MAX_DIFFICULTY: u8 = 40;

/// What strangers paid lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Bits above the operator's price.
    extra: u8,
    /// Bits above it that are good until `grace_until`.
    extra_before: u8,
    grace_until: Instant,
    window_began: Instant,
    paid: u32,
}

impl Demand {
    pub(super) const fn new() -> Self {
        Self {
            extra: 0,
            extra_before: 0,
            grace_until: Instant::from_millis(0),
            window_began: Instant::from_millis(0),
            paid: 0,
        }
    }

    /// The price now; 0 when no work is taken.
    pub(super) fn difficulty(&mut self, config: &EngineConfig, now: Instant) -> u8 {
        self.close_window(config, now);
        price(config, self.extra)
    }

    /// Whether a proof with so many zero bits is enough. No time passes by asking.
    pub(super) fn takes(&self, config: &EngineConfig, zero_bits: u32, now: Instant) -> bool {
        let in_grace = now < self.grace_until && self.extra_before < self.extra;
        let extra = if in_grace { self.extra_before } else { self.extra };
        config.pow_difficulty != 0 && zero_bits >= u32::from(price(config, extra))
    }

    /// Somebody paid, and was let in.
    pub(super) fn count(&mut self, config: &EngineConfig, now: Instant) {
        self.close_window(config, now);
        self.paid = self.paid.saturating_add(1);
    }

    fn close_window(&mut self, config: &EngineConfig, now: Instant) {
        let passed = now.since(self.window_began);
        if passed < WINDOW {
            return;
        }
        // Windows in which nobody asked were empty ones.
        let windows = passed.as_secs().checked_div(WINDOW.as_secs()).unwrap_or(1);
        let share = (config.pow_per_minute / WINDOWS_PER_MINUTE).max(1);
        if config.pow_per_minute != 0 && self.paid > share {
            let over = (self.paid / share).max(2).ilog2();
            self.raise(u8::try_from(over).unwrap_or(MAX_EXTRA), now);
        } else if self.paid.saturating_mul(2) < share {
            self.extra = self.extra.saturating_sub(1);
        }
        let empty = u8::try_from(windows.saturating_sub(1)).unwrap_or(u8::MAX);
        self.extra = self.extra.saturating_sub(empty);
        self.paid = 0;
        self.window_began = now;
    }

    fn raise(&mut self, bits: u8, now: Instant) {
        if now >= self.grace_until {
            self.extra_before = self.extra;
        }
        self.extra = self.extra.saturating_add(bits).min(MAX_EXTRA);
        self.grace_until = now + GRACE;
    }
}

fn price(config: &EngineConfig, extra: u8) -> u8 {
    if config.pow_difficulty == 0 {
        return 0;
    }
    config.pow_difficulty.saturating_add(extra).min(MAX_DIFFICULTY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    fn config() -> EngineConfig {
        EngineConfig { pow_difficulty: 10, pow_per_minute: 60, ..EngineConfig::default() }
    }

    fn pay(demand: &mut Demand, times: u32, second: u64) {
        for _ in 0..times {
            demand.count(&config(), at(second));
        }
    }

    #[test]
    fn the_price_follows_demand_up_and_down() {
        let mut demand = Demand::new();
        assert_eq!(demand.difficulty(&config(), at(1000)), 10);
        pay(&mut demand, 10, 1001);
        assert_eq!(demand.difficulty(&config(), at(1010)), 10, "its share, and no more");
        pay(&mut demand, 40, 1011);
        assert_eq!(demand.difficulty(&config(), at(1012)), 10, "not within the window");
        assert_eq!(demand.difficulty(&config(), at(1020)), 12, "four times its share");
        pay(&mut demand, 11, 1021);
        assert_eq!(demand.difficulty(&config(), at(1030)), 13);
        pay(&mut demand, 7, 1031);
        assert_eq!(demand.difficulty(&config(), at(1040)), 13, "between half and whole");
        assert_eq!(demand.difficulty(&config(), at(1050)), 12);
        assert_eq!(demand.difficulty(&config(), at(1080)), 10, "three windows without anybody");
        pay(&mut demand, u32::from(u16::MAX), 1081);
        assert_eq!(demand.difficulty(&config(), at(1091)), 10 + MAX_EXTRA);
    }

    #[test]
    fn work_begun_at_the_price_before_is_taken() {
        let mut demand = Demand::new();
        demand.difficulty(&config(), at(1000));
        pay(&mut demand, 40, 1001);
        assert_eq!(demand.difficulty(&config(), at(1010)), 12);
        assert!(demand.takes(&config(), 10, at(1129)) && !demand.takes(&config(), 9, at(1129)));
        assert!(!demand.takes(&config(), 11, at(1130)) && demand.takes(&config(), 12, at(1130)));
        let none = EngineConfig { pow_difficulty: 0, ..config() };
        assert_eq!(demand.difficulty(&none, at(1130)), 0);
        assert!(!demand.takes(&none, 256, at(1130)), "where no work is taken none is enough");
        let fixed = EngineConfig { pow_per_minute: 0, ..config() };
        let mut demand = Demand::new();
        (0..1000).for_each(|_| demand.count(&fixed, at(5)));
        assert_eq!(demand.difficulty(&fixed, at(15)), 10, "a price that never rises");
    }
}
