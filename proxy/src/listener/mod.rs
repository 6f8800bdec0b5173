//! Listeners: sockets, the workers that accept on them, and the connections they serve.
//!
//! Sockets are bound by the control side, one per worker (`SO_REUSEPORT`), or come with the process; either way they
//! are handed to the workers, so that an address that cannot be bound is a problem and not a dead worker. New sockets
//! are opened before old ones close.

mod accept;
pub mod admission;
mod configs;
pub mod conn;
pub mod drain;
pub mod held;
#[cfg(test)]
mod panics;
mod preface;
mod proxy_protocol;
pub mod serving;
pub mod socket;
pub mod stream;
pub mod watch;
pub mod worker;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use etna_store::object::{Id, Protocol, ProxyProtocol};
use etna_store::{Key, Problem};

use drain::Drain;
use held::{Held, Sockets};
use socket::Bound;
use worker::{Command, Handle, Place, Prelude};

use crate::traffic::trust::Trusted;

/// The sockets of this process, kept equal to the listeners of the table.
pub struct Listeners {
    workers: Vec<Handle>,
    /// Listeners given on the command line, which no table takes away.
    own: BTreeMap<Id, SocketAddr>,
    open: BTreeMap<Id, Open>,
    /// Sockets that came with the process and that no listener has asked for yet.
    inherited: BTreeMap<Id, Held>,
    held: Arc<Sockets>,
    problems: Vec<Problem>,
    /// What comes in front of the connections of the command line's listeners.
    front_of_own: Option<Arc<ProxyProtocol>>,
    trusted: Arc<Trusted>,
}

struct Open {
    /// What was asked for.
    wanted: String,
    /// What its connections begin with.
    prelude: Prelude,
    /// What was bound: differs for port 0.
    bound: SocketAddr,
}

impl Listeners {
    /// No sockets yet.
    pub fn new(workers: Vec<Handle>) -> Listeners {
        Listeners {
            workers,
            own: BTreeMap::new(),
            open: BTreeMap::new(),
            inherited: BTreeMap::new(),
            held: Arc::default(),
            problems: Vec::new(),
            front_of_own: None,
            trusted: Arc::default(),
        }
    }

    /// Believes PROXY protocol headers of these where a listener names nobody; `own` is expected at the listeners of
    /// the command line.
    pub fn behind(mut self, trusted: Arc<Trusted>, own: Option<Arc<ProxyProtocol>>) -> Listeners {
        self.trusted = trusted;
        self.front_of_own = own;
        self
    }

    /// Uses these sockets, by listener, instead of binding new ones.
    pub fn inherit(&mut self, sockets: BTreeMap<Id, Held>) {
        self.inherited = sockets;
    }

    /// What may be given to another process.
    pub fn held(&self) -> Arc<Sockets> {
        self.held.clone()
    }

    /// Opens a listener of the command line.
    pub async fn open_own(&mut self, id: Id, address: SocketAddr, tls: bool) -> std::io::Result<SocketAddr> {
        let wanted = address.to_string();
        let bound = self.obtain(&id, &wanted, |workers| socket::bind(address, workers))?;
        let actual = bound.address;
        let prelude = Prelude { proxy_protocol: self.front_of_own.clone(), tls };
        self.take_up(&id, wanted, true, prelude, bound).await?;
        self.own.insert(id, actual);
        Ok(actual)
    }

    /// Opens what came with the process as listeners of the command line that this command line does not name.
    pub async fn open_inherited(&mut self) -> std::io::Result<Vec<(Id, SocketAddr)>> {
        let named: Vec<Id> = self.inherited.iter().filter(|(_, held)| held.own).map(|(id, _)| id.clone()).collect();
        let mut opened = Vec::new();
        for id in named {
            if let Some(Held { sockets, .. }) = self.inherited.remove(&id) {
                let bound = Bound::of(sockets)?;
                let actual = bound.address;
                let prelude = Prelude { proxy_protocol: self.front_of_own.clone(), tls: speaks_tls(&id) };
                self.take_up(&id, actual.to_string(), true, prelude, bound).await?;
                self.own.insert(id.clone(), actual);
                opened.push((id, actual));
            }
        }
        Ok(opened)
    }

