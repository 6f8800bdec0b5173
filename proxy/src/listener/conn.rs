//! One client connection: served until it ends or its worker says so.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etna_store::object::Id;
use tokio::net::TcpStream;

use super::preface::{self, Begun};
use super::stream::Stream;
use super::watch::{Order, Phase, Watch};
use super::worker::Worker;
use crate::stats::Process;
use crate::tls::handshake::{self, Secured, Spoken};
use crate::traffic::h1::wire::Wire;
use crate::traffic::trust::Peer;
use crate::traffic::{h1, h2, tunnel};

/// A client's connection, as its requests see it.
#[derive(Clone)]
pub struct Client {
    /// The worker it runs on.
    pub worker: Rc<Worker>,
    /// The listener it came in on.
    pub listener: Id,
    /// Who it is.
    pub peer: Peer,
    /// What its TLS handshake settled, where it had one.
    pub secured: Option<Rc<Secured>>,
    /// What its worker watches of it.
    pub watch: Arc<Watch>,
}

/// Where a connection came in.
#[derive(Clone)]
pub(super) struct Arrived {
    pub(super) listener: Id,
    /// The listener's port, in text.
    pub(super) port: Rc<str>,
    /// Whether TLS is spoken there.
    pub(super) tls: bool,
}

/// Counts a connection that a bug of ours ends.
struct Panics(Arc<Process>);

impl Drop for Panics {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panics.add(1);
        }
    }
}

/// Says that there is no room. The request is read first, most likely in one piece: a connection closed over unread
/// bytes is reset, and the answer with it.
async fn turn_away(worker: &Worker, stream: TcpStream) {
    worker.process.shed_connections.add(1);
    let Some(_turn) = worker.turn_away() else { return };
    let said = async {
        stream.readable().await?;
        let mut request = [0; 4096];
        let _ = stream.try_read(&mut request);
        stream.try_write(NO_ROOM)?;
        // Until the client has closed, or has had its time.
        loop {
            stream.readable().await?;
            match stream.try_read(&mut request) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err::<(), std::io::Error>(error),
            }
        }
    };
    let _ = tokio::time::timeout(TURNED_AWAY, said).await;
}

/// Shakes hands, where TLS is spoken, and answers what is asked.
async fn converse(worker: Rc<Worker>, arrived: Arrived, stream: TcpStream, peer: IpAddr, watch: Arc<Watch>) {
    let (stream, secured) = if arrived.tls {
        // Boxed, as it is over soon.
        let Some((stream, secured)) = Box::pin(secure(&worker, &arrived.listener, stream)).await else { return };
        watch.enter(Phase::Head);
        (stream, Some(secured))
    } else {
        (Stream::Plain(stream), None)
    };
    let proto = if arrived.tls { "https" } else { "http" };
    let spoken = secured.as_ref().map(|secured| secured.protocol);
    let client = Rc::new(Client {
        listener: arrived.listener,
        peer: Peer { address: peer, text: peer.to_string(), proto, port: arrived.port },
        secured: secured.map(Rc::new),
        watch,
        worker,
    });
    match spoken {
        // Boxed, so that connections of HTTP/1.1 take no room for it.
        Some(Spoken::Http2) => Box::pin(speak_h2(client, stream, Bytes::new())).await,
        None if client.worker.live.knows_h2c(&client.listener) => Box::pin(speak_either(client, stream)).await,
        Some(_) | None => {
            let wire = Wire::new(stream, client.watch.clone(), client.worker.scratch.clone());
            h1::serve(client, wire).await;
        }
    }
}

/// Speaks what the client begins with.
async fn speak_either(client: Rc<Client>, mut stream: Stream) {
    match preface::read(&mut stream).await {
        Some(Begun::H2(ahead)) => speak_h2(client, stream, ahead).await,
        Some(Begun::H1(ahead)) => {
            let wire = Wire::new(stream, client.watch.clone(), client.worker.scratch.clone());
            wire.begins_with(&ahead);
            h1::serve(client, wire).await;
        }
        None => {}
    }
}

async fn speak_h2(client: Rc<Client>, stream: Stream, ahead: Bytes) {
    // Its requests may wait for hours, and any of them may be a tunnel.
    tunnel::ask_whether_there(stream.tcp());
    h2::serve(client, stream, ahead).await;
}

/// The handshake, and what it settled; `None` when it came to nothing, which rustls has told the client.
async fn secure(worker: &Worker, listener: &Id, stream: TcpStream) -> Option<(Stream, Secured)> {
    let handshakes = &worker.process.handshakes;
    let accepted = match worker.tls.of(&worker.live, listener) {
        Ok(config) => handshake::accept(config, stream).await,
        Err(error) => Err(std::io::Error::other(error)),
    };
    match accepted {
        Ok((stream, secured)) => {
            let counter = match (secured.resumed, secured.is_13) {
                (true, _) => &handshakes.resumed,
                (false, true) => &handshakes.full_13,
                (false, false) => &handshakes.full_12,
            };
            counter.add(1);
            (secured.protocol != Spoken::Acme).then_some((stream, secured))
        }
        Err(error) => {
            handshakes.failed.add(1);
            tracing::debug!(%listener, %error, "a TLS handshake failed");
            None
        }
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, arrived: Arrived, stream: TcpStream, peer: SocketAddr) {
    let _panics = Panics(worker.process.clone());
    let peer = peer.ip().to_canonical();
    let Some(_admitted) = worker.admission.admit(peer, worker.trusted.contains(peer)) else {
        // Boxed, as all that is rare: a connection's task is as large as the largest thing it may have to do.
        return Box::pin(turn_away(&worker, stream)).await;
    };
    let running = worker.running();
    let watch = running.watch().clone();
    let mut serving = pin!(converse(worker, arrived, stream, peer, watch.clone()));
    loop {
        tokio::select! {
            biased;
            () = serving.as_mut() => break,
            told = watch.told() => match told {
                Some(Order::Close) => break,
                // Whatever waits in this task is polled again by the next turn, and looks for itself.
                Some(Order::Finish) | None => {}
            },
        }
    }
}

const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
content-type: text/plain; charset=utf-8\r\ncontent-length: 15\r\n\r\n503 overloaded\n";
const TURNED_AWAY: Duration = Duration::from_millis(200);
