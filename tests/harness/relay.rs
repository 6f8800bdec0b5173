//! A TCP relay that stands between two parts, to be delayed, silenced or cut: a network that fails.
//!
//! It runs on a thread of its own, so that it outlives the runtime of whoever made it. Silence loses nothing, as TCP
//! does not: what was sent meanwhile arrives when it ends.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What it does with bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Passes them on.
    Pass,
    /// Passes them on after a while.
    Late(Duration),
    /// Keeps them; connections stay open, as when packets are dropped.
    Silent,
    /// Closes every connection, and each new one at once.
    Refuse,
    /// The same for connections of one process alone; others pass.
    RefuseProcess(u32),
}

/// A running relay; its connections end with it.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    target: Mutex<SocketAddr>,
    manner: watch::Sender<Manner>,
    open: AtomicUsize,
    stop: CancellationToken,
}

impl Relay {
    /// One that passes on to an address.
    pub fn start(target: SocketAddr) -> Relay {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let address = listener.local_addr().expect("it is bound");
        let inner = Arc::new(Inner {
            target: Mutex::new(target),
            manner: watch::Sender::new(Manner::Pass),
            open: AtomicUsize::new(0),
            stop: CancellationToken::new(),
        });
        let served = inner.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(accept(listener, served));
        });
        Relay { address, inner }
    }

    /// From now on, for connections that are open too.
    pub fn set(&self, manner: Manner) {
        self.inner.manner.send_replace(manner);
    }

    /// Passes new connections on to another address.
    pub fn aim(&self, target: SocketAddr) {
        *self.inner.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.inner.open.load(Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

async fn accept(listener: std::net::TcpListener, inner: Arc<Inner>) {
    let listener = TcpListener::from_std(listener).expect("a listener of the standard library's will do");
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            accepted = listener.accept() => {
                let Ok((stream, from)) = accepted else { continue };
                let inner = inner.clone();
                tokio::spawn(async move {
                    inner.open.fetch_add(1, Relaxed);
                    tokio::select! {
                        () = inner.stop.cancelled() => {}
                        () = refused(inner.manner.subscribe(), from.port()) => {}
                        () = relay(stream, &inner) => {}
                    }
                    inner.open.fetch_sub(1, Relaxed);
                });
            }
        }
    }
}

/// Waits until connections from this port are refused.
async fn refused(mut manner: watch::Receiver<Manner>, port: u16) {
    let is = |manner: &Manner| match manner {
        Manner::Refuse => true,
        Manner::RefuseProcess(pid) => owns(*pid, port),
        _ => false,
    };
    if manner.wait_for(is).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn relay(client: TcpStream, inner: &Inner) {
    let mut manner = inner.manner.subscribe();
    if manner.wait_for(|manner| *manner != Manner::Silent).await.is_err() {
        return;
    }
    let target = *inner.target.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::join!(
        pump(from_client, to_server, inner.manner.subscribe()),
        pump(from_server, to_client, inner.manner.subscribe())
    );
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut manner: watch::Receiver<Manner>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        // Asked after reading: what comes while it is silent waits here and, behind it, in the kernel.
        let Ok(now) = manner.wait_for(|manner| *manner != Manner::Silent).await.map(|now| now.clone()) else { return };
        if let Manner::Late(time) = now {
            tokio::time::sleep(time).await;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// Whether a process has a TCP connection from this port of loopback; told by the kernel.
fn owns(pid: u32, port: u16) -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/net/tcp") else { return false };
    let suffix = format!(":{port:04X}");
    let inodes = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        if local.ends_with(&suffix) { fields.nth(7) } else { None }
    });
    let sockets: Vec<String> = inodes.map(|inode| format!("socket:[{inode}]")).collect();
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let links = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
    links.into_iter().any(|link| sockets.iter().any(|socket| link == Path::new(socket)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client;
    use crate::stand_in::StandIn;

    #[tokio::test(flavor = "multi_thread")]
    async fn passes_keeps_and_cuts() {
        let server = StandIn::start("a").await;
        let relay = Relay::start(server.address);
        let get = || client::get(relay.address, "a.test", "/");
        assert_eq!(get().await.unwrap().server(), "a");
        relay.set(Manner::Silent);
        let waiting = tokio::spawn(client::get(relay.address, "a.test", "/"));
        crate::wait::eventually("it is connected", Duration::from_secs(20), async || {
            crate::wait::ensure(relay.open() == 1, format!("{} open", relay.open()))
        })
        .await;
        assert_eq!(server.requests(), 1);
        relay.set(Manner::Pass);
        assert_eq!(waiting.await.unwrap().unwrap().server(), "a");
        relay.set(Manner::Refuse);
        assert!(get().await.is_err());
        relay.set(Manner::RefuseProcess(std::process::id()));
        assert!(get().await.is_err());
        relay.set(Manner::RefuseProcess(1));
        assert_eq!(get().await.unwrap().server(), "a");
    }
}
