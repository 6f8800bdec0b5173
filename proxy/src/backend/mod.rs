//! Backends and servers as they serve: compiled settings around living state.
//!
//! A [`Backend`] is immutable and belongs to tables; what it counts lives in [`Live`] values, which are carried from
//! table to table by identity, so that a publish resets nothing. Connections are in `pool.rs`, one pool a worker.

pub mod balance;
pub mod budget;
pub mod buffers;
pub mod framing;
pub mod hash;
pub mod health;
pub mod latency;
pub mod multiplexed;
pub mod place;
pub mod pool;
pub mod queue;
pub mod replay;
pub mod secure;
pub mod sending;
pub mod slow_start;
pub mod sticky;
pub mod stream;
pub mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http::HeaderValue;

use crate::stats::{Counter, Requests};
use crate::tls::servers::ServerTls;
use balance::Schedule;
use budget::Budget;
use etna_store::object::{Id, Scheme, ServerState};
use hash::HashKey;
use health::Health;
use latency::PeakLatency;
use queue::Queue;
use secure::LastError;
use slow_start::{Ramp, millis};

/// Where a backend stands in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// A backend compiled for serving.
#[derive(Debug)]
pub struct Backend {
    /// Which version of it this is: a later one has a higher number.
    pub(crate) number: u64,
    /// Its name.
    pub id: Id,
    /// What is stored of it.
    pub spec: Arc<etna_store::Backend>,
    /// How its servers are checked.
    pub check: Option<Arc<etna_store::object::HealthCheck>>,
    /// Its servers, by id.
    pub servers: Vec<Server>,
    /// How its https servers are spoken to, where it has any.
    pub tls: Option<Arc<ServerTls>>,
    /// The order in which servers take requests.
    pub schedule: Schedule,
    /// What it hashes, where its policy does.
    pub hash: Option<HashKey>,
    /// Name of the sticky cookie, where it has one.
    pub cookie: Option<Arc<str>>,
    /// What survives publishes.
    pub live: Arc<BackendLive>,
}

/// A server in one backend of one table.
#[derive(Debug, Clone)]
pub struct Server {
    /// What is stored of it.
    pub spec: Arc<etna_store::Server>,
    /// What survives publishes.
    pub live: Arc<Live>,
    /// How it is spoken to, where that is encrypted.
    pub tls: Option<Arc<ServerTls>>,
}

/// A backend's living state, identified by the backend's name.
#[derive(Debug)]
pub struct BackendLive {
    born: Instant,
    /// Where round robin stands; at the same time its requests so far.
    pub(crate) turn: AtomicU64,
    /// Until when servers start slowly, in its milliseconds; 0: none ever did.
    ramping_until: AtomicU64,
    /// Where requests wait for a server.
    pub queue: Arc<Queue>,
    /// What second attempts may cost.
    pub budget: Budget,
    /// Second attempts that were not made, because the budget was spent.
    pub retries_denied: Counter,
    /// Whether one of its servers is being ejected now.
    ejecting: AtomicBool,
}

/// A server's living state, identified by backend, server and address.
#[derive(Debug)]
pub struct Live {
    /// Never used twice in a process: what worker pools go by.
    pub(crate) number: u64,
    /// Where it listens.
    pub address: Address,
    /// `Host` for backends that do not pass the client's.
    pub authority: HeaderValue,
    /// What a sticky cookie says to name it.
    pub token: Arc<str>,
    /// Its name, hashed: what it draws lots with.
    pub(crate) hash: u64,
    in_flight: AtomicU32,
    /// Most requests it is given at once; `u32::MAX`: no limit.
    limit: AtomicU32,
    /// Since when it drains, in its milliseconds plus one; 0: it does not.
    draining: AtomicU64,
    born: Instant,
    ramp: Ramp,
    /// Its backend's.
    queue: Arc<Queue>,
    /// Whether it should be given requests.
    pub health: Health,
    /// How fast it answered lately; kept up where the policy goes by it.
    pub latency: PeakLatency,
    /// What it answered.
    pub requests: Requests,
    /// Connections to it that could not be made.
    pub connect_errors: Counter,
    /// How agreeing upon TLS or HTTP/2 with it failed the last time, until it does not.
    pub handshake_error: LastError,
    /// Requests that broke after they were sent.
    pub request_errors: Counter,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address.
    Ip(SocketAddr),
    /// A name, looked up at each connect.
    Name(String, u16),
}

impl Live {
    /// The living state of a server that was not there before.
    pub fn new(number: u64, backend: &str, spec: &etna_store::Server) -> Live {
        let address = match spec.host.parse() {
            Ok(ip) => Address::Ip(SocketAddr::new(ip, spec.port)),
            Err(_) => Address::Name(spec.host.clone(), spec.port),
        };
        Live {
            number,
            authority: authority(spec),
            address,
            token: sticky::token(backend, &spec.id),
            hash: hash::bytes(spec.id.as_bytes()),
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(NO_LIMIT),
            draining: AtomicU64::new(0),
            born: Instant::now(),
            ramp: Ramp::default(),
            queue: Arc::default(),
            health: Health::default(),
            latency: PeakLatency::default(),
            requests: Requests::default(),
            connect_errors: Counter::default(),
            handshake_error: LastError::default(),
            request_errors: Counter::default(),
        }
    }

