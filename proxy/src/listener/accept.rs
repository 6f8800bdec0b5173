//! Accepting: one task a socket, which never ends by an error and never waits for a client.
//!
//! It begins when the gate opens, and when told to stop takes what waits in the socket's queue, unless another process
//! accepts there.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use etna_store::object::Id;
use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::conn;
use super::proxy_protocol::Front;
use super::serving::Serving;
use super::worker::{Place, Worker};

/// A listener's accepting tasks.
pub(super) struct Accepting {
    /// Cancelled to stop accepting.
    pub(super) stop: CancellationToken,
    /// What ends when it has stopped.
    pub(super) tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Begins to accept on a listener's sockets.
pub(super) fn open(
    worker: &Rc<Worker>,
    gate: &CancellationToken,
    id: &Id,
    place: Place,
    sockets: Vec<std::net::TcpListener>,
) -> Accepting {
    let stop = CancellationToken::new();
    let port = place.address.port().to_string().into();
    let front = Rc::new(Front::expecting(place.prelude.proxy_protocol));
    let arrived = conn::Arrived { listener: id.clone(), port, address: place.address, tls: place.prelude.tls, front };
    let arrived = Rc::new(arrived);
    let mut tasks = Vec::with_capacity(sockets.len());
    for socket in sockets {
        match TcpListener::from_std(socket) {
            Ok(socket) => {
                let accepting = accept(worker.clone(), arrived.clone(), socket, gate.clone(), stop.clone());
                tasks.push(tokio::task::spawn_local(accepting));
            }
            Err(error) => tracing::error!(listener = %id, %error, "cannot use the socket"),
        }
    }
    Accepting { stop, tasks }
}

/// Takes what comes to a socket until told to stop.
async fn take_all(
    worker: &Worker,
    id: &Id,
    socket: &TcpListener,
    stop: &CancellationToken,
    take: &impl Fn(TcpStream, SocketAddr),
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = FIRST_PAUSE;
                take(stream, peer);
            }
            Err(error) => {
                worker.process.accept_errors.add(1);
                tracing::warn!(listener = %id, %error, "accept failed");
                // Out of files, most likely: connections that end will free some.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Accepts until told to stop, whatever happens.
async fn accept(
    worker: Rc<Worker>,
    arrived: Rc<conn::Arrived>,
    socket: TcpListener,
    gate: CancellationToken,
    stop: CancellationToken,
) {
    let take = |stream, peer| {
        worker.process.accepted.add(1);
        let serving = Serving::begin(&worker);
        // Not an async block, which would hold the connection's future twice.
        let served = conn::serve(worker.clone(), arrived.clone(), stream, peer).map(move |()| drop(serving));
        tokio::task::spawn_local(served);
    };
    tokio::select! {
        () = gate.cancelled() => {}
        () = stop.cancelled() => {}
    }
    let until_stopped = || AssertUnwindSafe(take_all(&worker, &arrived.listener, &socket, &stop, &take)).catch_unwind();
    while until_stopped().await.is_err() {
        tracing::error!(listener = %arrived.listener, "accepting panicked: going on");
        worker.process.panics.add(1);
        tokio::time::sleep(FIRST_PAUSE).await;
    }
    if worker.handed_over.get() {
        return;
    }
    // What waits in the queue is still taken: closing the socket would reset it. Asked of the kernel, not of the
    // runtime, which may not have heard yet.
    let Ok(socket) = socket.into_std() else { return };
    for _ in 0..MOST_WAITING {
        let Ok((stream, peer)) = socket.accept() else { return };
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            take(stream, peer);
        }
    }
}

/// Connections taken from a socket's queue before it is closed: more than it holds.
const MOST_WAITING: usize = 8192;
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
