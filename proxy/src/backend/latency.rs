//! A server's recent latency as peaks count: the policy `ewma` goes by it. Pure but for its one atomic.
//!
//! As Finagle's peak EWMA: a slow answer counts at once and whole, fast ones win it back bit by bit, and with time it
//! is forgotten, so that a server nobody asks is asked again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Recent latency: microseconds in the upper half, when that was in the lower, in the server's milliseconds.
#[derive(Debug)]
pub struct PeakLatency(AtomicU64);

impl Default for PeakLatency {
    fn default() -> PeakLatency {
        PeakLatency(AtomicU64::new(pack(UNKNOWN_US, 0)))
    }
}

impl PeakLatency {
    /// Takes an answer's latency in; `at` in the server's milliseconds.
    pub fn record(&self, took: Duration, at: u64) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let at = at as u32;
        let _ = self.0.fetch_update(Relaxed, Relaxed, |packed| {
            let (value, stamp) = unpack(packed);
            // Another worker may have been faster with a later time.
            let passed = at.wrapping_sub(stamp);
            let (passed, at) = if passed > u32::MAX / 2 { (0, stamp) } else { (passed, at) };
            if took >= value {
                return Some(pack(took, at));
            }
            let kept = kept(passed);
            let value = f64::from(value) * kept + f64::from(took) * (1.0 - kept);
            Some(pack(value as u32, at))
        });
    }

    /// What it stands at, in microseconds.
    pub fn read(&self, at: u64) -> u32 {
        let (value, stamp) = unpack(self.0.load(Relaxed));
        let passed = (at as u32).wrapping_sub(stamp);
        if passed > u32::MAX / 2 { value } else { (f64::from(value) * kept(passed)) as u32 }
    }
}

/// How much of a value is left after so many milliseconds.
fn kept(passed: u32) -> f64 {
    (-f64::from(passed) / FORGET_MS).exp()
}

fn pack(us: u32, at: u32) -> u64 {
    u64::from(us) << 32 | u64::from(at)
}

fn unpack(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

/// How slow a failure is at least, so that a server that fails fast does not look fast.
pub const FAILURE: Duration = Duration::from_secs(1);
/// What a server is worth before it has answered. It is forgotten as any other.
const UNKNOWN_US: u32 = 30_000;
/// Milliseconds in which a latency falls to 1/e of itself, as in Finagle.
const FORGET_MS: f64 = 10_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let latency = PeakLatency::default();
        for at in 0..200 {
            latency.record(ms(1), at * 1000);
        }
        assert!(latency.read(199_000) < 1100);
        latency.record(ms(500), 200_000);
        assert_eq!(latency.read(200_000), 500_000);
        latency.record(ms(1), 200_001);
        assert!(latency.read(200_001) > 490_000, "one fast answer does not wash it away");
        assert!(latency.read(300_000) < 1_000, "time does");
    }

    #[test]
    fn times_out_of_order_do_no_harm() {
        let latency = PeakLatency::default();
        latency.record(ms(50), 1000);
        latency.record(ms(10), 900);
        assert!((49_000..=50_000).contains(&latency.read(950)));
    }
}
