//! What checks have found so far, and what follows from it. Pure: the time is given, in milliseconds of the server's clock.
//!
//! A server is ill after `Fall` bad answers in a row and well again after `Rise` good ones; one that was never well needs
//! a single good one. Between two changes at least [`STEADY`] pass.

use std::time::Duration;

use etna_store::object::HealthCheck;

use super::reason::Reason;

/// What checks say of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    state: State,
    /// Answers in a row that speak against the state.
    against: u32,
    /// Whether it ever was well.
    proved: bool,
    first: Option<u64>,
    last: Option<u64>,
    changed: Option<u64>,
    finding: Finding,
}

/// What one check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Whether the server may be given requests.
    pub well: bool,
    /// In a word.
    pub reason: Reason,
    /// In a sentence, if there is more to say.
    pub detail: String,
}

/// What is believed of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nobody checks it: it counts as well. Also one that served before a check was written for it.
    #[default]
    Unchecked,
    /// It is new and has not answered well yet: used where nobody else is well.
    Starting,
    /// Well.
    Up,
    /// Ill.
    Down,
}

impl Checked {
    /// That of a new server: it must show first that it is well.
    pub fn starting() -> Checked {
        Checked {
            state: State::Starting,
            finding: Finding { reason: Reason::Starting, ..Finding::default() },
            ..Checked::default()
        }
    }

    /// Goes on from what another process believed.
    pub fn resumed(state: State, reason: Reason, proved: bool) -> Checked {
        let finding = Finding { well: state == State::Up, reason, detail: String::new() };
        Checked { state, proved, finding, ..Checked::default() }
    }

    /// Takes a finding into account; the state before, if it changed by that.
    pub fn record(&mut self, now: u64, finding: Finding, check: &HealthCheck) -> Option<State> {
        self.first.get_or_insert(now);
        self.last = Some(now);
        let well = finding.well;
        self.finding = finding;
        let before = self.state;
        let next = match (before, well) {
            (State::Unchecked | State::Starting, true) => State::Up,
            (State::Up, true) | (State::Down, false) => {
                self.against = 0;
                return None;
            }
            (State::Down, true) => {
                self.against = self.against.saturating_add(1);
                let enough = self.against >= check.rise || !self.proved;
                if !enough || !self.is_steady(now) {
                    return None;
                }
                State::Up
            }
            (State::Unchecked | State::Starting | State::Up, false) => {
                self.against = self.against.saturating_add(1);
                if self.against < check.fall || !self.is_steady(now) {
                    return None;
                }
                State::Down
            }
        };
        self.proved |= next == State::Up;
        self.against = 0;
        self.state = next;
        if before == State::Unchecked && next == State::Up {
            return None;
        }
        self.changed = Some(now);
        Some(before)
    }

    /// How long to wait until the next check: less where a change is in the air, or the server has just come.
    pub fn pause(&self, now: u64, check: &HealthCheck) -> Duration {
        let young = self.first.is_none_or(|first| now.saturating_sub(first) < YOUNG);
        if self.against > 0 || (young && !self.proved) { check.interval.min(QUICK) } else { check.interval }
    }

    /// What is believed.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether it ever was well.
    pub fn is_proved(&self) -> bool {
        self.proved
    }

    /// What the last check found.
    pub fn finding(&self) -> &Finding {
        &self.finding
    }

    /// When it was checked last.
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// When the state changed last.
    pub fn changed(&self) -> Option<u64> {
        self.changed
    }

    /// A server that was never well may change as often as it likes: nothing that served depends on it.
    fn is_steady(&self, now: u64) -> bool {
        !self.proved || self.changed.is_none_or(|changed| now.saturating_sub(changed) >= STEADY)
    }
}

/// Least time between two changes of a server's health, in milliseconds.
pub(super) const STEADY: u64 = 5_000;
/// How long a new server is checked often, in milliseconds.
const YOUNG: u64 = 60_000;
/// Between checks while a change is in the air.
const QUICK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check() -> HealthCheck {
        HealthCheck::default()
    }

    fn good() -> Finding {
        Finding { well: true, ..Finding::default() }
    }

    fn bad() -> Finding {
        Finding { well: false, reason: Reason::Timeout, detail: String::new() }
    }

    #[test]
    fn a_new_server_needs_one_good_answer() {
        let mut checked = Checked::starting();
        assert_eq!(checked.record(0, bad(), &check()), None);
        assert_eq!(checked.pause(0, &check()), QUICK);
        assert_eq!(checked.record(1_000, good(), &check()), Some(State::Starting));
        assert_eq!(checked.state(), State::Up);
        assert_eq!(checked.pause(1_000, &check()), check().interval);
    }

    #[test]
    fn a_new_server_that_stays_ill_is_down_and_comes_up_at_once() {
        let mut checked = Checked::starting();
        let mut states = Vec::new();
        for n in 0..4 {
            checked.record(n * 1_000, bad(), &check());
            states.push(checked.state());
        }
        assert_eq!(states, [State::Starting, State::Starting, State::Down, State::Down]);
        assert_eq!(checked.pause(4_000, &check()), QUICK, "it is young");
        assert_eq!(checked.pause(90_000, &check()), check().interval);
        assert_eq!(checked.record(4_000, good(), &check()), Some(State::Down));
    }

    #[test]
    fn a_server_falls_and_rises_by_answers_in_a_row() {
        let mut checked = Checked::starting();
        checked.record(0, good(), &check());
        let mut now = 10_000;
        for finding in [bad(), bad(), good(), bad(), bad()] {
            assert_eq!(checked.record(now, finding, &check()), None);
            now += 1_000;
        }
        assert_eq!(checked.record(now, bad(), &check()), Some(State::Up));
        assert_eq!(checked.record(now + 6_000, good(), &check()), None);
        assert_eq!(checked.pause(now + 6_000, &check()), QUICK);
        assert_eq!(checked.record(now + 7_000, good(), &check()), Some(State::Down));
    }

    #[test]
    fn a_check_that_is_added_doubts_nobody_who_serves() {
        let mut checked = Checked::default();
        assert_eq!(checked.record(0, bad(), &check()), None);
        assert_eq!(checked.state(), State::Unchecked);
        assert_eq!(checked.record(1_000, good(), &check()), None);
        assert_eq!(checked.state(), State::Up);
    }

    proptest! {
        #[test]
        fn changes_of_a_proved_server_are_five_seconds_apart(
            answers in proptest::collection::vec((any::<bool>(), 1u64..3_000), 1..300),
            rise in 1u32..4,
            fall in 1u32..4,
        ) {
            let check = HealthCheck { rise, fall, ..check() };
            let mut checked = Checked::starting();
            let (mut now, mut last) = (0, None);
            for (well, pause) in answers {
                now += pause;
                let proved = checked.is_proved();
                if checked.record(now, if well { good() } else { bad() }, &check).is_some() {
                    if proved {
                        prop_assert!(last.is_none_or(|last| now - last >= STEADY));
                    }
                    last = Some(now);
                }
            }
        }
    }
}
