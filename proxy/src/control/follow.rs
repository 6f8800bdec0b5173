//! Following the store: snapshot, then watch, then again whatever the store does.
//!
//! How it begins is in `begin.rs`. Whatever is waited for, `chores.rs` goes on.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etna_store::{Batch, Delta, Error, Model, Problem, Revision};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::certificates::CertificateFiles;
use super::chores::Chores;
use super::keep::Keeper;
use super::reread::Reread;
use super::state::State;
use super::suspect::Suspects;
use super::tickets::TicketKeys;
use crate::listener::Listeners;
use crate::table::Table;
use crate::table::compile::Compiler;

/// The control loop.
pub struct Control {
    pub(super) state: Arc<State>,
    pub(super) compiler: Compiler,
    zone: Option<String>,
    /// Whether the next table has nothing in common with the one in force.
    afresh: bool,
    pub(super) listeners: Listeners,
    /// What is known to be wrong, to log only what is new.
    pub(super) logged: BTreeSet<Problem>,
    /// What is told because the store is not there.
    pub(super) absent: Option<Problem>,
    pub(super) suspects: Suspects,
    pub(super) chores: Chores,
    pub(super) ticket_keys: TicketKeys,
    pub(super) certificate_files: Option<CertificateFiles>,
    pub(super) reread: Reread,
    pub(super) keeper: Option<Keeper>,
    pub(super) keep_in: Option<PathBuf>,
    pub(super) hold: Duration,
    /// The newest revision applied, or the one of the table on disk.
    pub(super) seen: Revision,
    /// Whether only a new snapshot helps.
    pub(super) behind: bool,
    /// Whether problems may have changed that neither the model nor the compiler knows of.
    pub(super) news: bool,
    /// When it was last logged that the store is away.
    pub(super) complained: Option<Instant>,
    /// When a table was last put in force.
    published: Option<Instant>,
}

impl Control {
    /// A loop that has not begun; `listeners` are those of the command line. It believes every deletion and keeps
    /// nothing on disk. Call it inside a tokio runtime.
    pub fn new(state: Arc<State>, listeners: Listeners) -> Control {
        state.set_addresses(listeners.addresses());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Control {
            compiler: compiler(&state, None),
            state,
            zone: None,
            afresh: false,
            listeners,
            logged: BTreeSet::new(),
            absent: None,
            suspects: Suspects::new(Duration::ZERO),
            chores: Chores::new(tick, Instant::now()),
            ticket_keys: TicketKeys::default(),
            certificate_files: None,
            reread: Reread::default(),
            keeper: None,
            keep_in: None,
            hold: Duration::ZERO,
            seen: Revision::default(),
            behind: false,
            news: false,
            complained: None,
            published: None,
        }
    }

    /// Holds what vanishes in a mass for so long.
    pub fn holding(self, hold: Duration) -> Control {
        Control { suspects: Suspects::new(hold), hold, ..self }
    }

    /// Keeps the last table in a directory, and begins with the one that is there.
    pub fn keeping_in(self, dir: PathBuf) -> Control {
        Control { keep_in: Some(dir), ..self }
    }

    /// Uses the certificates in a directory, too.
    pub fn with_certificates_in(self, dir: Option<PathBuf>) -> Control {
        Control { certificate_files: dir.map(CertificateFiles::new), ..self }
    }

    /// Reads seal keys again from this file when told to.
    pub fn reading_again(self, seal_key: Option<PathBuf>) -> Control {
        Control { reread: Reread::new(seal_key), ..self }
    }

    /// The same, of a proxy in that zone.
    pub fn in_zone(self, zone: Option<String>) -> Control {
        Control { compiler: compiler(&self.state, zone.clone()), zone, ..self }
    }

    /// Follows the store until the process drains, and gives back the listeners and what ends when the last table is on
    /// disk. Following goes on without them: what still runs may take long, and servers come and go.
    pub async fn run(mut self) -> (Listeners, JoinHandle<()>) {
        let draining = self.state.draining.clone();
        draining.run_until_cancelled(self.follow_whatever_happens()).await;
        // Whatever was applied and not told yet is kept, too.
        self.tell();
        let keeper = self.keeper.take().map(|keeper| (keeper, self.kept()));
        let kept = tokio::spawn(async move {
            if let Some((keeper, kept)) = keeper {
                keeper.finish(kept).await;
            }
        });
        // What is on disk is for the next process, which may run already.
        self.keep_in = None;
        let listeners = std::mem::replace(&mut self.listeners, Listeners::new(Vec::new()));
        tokio::spawn(async move { self.follow_whatever_happens().await });
        (listeners, kept)
    }