    /// Opens what the table has and we have not, then closes what we have and it has not. Without workers, which is
    /// when they drain, it does nothing.
    pub async fn reconcile(&mut self, wanted: &BTreeMap<Id, Arc<etna_store::Listener>>) {
        self.problems.clear();
        if self.workers.is_empty() {
            return;
        }
        for (id, listener) in wanted {
            if self.own.contains_key(id) {
                self.problems.push(problem(id, "the name is taken by a listener of the command line", "rename it"));
                continue;
            }
            let front = &listener.proxy_protocol;
            if let Some(expected) = front.as_ref().filter(|front| front.from.is_empty())
                && self.trusted.is_empty()
            {
                let effect = if expected.required {
                    "every connection is closed there"
                } else {
                    "connections that begin with a header are answered 400 there"
                };
                self.problems.push(Problem {
                    effect: effect.into(),
                    ..problem(
                        id,
                        &format!("{} is expected, but nobody may send it", expected.versions.name()),
                        "name the proxies in front in ProxyProtocolFrom, or with --trusted-proxies",
                    )
                });
            }
            let tls = listener.protocol == Protocol::Https;
            let prelude = Prelude { proxy_protocol: front.clone(), tls };
            let open = self.open.get(id).filter(|open| open.wanted == listener.address);
            let bound = match open {
                Some(open) if open.prelude == prelude => continue,
                // The address is ours already: only what is spoken there changes.
                Some(_) => self.held.of(id).and_then(Bound::of),
                None => self.obtain(id, &listener.address, |workers| {
                    socket::resolve(&listener.address).and_then(|address| socket::bind(address, workers))
                }),
            };
            let opened = match bound {
                Ok(bound) => {
                    let actual = bound.address;
                    // An address that moved: workers replace the old socket once the new one accepts.
                    self.take_up(id, listener.address.clone(), false, prelude, bound).await.map(|()| actual)
                }
                Err(error) => Err(error),
            };
            match opened {
                Ok(actual) => {
                    tracing::info!(listener = %id, address = %actual, tls, proxy_protocol = front.is_some(), "listening");
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
            self.held.release(&id);
            for worker in &self.workers {
                worker.tell(Command::Close(id.clone())).await;
            }
            tracing::info!(listener = %id, "closed");
        }
        // A listener that was taken away while this process took over. The service manager's sockets stay: it holds
        // them, too, and their listeners may come.
        self.inherited.retain(|_, held| held.wanted.is_none());
    }

    /// Listeners that could not be opened.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether a listener of the command line speaks TLS.
    pub fn has_own_tls(&self) -> bool {
        self.own.keys().filter_map(|id| self.open.get(id)).any(|open| open.prelude.tls)
    }

    /// What is open, by listener.
    pub fn addresses(&self) -> BTreeMap<Id, SocketAddr> {
        self.open.iter().map(|(id, open)| (id.clone(), open.bound)).collect()
    }

    /// Drains every worker and waits until all have ended.
    pub async fn drain(mut self, how: Drain) {
        self.inherited.clear();
        self.held.release_all();
        for worker in &self.workers {
            worker.tell(Command::Drain(how)).await;
        }
        let joined = tokio::task::spawn_blocking(move || self.workers.into_iter().for_each(Handle::join));
        if joined.await.is_err() {
            tracing::error!("waiting for the workers failed");
        }
    }

    /// Sockets that came with the process, if they are for this listener, or new ones.
    fn obtain(
        &mut self,
        id: &Id,
        wanted: &str,
        bind: impl FnOnce(usize) -> std::io::Result<Bound>,
    ) -> std::io::Result<Bound> {
        match self.inherited.remove(id) {
            Some(held) if held.serves(wanted) => Bound::of(held.sockets),
            _ => bind(self.workers.len()),
        }
    }

    /// Has the workers accept on sockets, and holds these.
    async fn take_up(
        &mut self,
        id: &Id,
        wanted: String,
        own: bool,
        prelude: Prelude,
        bound: Bound,
    ) -> std::io::Result<()> {
        let place = Place { address: bound.address, prelude: prelude.clone() };
        let shares = share(&bound.sockets, self.workers.len())?;
        for (worker, sockets) in self.workers.iter().zip(shares) {
            worker.tell(Command::Open { id: id.clone(), place: place.clone(), sockets }).await;
        }
        self.held.hold(id.clone(), Held { wanted: Some(wanted.clone()), own, sockets: bound.sockets });
        self.open.insert(id.clone(), Open { wanted, prelude, bound: bound.address });
        Ok(())
    }
}

/// The name of the first listener of the command line that speaks TLS; the others have a number after it.
pub const HTTPS: &str = "https";

/// Whether a listener of the command line speaks TLS, by its name: all that is known of one whose socket comes with the
/// process.
pub fn speaks_tls(own: &str) -> bool {
    own == HTTPS || own.strip_prefix(HTTPS).is_some_and(|rest| rest.starts_with('-'))
}

/// Handles on the sockets for each worker. Each worker has a socket and each socket a worker, whatever their numbers
/// are: connections wait in the queue of one socket, and one that nobody accepts on would keep them for ever.
fn share(sockets: &[TcpListener], workers: usize) -> std::io::Result<Vec<Vec<TcpListener>>> {
    let mut shares: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    if workers > 0 && !sockets.is_empty() {
        for turn in 0..workers.max(sockets.len()) {
            shares[turn % workers].push(sockets[turn % sockets.len()].try_clone()?);
        }
    }
    Ok(shares)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_socket_is_left_without_a_worker_and_no_worker_without_a_socket() {
        let bound = socket::bind("127.0.0.1:0".parse().unwrap(), 5).unwrap();
        for (sockets, workers) in [(5, 5), (5, 2), (2, 5), (1, 3), (3, 1)] {
            let shares = share(&bound.sockets[..sockets], workers).unwrap();
            assert_eq!(shares.len(), workers);
            assert!(shares.iter().all(|share| !share.is_empty()));
            assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), sockets.max(workers));
        }
        assert!(share(&bound.sockets, 0).unwrap().is_empty());
    }
}
