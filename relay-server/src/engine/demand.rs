//! What work costs: the operator's price, and more while many strangers pay it.
//!
//! Proofs that were taken are counted in windows of ten seconds. A window with more than its share
//! of `pow_per_minute` makes the next proof dearer, one bit for each doubling; a window with less
//! than half makes it one bit cheaper, down to the operator's price. Whoever began to work before
//! the price rose is not cheated of it: what was the price within the last two minutes is good, and
//! nothing older, however long the demand lasts.

use std::time::Duration;

use sremp_common::time::Instant;

use super::EngineConfig;

/// How long proofs are counted before the price is set anew.
const WINDOW: Duration = Duration::from_secs(10);
/// Windows of a minute.
const WINDOWS_PER_MINUTE: u32 = 6;
/// Windows in which a proof at the price that was shown then is taken: two minutes.
const GRACE_WINDOWS: usize = 12;
/// After so many empty windows nothing is left of what was before.
const MANY_WINDOWS: u64 = 32;
/// Bits that demand adds at most.
const MAX_EXTRA: u8 = 8;
/// Bits that a proof costs at most: beyond it, nobody could pay.
const MAX_DIFFICULTY: u8 = 40;

/// What strangers paid lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Bits above the operator's price.
    extra: u8,
    /// The same, in the windows before this one, in a circle.
    before: [u8; GRACE_WINDOWS],
    /// Place of the next of them.
    next: usize,
    window_began: Instant,
    paid: u32,
}

impl Demand {
    pub(super) const fn new() -> Self {
        Self {
            extra: 0,
            before: [0; GRACE_WINDOWS],
            next: 0,
            window_began: Instant::from_millis(0),
            paid: 0,
        }
    }

    /// The price now; 0 when no work is taken.
    pub(super) fn difficulty(&mut self, config: &EngineConfig, now: Instant) -> u8 {
        self.close_window(config, now);
        price(config, self.extra)
    }

    /// Whether a proof with so many zero bits is enough.
    pub(super) fn takes(&mut self, config: &EngineConfig, zero_bits: u32, now: Instant) -> bool {
        self.close_window(config, now);
        let least = self.before.iter().fold(self.extra, |least, extra| least.min(*extra));
        config.pow_difficulty != 0 && zero_bits >= u32::from(price(config, least))
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
        let share = (config.pow_per_minute / WINDOWS_PER_MINUTE).max(1);
        if config.pow_per_minute != 0 && self.paid > share {
            let over = (self.paid / share).max(2).ilog2();
            self.turn(self.extra.saturating_add(u8::try_from(over).unwrap_or(MAX_EXTRA)));
        } else if self.paid.saturating_mul(2) < share {
            self.turn(self.extra.saturating_sub(1));
        } else {
            self.turn(self.extra);
        }
        // Windows in which nobody asked were empty ones.
        let windows = passed.as_secs().checked_div(WINDOW.as_secs()).unwrap_or(1);
        for _ in 1..windows.min(MANY_WINDOWS) {
            self.turn(self.extra.saturating_sub(1));
        }
        self.paid = 0;
        self.window_began = now;
    }

    /// The next window begins, at another price.
    fn turn(&mut self, extra: u8) {
        if let Some(place) = self.before.get_mut(self.next) {
            *place = self.extra;
        }
        self.next = self.next.saturating_add(1).checked_rem(GRACE_WINDOWS).unwrap_or_default();
        self.extra = extra.min(MAX_EXTRA);
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
        assert!(demand.takes(&config(), 10, at(1019)) && !demand.takes(&config(), 9, at(1019)));
        let none = EngineConfig { pow_difficulty: 0, ..config() };
        assert_eq!(demand.difficulty(&none, at(1019)), 0);
        assert!(!demand.takes(&none, 256, at(1019)), "where no work is taken none is enough");
        let fixed = EngineConfig { pow_per_minute: 0, ..config() };
        let mut demand = Demand::new();
        (0..1000).for_each(|_| demand.count(&fixed, at(5)));
        assert_eq!(demand.difficulty(&fixed, at(15)), 10, "a price that never rises");
    }

    /// Whoever pays without end pays the raised price after two minutes.
    #[test]
    fn a_flood_that_lasts_does_not_keep_the_old_price() {
        let mut demand = Demand::new();
        demand.difficulty(&config(), at(1000));
        let mut taken = Vec::new();
        for second in 1001..1300 {
            // All that is offered shows ten bits: the price from before the flood.
            for _ in 0..10 {
                if demand.takes(&config(), 10, at(second)) {
                    demand.count(&config(), at(second));
                    taken.push(second);
                }
            }
        }
        // The price rises with the first window that is full, and is asked two minutes later.
        let last_of_the_first = taken.iter().rfind(|second| **second < 1200).copied();
        assert_eq!(last_of_the_first, Some(1129));
        assert_eq!(demand.difficulty(&config(), at(1135)), 18);
    }
}
