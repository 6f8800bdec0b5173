//! Upstream connections of one worker: opened, kept while idle, taken again.
//!
//! Each worker has its own pool, so that taking a connection shares nothing with other cores. A kept connection is
//! looked at before it is taken; a server that closes in the same moment is noticed by the request, and whether that may
//! be sent again is decided in `traffic/forward.rs`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

use super::wire::Connection;
use super::{Address, Live};

/// Idle upstream connections of one worker.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<HashMap<u64, Vec<Idle>, foldhash::fast::RandomState>>,
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
    /// The connection that was used last and still stands.
    pub fn take(&self, server: u64, now: u32) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let of_server = idle.get_mut(&server)?;
        while let Some(Idle { connection, until }) = of_server.pop() {
            if until > now && connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose response was read to its end, unless the server said more than that.
    pub fn put(&self, mut connection: Connection, keep: Keep, now: u32) {
        if keep.idle_seconds == 0 || !connection.is_drained() {
            return;
        }
        connection.reused = true;
        let mut idle = self.idle.borrow_mut();
        let of_server = idle.entry(keep.server).or_default();
        if of_server.len() < keep.at_most {
            of_server.push(Idle { connection, until: now.saturating_add(keep.idle_seconds) });
        }
    }

    /// Closes what has been idle for too long or was closed by the server. Called every second.
    pub fn sweep(&self, now: u32) {
        self.idle.borrow_mut().retain(|_, of_server| {
            of_server.retain(|idle| idle.until > now && idle.connection.is_usable());
            !of_server.is_empty()
        });
    }
}

/// Opens a connection to a server.
pub async fn connect(live: &Live, limit: Duration) -> io::Result<Connection> {
    let stream = tokio::time::timeout(limit, dial(&live.address))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "connect timed out"))??;
    stream.set_nodelay(true)?;
    Ok(Connection::new(stream))
}

async fn dial(address: &Address) -> io::Result<TcpStream> {
    match address {
        Address::Ip(address) => TcpStream::connect(address).await,
        Address::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await,
    }
}

/// Seconds an idle connection is kept when the server does not say: Apache closes after 5 s.
pub const DEFAULT_IDLE: u32 = 4;
