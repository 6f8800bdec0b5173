//! The admin API's socket: TCP or unix, and its connections, bounded in number, size and time.
//!
//! The accept loop never ends by an error. Unlike the data plane's listeners it runs on the control side's runtime.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::audit::Peer;
use super::guard::Via;
use super::places::{Arriving, Leaving, Place, Places};
use crate::config::AdminAddress;
use crate::handover::AdminSocket;

/// A bound socket.
pub(super) enum Socket {
    /// On an address.
    Tcp(TcpListener),
    /// At a path, which goes with this value.
    Unix {
        /// The socket.
        listener: UnixListener,
        /// Held for what its end does.
        path: PathOnDisk,
    },
}

/// A socket's file, removed when dropped if it is this process's own.
pub(super) struct PathOnDisk {
    path: PathBuf,
    is_ours: bool,
}

impl Drop for PathOnDisk {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Socket {
    /// One more handle on it, for a process that replaces this one.
    pub(super) fn share(&self) -> std::io::Result<OwnedFd> {
        match self {
            Socket::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Socket::Unix { listener, .. } => listener.as_fd().try_clone_to_owned(),
        }
    }

    fn own_path(&mut self, is_ours: bool) {
        if let Socket::Unix { path, .. } = self {
            path.is_ours = is_ours && !path.path.as_os_str().is_empty();
        }
    }
}

/// Uses a socket that is bound already, and says to what. Its path is left alone until it is served on.
pub(super) fn adopt(inherited: AdminSocket) -> anyhow::Result<(Socket, AdminAddress)> {
    let unusable = "cannot use the admin API's inherited socket";
    // What was asked for tells the path: the file was renamed after it was bound.
    let wanted: Option<AdminAddress> = inherited.wanted.as_deref().and_then(|wanted| wanted.parse().ok());
    let tcp = std::net::TcpListener::from(inherited.socket);
    tcp.set_nonblocking(true).context(unusable)?;
    if let Ok(address) = tcp.local_addr() {
        return Ok((Socket::Tcp(TcpListener::from_std(tcp).context(unusable)?), AdminAddress::Tcp(address)));
    }
    let unix = std::os::unix::net::UnixListener::from(OwnedFd::from(tcp));
    let bound = unix.local_addr().context(unusable)?;
    let listener = UnixListener::from_std(unix).context(unusable)?;
    let (path, shown) = match (wanted, bound.as_pathname()) {
        (Some(AdminAddress::Unix(path)), _) => (path.clone(), path),
        // The service manager's: it removes it, too.
        (_, bound) => (PathBuf::new(), bound.unwrap_or(Path::new("/")).to_owned()),
    };
    Ok((Socket::Unix { listener, path: PathOnDisk { path, is_ours: false } }, AdminAddress::Unix(shown)))
}

/// Binds an address, and says what was bound.
pub(super) async fn bind(address: &AdminAddress) -> anyhow::Result<(Socket, AdminAddress)> {
    match address {
        AdminAddress::Tcp(address) => {
            let listener = TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address} for the admin API: free it, or give another one with --admin")
            })?;
            let bound = listener.local_addr().context("cannot tell the admin API's address")?;
            Ok((Socket::Tcp(listener), AdminAddress::Tcp(bound)))
        }
        AdminAddress::Unix(path) => {
            let listener = bind_unix(path).await?;
            Ok((Socket::Unix { listener, path: PathOnDisk { path: path.clone(), is_ours: true } }, address.clone()))
        }
    }
}

async fn bind_unix(path: &Path) -> anyhow::Result<UnixListener> {
    remove_stale(path).await?;
    let failed = || format!("cannot listen on unix:{} for the admin API", path.display());
    // Bound under another name, so that nobody connects before the mode is set.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    if fs::symlink_metadata(&fresh).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(&fresh).with_context(failed)?;
    }
    let listener = UnixListener::bind(&fresh).with_context(failed)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660)).with_context(failed)?;
    fs::rename(&fresh, path).with_context(failed)?;
    Ok(listener)
}

/// Removes what a killed process left; what is in use, or no socket, stays.
async fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        bail!("{} exists and is no socket: remove it, or give another path with --admin", path.display());
    }
    if UnixStream::connect(path).await.is_ok() {
        bail!("another process serves on unix:{}: stop it, or give another path with --admin", path.display());
    }
    fs::remove_file(path).with_context(|| format!("cannot remove the stale socket {}", path.display()))
}

/// Accepts and serves until dropped, or until another process does so in its place: then connections end when their
/// requests do, and soon.
pub(super) async fn serve(mut socket: Socket, router: Router, stop: CancellationToken) {
    socket.own_path(true);
    stop.run_until_cancelled(accept(&socket, &router, &stop)).await;
    socket.own_path(false);
}

async fn accept(socket: &Socket, router: &Router, stop: &CancellationToken) {
    let places = Places::new(MOST_CONNECTIONS);
    loop {
        // What waits for a place waits in the kernel's queue, which is bounded too.
        let Some(place) = places.take().await else { return };
        let accepted = match socket {
            Socket::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                let local = stream.local_addr().map_or(IpAddr::from([127, 0, 0, 1]), |local| local.ip());
                let _ = stream.set_nodelay(true);
                let via = Via { peer: Peer::Tcp(peer), local: Some(local) };
                tokio::spawn(connection(stream, via, router.clone(), stop.clone(), place));
            }),
            Socket::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| {
                let who = stream.peer_cred().ok();
                let peer = Peer::Unix { uid: who.map(|who| who.uid()), pid: who.and_then(|who| who.pid()) };
                let via = Via { peer, local: None };
                tokio::spawn(connection(stream, via, router.clone(), stop.clone(), place));
            }),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "cannot accept a connection of the admin API");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

async fn connection<S>(stream: S, via: Via, router: Router, stop: CancellationToken, place: Arc<Place>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    place.waits();
    let endpoints = TowerToHyperService::new(router);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(via.clone());
        let answer = endpoints.call(request.map(|body| Arriving::new(body, place.clone())));
        let place = place.clone();
        async { answer.await.map(|answer| answer.map(|body| Leaving::new(body, place))) }
    });
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(LONGEST_HEAD)
            .max_headers(MOST_FIELDS)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        // Another one needs the place.
        () = place.gives_way() => return,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            // Streams of changes do not end by themselves; who reads one asks the new process for what follows.
            tokio::time::timeout(LONGEST_END, served.as_mut()).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the admin API ended");
    }
}

const MOST_CONNECTIONS: usize = 256;
const MOST_FIELDS: usize = 64;
const LARGEST_HEAD: usize = 64 << 10;
/// Until a request's head is there, from the first byte or from the end of the request before.
const LONGEST_HEAD: Duration = Duration::from_secs(10);
/// What a request may still take when another process has taken over.
const LONGEST_END: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_used_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etna.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let address = AdminAddress::Unix(path.clone());
        let (socket, bound) = bind(&address).await.unwrap();
        assert_eq!(bound, address);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(bind(&address).await.is_err());
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "a file").unwrap();
        assert!(bind(&address).await.is_err());
        assert!(path.exists());
    }
}