    /// A bug of ours in following must not end it: the table in force serves on, and everything is read again.
    async fn follow_whatever_happens(&mut self) {
        while AssertUnwindSafe(self.follow()).catch_unwind().await.is_err() {
            tracing::error!("the control loop panicked: reading everything again");
            self.state.process.panics.add(1);
            *self.state.model_mut() = Model::default();
            // Its picture of the store is that of the model: with one alone, what is known would not be read again.
            self.suspects = Suspects::new(self.hold);
            self.compiler = compiler(&self.state, self.zone.clone());
            self.afresh = true;
            self.certificate_files.iter_mut().for_each(CertificateFiles::forget);
            tokio::time::sleep(AFTER_PANIC).await;
        }
    }

    async fn follow(&mut self) {
        let mut pause = Pause::default();
        let mut first = self.begin().await;
        loop {
            let snapshot = match first.take() {
                Some(snapshot) => snapshot,
                None => {
                    let engine = self.state.engine.clone();
                    self.meanwhile(async move { engine.snapshot().await }).await
                }
            };
            match snapshot {
                Ok(snapshot) => {
                    pause.reset();
                    self.replace(&snapshot).await;
                    self.watch(snapshot.revision).await;
                }
                Err(error) => {
                    self.lost(&error);
                    self.meanwhile(pause.wait()).await;
                }
            }
        }
    }

    /// Makes what serves equal to a snapshot, and publishes only what differs.
    async fn replace(&mut self, snapshot: &Batch) {
        let replaced = snapshot.revision < self.seen;
        if replaced {
            tracing::warn!(
                seen = self.seen.0,
                now = snapshot.revision.0,
                "the store's history went back: a backup was restored, or its data were lost"
            );
        }
        let mut delta = std::mem::take(&mut self.chores.pending);
        let diff = self.suspects.diff(snapshot);
        delta.merge(self.suspects.apply(&mut self.state.model_mut(), &diff, Instant::now(), replaced));
        self.seen = snapshot.revision;
        self.behind = false;
        self.state.set_store(|store| {
            store.snapshots += 1;
            store.from_disk = None;
        });
        self.publish(snapshot.revision, &delta).await;
    }

