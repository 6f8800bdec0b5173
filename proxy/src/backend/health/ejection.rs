//! Ejection: a server that fails its requests is left alone for a time. Lock-free; the time is given, in milliseconds of
//! the server's clock. Whether it *may* be ejected, for the others' sake, is the backend's business.
//!
//! Serving → (failures in a row) → ejected → (its time is over) → probed by one request at a time → serving, or ejected
//! anew and for longer. An ejected or probed server counts as not serving; only [`Ejection::may_probe`] lets one through.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::checked::STEADY;
use super::reason::Reason;

/// A server's ejections.
#[derive(Debug, Default)]
pub(super) struct Ejection {
    /// Until when it is left alone; probed from then on.
    until: AtomicU64,
    /// When the next request may try it.
    probe: AtomicU64,
    /// Good answers since it is probed.
    good: AtomicU32,
    /// Good checks since it was ejected.
    checks: AtomicU32,
    /// Ejections in a row.
    row: AtomicU32,
    /// When it was ejected or came back last, plus one; 0: never.
    changed: AtomicU64,
    total: AtomicU64,
    reason: AtomicU8,
}

/// What became of a good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    /// It changes nothing.
    Ignored,
    /// Another one may follow.
    Good,
    /// It was the last one needed: the server serves again.
    Back,
}

impl Ejection {
    /// Whether it changed so lately that it must not change again.
    pub(super) fn is_fresh(&self, now: u64) -> bool {
        self.changed.load(Relaxed).checked_sub(1).is_some_and(|changed| now.saturating_sub(changed) < STEADY)
    }

    /// Leaves a serving server alone; for how many milliseconds. `chance` is drawn for this: so that proxies do not come
    /// back together.
    pub(super) fn eject(&self, now: u64, reason: Reason, chance: u64) -> u64 {
        let row = self.row.load(Relaxed);
        let forgiven = row > 0 && self.since(now).is_none_or(|served| served > FORGIVEN.max(2 * length(row, reason)));
        self.changed.store(now + 1, Relaxed);
        self.begin(now, if forgiven { 1 } else { row.saturating_add(1) }, reason, chance)
    }

    /// Leaves it alone again, because it failed when it was probed.
    pub(super) fn eject_again(&self, now: u64, reason: Reason, chance: u64) -> u64 {
        self.begin(now, self.row.load(Relaxed).saturating_add(1), reason, chance)
    }

    fn begin(&self, now: u64, row: u32, reason: Reason, chance: u64) -> u64 {
        let length = length(row, reason);
        let length = length + chance % (length / 10 + 1);
        self.row.store(row, Relaxed);
        self.reason.store(reason.number(), Relaxed);
        self.good.store(0, Relaxed);
        self.checks.store(0, Relaxed);
        self.probe.store(now + length, Relaxed);
        self.until.store(now + length, Relaxed);
        self.total.fetch_add(1, Relaxed);
        length
    }

    /// Whether its time is over and it is being tried.
    pub(super) fn is_probed(&self, now: u64) -> bool {
        now >= self.until.load(Relaxed)
    }

    /// Whether a request may try it now.
    pub(super) fn may_probe(&self, now: u64) -> bool {
        now >= self.probe.load(Relaxed)
    }

    /// A request is on its way to it: the next one waits for its answer, or for [`PATIENCE`].
    pub(super) fn probing(&self, now: u64) {
        if self.may_probe(now) {
            self.probe.store(now + PATIENCE, Relaxed);
        }
    }

    /// It answered well.
    pub(super) fn answered(&self, now: u64) -> Probed {
        if !self.is_probed(now) {
            return Probed::Ignored;
        }
        let good = self.good.fetch_add(1, Relaxed) + 1;
        self.probe.store(now, Relaxed);
        if good < PROBES || self.is_fresh(now) {
            return Probed::Good;
        }
        self.changed.store(now + 1, Relaxed);
        Probed::Back
    }

    /// A check that began at `began` found it well: after enough of these it is probed before its time, unless that has
    /// turned out to be wrong several times.
    pub(super) fn checked_well(&self, began: u64, now: u64, rise: u32) {
        let ejected = self.changed.load(Relaxed).saturating_sub(1);
        if began < ejected || self.is_probed(now) || self.row.load(Relaxed) > BELIEVED {
            return;
        }
        let checks = self.checks.fetch_add(1, Relaxed) + 1;
        if checks >= rise && !self.is_fresh(now) {
            self.probe.store(now, Relaxed);
            self.until.store(now, Relaxed);
        }
    }

    /// Milliseconds until it is probed.
    pub(super) fn left(&self, now: u64) -> u64 {
        self.until.load(Relaxed).saturating_sub(now)
    }

