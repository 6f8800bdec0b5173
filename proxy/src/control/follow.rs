//! Following the store: snapshot, then watch, then again whatever the store does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etna_store::{Batch, Delta, Error, Problem, Revision};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};

use super::state::State;
use crate::listener::Listeners;
use crate::table::compile::Compiler;

/// The control loop.
pub struct Control {
    state: Arc<State>,
    compiler: Compiler,
    listeners: Listeners,
    /// What is known to be wrong, to log only what is new.
    logged: BTreeSet<Problem>,
}

impl Control {
    /// A loop that has not begun; `listeners` are those of the command line.
    pub fn new(state: Arc<State>, listeners: Listeners) -> Control {
        state.set_addresses(listeners.addresses());
        Control { state, compiler: Compiler::default(), listeners, logged: BTreeSet::new() }
    }

    /// Follows the store until the process drains, and gives the listeners back. Following goes on without them: what
    /// still runs may take long, and servers come and go.
    pub async fn run(mut self) -> Listeners {
        let draining = self.state.draining.clone();
        draining.run_until_cancelled(self.follow()).await;
        let listeners = std::mem::replace(&mut self.listeners, Listeners::new(Vec::new()));
        tokio::spawn(async move { self.follow().await });
        listeners
    }

    async fn follow(&mut self) {
        let mut pause = Pause::default();
        loop {
            match self.state.engine.snapshot().await {
                Ok(snapshot) => {
                    pause.reset();
                    self.state.set_store(|store| store.snapshots += 1);
                    let delta = self.state.model_mut().replace(&snapshot);
                    self.publish(snapshot.revision, &delta).await;
                    self.watch(snapshot.revision).await;
                }
                Err(error) => {
                    self.lost(&error);
                    pause.wait().await;
                }
            }
        }
    }

    /// Applies revisions as they come. Returns when only a new snapshot helps.
    async fn watch(&mut self, from: Revision) {
        let mut seen = from;
        let mut pause = Pause::default();
        loop {
            let error = match self.state.engine.watch(seen).await {
                Ok(mut batches) => {
                    self.state.set_store(|store| {
                        store.following = true;
                        store.error = None;
                        store.heard = Some(Instant::now());
                    });
                    let before = seen;
                    let error = self.apply_all(&mut batches, &mut seen).await;
                    if seen > before {
                        pause.reset();
                    }
                    error
                }
                Err(error) => error,
            };
            self.lost(&error);
            if matches!(error, Error::Compacted { .. }) {
                return;
            }
            pause.wait().await;
        }
    }

    async fn apply_all(
        &mut self,
        batches: &mut BoxStream<'static, Result<Batch, Error>>,
        seen: &mut Revision,
    ) -> Error {
        loop {
            let mut next = self.wait_for(batches).await;
            let mut delta = Delta::default();
            let mut taken = 0;
            let ended = loop {
                match next {
                    Some(Ok(batch)) => {
                        merge(&mut delta, self.state.model_mut().apply(&batch));
                        *seen = batch.revision;
                        taken += 1;
                    }
                    Some(Err(error)) => break Some(error),
                    None => break Some(Error::Unavailable { context: "the watch ended".into(), source: None }),
                }
                // Everything that waits becomes one table; nothing is waited for.
                next = match batches.next().now_or_never() {
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
            if let Some(error) = ended {
                return error;
            }
        }
    }

    /// The next batch. Meanwhile addresses that could not be listened on are tried again: somebody may have left them.
    async fn wait_for(
        &mut self,
        batches: &mut BoxStream<'static, Result<Batch, Error>>,
    ) -> Option<Result<Batch, Error>> {
        loop {
            if self.listeners.problems().is_empty() {
                return batches.next().await;
            }
            if let Ok(next) = tokio::time::timeout(BETWEEN_BINDS, batches.next()).await {
                return next;
            }
            let wanted = self.state.live.table().listeners.clone();
            self.listeners.reconcile(&wanted).await;
            self.state.set_addresses(self.listeners.addresses());
            self.show_problems();
        }
    }

    async fn publish(&mut self, revision: Revision, delta: &Delta) {
        let current = self.state.live.table();
        let next = {
            let model = self.state.model();
            let mut next = self.compiler.compile(&model, delta, &current);
            next.revision = revision;
            next
        };
        // The first time, what came with the process is settled even if there is no listener.
        let listeners_changed =
            !Arc::ptr_eq(&next.listeners, &current.listeners) || self.state.store().revision.is_none();
        let listeners = next.listeners.clone();
        drop(self.state.live.publish(next));
        drop(current);
        if listeners_changed {
            self.listeners.reconcile(&listeners).await;
            self.state.set_addresses(self.listeners.addresses());
        }
        // Whoever waits for a revision finds its listeners open.
        self.state.set_store(|store| {
            store.revision = Some(revision);
            store.publishes += 1;
            store.heard = Some(Instant::now());
        });
        if delta.problems || self.compiler.take_changed() || listeners_changed {
            self.show_problems();
        }
    }

    fn show_problems(&mut self) {
        let problems: BTreeSet<Problem> = {
            let model = self.state.model();
            let all = model.problems().chain(self.compiler.problems()).chain(self.listeners.problems());
            all.cloned().collect()
        };
        for problem in problems.difference(&self.logged).take(MOST_LOGGED) {
            tracing::warn!(key = %problem.key, reason = %problem.reason, hint = %problem.hint, effect = %problem.effect, "problem");
        }
        for problem in self.logged.difference(&problems).take(MOST_LOGGED) {
            tracing::info!(key = %problem.key, reason = %problem.reason, "problem solved");
        }
        self.state.set_problems(problems.iter().cloned().collect());
        self.logged = problems;
    }

    fn lost(&self, error: &Error) {
        let text = describe(error);
        let store = self.state.store();
        if store.error.as_ref() != Some(&text) {
            tracing::warn!(store = %self.state.engine.describe(), error = %text, "not following the store");
        }
        self.state.set_store(|store| {
            store.following = false;
            store.error = Some(text);
        });
    }
}

fn merge(into: &mut Delta, delta: Delta) {
    into.frontends.extend(delta.frontends);
    into.backends.extend(delta.backends);
    into.listeners.extend(delta.listeners);
    into.hosts.extend(delta.hosts);
    into.problems |= delta.problems;
}

/// An error with its causes, on one line.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
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

const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Short enough that a change is live within two seconds after the store has come back.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Between two attempts to listen on an address that is taken.
const BETWEEN_BINDS: Duration = Duration::from_secs(1);
/// Revisions that become one table at most.
const MOST_BATCHES: u32 = 1000;
const MOST_LOGGED: usize = 100;
