//! How often to try again and how often to say so.

use std::time::{Duration, Instant};

/// Waits between attempts: doubling from 100 ms to 5 s, each drawn between half and all of it, so that the programs
/// of a fleet do not come back all at once.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after one more failure.
    pub fn failed(&mut self) -> Duration {
        const FIRST: u64 = 100;
        const LONGEST: u64 = 5_000;
        let full = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(fastrand::u64(full / 2..=full))
    }

    /// Starts over.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Whether the last attempt failed.
    pub fn failing(&self) -> bool {
        self.failures > 0
    }
}

/// Lets one of a kind of log lines through a second.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<Instant>,
}

impl Throttle {
    /// Whether a line may be written now.
    pub fn admits(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_secs(1));
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_bound_and_starts_over() {
        let mut backoff = Backoff::default();
        assert!(backoff.failed() <= Duration::from_millis(100));
        for _ in 0..100 {
            let wait = backoff.failed();
            assert!(wait >= Duration::from_millis(100) && wait <= Duration::from_secs(5));
        }
        assert!(backoff.failed() >= Duration::from_millis(2_500));
        backoff.succeeded();
        assert!(!backoff.failing() && backoff.failed() <= Duration::from_millis(100));
    }

    #[test]
    fn one_line_a_second() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let admitted = (0..30).filter(|i| throttle.admits(start + Duration::from_millis(i * 100))).count();
        assert_eq!(admitted, 3);
    }
}