    /// The same, its requests waiting in its backend's queue.
    pub(crate) fn waiting_in(mut self, queue: Arc<Queue>) -> Live {
        self.queue = queue;
        self
    }

    /// Requests it is answering now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Most requests it is given at once.
    pub fn limit(&self) -> Option<u32> {
        Some(self.limit.load(Relaxed)).filter(|limit| *limit != NO_LIMIT)
    }

    /// Whether it may be given one more.
    pub fn has_room(&self) -> bool {
        self.in_flight.load(SeqCst) < self.limit.load(Relaxed)
    }

    /// For how long it has been draining.
    pub fn draining_for(&self, now: Instant) -> Option<Duration> {
        let since = self.draining.load(Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(self.millis(now).saturating_sub(since)))
    }

    /// Its clock: milliseconds since it came to be.
    pub fn millis(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.born))
    }

    /// What the table that comes into force says of it.
    pub(crate) fn follow(&self, spec: &etna_store::Server, limit: Option<u32>, now: Instant) {
        self.limit.store(limit.unwrap_or(NO_LIMIT), Relaxed);
        match spec.state {
            ServerState::Up => self.draining.store(0, Relaxed),
            ServerState::Draining => {
                // The first time counts.
                let _ = self.draining.compare_exchange(0, self.millis(now) + 1, Relaxed, Relaxed);
            }
        }
    }
}

impl Default for BackendLive {
    fn default() -> BackendLive {
        BackendLive {
            born: Instant::now(),
            turn: AtomicU64::new(0),
            ramping_until: AtomicU64::new(0),
            queue: Arc::default(),
            budget: Budget::default(),
            retries_denied: Counter::default(),
            ejecting: AtomicBool::new(false),
        }
    }
}

impl BackendLive {
    /// Its clock: milliseconds since it came to be.
    pub fn millis(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.born))
    }
}

impl Server {
    /// Whether `spec` is served by the same address, so that this server's living state is also its own.
    pub fn same_place(&self, spec: &etna_store::Server) -> bool {
        self.spec.id == spec.id
            && self.spec.scheme == spec.scheme
            && self.spec.host == spec.host
            && self.spec.port == spec.port
    }

    /// Whether it takes clients that are not stuck to it.
    pub fn takes_new(&self) -> bool {
        self.spec.state == ServerState::Up && self.spec.weight > 0
    }
}

/// One request being answered by a server: counted as long as this value lives.
#[derive(Debug)]
pub struct InFlight(Arc<Live>);

impl InFlight {
    /// Counts one more request.
    pub fn enter(live: &Arc<Live>) -> InFlight {
        live.in_flight.fetch_add(1, SeqCst);
        live.health.asked();
        InFlight(live.clone())
    }

    /// Counts one more request, if the server may be given one.
    pub fn enter_within(live: &Arc<Live>) -> Option<InFlight> {
        let limit = live.limit.load(Relaxed);
        let entered = live.in_flight.fetch_update(SeqCst, SeqCst, |now| (now < limit).then_some(now + 1));
        entered.is_ok().then(|| {
            live.health.asked();
            InFlight(live.clone())
        })
    }

    /// The server.
    pub fn live(&self) -> &Arc<Live> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // In this order: who enters the queue looks at the number of requests after that.
        self.0.in_flight.fetch_sub(1, SeqCst);
        if !self.0.queue.is_empty() {
            self.0.queue.serve();
        }
    }
}

fn authority(spec: &etna_store::Server) -> HeaderValue {
    let host = if spec.host.contains(':') { format!("[{}]", spec.host) } else { spec.host.clone() };
    let text = match (spec.scheme, spec.port) {
        (Scheme::Http, 80) | (Scheme::Https, 443) => host,
        (Scheme::Http | Scheme::Https, port) => format!("{host}:{port}"),
    };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("invalid"))
}

const NO_LIMIT: u32 = u32::MAX;

/// Servers for the tests of this folder.
#[cfg(test)]
pub(crate) mod test {
    use super::*;

    /// A server by name, and what more its value says.
    pub(crate) fn server(id: &str, more: &str) -> Server {
        let value = format!(r#"{{"URL":"http://127.0.0.1:80"{more}}}"#);
        let spec = etna_store::Server::decode(id.into(), value.as_bytes(), &mut Vec::new()).unwrap();
        Server { live: Arc::new(Live::new(0, "b", &spec)), spec: Arc::new(spec), tls: None }
    }

    /// A backend of these servers, and what more its value says.
    pub(crate) fn backend(mut servers: Vec<Server>, more: &str, zone: Option<&str>) -> Backend {
        // As old as each other, to the millisecond: what is not known of them is the same.
        let born = Instant::now();
        servers.iter_mut().filter_map(|server| Arc::get_mut(&mut server.live)).for_each(|live| live.born = born);
        let value = format!(r#"{{"Type":"http"{more}}}"#);
        let spec = Arc::new(etna_store::Backend::decode("b".into(), value.as_bytes(), &mut Vec::new()).unwrap());
        let limit = spec.limit.map(|limit| limit.requests);
        servers.iter().for_each(|server| server.live.follow(&server.spec, limit, Instant::now()));
        Backend {
            number: 0,
            id: "b".into(),
            schedule: Schedule::new(&spec, &servers, zone),
            hash: HashKey::new(&spec.hash_on),
            check: None,
            cookie: None,
            servers,
            tls: None,
            spec,
            live: Arc::default(),
        }
    }
}
