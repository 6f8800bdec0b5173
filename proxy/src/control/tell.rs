//! Telling: what is held, what belongs on disk, what is wrong, whether the store is there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use etna_store::{Error, Problem, with_causes};

use super::certificates::CertificateFiles;
use super::disk::Kept;
use super::follow::Control;
use super::keep::Keeper;
use super::state::{StoreStatus, SuspectStatus};
use super::suspect::Suspects;
use crate::table::edge;

impl Control {
    /// Hands over what was not published: what is held, what belongs on disk, what is wrong.
    pub(super) fn tell(&mut self) {
        let changed = self.suspects.take_changed();
        let moved = self.suspects.take_moved();
        if let Some(mut keeper) = self.keeper.take() {
            keeper.offer(changed || moved, || self.kept());
            self.news |= keeper.take_changed();
            self.keeper = Some(keeper);
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
        self.news |= self.absence() != self.absent;
        self.news |= self.state.acme.take_changed();
        self.news |= self.state.announced.take_changed();
        self.news |= self.state.access.as_ref().is_some_and(|access| access.take_changed());
        if std::mem::take(&mut self.news) | changed {
            self.show_problems();
        }
    }

    /// What belongs on disk now.
    pub(super) fn kept(&self) -> Kept {
        Kept {
            store: self.state.engine.describe(),
            revision: self.seen,
            pairs: self.suspects.pairs().clone(),
            held: held(&self.suspects, Instant::now(), SystemTime::now()),
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
        problems.extend(self.state.acme.problems());
        problems.extend(edge::ending(&self.state.live.table().certificates, SystemTime::now()));
        problems.extend(self.bare_tls());
        problems.extend(self.state.announced.problems());
        problems.extend(self.reread.problems().cloned());
        problems.extend(self.certificate_files.as_ref().and_then(CertificateFiles::problem));
        problems.extend(self.state.access.as_ref().and_then(|access| access.problem()));
        for problem in problems.difference(&self.logged).take(MOST_LOGGED) {
            tracing::warn!(key = %problem.key, reason = %problem.reason, hint = %problem.hint, effect = %problem.effect, "problem");
        }
        for problem in self.logged.difference(&problems).take(MOST_LOGGED) {
            tracing::info!(key = %problem.key, reason = %problem.reason, "problem solved");
        }
        // The log says of the store itself how it is, when it changes.
        self.absent = self.absence();
        self.state.set_problems(problems.iter().chain(&self.absent).cloned().collect());
        self.logged = problems;
    }

    /// That `--listen-https` has nothing to show, once all that may bring certificates was read.
    fn bare_tls(&self) -> Option<Problem> {
        let table = self.state.live.table();
        let is_read = table.loaded && self.certificate_files.as_ref().is_none_or(CertificateFiles::is_read);
        let is_bare = is_read && table.certificates.is_empty() && self.listeners.has_own_tls();
        is_bare.then(|| edge::no_certificate("--listen-https".into()))
    }

    /// What is wrong because the store is not there.
    fn absence(&self) -> Option<Problem> {
        absence(&self.state.store(), &self.state.engine.describe(), self.state.started, Instant::now())
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
        let text = with_causes(error);
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

/// What is told while changes do not arrive. A store that was followed may be away for a moment first.
fn absence(status: &StoreStatus, store: &str, started: Instant, now: Instant) -> Option<Problem> {
    let problem = |reason: String, hint: &str, effect: &str| Problem {
        key: store.to_owned(),
        reason: match &status.error {
            Some(error) => format!("{reason}: {error}"),
            None => reason,
        },
        hint: hint.into(),
        line: None,
        column: None,
        effect: effect.into(),
    };
    match (status.revision, status.from_disk, status.heard) {
        (None, ..) if status.error.is_none() && now.saturating_duration_since(started) < AT_ONCE => None,
        (None, ..) => Some(problem(
            "the store was not read yet".into(),
            "start it, or correct --store and its credentials",
            "every request is answered 503",
        )),
        (Some(revision), Some(_), _) => Some(problem(
            format!("the store was not read yet; the last table on disk serves, at revision {}", revision.0),
            "see `etnactl status` for how long",
            "changes made meanwhile are not in force",
        )),
        (Some(_), None, heard) => {
            let is_long = heard.is_none_or(|heard| now.saturating_duration_since(heard) >= A_MOMENT);
            (!status.following && is_long).then(|| {
                problem(
                    "the store is not followed".into(),
                    "see `etnactl status` for how long; what was missed is read when it answers again",
                    "what was last read serves; changes made meanwhile are not in force",
                )
            })
        }
    }
}

fn held(suspects: &Suspects, now: Instant, clock: SystemTime) -> Vec<(bytes::Bytes, Option<SystemTime>)> {
    let until =
        |case: Option<&super::suspect::Case>| case?.until.map(|until| clock + until.saturating_duration_since(now));
    suspects.held().map(|(key, case)| (key.clone(), until(case))).collect()
}

const MOST_LOGGED: usize = 100;
const MOST_SHOWN: usize = 1000;
const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(2);
/// How long a process that starts waits for its store before that is a problem.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How long a store that was followed may be away before that is one: longer than a member takes to be replaced.
const A_MOMENT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use etna_store::Revision;

    use super::super::state::State;
    use super::*;

    #[tokio::test]
    async fn a_store_that_is_away_is_a_problem() {
        let state = State::new(etna_store::engine::memory::open());
        let began = state.started;
        let after = |seconds: f64| began + Duration::from_secs_f64(seconds);
        let says = |status: &StoreStatus, at: Instant| absence(status, "etcd://a", began, at);

        let mut status = state.store();
        assert_eq!(says(&status, after(0.5)), None);
        assert_eq!(says(&status, after(2.0)).unwrap().effect, "every request is answered 503");
        status.error = Some("refused".into());
        assert_eq!(says(&status, after(0.1)).unwrap().reason, "the store was not read yet: refused");

        status = StoreStatus { revision: Some(Revision(7)), following: true, heard: Some(began), ..state.store() };
        assert_eq!(says(&status, after(60.0)), None);
        status.following = false;
        assert_eq!(says(&status, after(4.0)), None, "a blip is none");
        status.error = Some("refused".into());
        let problem = says(&status, after(6.0)).unwrap();
        assert_eq!(problem.reason, "the store is not followed: refused");
        assert!(problem.effect.contains("not in force"), "{problem:?}");

        status.from_disk = Some((began, Duration::from_secs(60)));
        let problem = says(&status, after(0.0)).unwrap();
        assert!(problem.reason.contains("last table on disk serves, at revision 7"), "{problem:?}");
    }
}
