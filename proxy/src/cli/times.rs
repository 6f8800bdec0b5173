//! How long things may take: the flags of `etna serve` for times, by the names of now and by those of before.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;

/// The flags; those of now win over those of before.
#[derive(Args)]
pub(super) struct Times {
    /// How long what vanishes from the store in a mass (half a backend, a third of all) serves on as suspect, while
    /// its servers answer, such as 5m; a bare number is seconds, as in all of these. 0 believes deletions at once
    /// [default: 5m].
    #[arg(long, env = "ETNA_HOLD", value_name = "TIME", value_parser = hold_time)]
    hold: Option<u64>,
    /// How long a drain may take before what still runs is cut [default: 30s].
    #[arg(long, env = "ETNA_DRAIN", value_name = "TIME", value_parser = any_time)]
    drain: Option<u64>,
    /// How long of that connections are still accepted after TERM, so that balancers in front can notice [default: 3s].
    #[arg(long, env = "ETNA_DRAIN_GRACE", value_name = "TIME", value_parser = any_time)]
    drain_grace: Option<u64>,
    /// How soon a new binary must be ready after USR2; else it is ended and this process goes on [default: 30s].
    #[arg(long, env = "ETNA_UPGRADE_TIMEOUT", value_name = "TIME", value_parser = upgrade_time)]
    upgrade_timeout: Option<u64>,
    /// After how long a replaced process cuts what it still runs, such as WebSockets [default: 15m].
    #[arg(long, env = "ETNA_UPGRADE_DRAIN", value_name = "TIME", value_parser = any_time)]
    upgrade_drain: Option<u64>,
    #[arg(long, env = "ETNA_HOLD_SECONDS", hide = true, value_parser = hold_time)]
    hold_seconds: Option<u64>,
    #[arg(long, env = "ETNA_DRAIN_SECONDS", hide = true, value_parser = any_time)]
    drain_seconds: Option<u64>,
    #[arg(long, env = "ETNA_DRAIN_GRACE_SECONDS", hide = true, value_parser = any_time)]
    drain_grace_seconds: Option<u64>,
    #[arg(long, env = "ETNA_UPGRADE_SECONDS", hide = true, value_parser = upgrade_time)]
    upgrade_seconds: Option<u64>,
    #[arg(long, env = "ETNA_UPGRADE_DRAIN_SECONDS", hide = true, value_parser = any_time)]
    upgrade_drain_seconds: Option<u64>,
}

impl Times {
    /// How long what vanishes in a mass is held.
    pub(super) fn hold(&self) -> Duration {
        time(self.hold, self.hold_seconds, 300)
    }

    /// How long a drain may take.
    pub(super) fn drain(&self) -> Duration {
        time(self.drain, self.drain_seconds, 30)
    }

    /// How long of that connections are accepted.
    pub(super) fn drain_grace(&self) -> Duration {
        time(self.drain_grace, self.drain_grace_seconds, 3)
    }

    /// How soon a new binary must be ready.
    pub(super) fn upgrade_timeout(&self) -> Duration {
        time(self.upgrade_timeout, self.upgrade_seconds, 30)
    }

    /// How long a replaced process may finish.
    pub(super) fn upgrade_drain(&self) -> Duration {
        time(self.upgrade_drain, self.upgrade_drain_seconds, 900)
    }
}

fn time(given: Option<u64>, before: Option<u64>, default: u64) -> Duration {
    Duration::from_secs(given.or(before).unwrap_or(default))
}

fn any_time(text: &str) -> Result<u64, String> {
    seconds(text, 0..=u64::MAX)
}

fn hold_time(text: &str) -> Result<u64, String> {
    seconds(text, 0..=LONGEST_HOLD)
}

fn upgrade_time(text: &str) -> Result<u64, String> {
    seconds(text, 1..=3600)
}

/// `300`, `5m`, `1m30s`: whole seconds within a range.
pub(super) fn seconds(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let seconds = match text.parse() {
        Ok(seconds) => seconds,
        Err(_) => match etna_store::duration::parse(text) {
            Ok(time) if time.subsec_nanos() == 0 => time.as_secs(),
            _ => return Err("write seconds, or a time such as 30s, 5m or 1m30s".into()),
        },
    };
    if range.contains(&seconds) {
        return Ok(seconds);
    }
    Err(format!("choose {} to {} seconds", range.start(), range.end()))
}

/// A year.
const LONGEST_HOLD: u64 = 365 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_their_former_names_too() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            times: Times,
        }
        let read = |line: &str| <Line as clap::Parser>::try_parse_from(line.split(' ')).map(|line| line.times);
        let all = |times: &Times| {
            let all =
                [times.hold(), times.drain(), times.drain_grace(), times.upgrade_timeout(), times.upgrade_drain()];
            all.map(|time| time.as_secs())
        };
        let usual = read("etna").unwrap();
        assert_eq!(all(&usual), [300, 30, 3, 30, 900]);
        let now = "etna --hold 1m --drain 2m --drain-grace 5 --upgrade-timeout 1m30s --upgrade-drain 1h";
        let before = "etna --hold-seconds 60 --drain-seconds 120 --drain-grace-seconds 5 --upgrade-seconds 90 \
                      --upgrade-drain-seconds 3600";
        for line in [now, before, &format!("{now} --drain-seconds 7 --hold-seconds 7")] {
            assert_eq!(all(&read(line).unwrap()), [60, 120, 5, 90, 3600], "{line}");
        }
        assert!(read("etna --upgrade-timeout 0").is_err() && read("etna --hold 8761h").is_err());
    }

    #[test]
    fn times_are_seconds_or_have_units() {
        for (text, wanted) in [("0", 0), ("300", 300), ("5m", 300), ("1m30s", 90), ("1h", 3600)] {
            assert_eq!(seconds(text, 0..=3600), Ok(wanted), "{text}");
        }
        for wrong in ["", "x", "-1", "500ms", "5d", "3601", "1.5"] {
            assert!(seconds(wrong, 0..=3600).is_err(), "{wrong}");
        }
    }
}
