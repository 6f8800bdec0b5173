//! The announcement in one store: a lease, the keys under it, and the loop that keeps both.
//!
//! What stands there is read again every third of the TTL: who deletes a key by mistake gets it back. It goes on for
//! ever, whatever the store does; the lease's renewal is a task of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etna_store::engine::Options;
use etna_store::lease::{Keeper, Lease, Notebook, within};
use etna_store::pace::Backoff;
use etna_store::{Compare, Engine, Error, Key, LeaseId, Op, Problem, Txn, with_causes};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::record::{self, Decision, Entry, Proxy};
use super::settings::Announce;
use super::status::Standing;
use super::{Stage, url};
use crate::control::State;

/// A store to announce in.
pub(super) enum Store {
    /// The one that is followed.
    Open(Arc<dyn Engine>),
    /// Another one.
    Url(String, Options),
}

/// The announcement in one store.
pub(super) struct Place {
    number: usize,
    store: Store,
    entries: Vec<Entry>,
    proxy: Proxy,
    announce: Announce,
    notes: PathBuf,
    state: Arc<State>,
    /// Whether this process has written there, so that what stands under its lease is its own.
    known: bool,
    /// Whether the backend is there.
    has_backend: bool,
}

/// Why a store does not say what it should.
enum Failure {
    /// Nobody said where the proxy is reached, and it cannot be found out.
    Nowhere(&'static str),
    /// The key is somebody else's.
    Taken(String, String),
    /// The store said so.
    Store(Error),
    /// There is no lease, or it is not renewed.
    Lease(String),
}

impl Place {
    pub(super) fn new(
        number: usize,
        store: Store,
        entries: Vec<Entry>,
        proxy: Proxy,
        announce: &Announce,
        notes: PathBuf,
        state: Arc<State>,
    ) -> Place {
        let announce = announce.clone();
        Place { number, store, entries, proxy, announce, notes, state, known: false, has_backend: false }
    }

    /// The store in words.
    pub(super) fn describe(&self) -> String {
        match &self.store {
            Store::Open(engine) => engine.describe(),
            Store::Url(url, _) => url.clone(),
        }
    }

    /// The key that it is all about.
    pub(super) fn first_key(&self) -> String {
        self.entries.first().map(Entry::path).unwrap_or_default()
    }

    /// Keeps the announcement until it is to go.
    pub(super) async fn run(mut self, mut stage: watch::Receiver<Stage>) {
        let Some(engine) = self.open(&mut stage).await else { return };
        let notebook = Notebook::new(self.notes.clone(), &engine.describe(), &self.announce.id);
        let (keeper, mut lease) = Keeper::new(engine.clone(), self.announce.ttl, notebook);
        let _keeper = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
        let mut backoff = Backoff::default();
        loop {
            let now = *stage.borrow_and_update();
            if now == Stage::Gone {
                break;
            }
            let held = *lease.id.borrow_and_update();
            lease.trouble.mark_unchanged();
            let settled = tokio::select! {
                settled = self.settle(engine.as_ref(), held, &lease, now == Stage::Draining) => settled,
                // Whatever the store is busy with: what has changed is more urgent.
                changed = stage.changed() => if changed.is_ok() { continue } else { return },
            };
            let pause = match &settled {
                Ok(()) => {
                    backoff.succeeded();
                    self.announce.ttl / 3
                }
                Err(Failure::Taken(..)) => TAKEN.min(self.announce.ttl / 3),
                // The lease's keeper tries on.
                Err(Failure::Lease(_)) => self.announce.ttl / 3,
                Err(Failure::Nowhere(_) | Failure::Store(_)) => backoff.failed(),
            };
            self.tell(settled.err());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = stage.changed() => if changed.is_err() { return },
                changed = lease.id.changed() => if changed.is_err() { return },
                changed = lease.trouble.changed() => if changed.is_err() { return },
            }
        }
        let held = *lease.id.borrow();
        self.withdraw(engine.as_ref(), held).await;
    }

