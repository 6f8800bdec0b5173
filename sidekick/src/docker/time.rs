//! Docker's times, so that a replayed event is told from a new one. Pure.

/// Nanoseconds since 1970 of an RFC 3339 time such as `2026-11-21T06:03:00.123456789Z`; `None` if it is none, or
/// before 1970 (Docker writes the year 1 for *never*).
pub fn nanos(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1970..=2200).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("", rest),
    };
    let nano: i64 = format!("{:0<9}", fraction.get(..9).unwrap_or(fraction)).parse().ok()?;
    let offset = match (zone.get(..1)?, zone.get(1..3), zone.get(4..6)) {
        ("Z" | "z", _, _) => 0,
        (sign @ ("+" | "-"), Some(hours), Some(minutes)) => {
            let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
            if sign == "+" { seconds } else { -seconds }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(1_000_000_000)?.checked_add(nano)
}

/// Days since 1970-01-01 in the Gregorian calendar (Hinnant's `days_from_civil`, for years after 1970).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let of_era = year - era * 400;
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-03-01T00:00:00Z", Some(951_868_800_000_000_000)),
            ("2026-11-21T06:03:00.123456789Z", Some(1_795_240_980_123_456_789)),
            ("2026-11-21T07:03:00.5+01:00", Some(1_795_240_980_500_000_000)),
            ("0001-01-01T00:00:00Z", None),
            ("2026-11-21", None),
            ("2026-11-21T06:03:00", None),
            ("", None),
        ] {
            assert_eq!(nanos(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            nanos(&text);
        }

        #[test]
        fn never_panics_on_almost_times(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.]?[0-9é]{0,12}[Z+é-]?[0-9:é]{0,6}") {
            nanos(&text);
        }
    }
}
