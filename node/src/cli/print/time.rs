//! Times as people read them.

use sremp_common::time::Timestamp;

/// `2026-11-21 13:45:02`, in UTC: the same on every machine, so that two people can compare.
///
/// The calendar is that of Howard Hinnant's `civil_from_days`: years begin in March, so that the
/// leap day is the last one, and 400 of them always have 146,097 days.
pub(super) fn utc(at: Timestamp) -> String {
    let seconds = at.as_millis() / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of the year 0; no overflow, days are less than 2^64 / 86,400,000.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next_year;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (ms, shown) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (951_868_799_999, "2000-02-29 23:59:59"),
            (1_709_164_800_000, "2024-02-29 00:00:00"),
            (1_795_268_702_000, "2026-11-21 13:45:02"),
            (4_102_444_799_000, "2099-12-31 23:59:59"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(utc(Timestamp::from_millis(ms)), shown);
        }
    }

    #[test]
    fn no_moment_overflows() {
        assert!(utc(Timestamp::from_millis(u64::MAX)).starts_with("584556019-04-03"));
    }
}
