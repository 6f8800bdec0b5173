//! Upstream connections of one worker: opened, kept while idle, taken again.
//!
//! Each worker has its own pool, so that taking a connection shares nothing with other cores. A kept connection is
//! looked at before it is taken; a server that closes in the same moment is noticed by the request, and whether that may
//! be sent again is decided in `traffic/forward.rs`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use etna_store::object::ProxyVersion;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::buffers::Buffers;
use super::health::Outcome;
use super::multiplexed::Shared;
use super::secure::{secure, within};
use super::stream::Stream;
use super::wire::{Announced, Connection};
use super::{Address, Live};
use crate::proxy_protocol::{self, Origin};
use crate::stats::Process;
use crate::tls::servers::ServerTls;

/// Idle upstream connections of one worker.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<HashMap<u64, Vec<Idle>, foldhash::fast::RandomState>>,
    /// Those of HTTP/2, idle or not.
    pub shared: Shared,
    /// What is read into.
    pub buffers: Rc<Buffers>,
}

struct Idle {
    connection: Connection,
    /// In the worker's seconds.
    until: u32,
}

/// How an idle connection is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// The server's [`Live`] number.
    pub server: u64,
    /// For how many seconds it may be taken again.
    pub idle_seconds: u32,
    /// How many are kept of this server.
    pub at_most: usize,
}

impl Pool {
    /// The connection that was used last, still stands, and began with what it should (most with nothing).
    pub fn take(
        &self,
        server: u64,
        announced: Option<&Announced>,
        tls: Option<&Arc<ServerTls>>,
        now: u32,
    ) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let of_server = idle.get_mut(&server)?;
        loop {
            let Idle { mut connection, until } = match announced {
                None => of_server.pop()?,
                Some(_) => {
                    let is_its = |idle: &Idle| idle.connection.announced.as_deref() == announced;
                    let at = of_server.iter().rposition(is_its)?;
                    of_server.remove(at)
                }
            };
            // One that was opened for somebody is nobody else's, also when the backend has since changed.
            let is_his = connection.announced.as_deref() == announced && connection.is_of(tls);
            if until > now && is_his && connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose response was read to its end, unless the server said more than that.
    pub fn put(&self, mut connection: Connection, keep: Keep, now: u32) {
        if keep.idle_seconds == 0 || !connection.is_drained() {
            return;
        }
        connection.rests();
        let mut idle = self.idle.borrow_mut();
        let of_server = idle.entry(keep.server).or_default();
        if connection.announced.is_some() && of_server.len() >= keep.at_most && !of_server.is_empty() {
            // The one of the client that has asked for nothing the longest.
            of_server.remove(0);
        }
        if of_server.len() < keep.at_most {
            of_server.push(Idle { connection, until: now.saturating_add(keep.idle_seconds) });
        }
    }

    /// Closes what has been idle for too long or was closed by the server. Called every second.
    pub fn sweep(&self, now: u32) {
        self.idle.borrow_mut().retain(|_, of_server| {
            of_server.retain_mut(|idle| idle.until > now && idle.connection.is_usable());
            !of_server.is_empty()
        });
        self.shared.sweep();
        self.buffers.sweep();
    }
}

/// How a connection is opened.
pub struct Way<'a> {
    /// What it tells its server first.
    pub announced: Option<Box<Announced>>,
    /// How TLS is spoken on it; `None`: it is not.
    pub tls: Option<&'a Arc<ServerTls>>,
    /// Whether only HTTP/1.1 will do.
    pub http1_alone: bool,
    /// How long it may take.
    pub limits: Limits,
    /// What is read into.
    pub buffers: Rc<Buffers>,
    /// Where it is counted.
    pub process: &'a Process,
}

/// How long opening a connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until it stands.
    pub dial: Duration,
    /// From then on, until TLS is agreed upon.
    pub handshake: Duration,
}

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum Unconnected {
    /// It cannot be reached.
    #[error("{0}")]
    Unreachable(io::Error),
    /// TLS came to nothing: it speaks none, or is not who it should be, or does not take us.
    #[error("TLS handshake: {0}")]
    Handshake(io::Error),
    /// It was to speak HTTP/2, and does not.
    #[error("HTTP/2: {0}")]
    NoHttp2(io::Error),
}