    /// Opens the store, however often that takes; `None` when it is to go before.
    async fn open(&mut self, stage: &mut watch::Receiver<Stage>) -> Option<Arc<dyn Engine>> {
        let (url, options) = match &self.store {
            Store::Open(engine) => return Some(engine.clone()),
            Store::Url(url, options) => (url.clone(), options.clone()),
        };
        let mut backoff = Backoff::default();
        loop {
            match within("opening the store", etna_store::open(&url, &options)).await {
                Ok(engine) => return Some(engine),
                Err(error) => self.tell(Some(Failure::Store(error))),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.failed()) => {}
                gone = stage.wait_for(|stage| *stage == Stage::Gone) => {
                    let _ = gone;
                    return None;
                }
            }
        }
    }

    /// Makes the store say what it should.
    async fn settle(
        &mut self,
        engine: &dyn Engine,
        held: Option<LeaseId>,
        lease: &Lease,
        draining: bool,
    ) -> Result<(), Failure> {
        let trouble = || lease.trouble.borrow().clone();
        let Some(held) = held else {
            // Not a failure before one was heard of.
            return trouble().map_or(Ok(()), |trouble| Err(Failure::Lease(trouble)));
        };
        let url = match &self.announce.url {
            Some(url) => url.clone(),
            None => url::find(&self.state.addresses()).map_err(Failure::Nowhere)?,
        };
        let without_backend = self.ensure_backend(engine).await.err();
        let mut txn = Txn::default();
        for entry in &self.entries {
            let path = entry.path();
            let item = within(&format!("reading {path}"), engine.get(&path)).await.map_err(Failure::Store)?;
            match self.proxy.decide(entry, &url, draining, item.as_ref(), held, self.known) {
                Decision::Leave => {}
                Decision::Write(compare, op) => {
                    txn.compares.push(compare);
                    txn.ops.push(op);
                }
                Decision::Taken(why) => return Err(Failure::Taken(path, why)),
            }
        }
        if !txn.ops.is_empty() {
            let written = within("writing the announcement", engine.commit(txn)).await;
            if matches!(written, Err(Error::LeaseLost)) {
                lease.doubt.notify_one();
            }
            written.map_err(Failure::Store)?;
        }
        self.known = true;
        let standing = if draining { Standing::Draining } else { Standing::Announced };
        if self.state.announced.stands(self.number, standing, Some(&url), Some(held)) {
            let (store, key, lease) = (self.describe(), self.first_key(), held.0);
            tracing::info!(store, key, url, lease, draining, "announced");
        }
        match (without_backend, trouble()) {
            (Some(error), _) => Err(Failure::Store(error)),
            (None, Some(trouble)) => Err(Failure::Lease(trouble)),
            (None, None) => Ok(()),
        }
    }

    /// Creates the backend where there is none; what is there is an operator's.
    async fn ensure_backend(&mut self, engine: &dyn Engine) -> Result<(), Error> {
        let is_member = |entry: &Entry| matches!(entry, Entry::Member(_));
        if self.has_backend || self.entries.iter().all(is_member) {
            return Ok(());
        }
        let key = Key::Backend(self.announce.backend.as_str().into());
        let path = key.path();
        self.has_backend = within(&format!("reading {path}"), engine.get(&path)).await?.is_some();
        if let (false, Some(short)) = (self.has_backend, key.short_path()) {
            // A role for `backends/cores/` does not cover it: then nobody with that role has written it.
            let read = within(&format!("reading {short}"), engine.get(&short)).await;
            self.has_backend = matches!(read, Ok(Some(_)));
        }
        if self.has_backend {
            return Ok(());
        }
        let value = record::backend(&self.announce.backend);
        let txn = Txn { compares: vec![Compare::Absent(path.clone())], ops: vec![Op::Put(path.clone(), value, None)] };
        match within(&format!("writing {path}"), engine.commit(txn)).await {
            Ok(_) => tracing::info!(store = self.describe(), key = path, "created the backend of announced proxies"),
            // Another proxy was faster.
            Err(Error::Conflict) => {}
            Err(error) => return Err(error),
        }
        self.has_backend = true;
        Ok(())
    }

    /// Takes it back: with the lease go the keys under it, and no others. A successor's are under the successor's.
    async fn withdraw(&self, engine: &dyn Engine, held: Option<LeaseId>) {
        let Some(held) = held.filter(|_| self.known) else { return };
        match within("revoking the lease", engine.revoke(held)).await {
            Ok(()) => {
                self.state.announced.stands(self.number, Standing::Absent, None, None);
                tracing::info!(store = self.describe(), key = self.first_key(), "no longer announced");
            }
            Err(error) => {
                let (error, ttl_seconds) = (with_causes(&error), self.announce.ttl.as_secs());
                tracing::warn!(store = self.describe(), error, ttl_seconds, "announced until the lease ends");
            }
        }
    }

    fn tell(&self, failure: Option<Failure>) {
        let problem = failure.map(|failure| self.problem(failure));
        let said = problem.as_ref().map(|problem| (problem.key.clone(), problem.reason.clone()));
        if let (true, Some((key, reason))) = (self.state.announced.tell(self.number, problem), said) {
            tracing::warn!(store = self.describe(), key, reason, "the announcement is not as it should be; trying on");
        }
    }

    fn problem(&self, failure: Failure) -> Problem {
        let (store, id, backend) = (self.describe(), &self.announce.id, &self.announce.backend);
        let mut key = self.first_key();
        let unwritten = |why: String| format!("the proxy is not announced in {store}: {why}");
        let (reason, hint) = match failure {
            Failure::Nowhere(why) => {
                (unwritten(why.into()), "say where other machines reach it: --announce-url http://HOST:PORT".into())
            }
            Failure::Taken(path, why) => {
                key = path;
                let hint = "give each proxy a name of its own with --announce; what another one left goes with its \
                            lease, what was put by hand with `etnactl key rm`";
                (unwritten(why), hint.to_owned())
            }
            Failure::Lease(why) => {
                (format!("the lease of the announcement in {store} is not renewed: {why}"), HINT_STORE.into())
            }
            Failure::Store(error) => {
                let hint = match &error {
                    Error::Denied { .. } => format!(
                        "grant the user of --store-user reading and writing of backends/{backend}/ and proxies/{id} there"
                    ),
                    _ => HINT_STORE.into(),
                };
                (unwritten(with_causes(&error)), hint)
            }
        };
        let effect = match (self.state.announced.standing(self.number), self.entries.first()) {
            (Standing::Absent, Some(Entry::Server(_))) => "proxies that follow that store give it no requests".into(),
            (Standing::Absent, _) => "`etnactl proxies ls` does not show it".into(),
            _ => format!("what stands there ends {} s after it was renewed last", self.announce.ttl.as_secs()),
        };
        Problem { key, reason, hint, line: None, column: None, effect }
    }
}

const HINT_STORE: &str = "start that store, or correct --announce-store and the credentials";
/// How often a name that is taken is asked for again.
const TAKEN: Duration = Duration::from_secs(1);
