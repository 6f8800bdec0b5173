//! Token buckets by key, a bounded number of them. Pure: the clock is an argument.
//!
//! A bucket is kept as the moment when it is full again (GCRA): one instant a key, exact, nothing to refill. What is full
//! need not be kept; it is looked for once a second at most, for that is a walk over all. Keys beyond the bound share
//! buckets until there is room again: they are slowed down together, and nobody is shut out.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rate {
    /// How long one request's worth takes to come back.
    interval: Duration,
    /// How long all of it does.
    capacity: Duration,
}

impl Rate {
    /// So many requests a period, none of them 0, and at once as many as the burst.
    pub(super) fn new(requests: u64, period: Duration, burst: u64) -> Rate {
        let interval = period.div_f64(requests.max(1) as f64).max(Duration::from_nanos(1));
        Rate { interval, capacity: interval.saturating_mul(u32::try_from(burst).unwrap_or(u32::MAX)) }
    }

    /// When a bucket is full again after one more request; or how long that has to wait.
    fn after(self, full_at: Option<Instant>, now: Instant) -> Result<Instant, Duration> {
        let next = full_at.map_or(now, |full_at| full_at.max(now)) + self.interval;
        match next.saturating_duration_since(now).checked_sub(self.capacity).filter(|over| !over.is_zero()) {
            Some(over) => Err(over),
            None => Ok(next),
        }
    }
}

/// The buckets that are not full.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    full_at: HashMap<u64, Instant>,
    /// Of keys that came when there were too many; none until then.
    shared: Vec<Option<Instant>>,
    /// When full ones were last looked for.
    pruned: Option<Instant>,
}

impl Buckets {
    /// Takes one request out of every one of these buckets, or out of none and says after how long that will be
    /// possible. Keys are as good as random.
    pub(super) fn take(&mut self, wanted: &[(u64, Rate)], now: Instant) -> Result<(), Duration> {
        for (key, _) in wanted {
            self.make_room(*key, now);
        }
        let waits = wanted.iter().filter_map(|(key, rate)| rate.after(self.full_at(*key), now).err());
        if let Some(wait) = waits.max() {
            return Err(wait);
        }
        for (key, rate) in wanted {
            if let Ok(full_at) = rate.after(self.full_at(*key), now) {
                self.set(*key, full_at);
            }
        }
        Ok(())
    }

    fn full_at(&self, key: u64) -> Option<Instant> {
        match self.full_at.get(&key) {
            None if self.is_full() => self.shared.get(place(key)).copied().flatten(),
            own => own.copied(),
        }
    }

    fn set(&mut self, key: u64, full_at: Instant) {
        if !self.is_full() || self.full_at.contains_key(&key) {
            self.full_at.insert(key, full_at);
        } else if let Some(shared) = self.shared.get_mut(place(key)) {
            *shared = Some(full_at);
        }
    }

    /// Forgets full buckets if there is no room for another one.
    fn make_room(&mut self, key: u64, now: Instant) {
        if !self.is_full() || self.full_at.contains_key(&key) {
            return;
        }
        if self.pruned.is_none_or(|pruned| now.saturating_duration_since(pruned) >= PAUSE) {
            self.pruned = Some(now);
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if self.is_full() && self.shared.is_empty() {
            self.shared = vec![None; SHARED];
        }
    }

    fn is_full(&self) -> bool {
        self.full_at.len() >= MOST
    }
}

fn place(key: u64) -> usize {
    usize::try_from(key % SHARED as u64).unwrap_or(0)
}

/// Keys that have a bucket of their own.
const MOST: usize = 65_536;
/// Buckets of the others.
const SHARED: usize = 4_096;
/// Between two looks for full buckets.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn second(requests: u64, burst: u64) -> Rate {
        Rate::new(requests, Duration::from_secs(1), burst)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let mut take = |key, millis| buckets.take(&[(key, second(10, 3))], start + Duration::from_millis(millis));
        for _ in 0..3 {
            assert_eq!(take(1, 0), Ok(()));
        }
        assert_eq!(take(1, 0), Err(Duration::from_millis(100)));
        assert_eq!(take(2, 0), Ok(()));
        assert_eq!(take(1, 100), Ok(()));
        assert!(take(1, 150).is_err());
    }

    #[test]
    fn what_one_bucket_refuses_costs_the_others_nothing() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let both = [(1, second(1, 5)), (2, second(1, 2))];
        assert_eq!((0..9).filter(|_| buckets.take(&both, start).is_ok()).count(), 2);
        assert_eq!((0..9).filter(|_| buckets.take(&both[..1], start).is_ok()).count(), 3);
    }

    #[test]
    fn who_comes_when_all_buckets_are_taken_shares_one() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        // It fills within two minutes.
        let slow = Rate::new(1, Duration::from_secs(60), 2);
        let mut take =
            |key: u64, seconds: u64| buckets.take(&[(key, slow)], start + Duration::from_secs(seconds)).is_ok();
        assert!((0..MOST as u64).all(|key| take(key, 0)));
        let new = MOST as u64;
        assert!(take(new, 0) && take(new + SHARED as u64, 0));
        // The third of the bucket that these three share, and one of another.
        assert!(!take(new + 2 * SHARED as u64, 0) && take(new + 1, 0));
        // Who was there is not bothered.
        assert!(take(0, 0) && !take(0, 0));
        // When the others are full again there is room.
        assert!(take(new, 61) && take(new, 61) && !take(new, 61));
        assert!(buckets.full_at.len() < 10, "{} buckets", buckets.full_at.len());
    }

    #[test]
    fn full_buckets_are_looked_for_once_a_second() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let quick = Rate::new(1_000, Duration::from_secs(1), 1);
        for key in 0..MOST as u64 {
            assert_eq!(buckets.take(&[(key, quick)], start), Ok(()));
        }
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(buckets.take(&[(MOST as u64, quick)], start), Ok(()));
        assert_eq!((buckets.pruned, buckets.full_at.len()), (Some(start), MOST));
        // All are full now, and nobody looks yet.
        assert_eq!(buckets.take(&[(MOST as u64 + 1, quick)], at(900)), Ok(()));
        assert_eq!(buckets.full_at.len(), MOST);
        assert_eq!(buckets.take(&[(MOST as u64 + 2, quick)], at(1_000)), Ok(()));
        assert_eq!(buckets.full_at.len(), 1);
    }
}