    /// Milliseconds since it was ejected or came back.
    pub(super) fn since(&self, now: u64) -> Option<u64> {
        self.changed.load(Relaxed).checked_sub(1).map(|changed| now.saturating_sub(changed))
    }

    /// Ejections in a row, the last one's reason, and all ejections so far.
    pub(super) fn history(&self) -> (u32, Reason, u64) {
        (self.row.load(Relaxed), Reason::of_number(self.reason.load(Relaxed)), self.total.load(Relaxed))
    }

    /// Goes on from what another process did.
    pub(super) fn resume(&self, now: u64, left: u64, row: u32, reason: Reason) {
        self.changed.store(now + 1, Relaxed);
        self.row.store(row, Relaxed);
        self.reason.store(reason.number(), Relaxed);
        self.probe.store(now + left, Relaxed);
        self.until.store(now + left, Relaxed);
    }
}

/// How long the n-th ejection in a row is, in milliseconds. A server that cannot be reached costs nobody an answer.
fn length(row: u32, reason: Reason) -> u64 {
    let first = if matches!(reason, Reason::Unreachable | Reason::Tls) { 5_000 } else { 10_000 };
    (u64::from(row.max(1)) * first).min(LONGEST)
}

/// Longest ejection, in milliseconds, but for chance.
pub(super) const LONGEST: u64 = 300_000;
/// After so many milliseconds of good service earlier ejections are forgotten.
const FORGIVEN: u64 = 60_000;
/// Good answers, one request at a time, until a probed server serves again.
const PROBES: u32 = 3;
/// How long one probe is waited for until another request may try, in milliseconds.
const PATIENCE: u64 = 10_000;
/// Ejections in a row that good checks may shorten.
const BELIEVED: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ejections_grow_to_a_limit_and_are_forgiven() {
        let ejection = Ejection::default();
        assert_eq!(ejection.eject(0, Reason::Timeout, 0), 10_000);
        assert_eq!(ejection.eject_again(10_000, Reason::Timeout, 0), 20_000);
        assert_eq!(ejection.eject_again(30_000, Reason::Timeout, 1_000), 31_000);
        for _ in 0..100 {
            assert!(ejection.eject_again(0, Reason::Timeout, u64::MAX) <= LONGEST + LONGEST / 10);
        }
        let ejection = Ejection::default();
        assert_eq!(ejection.eject(0, Reason::Unreachable, 0), 5_000);
        assert_eq!(back(&ejection, 5_000), Probed::Back);
        assert_eq!(ejection.eject(10_000, Reason::Unreachable, 0), 10_000);
        assert_eq!(back(&ejection, 20_000), Probed::Back);
        assert_eq!(ejection.eject(90_000, Reason::Unreachable, 0), 5_000);
    }

    fn back(ejection: &Ejection, now: u64) -> Probed {
        (0..PROBES).map(|_| ejection.answered(now)).last().unwrap()
    }

    #[test]
    fn one_request_at_a_time_probes() {
        let ejection = Ejection::default();
        let length = ejection.eject(1_000, Reason::Timeout, 0);
        assert!(!ejection.may_probe(length) && ejection.may_probe(1_000 + length));
        let now = 1_000 + length;
        ejection.probing(now);
        assert!(!ejection.may_probe(now + 1) && ejection.may_probe(now + PATIENCE));
        assert_eq!(ejection.answered(now + 5), Probed::Good);
        assert!(ejection.may_probe(now + 5));
        ejection.probing(now + 5);
        assert_eq!(ejection.answered(now + 6), Probed::Good);
        assert_eq!(ejection.answered(now + 7), Probed::Back);
    }

    #[test]
    fn what_was_asked_before_says_nothing_while_it_is_ejected() {
        let ejection = Ejection::default();
        ejection.eject(0, Reason::Timeout, 0);
        assert_eq!(ejection.answered(9_999), Probed::Ignored);
        assert_eq!(ejection.answered(10_000), Probed::Good);
    }

    #[test]
    fn good_checks_end_it_early_until_they_were_wrong_too_often() {
        let ejection = Ejection::default();
        ejection.eject(1_000, Reason::Timeout, 0);
        ejection.checked_well(500, 3_000, 2);
        ejection.checked_well(3_000, 3_500, 2);
        assert!(!ejection.is_probed(4_000), "one check is not two");
        ejection.checked_well(4_000, 4_500, 2);
        assert!(!ejection.is_probed(5_000), "not so soon");
        ejection.checked_well(6_000, 6_500, 2);
        assert!(ejection.is_probed(6_500) && ejection.may_probe(6_500));
        ejection.eject_again(7_000, Reason::Timeout, 0);
        ejection.eject_again(8_000, Reason::Timeout, 0);
        for now in [14_000, 15_000, 16_000] {
            ejection.checked_well(now, now + 1, 2);
        }
        assert!(!ejection.is_probed(17_000));
    }
}
