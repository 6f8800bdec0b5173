//! Listeners: sockets, the workers that accept on them, and the connections they serve.
//!
//! Sockets are bound by the control side, one per worker (`SO_REUSEPORT`), and handed to the workers, so that an
//! address that cannot be bound is a problem and not a dead worker. New sockets are opened before old ones close.

pub mod admission;
pub mod conn;
pub mod socket;
pub mod watch;
pub mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use etna_store::object::Id;
use etna_store::{Key, Problem};

use socket::Bound;
use worker::{Command, Handle};

/// The sockets of this process, kept equal to the listeners of the table.
pub struct Listeners {
    workers: Vec<Handle>,
    /// Listeners given on the command line, which no table takes away.
    own: BTreeMap<Id, SocketAddr>,
    open: BTreeMap<Id, Open>,
    problems: Vec<Problem>,
}

struct Open {
    /// What was asked for.
    wanted: String,
    /// What was bound: differs for port 0.
    bound: SocketAddr,
}

impl Listeners {
    /// No sockets yet.
    pub fn new(workers: Vec<Handle>) -> Listeners {
        Listeners { workers, own: BTreeMap::new(), open: BTreeMap::new(), problems: Vec::new() }
    }

    /// Opens a listener of the command line.
    pub async fn open_own(&mut self, id: Id, address: SocketAddr) -> std::io::Result<SocketAddr> {
        let bound = socket::bind(address, self.workers.len())?;
        let actual = bound.address;
        self.hand_out(&id, bound).await;
        self.open.insert(id.clone(), Open { wanted: address.to_string(), bound: actual });
        self.own.insert(id, actual);
        Ok(actual)
    }

    /// Opens what the table has and we have not, then closes what we have and it has not.
    pub async fn reconcile(&mut self, wanted: &BTreeMap<Id, Arc<etna_store::Listener>>) {
        self.problems.clear();
        for (id, listener) in wanted {
            if self.own.contains_key(id) {
                self.problems.push(problem(id, "the name is taken by a listener of the command line", "rename it"));
                continue;
            }
            if self.open.get(id).is_some_and(|open| open.wanted == listener.address) {
                continue;
            }
            match socket::resolve(&listener.address).and_then(|address| socket::bind(address, self.workers.len())) {
                Ok(bound) => {
                    let actual = bound.address;
                    // An address that moved: workers replace the old socket once the new one accepts.
                    self.hand_out(id, bound).await;
                    tracing::info!(listener = %id, address = %actual, "listening");
                    self.open.insert(id.clone(), Open { wanted: listener.address.clone(), bound: actual });
                }
                Err(error) => self.problems.push(problem(
                    id,
                    &format!("cannot listen on {}: {error}", listener.address),
                    "free the address, or choose another",
                )),
            }
        }
        let gone: Vec<Id> =
            self.open.keys().filter(|id| !self.own.contains_key(*id) && !wanted.contains_key(*id)).cloned().collect();
        for id in gone {
            self.open.remove(&id);
            for worker in &self.workers {
                worker.tell(Command::Close(id.clone())).await;
            }
            tracing::info!(listener = %id, "closed");
        }
    }

    /// Listeners that could not be opened.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// What is open, by listener.
    pub fn addresses(&self) -> BTreeMap<Id, SocketAddr> {
        self.open.iter().map(|(id, open)| (id.clone(), open.bound)).collect()
    }

    /// Drains every worker and waits until all have ended.
    pub async fn drain(self, limit: std::time::Duration) {
        for worker in &self.workers {
            worker.tell(Command::Drain(limit)).await;
        }
        let joined = tokio::task::spawn_blocking(move || self.workers.into_iter().for_each(Handle::join));
        if joined.await.is_err() {
            tracing::error!("waiting for the workers failed");
        }
    }

    async fn hand_out(&self, id: &Id, bound: Bound) {
        for (worker, socket) in self.workers.iter().zip(bound.sockets) {
            worker.tell(Command::Open { id: id.clone(), address: bound.address, socket }).await;
        }
    }
}

fn problem(id: &Id, reason: &str, hint: &str) -> Problem {
    Problem {
        key: Key::Listener(id.clone()).to_string(),
        reason: reason.into(),
        hint: hint.into(),
        line: None,
        column: None,
        effect: "not listening there".into(),
    }
}
