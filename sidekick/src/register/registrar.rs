//! The only one who writes: follows the wanted set and the lease, and makes the store equal to them.
//!
//! It keeps a copy of what the store holds and reads it anew at the start, after every trouble, and key by key once a
//! minute; between those it trusts the copy. While the store is away it keeps trying and the wanted set goes on
//! changing; what is written afterwards is the difference at that time, not the history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etna_store::pace::{Backoff, Throttle};
use etna_store::{Batch, Engine, Error, Item, LeaseId, Op};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::plan::{Held, HeldServer, Step, plan};
use super::record::{self, Machine};
use crate::notify::{Beat, Board};
use crate::wanted::{self, Wanted};
use etna_store::lease::{Lease, within, within_long};

/// How many keys are read at a time.
const READS: usize = 16;

/// How often a plan is made anew because somebody else wrote in between, before it counts as trouble.
const CONFLICTS_MAX: usize = 8;

/// Why the store is not yet as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The store said so.
    #[error(transparent)]
    Store(#[from] Error),
    /// Others kept writing the same keys.
    #[error("others keep changing the sites of this machine's containers; trying again")]
    Contended,
    /// There is no lease to write under.
    #[error("there is no lease yet")]
    NoLease,
}

/// Makes the store equal to what is wanted.
pub struct Registrar {
    engine: Arc<dyn Engine>,
    machine: Machine,
    lease: Lease,
    held: Held,
    /// The copy is not known to be true any more.
    stale: bool,
    /// The lease the copy was read under.
    under: Option<LeaseId>,
    /// Sites whose hosts an operator decides, each said once.
    told: BTreeSet<String>,
    board: Board,
    /// Only this container's servers are ours to write; the machine has other sidekicks.
    only: Option<String>,
}

impl Registrar {
    /// A registrar that has read and written nothing yet.
    ///
    /// With `only` (a container's name or id) it leaves all other servers of this machine alone.
    pub fn new(
        engine: Arc<dyn Engine>,
        machine: Machine,
        lease: Lease,
        board: Board,
        only: Option<String>,
    ) -> Registrar {
        Registrar {
            engine,
            machine,
            lease,
            held: Held::default(),
            stale: true,
            under: None,
            told: BTreeSet::new(),
            board,
            only,
        }
    }

    /// Follows `wanted` until it ends or `stop` is cancelled. `None` means that nothing is known of what runs yet:
    /// nothing is written.
    pub async fn run(mut self, mut wanted: watch::Receiver<Option<Wanted>>, stop: CancellationToken, beat: Beat) {
        let (mut backoff, mut throttle) = (Backoff::default(), Throttle::default());
        let mut check = tokio::time::interval(Duration::from_secs(60));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        check.reset();
        let mut lease = self.lease.id.clone();
        let mut pulse = tokio::time::interval(Duration::from_secs(5));
        loop {
            beat.now();
            let now = wanted.borrow_and_update().clone();
            lease.mark_unchanged();
            let retry = match now {
                None => None,
                Some(now) => match self.settle(&now).await {
                    Ok(()) => {
                        backoff.succeeded();
                        self.board.store("ok");
                        None
                    }
                    Err(Failure::NoLease) => None,
                    Err(failure) => {
                        self.stale = true;
                        self.board.store("not answering");
                        if throttle.admits(Instant::now()) {
                            let error = &failure as &dyn std::error::Error;
                            tracing::warn!(event = "store-trouble", error, "the store is not up to date; trying again");
                        }
                        Some(backoff.failed())
                    }
                },
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = wanted.changed() => if changed.is_err() { return },
                changed = lease.changed() => if changed.is_err() { return },
                _ = check.tick() => self.check().await,
                () = sleep(retry) => {}
                _ = pulse.tick() => {}
            }
        }
    }

    /// Makes the store equal to `wanted` now.
    pub async fn settle(&mut self, wanted: &Wanted) -> Result<(), Failure> {
        let lease = (*self.lease.id.borrow()).ok_or(Failure::NoLease)?;
        // The last lease may have ended with the store it was granted by.
        if self.stale || self.under != Some(lease) {
            self.held = self.read(wanted).await?;
            self.stale = false;
            self.under = Some(lease);
        }
        for _ in 0..CONFLICTS_MAX {
            let steps = plan(wanted, &self.machine, &self.held, lease);
            if steps.is_empty() {
                self.tell_of_foreign_sites(wanted);
                self.board.servers(self.held.servers.len());
                return Ok(());
            }
            let mut refused = None;
            for step in steps {
                match self.commit(step, lease).await {
                    Ok(()) => {}
                    // What the store will not take of one container is no reason to hold back the others.
                    Err(failure @ Failure::Store(Error::Invalid { .. } | Error::Denied { .. })) => {
                        refused = Some(failure)
                    }
                    Err(failure) => return Err(failure),
                }
            }
            if let Some(failure) = refused {
                return Err(failure);
            }
        }
        Err(Failure::Contended)
    }

