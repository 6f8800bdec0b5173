//! What the control loop shows to the admin side: read-only views, each replaced whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use etna_store::object::Id;
use etna_store::{Engine, Model, Problem, Revision};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::upgrades::Upgrades;
use crate::stats::Process;
use crate::table::LiveTable;

/// Everything the admin side may look at.
pub struct State {
    /// The table in force.
    pub live: Arc<LiveTable>,
    /// What the process counts.
    pub process: Arc<Process>,
    /// The store.
    pub engine: Arc<dyn Engine>,
    /// Cancelled when the process is told to drain: from then on it is not ready.
    pub draining: CancellationToken,
    /// How replacing the binary went.
    pub upgrades: Upgrades,
    /// When the process started.
    pub started: Instant,
    model: RwLock<Model>,
    problems: watch::Sender<Arc<[Problem]>>,
    store: watch::Sender<StoreStatus>,
    addresses: watch::Sender<BTreeMap<Id, SocketAddr>>,
}

/// How following the store goes.
#[derive(Clone, Debug)]
pub struct StoreStatus {
    /// The revision in force; `None` until the first snapshot.
    pub revision: Option<Revision>,
    /// Whether changes arrive now.
    pub following: bool,
    /// When the store was last heard of.
    pub heard: Option<Instant>,
    /// Why changes do not arrive.
    pub error: Option<String>,
    /// Snapshots taken so far.
    pub snapshots: u64,
    /// Tables published so far.
    pub publishes: u64,
}

impl State {
    /// The state of a process that has not heard of its store yet.
    pub fn new(engine: Arc<dyn Engine>) -> State {
        let store =
            StoreStatus { revision: None, following: false, heard: None, error: None, snapshots: 0, publishes: 0 };
        State {
            live: Arc::default(),
            process: Arc::default(),
            engine,
            draining: CancellationToken::new(),
            upgrades: Upgrades::default(),
            started: Instant::now(),
            model: RwLock::default(),
            problems: watch::Sender::new(Arc::from([])),
            store: watch::Sender::new(store),
            addresses: watch::Sender::new(BTreeMap::new()),
        }
    }

    /// The decoded objects. Held for as short as possible: the control loop waits.
    pub fn model(&self) -> RwLockReadGuard<'_, Model> {
        self.model.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn model_mut(&self) -> RwLockWriteGuard<'_, Model> {
        self.model.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why stored objects are not served as written, by key.
    pub fn problems(&self) -> Arc<[Problem]> {
        self.problems.borrow().clone()
    }

    pub(super) fn set_problems(&self, problems: Arc<[Problem]>) {
        self.problems.send_replace(problems);
    }

    /// How following the store goes.
    pub fn store(&self) -> StoreStatus {
        self.store.borrow().clone()
    }

    /// Tells when that changes.
    pub fn subscribe_store(&self) -> watch::Receiver<StoreStatus> {
        self.store.subscribe()
    }

    pub(super) fn set_store(&self, change: impl FnOnce(&mut StoreStatus)) {
        self.store.send_modify(change);
    }

    /// What we listen on, by listener.
    pub fn addresses(&self) -> BTreeMap<Id, SocketAddr> {
        self.addresses.borrow().clone()
    }

    pub(super) fn set_addresses(&self, addresses: BTreeMap<Id, SocketAddr>) {
        self.addresses.send_replace(addresses);
    }

    /// Whether requests can be served: a table is in force and nobody told us to go.
    pub fn is_ready(&self) -> bool {
        self.store.borrow().revision.is_some() && !self.draining.is_cancelled()
    }
}
