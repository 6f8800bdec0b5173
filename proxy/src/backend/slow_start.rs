//! Slow start: a server that is new to a backend, or back from ill health, gets its share little by little.
//!
//! Its share grows in a straight line over the backend's `SlowStart`, from a tenth on; while it has nothing to do it
//! takes whatever comes. At most half of a backend's
//! servers start slowly at a time: where most are new, at the start too, holding them back would drown the others.
//! While nobody starts slowly, this costs a request one load.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Backend, Live, Server};

/// Since when a server starts slowly, in its milliseconds plus one; 0: it does not.
#[derive(Debug, Default)]
pub struct Ramp(AtomicU64);

impl Live {
    /// A server's share of what it would get, in thousandths.
    pub fn share(&self, now: Instant, slow_start: Duration) -> u64 {
        let Some(from) = self.ramp.0.load(Relaxed).checked_sub(1) else { return WHOLE };
        let whole = millis(slow_start);
        match self.millis(now).saturating_sub(from) {
            passed if passed >= whole => WHOLE,
            passed => (passed * WHOLE / whole).max(LEAST),
        }
    }
}

impl Backend {
    /// Whether any of its servers starts slowly.
    pub fn is_ramping(&self, now: Instant) -> bool {
        let until = self.live.ramping_until.load(Relaxed);
        until > 0 && self.live.millis(now) < until
    }

    /// A server is back from ill health: it starts slowly, unless too many do. Whoever finds it well again says so.
    pub fn back(&self, at: u16, now: Instant) {
        if let Some(server) = self.servers.get(usize::from(at)) {
            self.begin(std::slice::from_ref(server), now);
        }
    }

    /// These are new: they start slowly, unless too many do.
    pub(crate) fn begin(&self, servers: &[Server], now: Instant) {
        let whole = self.spec.slow_start;
        if whole.is_zero() {
            return;
        }
        let ramping = self.servers.iter().filter(|server| server.live.share(now, whole) < WHOLE).count();
        if (ramping + servers.len()) * 2 > self.servers.len() || servers.is_empty() {
            return;
        }
        for server in servers {
            server.live.ramp.0.store(server.live.millis(now) + 1, Relaxed);
        }
        self.live.ramping_until.fetch_max(self.live.millis(now) + millis(whole), Relaxed);
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A share that is whole.
pub const WHOLE: u64 = 1000;
const LEAST: u64 = 100;