    /// Waits, while the chores go on.
    pub(super) async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        loop {
            let asked = tokio::select! {
                biased;
                done = &mut what => return done,
                asked = self.chores.due(&self.state.release) => asked,
            };
            self.do_chores(asked).await;
        }
    }

    /// Applies revisions as they come. Returns when only a new snapshot helps.
    async fn watch(&mut self, from: Revision) {
        let mut seen = from;
        let mut again = false;
        let mut pause = Pause::default();
        loop {
            let engine = self.state.engine.clone();
            let watch = self.meanwhile(async move { engine.watch(seen).await }).await;
            let error = match watch {
                Ok(mut batches) => {
                    self.follows(again);
                    let before = seen;
                    let error = self.apply_all(&mut batches, &mut seen).await;
                    if seen > before {
                        pause.reset();
                    }
                    error
                }
                Err(error) => error,
            };
            again = true;
            self.lost(&error);
            if matches!(error, Error::Compacted { .. }) {
                return;
            }
            self.meanwhile(pause.wait()).await;
        }
    }

    async fn apply_all(
        &mut self,
        batches: &mut BoxStream<'static, Result<Batch, Error>>,
        seen: &mut Revision,
    ) -> Error {
        loop {
            let asked = tokio::select! {
                biased;
                next = batches.next() => Err(next),
                asked = self.chores.due(&self.state.release) => Ok(asked),
            };
            let mut next = match asked {
                Err(next) => next,
                Ok(asked) => {
                    self.do_chores(asked).await;
                    if self.behind {
                        return Error::Compacted { oldest: Revision::default() };
                    }
                    continue;
                }
            };
            let mut delta = Delta::default();
            let mut taken = 0;
            let ended = loop {
                match next {
                    Some(Ok(batch)) => {
                        self.chores.resync.brought(&batch);
                        delta.merge(self.suspects.apply(&mut self.state.model_mut(), &batch, Instant::now(), false));
                        *seen = batch.revision;
                        self.seen = batch.revision;
                        taken += 1;
                    }
                    Some(Err(error)) => break Some(error),
                    None => break Some(Error::Unavailable { context: "the watch ended".into(), source: None }),
                }
                // Everything that waits becomes one table. Nothing is waited for, but in a storm of changes: a table for
                // each of them would take the time from what they are for.
                let rest = self.published.map_or(Duration::ZERO, |at| BETWEEN_TABLES.saturating_sub(at.elapsed()));
                let waiting = match batches.next().now_or_never() {
                    None if !rest.is_zero() => tokio::time::timeout(rest, batches.next()).await.ok(),
                    waiting => waiting,
                };
                next = match waiting {
                    Some(next) if taken < MOST_BATCHES => next,
                    Some(next) => {
                        self.publish(*seen, &delta).await;
                        delta = Delta::default();
                        taken = 0;
                        next
                    }
                    None => break None,
                };
            };
            if taken > 0 {
                self.publish(*seen, &delta).await;
            }
            // However much comes, what has its own time gets it.
            if self.chores.are_late() {
                self.do_chores(false).await;
            }
            if let Some(error) = ended {
                return error;
            }
        }
    }

    /// Tries once more to listen where that failed: somebody may have left the address.
    pub(super) async fn retry_listeners(&mut self) {
        if !self.listeners.problems().is_empty() {
            let wanted = self.state.live.table().listeners.clone();
            self.listeners.reconcile(&wanted).await;
            self.state.set_addresses(self.listeners.addresses());
            self.look_for_ourselves();
            self.news = true;
        }
    }

    pub(super) async fn publish(&mut self, revision: Revision, delta: &Delta) {
        let current = self.state.live.table();
        let next = {
            let model = self.state.model();
            let nothing = Table::default();
            let before = if std::mem::take(&mut self.afresh) { &nothing } else { &*current };
            let mut next = self.compiler.compile(&model, delta, before);
            next.revision = revision;
            next
        };
        // The first time, what came with the process is settled even if there is no listener.
        let listeners_changed =
            !Arc::ptr_eq(&next.listeners, &current.listeners) || self.state.store().revision.is_none();
        let listeners = next.listeners.clone();
        drop(self.state.live.publish(next));
        self.published = Some(Instant::now());
        self.compiler.tell_waiting();
        drop(current);
        if listeners_changed {
            self.listeners.reconcile(&listeners).await;
            self.state.set_addresses(self.listeners.addresses());
            self.look_for_ourselves();
        }
        self.keep_tickets(!delta.shared.is_empty()).await;
        self.news |= delta.problems
            | !delta.hosts.is_empty()
            | !delta.shared.is_empty()
            | self.compiler.take_changed()
            | listeners_changed;
        self.tell();
        // Whoever waits for a revision finds its listeners open, and what is wrong with it told.
        self.state.set_store(|store| {
            store.revision = Some(revision);
            store.publishes += 1;
            if store.from_disk.is_none() {
                store.heard = Some(Instant::now());
            }
        });
        // That there was no revision yet, or none for long, may have been wrong, too.
        self.tell();
    }
}

fn compiler(state: &State, zone: Option<String>) -> Compiler {
    Compiler::new(zone, state.keyring()).with_acme(state.acme.settings.clone()).answering_at(state.answers_at())
}

/// A pause that grows, with jitter, so that a fleet does not come back to its store all at once.
#[derive(Default)]
struct Pause {
    failures: u32,
}

impl Pause {
    async fn wait(&mut self) {
        let longest = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures += 1;
        tokio::time::sleep(longest.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }

    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// How long after a panic everything is read again.
const AFTER_PANIC: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Short enough that a change is live within a second after the store has come back.
const LONGEST_PAUSE: Duration = Duration::from_millis(700);
/// From one table to the next, while changes are read off the watch: short beside what a change takes to get here.
const BETWEEN_TABLES: Duration = Duration::from_millis(2);
/// Revisions that become one table at most.
const MOST_BATCHES: u32 = 1000;
const TICK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
