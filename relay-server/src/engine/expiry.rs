//! By which clock messages expire. A wall clock may step: a machine starts in the wrong year, a time
//! server lies, an operator types a date. A step back only keeps messages longer; a step ahead would
//! delete all of them. So what is deleted follows the monotonic clock, and a wall clock that is
//! suddenly ahead of it is believed after a day, in which somebody can notice.

use std::time::Duration;

use sremp_common::time::{Instant, Now, Timestamp};

/// By so much a clock may be set ahead at once and be believed.
const TOLERANCE: Duration = Duration::from_secs(600);
/// So long it must stay ahead by more than that.
const STANDS: Duration = Duration::from_secs(86_400);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ExpiryClock {
    /// Milliseconds from the monotonic clock to the wall clock.
    believed: Option<i128>,
    ahead_since: Option<Instant>,
}

impl ExpiryClock {
    /// What time it is for what may be deleted. `None` at the first look: nothing is known of the
    /// clock yet.
    pub(super) fn look(&mut self, now: Now) -> Option<Timestamp> {
        let instant = i128::from(now.instant.as_millis());
        let shown = i128::from(now.wall.as_millis()).saturating_sub(instant);
        let Some(believed) = self.believed else {
            self.believed = Some(shown);
            return None;
        };
        let tolerance = i128::try_from(TOLERANCE.as_millis()).unwrap_or(i128::MAX);
        let believed = if shown <= believed.saturating_add(tolerance) {
            self.ahead_since = None;
            shown
        } else {
            let since = *self.ahead_since.get_or_insert(now.instant);
            let stood = now.instant.since(since) >= STANDS;
            if stood { shown } else { believed }
        };
        self.believed = Some(believed);
        let wall = u64::try_from(instant.saturating_add(believed)).unwrap_or(0);
        Some(Timestamp::from_millis(wall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const YEAR: u64 = 8_760 * HOUR;

    fn at(instant: u64, wall: u64) -> Now {
        Now { instant: Instant::from_millis(instant), wall: Timestamp::from_millis(wall) }
    }

    #[test]
    fn a_step_ahead_is_believed_after_a_day_and_a_step_back_at_once() {
        let mut clock = ExpiryClock::default();
        let (start, later) = (50 * YEAR, 60 * YEAR);
        assert_eq!(clock.look(at(0, start)), None);
        let wall = |clock: &mut ExpiryClock, instant, wall| {
            clock.look(at(instant, wall)).unwrap().as_millis()
        };
        assert_eq!(wall(&mut clock, HOUR, start + HOUR), start + HOUR);
        // Ten years ahead, and time goes on as before.
        assert_eq!(wall(&mut clock, 2 * HOUR, later), start + 2 * HOUR);
        assert_eq!(wall(&mut clock, 25 * HOUR, later + 23 * HOUR), start + 25 * HOUR);
        // It is put right, and the day begins anew when it happens again.
        assert_eq!(wall(&mut clock, 25 * HOUR, start + 25 * HOUR), start + 25 * HOUR);
        assert_eq!(wall(&mut clock, 26 * HOUR, later), start + 26 * HOUR);
        assert_eq!(wall(&mut clock, 49 * HOUR, later + 23 * HOUR), start + 49 * HOUR);
        assert_eq!(wall(&mut clock, 50 * HOUR, later + 24 * HOUR), later + 24 * HOUR);
        assert_eq!(wall(&mut clock, 51 * HOUR, start), start, "back");
        assert_eq!(wall(&mut clock, 51 * HOUR, start + 599_000), start + 599_000, "a little");
    }
}
