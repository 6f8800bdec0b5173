//! How many second attempts a backend may cost: a fifth of its requests, or ten a second where that is more.
//!
//! Retries that answer a failing backend with more load make it fail more. Nothing is counted while all is well: the
//! requests since the last retry are known from the backend's turn. One word, no lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is left for retries: credit in 16 bits, then turn and milliseconds at the last look in 24 bits each.
#[derive(Debug)]
pub struct Budget(AtomicU64);

impl Default for Budget {
    fn default() -> Budget {
        Budget(AtomicU64::new(pack(FIRST, 0, 0)))
    }
}

impl Budget {
    /// Takes one retry out, if there is one left. `turn`: requests of the backend so far; `now`: milliseconds since it
    /// came to be. Either may lag a little behind what others said.
    pub fn withdraw(&self, turn: u64, now: u64) -> bool {
        let taken = self.0.fetch_update(Relaxed, Relaxed, |packed| {
            let (credit, turn_then, then) = unpack(packed);
            let (requests, turn) = since(turn_then, turn);
            let (passed, now) = since(then, now);
            let earned = (requests.saturating_mul(REQUEST)).max(passed / 2);
            let credit = credit.saturating_add(earned).min(MOST);
            // Also without enough for one, what was earned is kept.
            Some(pack(credit.checked_sub(RETRY).unwrap_or(credit), turn, now))
        });
        taken.is_ok_and(|packed| {
            let (credit, turn_then, then) = unpack(packed);
            let earned = (since(turn_then, turn).0.saturating_mul(REQUEST)).max(since(then, now).0 / 2);
            credit.saturating_add(earned).min(MOST) >= RETRY
        })
    }
}

/// How far a number of 24 bits has come, and where it stands now. One that lags behind has not come anywhere.
fn since(then: u64, now: u64) -> (u64, u64) {
    let passed = (now & LOW).wrapping_sub(then) & LOW;
    if passed > LOW - LAG { (0, then) } else { (passed, now & LOW) }
}

fn pack(credit: u64, turn: u64, now: u64) -> u64 {
    credit << 48 | (turn & LOW) << 24 | (now & LOW)
}

fn unpack(packed: u64) -> (u64, u64, u64) {
    (packed >> 48, packed >> 24 & LOW, packed & LOW)
}

/// What a retry costs; a request earns [`REQUEST`], a millisecond a half. A little under a fifth, so that the first
/// ones and roundings do not make it more.
const RETRY: u64 = 51;
const REQUEST: u64 = 10;
/// Credit of a backend that was not asked yet: ten retries.
const FIRST: u64 = 10 * RETRY;
/// Most that is saved: a hundred retries, for the moment in which a server dies.
const MOST: u64 = 100 * RETRY;
const LOW: u64 = (1 << 24) - 1;
const LAG: u64 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_fifth_of_many_requests() {
        let budget = Budget::default();
        let retried = (0..100_000u64).filter(|turn| budget.withdraw(*turn, turn / 2)).count();
        assert!((19_000..=20_000).contains(&retried), "{retried}");
    }

    #[test]
    fn ten_a_second_of_few() {
        let budget = Budget::default();
        // Twenty requests a second, for a hundred seconds, and each wants a retry.
        let retried = (0..2_000u64).filter(|turn| budget.withdraw(*turn, turn * 50)).count();
        assert!((950..=1_020).contains(&retried), "{retried}");
    }

    #[test]
    fn what_was_saved_is_bounded() {
        let budget = Budget::default();
        assert!(budget.withdraw(0, 0));
        let burst = (0..1000).filter(|_| budget.withdraw(1_000_000, 1_000_000)).count();
        assert_eq!(burst, 100);
    }

    proptest! {
        #[test]
        fn never_more_than_promised(steps in prop::collection::vec((0u64..50, 0u64..200, 1u8..4), 1..400)) {
            let budget = Budget::default();
            let (mut turn, mut now, mut retried) = (0u64, 0u64, 0u64);
            for (requests, ms, wanted) in steps {
                turn += requests;
                now += ms;
                retried += (0..wanted).filter(|_| budget.withdraw(turn, now)).count() as u64;
            }
            prop_assert!(retried as f64 <= 10.0 + turn as f64 * 0.2 + now as f64 / 100.0);
        }
    }
}
