//! What the control loop shows to the admin side: read-only views, each replaced whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use etna_store::object::Id;
use etna_store::seal::Keyring;
use etna_store::{Engine, Model, Problem, Revision};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing_appender::non_blocking::ErrorCounter;

use super::suspect::Case;
use super::upgrades::Upgrades;
use crate::announce::Announced;
use crate::config::AdminAddress;
use crate::stats::Process;
use crate::table::LiveTable;
use crate::tls::tickets::{Epoch, Tickets};

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
    /// What health checks count.
    pub health: crate::health::Totals,
    /// How replacing the binary went.
    pub upgrades: Upgrades,
    /// How this process is announced to the tier in front.
    pub announced: Announced,
    /// Seals and opens tickets of TLS sessions.
    pub tickets: Arc<Tickets>,
    /// Counts lines of the log that were lost.
    pub log_lost: Option<ErrorCounter>,
    /// How the access log stands, where there is one.
    pub access: Option<Arc<crate::access::Status>>,
    /// What this proxy does for certificates by ACME.
    pub acme: crate::acme::Status,
    /// Goes up as long as the control loop moves.
    pub beat: Arc<AtomicU32>,
    /// When the process started.
    pub started: Instant,
    keyring: RwLock<Option<Arc<Keyring>>>,
    model: RwLock<Model>,
    problems: watch::Sender<Arc<[Problem]>>,
    store: watch::Sender<StoreStatus>,
    addresses: watch::Sender<BTreeMap<Id, SocketAddr>>,
    /// Of the admin API, where it has one that servers could have.
    admin: OnceLock<SocketAddr>,
    suspects: watch::Sender<SuspectStatus>,
    pub(super) release: Notify,
    pub(super) reread: AtomicBool,
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
    /// While the table in force was read from disk: when it was read, and how old it was then.
    pub from_disk: Option<(Instant, Duration)>,
    /// Snapshots taken so far.
    pub snapshots: u64,
    /// Tables published so far.
    pub publishes: u64,
    /// Comparisons with the store while following it, so far.
    pub resyncs: u64,
    /// Keys in which they found a difference.
    pub differences: u64,
    /// Times the last table was written to disk.
    pub kept: u64,
    /// Its revision there, once this process wrote it.
    pub kept_revision: Option<Revision>,
    /// Times it could not be, or could not be read.
    pub keep_errors: u64,
}

impl StoreStatus {
    /// Whether what is served may differ from what is stored, because changes do not arrive.
    pub fn is_stale(&self) -> bool {
        self.revision.is_some() && (self.from_disk.is_some() || !self.following)
    }

    /// How long ago the store was heard of, in an earlier process if need be.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        match (self.from_disk, self.heard) {
            (Some((read, age)), _) => Some(age + now.saturating_duration_since(read)),
            (None, heard) => heard.map(|heard| now.saturating_duration_since(heard)),
        }
    }
}

/// What is held as suspect.
#[derive(Clone, Debug, Default)]
pub struct SuspectStatus {
    /// What vanished together, the oldest first.
    pub cases: Arc<[Case]>,
    /// Keys that are held, at most a thousand of them are shown.
    pub keys: Arc<[Bytes]>,
    /// How many are held.
    pub count: usize,
    /// How many ever were.
    pub total: u64,
}

impl State {
    /// The state of a process that has not heard of its store yet.
    pub fn new(engine: Arc<dyn Engine>) -> State {
        let store = StoreStatus {
            revision: None,
            following: false,
            heard: None,
            error: None,
            from_disk: None,
            snapshots: 0,
            publishes: 0,
            resyncs: 0,
            differences: 0,
            kept: 0,
            kept_revision: None,
            keep_errors: 0,
        };
        State {
            live: Arc::default(),
            process: Arc::default(),
            engine,
            draining: CancellationToken::new(),
            health: crate::health::Totals::default(),
            upgrades: Upgrades::default(),
            announced: Announced::default(),
            tickets: Tickets::new(Epoch::at(SystemTime::now())),
            log_lost: None,
            access: None,
            acme: crate::acme::Status::default(),
            beat: Arc::default(),
            started: Instant::now(),
            keyring: RwLock::default(),
            model: RwLock::default(),
            problems: watch::Sender::new(Arc::from([])),
            store: watch::Sender::new(store),
            addresses: watch::Sender::new(BTreeMap::new()),
            admin: OnceLock::new(),
            suspects: watch::Sender::default(),
            release: Notify::new(),
            reread: AtomicBool::new(false),
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

    /// What is held as suspect.
    pub fn suspects(&self) -> SuspectStatus {
        self.suspects.borrow().clone()
    }

    /// Tells when that changes.
    pub fn subscribe_suspects(&self) -> watch::Receiver<SuspectStatus> {
        self.suspects.subscribe()
    }

    pub(super) fn set_suspects(&self, suspects: SuspectStatus) {
        self.suspects.send_replace(suspects);
    }

    /// Makes the control loop believe what it holds as suspect.
    pub fn release_suspects(&self) {
        self.release.notify_one();
    }

    /// Makes the control loop read its files again: seal keys, certificates, and what the store is shown.
    pub fn read_again(&self) {
        self.reread.store(true, Ordering::Relaxed);
    }

    /// What opens sealed key pairs now.
    pub fn keyring(&self) -> Option<Arc<Keyring>> {
        self.keyring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these open sealed key pairs, and seal those that come in the clear. The table in force stays as it is.
    pub fn set_keyring(&self, keyring: Option<Arc<Keyring>>) {
        *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = keyring;
    }

    /// What we listen on, by listener.
    pub fn addresses(&self) -> BTreeMap<Id, SocketAddr> {
        self.addresses.borrow().clone()
    }

    pub(super) fn set_addresses(&self, addresses: BTreeMap<Id, SocketAddr>) {
        self.addresses.send_replace(addresses);
    }

    /// Where the admin API is, from the beginning on.
    pub fn set_admin(&self, address: &AdminAddress) {
        if let AdminAddress::Tcp(address) = address {
            let _ = self.admin.set(*address);
        }
    }

    /// Everywhere this process answers.
    pub(super) fn answers_at(&self) -> Vec<SocketAddr> {
        self.addresses.borrow().values().chain(self.admin.get()).copied().collect()
    }

    /// Whether requests can be served: a table is in force and nobody told us to go.
    pub fn is_ready(&self) -> bool {
        self.store.borrow().revision.is_some() && !self.draining.is_cancelled()
    }
}
