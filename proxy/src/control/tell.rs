//! Telling: what is held, what belongs on disk, what is wrong, whether the store is there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use etna_store::{Error, Problem};

use super::disk::Kept;
use super::follow::Control;
use super::keep::Keeper;
use super::state::SuspectStatus;
use super::suspect::Suspects;

impl Control {
    /// Hands over what was not published: what is held, what belongs on disk, what is wrong.
    pub(super) fn tell(&mut self) {
        let changed = self.suspects.take_changed();
        if let Some(keeper) = &mut self.keeper {
            let (store, revision) = (self.state.engine.describe(), self.seen);
            let suspects = &self.suspects;
            keeper.offer(changed, suspects.pairs(), || Kept {
                store,
                revision,
                pairs: suspects.pairs().clone(),
                held: held(suspects, Instant::now(), SystemTime::now()),
            });
            self.news |= keeper.take_changed();
        }
        if changed {
            let status = SuspectStatus {
                cases: self.suspects.cases().cloned().collect(),
                keys: self.suspects.held().take(MOST_SHOWN).map(|(key, _)| key.clone()).collect(),
                count: self.suspects.held().count(),
                total: self.suspects.total(),
            };
            self.state.set_suspects(status);
        }
        if std::mem::take(&mut self.news) | changed {
            self.show_problems();
        }
    }

    fn show_problems(&mut self) {
        let mut problems: BTreeSet<Problem> = {
            let model = self.state.model();
            let all = model.problems().chain(self.compiler.problems()).chain(self.listeners.problems());
            all.cloned().collect()
        };
        problems.extend(self.suspects.cases().map(|case| super::chores::suspicion(case, self.hold)));
        problems.extend(self.keeper.as_ref().and_then(Keeper::problem));
        if self.state.store().from_disk.is_some() {
            problems.insert(super::chores::from_disk(&self.state, self.seen));
        }
        for problem in problems.difference(&self.logged).take(MOST_LOGGED) {
            tracing::warn!(key = %problem.key, reason = %problem.reason, hint = %problem.hint, effect = %problem.effect, "problem");
        }
        for problem in self.logged.difference(&problems).take(MOST_LOGGED) {
            tracing::info!(key = %problem.key, reason = %problem.reason, "problem solved");
        }
        self.state.set_problems(problems.iter().cloned().collect());
        self.logged = problems;
    }

    pub(super) fn follows(&mut self, again: bool) {
        if self.state.store().error.is_some() {
            tracing::info!(store = %self.state.engine.describe(), revision = self.seen.0, "following the store again");
        }
        self.state.set_store(|store| {
            store.following = true;
            store.error = None;
            store.heard = Some(Instant::now());
        });
        if again {
            self.chores.resync.soon(Instant::now());
        } else {
            self.chores.resync.reset(Instant::now());
        }
    }

    pub(super) fn lost(&mut self, error: &Error) {
        self.chores.resync.reset(Instant::now());
        self.complain(error);
        self.state.set_store(|store| store.following = false);
    }

    /// Shows an error of the store; logs it if it is another one, but not more often than is read.
    pub(super) fn complain(&mut self, error: &Error) {
        let text = describe(error);
        if self.state.store().error.as_ref() == Some(&text) {
            return;
        }
        if self.complained.is_none_or(|at| at.elapsed() >= BETWEEN_COMPLAINTS) {
            tracing::warn!(store = %self.state.engine.describe(), error = %text, "not following the store");
            self.complained = Some(Instant::now());
        }
        self.state.set_store(|store| store.error = Some(text));
    }
}

fn held(suspects: &Suspects, now: Instant, clock: SystemTime) -> Vec<(bytes::Bytes, Option<SystemTime>)> {
    let until =
        |case: Option<&super::suspect::Case>| case?.until.map(|until| clock + until.saturating_duration_since(now));
    suspects.held().map(|(key, case)| (key.clone(), until(case))).collect()
}

/// An error with its causes, on one line.
pub(super) fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

const MOST_LOGGED: usize = 100;
const MOST_SHOWN: usize = 1000;
const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(2);