impl Unconnected {
    /// What it says of the server.
    pub fn outcome(&self) -> Outcome {
        match self {
            Unconnected::Unreachable(_) => Outcome::Unreachable,
            Unconnected::Handshake(_) => Outcome::Unsecured,
            Unconnected::NoHttp2(_) => Outcome::Broken,
        }
    }
}

/// Opens a connection to a server, and tells it whose it is where it wants to know.
pub async fn connect(live: &Live, way: Way<'_>) -> Result<Connection, Unconnected> {
    let Way { announced, tls, http1_alone, limits, buffers, process } = way;
    let shaken = &process.server_handshakes;
    let opened = async {
        let mut stream = dial(&live.address).await?;
        stream.set_nodelay(true)?;
        if let Some(announced) = &announced {
            announce(&mut stream, announced.version, Some(&announced.origin)).await?;
        }
        io::Result::Ok(stream)
    };
    let stream = within(limits.dial, opened).await.map_err(Unconnected::Unreachable)?;
    let stream = match tls {
        None => Stream::Plain(stream),
        Some(tls) => secure(live, tls, stream, http1_alone, limits.handshake).await.map_err(|error| {
            shaken.failed.add(1);
            Unconnected::Handshake(error)
        })?,
    };
    process.upstream_connections.add(1);
    if tls.is_some() {
        let counter = if stream.is_resumed() { &shaken.resumed } else { &shaken.full };
        counter.add(1);
    }
    let mut connection = Connection::new(stream, buffers);
    connection.announced = announced;
    Ok(connection)
}

/// Writes the header that a connection begins with; without an origin it is our own.
pub(crate) async fn announce(stream: &mut TcpStream, version: ProxyVersion, origin: Option<&Origin>) -> io::Result<()> {
    let mut header = Vec::with_capacity(LONGEST_WRITTEN);
    proxy_protocol::write(&mut header, version, origin);
    stream.write_all(&header).await
}

async fn dial(address: &Address) -> io::Result<TcpStream> {
    match address {
        Address::Ip(address) => TcpStream::connect(address).await,
        Address::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await,
    }
}

/// Bytes of the longest header that is written, of version 1.
const LONGEST_WRITTEN: usize = 107;
/// Seconds an idle connection is kept when the server does not say: Apache closes after 5 s.
pub const DEFAULT_IDLE: u32 = 4;

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const KEEP: Keep = Keep { server: 1, idle_seconds: 10, at_most: 2 };

    fn of(port: u16) -> Announced {
        let origin = Origin { from: ([192, 0, 2, 7], port).into(), to: ([192, 0, 2, 8], 80).into(), tls: false };
        Announced { version: ProxyVersion::V2, origin }
    }

    #[tokio::test]
    async fn a_connection_opened_for_one_client_is_never_anothers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut servers = Vec::new();
        let mut opened = async |announced: Option<Announced>| {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            servers.push(listener.accept().await.unwrap());
            let mut connection = Connection::new(Stream::Plain(stream), Rc::default());
            connection.announced = announced.map(Box::new);
            connection
        };
        let pool = Pool::default();
        pool.put(opened(Some(of(1))).await, KEEP, 0);
        pool.put(opened(Some(of(2))).await, KEEP, 0);
        assert!(pool.take(1, Some(&of(3)), None, 0).is_none());
        assert!(pool.take(1, Some(&Announced { version: ProxyVersion::V1, ..of(1) }), None, 0).is_none());
        assert_eq!(pool.take(1, Some(&of(1)), None, 0).unwrap().announced.as_deref(), Some(&of(1)));
        assert!(pool.take(1, Some(&of(1)), None, 0).is_none());
        // The one that was used last stays where there is no room for all.
        pool.put(opened(Some(of(4))).await, KEEP, 0);
        pool.put(opened(Some(of(5))).await, KEEP, 0);
        assert!(pool.take(1, Some(&of(2)), None, 0).is_none() && pool.take(1, Some(&of(5)), None, 0).is_some());
        // The backend no longer says whose they are.
        assert!(pool.take(1, None, None, 0).is_none());
        pool.put(opened(None).await, KEEP, 0);
        assert!(pool.take(1, Some(&of(4)), None, 0).is_none() && pool.take(1, None, None, 0).is_some());
    }
}
