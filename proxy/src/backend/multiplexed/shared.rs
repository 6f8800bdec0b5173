//! A worker's connections of HTTP/2, and which of them a request gets: one with room, else a new one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Link;
use super::call::Call;
use super::connection::Multiplexed;
use crate::backend::Live;
use crate::backend::pool::{self, Unconnected, Way};
use crate::backend::secure::within;
use crate::backend::wire::Announced;
use crate::tls::servers::ServerTls;

/// The connections, by server.
#[derive(Default)]
pub struct Shared {
    servers: RefCell<HashMap<u64, OfServer, foldhash::fast::RandomState>>,
}

struct OfServer {
    connections: Vec<Multiplexed>,
    /// Held while one is being opened, so that requests that come together share it.
    opening: Rc<Semaphore>,
    /// Seconds for which it is known that ALPN settles on HTTP/1.1.
    http1: u32,
}

impl Default for OfServer {
    fn default() -> OfServer {
        OfServer { connections: Vec::new(), opening: Rc::new(Semaphore::new(1)), http1: 0 }
    }
}

impl Shared {
    /// A place on a connection that stands, if there is one; it began with what it should.
    pub fn join(&self, server: u64, announced: Option<&Announced>, tls: Option<&Arc<ServerTls>>) -> Option<Box<Call>> {
        let mut servers = self.servers.borrow_mut();
        let connections = &mut servers.get_mut(&server)?.connections;
        connections.retain_mut(Multiplexed::is_open);
        let its = |connection: &&Multiplexed| {
            let same_terms = match (&connection.terms, tls) {
                (None, None) => true,
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                _ => false,
            };
            // One that was opened for somebody is nobody else's.
            same_terms && connection.announced.as_deref() == announced
        };
        let has_room = |connection: &&Multiplexed| connection.state.active.get() < connection.most();
        let found = connections.iter().filter(its).find(has_room).or_else(|| {
            let of_his = || connections.iter().filter(its);
            // Where there are as many as may be, requests wait for their turn on one of them.
            let least = || of_his().min_by_key(|connection| connection.state.active.get());
            (of_his().count() >= MOST_CONNECTIONS).then(least).flatten()
        });
        found.map(|connection| Box::new(Call::on(connection)))
    }

    /// A place on a connection that is opened for it, or that others open meanwhile; or a connection of HTTP/1.1, where
    /// the server settles on that.
    pub async fn open(&self, live: &Live, way: Way<'_>) -> Result<Link, Unconnected> {
        let (server, limits, tls) = (live.number, way.limits, way.tls);
        let announced = way.announced.clone();
        let gate = self.gate(server, announced.is_some());
        let _alone = match &gate {
            None => None,
            Some(gate) => {
                let permit = async { gate.acquire().await.map_err(io::Error::other) };
                let permit = within(limits.dial + limits.handshake, permit).await.map_err(Unconnected::Unreachable)?;
                if let Some(call) = self.join(server, announced.as_deref(), tls) {
                    return Ok(Link::Http2(call));
                }
                Some(permit)
            }
        };
        let connection = pool::connect(live, way).await?;
        if tls.is_some() && !connection.is_http2() {
            // An answer of TLS, which nobody on the way can have forged: a server that is not ready for HTTP/2 serves all
            // the same.
            self.servers.borrow_mut().entry(server).or_default().http1 = HTTP1_FOR;
            return Ok(Link::Http1(connection));
        }
        let beginning = Multiplexed::begin(connection.into_tunnel().0, announced, tls.cloned());
        let connection = within(limits.handshake, beginning).await.map_err(|error| {
            live.handshake_error.tell(live, Some(format!("HTTP/2: {error}")));
            Unconnected::NoHttp2(error)
        })?;
        if tls.is_none() {
            live.handshake_error.tell(live, None);
        }
        let call = Box::new(Call::on(&connection));
        let mut servers = self.servers.borrow_mut();
        let of_server = servers.entry(server).or_default();
        of_server.http1 = 0;
        of_server.connections.push(connection);
        Ok(Link::Http2(call))
    }

    /// Closes what has been idle for too long. Called every second.
    pub fn sweep(&self) {
        self.servers.borrow_mut().retain(|_, of_server| {
            of_server.http1 = of_server.http1.saturating_sub(1);
            of_server.connections.retain_mut(|connection| {
                let state = &connection.state;
                // There are as many of those as clients.
                let most = if connection.announced.is_some() { pool::DEFAULT_IDLE } else { IDLE };
                state.idle.set(if state.active.get() > 0 { 0 } else { state.idle.get() + 1 });
                state.idle.get() <= most && connection.is_open()
            });
            !of_server.connections.is_empty() || of_server.http1 > 0 || Rc::strong_count(&of_server.opening) > 1
        });
    }

    /// Where to wait for others who open a connection that will do; `None` where theirs will not.
    fn gate(&self, server: u64, is_own: bool) -> Option<Rc<Semaphore>> {
        let mut servers = self.servers.borrow_mut();
        let of_server = servers.entry(server).or_default();
        (!is_own && of_server.http1 == 0).then(|| of_server.opening.clone())
    }
}

/// Connections of a worker to a server, those of the PROXY protocol counted by origin.
const MOST_CONNECTIONS: usize = 16;
/// Seconds without a request until a connection is closed.
const IDLE: u32 = 30;
/// Seconds until a server that settled on HTTP/1.1 is thought to have learnt HTTP/2.
const HTTP1_FOR: u32 = 60;
