//! Durations as Go writes them: `1h2m3.5s`. vulcand's JSON has no other.

use std::time::Duration;

/// Why a text is not a duration, in words that follow "is".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not the form Go's `time.ParseDuration` takes.
    #[error("not a duration")]
    Malformed,
    /// A number without its unit.
    #[error("a number without a unit")]
    NoUnit,
    /// A unit Go does not know; it has no days.
    #[error("a duration with an unknown unit")]
    UnknownUnit,
    /// Below zero.
    #[error("negative")]
    Negative,
    /// More nanoseconds than Go's 63 bits hold: about 292 years.
    #[error("too long a duration")]
    TooLong,
}

/// Reads what Go's `time.ParseDuration` reads, except that a duration below zero is an error.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Malformed);
    }
    let mut nanoseconds: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(DurationError::Malformed);
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        if name.is_empty() {
            return Err(DurationError::NoUnit);
        }
        let unit = unit(name).ok_or(DurationError::UnknownUnit)?;
        let part = part(whole, fraction, unit).ok_or(DurationError::TooLong)?;
        nanoseconds = nanoseconds.checked_add(part).filter(|sum| *sum <= LONGEST).ok_or(DurationError::TooLong)?;
        rest = after;
    }
    if negative && nanoseconds > 0 {
        return Err(DurationError::Negative);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Writes a duration as Go's `Duration.String` does: `1h2m3.5s`, `300ms`, `0s`. What is too long for Go is cut.
pub fn format(duration: Duration) -> String {
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(LONGEST).min(LONGEST);
    match nanoseconds {
        0 => "0s".into(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanoseconds, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanoseconds, 1_000_000)),
        _ => {
            let minutes = nanoseconds / MINUTE;
            let seconds = decimal(nanoseconds % MINUTE, SECOND);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn unit(name: &str) -> Option<u64> {
    Some(match name {
        "ns" => 1,
        // Both the micro sign and the Greek letter, as Go.
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => 60 * MINUTE,
        _ => return None,
    })
}

fn part(whole: &str, fraction: &str, unit: u64) -> Option<u64> {
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits below a nanosecond of an hour cannot matter; Go drops them too.
    let fraction = &fraction[..fraction.len().min(15)];
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let below = u64::try_from(fraction * u128::from(unit) / scale).ok()?;
    whole.checked_mul(unit)?.checked_add(below)
}

fn decimal(value: u64, unit: u64) -> String {
    let width = unit.ilog10() as usize;
    let fraction = format!("{:0width$}", value % unit);
    match fraction.trim_end_matches('0') {
        "" => (value / unit).to_string(),
        fraction => format!("{}.{fraction}", value / unit),
    }
}

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const LONGEST: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("-0", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("1m0.5s", 60_500_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("100ms", 100_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("10μs", 10_000),
            ("14ns", 14),
            ("39h9m14.425s", 140_954_425_000_000),
            ("0.100000000000000000000h", 360_000_000_000),
            ("9223372036854775807ns", i64::MAX as u64),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for (text, error) in [
            ("", DurationError::Malformed),
            ("-", DurationError::Malformed),
            ("s", DurationError::Malformed),
            (".s", DurationError::Malformed),
            (" 5s", DurationError::Malformed),
            ("5", DurationError::NoUnit),
            ("3.5", DurationError::NoUnit),
            ("1d", DurationError::UnknownUnit),
            ("5 s", DurationError::UnknownUnit),
            ("-1s", DurationError::Negative),
            ("9223372036854775808ns", DurationError::TooLong),
            ("99999999999999999999999h", DurationError::TooLong),
            ("3000000h", DurationError::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn writes_as_go_writes() {
        for text in ["0s", "1ns", "1.5µs", "300ms", "5s", "1m0s", "1h2m3.5s", "24h0m0s"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(nanoseconds in 0..=LONGEST) {
            let duration = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_a_duration_or_an_error(text in "[-+0-9.nuµsmhd ]{0,12}|.{0,12}") {
            let _ = parse(&text);
        }
    }
}