    /// What [`Registrar::settle`] would write; reads the store, writes nothing.
    /// `lease` is the one noted last, if any.
    pub async fn plan(&mut self, wanted: &Wanted, lease: Option<LeaseId>) -> Result<Vec<Step>, Failure> {
        let held = self.read(wanted).await?;
        Ok(plan(wanted, &self.machine, &held, lease.unwrap_or(LeaseId(0))))
    }

    async fn read(&self, wanted: &Wanted) -> Result<Held, Error> {
        let mut held = read(self.engine.as_ref(), &self.machine, wanted, &self.held).await?;
        if let Some(only) = &self.only {
            let names_it = |server: &HeldServer| {
                let server = record::Server::decode(&server.value);
                server.is_some_and(|server| server.meta.get("container") == Some(only))
            };
            let ids: BTreeSet<&str> = wanted.members.keys().map(String::as_str).collect();
            let is_it = |key: &str| {
                let id = self.machine.owns(key.as_bytes()).unwrap_or_default();
                only.starts_with(&id) || ids.iter().any(|member| member.starts_with(&id))
            };
            held.servers.retain(|key, server| names_it(server) || is_it(key));
        }
        Ok(held)
    }

    async fn commit(&mut self, step: Step, lease: LeaseId) -> Result<(), Failure> {
        match within("writing", self.engine.commit(step.txn.clone())).await {
            Ok(revision) => {
                for (op, (note, key)) in step.txn.ops.iter().zip(&step.notes) {
                    log(op, note, key);
                    self.held.note(op, revision);
                }
                Ok(())
            }
            Err(Error::Conflict) => {
                // Somebody wrote one of these keys first: see what it is now, and plan again.
                let keys: BTreeSet<String> = step.txn.ops.iter().map(key_of).filter(|key| !self.is_own(key)).collect();
                self.held.shared.extend(get_all(self.engine.as_ref(), keys).await?);
                Ok(())
            }
            Err(Error::LeaseLost) => {
                tracing::debug!(event = "lease-doubted", lease = lease.0, "the store does not know the lease");
                self.lease.doubt.notify_one();
                Err(Error::LeaseLost.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn is_own(&self, key: &str) -> bool {
        self.machine.owns(key.as_bytes()).is_some()
    }

    /// Reads again, key by key, what the copy says; what cannot be read stays as it was.
    async fn check(&mut self) {
        let keys = self.held.servers.keys().chain(self.held.shared.keys()).cloned().collect();
        match get_all(self.engine.as_ref(), keys).await {
            Ok(items) => {
                let before = std::mem::take(&mut self.held);
                for (key, item) in items {
                    if before.servers.contains_key(&key) {
                        self.held.servers.extend(item.map(|item| (key.clone(), before.server(&key, item))));
                    } else {
                        self.held.shared.insert(key, item);
                    }
                }
            }
            Err(_) => self.stale = true,
        }
    }

    /// Says once of each site that an operator wrote what it lacks of what containers claim.
    fn tell_of_foreign_sites(&mut self, wanted: &Wanted) {
        for member in wanted.members.values() {
            let key = record::site_key(&member.site);
            let Some(Some(item)) = self.held.shared.get(&key) else { continue };
            if record::Site::ours(&member.site, &item.value).is_some() {
                self.told.remove(&key);
                continue;
            }
            if self.told.insert(key.clone()) {
                let (public, admin) = (wanted::public_backend(&member.site), wanted::admin_backend(&member.site));
                tracing::info!(
                    event = "site-kept",
                    key,
                    hosts = member.hosts.join(","),
                    public,
                    admin,
                    "the site is an operator's and stays as written; it has to name these backends and hosts"
                );
            }
        }
    }
}

impl Held {
    fn note(&mut self, op: &Op, revision: etna_store::Revision) {
        match op {
            Op::Put(key, value, Some(lease)) => {
                let pinned = self.servers.get(key).is_some_and(|before| before.pinned) && drains(value);
                self.servers.insert(key.clone(), HeldServer { value: value.clone(), lease: Some(*lease), pinned });
            }
            Op::Put(key, value, None) => {
                self.shared.insert(key.clone(), Some(Item { value: value.clone(), revision, lease: None }));
            }
            Op::Delete(key) => {
                self.servers.remove(key);
            }
        }
    }

    /// A server as just read: draining that was not so before is another's doing.
    fn server(&self, key: &str, item: Item) -> HeldServer {
        let known = self.servers.get(key).is_some_and(|before| before.value == item.value && !before.pinned);
        HeldServer { pinned: !known && drains(&item.value), value: item.value, lease: item.lease }
    }
}

/// Every server of this machine with its value, in no particular relation to what is wanted.
pub async fn read_own(engine: &dyn Engine, machine: &Machine) -> Result<BTreeMap<String, Item>, Error> {
    let snapshot = within_long("reading everything", engine.snapshot()).await?;
    let items = get_all(engine, own_keys(&snapshot, machine)).await?;
    Ok(items.into_iter().filter_map(|(key, item)| Some((key, item?))).collect())
}

/// Deletes servers of this machine, those of one container (a name, or an id's beginning) or all; says which.
pub async fn deregister(engine: &dyn Engine, machine: &Machine, container: Option<&str>) -> Result<Vec<String>, Error> {
    let mut keys = Vec::new();
    for (key, item) in read_own(engine, machine).await? {
        let id = machine.owns(key.as_bytes()).unwrap_or_default();
        let name = record::Server::decode(&item.value).and_then(|server| server.meta.get("container").cloned());
        let meant = container
            .is_none_or(|wanted| name.as_deref() == Some(wanted) || (wanted.len() >= 12 && wanted.starts_with(&id)));
        if meant {
            keys.push(key);
        }
    }
    for chunk in keys.chunks(100) {
        let ops = chunk.iter().cloned().map(Op::Delete).collect();
        within("deregistering", engine.commit(etna_store::Txn { compares: Vec::new(), ops })).await?;
    }
    for key in &keys {
        tracing::info!(event = "deregister", key, "deregistered");
    }
    Ok(keys)
}

async fn read(engine: &dyn Engine, machine: &Machine, wanted: &Wanted, before: &Held) -> Result<Held, Error> {
    let servers = read_own(engine, machine).await?;
    let servers = servers.into_iter().map(|(key, item)| (key.clone(), before.server(&key, item))).collect();
    let sites: BTreeSet<&str> = wanted.members.values().map(|member| member.site.as_str()).collect();
    let keys = sites.into_iter().flat_map(|site| {
        let backends = [wanted::public_backend(site), wanted::admin_backend(site)];
        backends.into_iter().map(|id| record::backend_key(&id)).chain([record::site_key(site)])
    });
    Ok(Held { servers, shared: get_all(engine, keys.collect()).await? })
}

fn own_keys(snapshot: &Batch, machine: &Machine) -> BTreeSet<String> {
    let own = snapshot.changes.iter().filter(|change| machine.owns(&change.key).is_some());
    own.filter_map(|change| String::from_utf8(change.key.to_vec()).ok()).collect()
}

async fn get_all(engine: &dyn Engine, keys: BTreeSet<String>) -> Result<BTreeMap<String, Option<Item>>, Error> {
    let reads = keys.into_iter().map(|key| async move {
        let item = within("reading a key", engine.get(&key)).await?;
        Ok((key, item))
    });
    stream::iter(reads).buffer_unordered(READS).try_collect().await
}

fn key_of(op: &Op) -> String {
    match op {
        Op::Put(key, ..) | Op::Delete(key) => key.clone(),
    }
}

fn drains(value: &[u8]) -> bool {
    record::Server::decode(value).is_some_and(|server| server.drains())
}

fn log(op: &Op, note: &'static str, key: &str) {
    let server = match op {
        Op::Put(_, value, Some(_)) => record::Server::decode(value),
        Op::Put(..) | Op::Delete(_) => None,
    };
    let Some(server) = server else {
        tracing::info!(event = note, key, "written");
        return;
    };
    let meta = |name: &str| server.meta.get(name).map(String::as_str);
    tracing::info!(
        event = note,
        key,
        url = server.url,
        weight = server.weight,
        container = meta("container"),
        note = meta("note"),
        "written"
    );
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
