//! Backends and servers as they serve: compiled settings around living state.
//!
//! A [`Backend`] is immutable and belongs to tables; what it counts lives in [`Live`] values, which are carried from
//! table to table by identity, so that a publish resets nothing. Connections are in `pool.rs`, one pool a worker.

pub mod balance;
pub mod framing;
pub mod health;
pub mod pool;
pub mod sending;
pub mod sticky;
pub mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use http::HeaderValue;

use crate::stats::{Counter, Requests};
use balance::Schedule;
use etna_store::object::{Id, Scheme, ServerState};
use health::Health;

/// Where a backend stands in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// A backend compiled for serving.
#[derive(Debug)]
pub struct Backend {
    /// Its name.
    pub id: Id,
    /// What is stored of it.
    pub spec: Arc<etna_store::Backend>,
    /// How its servers are checked.
    pub check: Option<Arc<etna_store::object::HealthCheck>>,
    /// Its servers, by id.
    pub servers: Vec<Server>,
    /// The order in which servers take requests.
    pub schedule: Schedule,
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
}

/// A backend's living state, identified by the backend's name.
#[derive(Debug, Default)]
pub struct BackendLive {
    /// Where round robin stands.
    pub(crate) turn: AtomicU64,
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
    in_flight: AtomicU32,
    /// Whether it should be given requests.
    pub health: Health,
    /// What it answered.
    pub requests: Requests,
    /// Connections to it that could not be made.
    pub connect_errors: Counter,
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
            in_flight: AtomicU32::new(0),
            health: Health::default(),
            requests: Requests::default(),
            connect_errors: Counter::default(),
            request_errors: Counter::default(),
        }
    }

    /// Requests it is answering now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
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
        live.in_flight.fetch_add(1, Relaxed);
        live.health.asked();
        InFlight(live.clone())
    }

    /// The server.
    pub fn live(&self) -> &Arc<Live> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
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
