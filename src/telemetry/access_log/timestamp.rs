//! RFC 3339 in UTC with milliseconds. The text of a second is made once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-01-31T12:34:56.789Z`
const TEXT: [u8; 24] = *b"0000-00-00T00:00:00.000Z";

/// 9999-12-31T23:59:59: RFC 3339 ends here.
const LAST_SECOND: u64 = 253_402_300_799;

/// One time as text.
pub fn rfc3339(time: SystemTime) -> String {
    let unix = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    String::from_utf8_lossy(Timestamp::new().format(unix)).into_owned()
}

/// Writes times, of which many fall into one second.
#[derive(Debug)]
pub(super) struct Timestamp {
    second: u64,
    text: [u8; TEXT.len()],
}

impl Timestamp {
    pub(super) fn new() -> Self {
        let mut timestamp = Timestamp { second: 0, text: TEXT };
        timestamp.set(0);
        timestamp
    }

    /// The time that lies this long after the Unix epoch.
    pub(super) fn format(&mut self, unix: Duration) -> &[u8] {
        let second = unix.as_secs().min(LAST_SECOND);
        if second != self.second {
            self.set(second);
        }
        decimal(&mut self.text[20..23], unix.subsec_millis());
        &self.text
    }

    fn set(&mut self, second: u64) {
        let (year, month, day) = date((second / 86_400) as u32);
        let of_day = (second % 86_400) as u32;
        let parts = [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, of_day / 3_600),
            (14..16, of_day / 60 % 60),
            (17..19, of_day % 60),
        ];
        for (place, value) in parts {
            decimal(&mut self.text[place], value);
        }
        self.second = second;
    }
}

fn decimal(place: &mut [u8], mut value: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of a day counted from the Unix epoch, in the Gregorian calendar.
///
/// Howard Hinnant's `civil_from_days` (<https://howardhinnant.github.io/date_algorithms.html>): years begin in March,
/// so that the leap day is the last.
fn date(days: u32) -> (u32, u32, u32) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u32::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        // From `date -u -d @SECONDS +%FT%TZ`.
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_123, "2000-02-29T00:00:00.123Z"),
            (1_772_323_199_999, "2026-02-28T23:59:59.999Z"),
            (1_772_323_200_000, "2026-03-01T00:00:00.000Z"),
            (4_107_542_399_007, "2100-02-28T23:59:59.007Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_000, "9999-12-31T23:59:59.000Z"),
        ];
        let mut timestamp = Timestamp::new();
        for (millis, expected) in cases {
            assert_eq!(timestamp.format(Duration::from_millis(millis)), expected.as_bytes());
        }
        assert_eq!(timestamp.format(Duration::from_millis(5)), b"1970-01-01T00:00:00.005Z", "going back");
        timestamp.format(Duration::MAX);
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_last() {
        let is_leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let mut expected = (1970, 1, 1);
        for day in 0..146_097 {
            assert_eq!(date(day), expected);
            let (year, month, day) = expected;
            let length = match month {
                2 if is_leap(year) => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == length => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }
}
