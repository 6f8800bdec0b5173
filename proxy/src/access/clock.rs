//! The time of day as a line has it (RFC 3339, to the millisecond, UTC). The second is written once, not for every line.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

/// Writes the time of day.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The last second that was written, since 1970, and how.
    second: Cell<(u64, [u8; 20])>,
}

impl Clock {
    /// Appends `2026-11-21T18:26:56.123Z`.
    pub(super) fn write(&self, out: &mut Vec<u8>, now: SystemTime) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (mut second, mut text) = self.second.get();
        if text[0] == 0 || second != since.as_secs() {
            second = since.as_secs();
            text = written(second);
            self.second.set((second, text));
        }
        out.extend_from_slice(&text);
        super::json::decimal(out, u64::from(since.subsec_millis()), 3);
        out.push(b'Z');
    }
}

/// A second since 1970, up to the point before its fraction.
fn written(second: u64) -> [u8; 20] {
    let (days, second) = (second / 86_400, second % 86_400);
    let (year, month, day) = date(days);
    let mut text = *b"0000-00-00T00:00:00.";
    let mut put = |at: usize, digits: usize, number: u64| {
        let mut number = number;
        for place in (at..at + digits).rev() {
            text[place] = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, second / 3600);
    put(14, 2, second / 60 % 60);
    put(17, 2, second % 60);
    text
}

/// Year, month and day of a number of days since 1970, as the Gregorian calendar counts them: in eras of 400 years, each
/// year beginning in March so that leap days come last (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_others_write_them() {
        let clock = Clock::default();
        for (millis, wanted) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_007, "2000-03-01T00:00:00.007Z"),
            (1_795_285_616_050, "2026-11-21T18:26:56.050Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut out = Vec::new();
            clock.write(&mut out, SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
            assert_eq!(String::from_utf8(out).unwrap(), wanted);
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let (mut last, length) = (date(0), |year: u64, month: u64| match month {
            2 => 28 + u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        });
        for day in 1..146_100 {
            let (year, month, of_month) = last;
            let next = match (of_month == length(year, month), month) {
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
                (false, _) => (year, month, of_month + 1),
            };
            assert_eq!(date(day), next);
            last = next;
        }
    }
}
