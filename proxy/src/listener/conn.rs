//! One client connection: served until it ends or its worker says so.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etna_store::object::Id;
use futures_util::future::Either;
use tokio::net::TcpStream;

use super::preface::{self, Begun};
use super::proxy_protocol::{Front, meet};
use super::stream::Stream;
use super::watch::{Order, Phase, Watch};
use super::worker::Worker;
use crate::access::record::Recorder;
use crate::proxy_protocol::Origin;
use crate::stats::Process;
use crate::tls::handshake::{self, Secured, Spoken};
use crate::traffic::h1::wire::Wire;
use crate::traffic::interim::Interim;
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
    pub watch: Rc<Watch>,
    /// What puts together lines of the access log, where there is one.
    pub access: Option<Rc<Recorder>>,
    /// Where servers' interim responses go.
    pub interim: Interim,
}

/// Where a connection came in.
pub(super) struct Arrived {
    pub(super) listener: Id,
    /// The listener's port, in text.
    pub(super) port: Rc<str>,
    /// The listener's address.
    pub(super) address: SocketAddr,
    /// What is expected in front of a connection.
    pub(super) front: Rc<Front>,
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

/// What is known of a client: as a proxy in front says, or as the connection does.
fn known(arrived: &Arrived, stream: &TcpStream, peer: SocketAddr, origin: Option<Origin>) -> Peer {
    let listener = arrived.address;
    let Origin { from, to, tls } = origin.unwrap_or_else(|| {
        // Asked of the kernel only where the listener has every address.
        let asked = listener.ip().is_unspecified().then(|| stream.local_addr().ok()).flatten();
        Origin { from: peer, to: asked.unwrap_or(listener), tls: false }
    });
    let own = to.port() == listener.port() || to.port() == 0;
    Peer {
        address: from.ip(),
        from_port: from.port(),
        to,
        text: from.ip().to_string().into(),
        proto: if tls { "https" } else { "http" },
        port: if own { arrived.port.clone() } else { to.port().to_string().into() },
    }
}

/// Shakes hands, where TLS is spoken, and answers what is asked. What most connections do is not boxed, and nothing else
/// is in their task: an async function would keep room for what it was given.
fn converse(
    worker: Rc<Worker>,
    arrived: &Arrived,
    stream: TcpStream,
    peer: Peer,
    watch: Rc<Watch>,
) -> impl Future<Output = ()> + use<> {
    let listener = arrived.listener.clone();
    if arrived.tls {
        let peer = Peer { proto: "https", ..peer };
        return Either::Left(Box::pin(converse_secured(worker, listener, stream, peer, watch)) as Boxed);
    }
    let access = worker.access.as_ref().map(|lines| lines.recorder(false));
    let client = Rc::new(Client { listener, peer, secured: None, watch, access, interim: Interim::default(), worker });
    if client.worker.live.knows_h2c(&client.listener) {
        return Either::Left(Box::pin(speak_either(client, Stream::Plain(stream))) as Boxed);
    }
    let wire = Wire::new(Stream::Plain(stream), client.watch.clone(), client.worker.scratch.clone());
    Either::Right(h1::serve(client, wire))
}

/// The same where TLS is spoken.
async fn converse_secured(worker: Rc<Worker>, listener: Id, stream: TcpStream, peer: Peer, watch: Rc<Watch>) {
    // Boxed, as it is over soon.
    let Some((stream, secured)) = Box::pin(secure(&worker, &listener, stream)).await else { return };
    watch.enter(Phase::Head);
    let access = worker.access.as_ref().map(|lines| lines.recorder(false));
    let spoken = secured.protocol;
    let (secured, interim) = (Some(Rc::new(secured)), Interim::default());
    let client = Rc::new(Client { listener, peer, secured, watch, access, interim, worker });
    match spoken {
        // Boxed, so that connections of HTTP/1.1 take no room for it.
        Spoken::Http2 => Box::pin(speak_h2(client, stream, Bytes::new())).await,
        _ => {
            let wire = Wire::new(stream, client.watch.clone(), client.worker.scratch.clone());
            h1::serve(client, wire).await;
        }
    }
}

/// What few connections do.
type Boxed = Pin<Box<dyn Future<Output = ()>>>;

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
        Ok((config, terms)) => {
            let refusing = terms.refuses_unknown.then_some(&*worker.live);
            handshake::accept(config, refusing, terms.tells_servers, stream).await
        }
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
pub(super) async fn serve(worker: Rc<Worker>, arrived: Rc<Arrived>, stream: TcpStream, peer: SocketAddr) {
    let _panics = Panics(worker.process.clone());
    let address = peer.ip().to_canonical();
    let visitor = arrived.front.visitor(address, &worker.trusted);
    let is_front = visitor.as_ref().is_some_and(|visitor| visitor.is_trusted);
    let exempt = is_front || worker.trusted.contains(address);
    let Some(mut admitted) = worker.admission.admit(address, exempt) else {
        // Boxed, as all that is rare: a connection's task is as large as the largest thing it may have to do.
        return Box::pin(turn_away(&worker, stream)).await;
    };
    let running = worker.running();
    let watch = running.watch().clone();
    let origin = match visitor {
        None => None,
        Some(visitor) => {
            let from = (&stream, address);
            let met = meet(&arrived.front, &visitor, &arrived.listener, from, &worker, &watch);
            let Ok(origin) = Box::pin(met).await else { return };
            watch.enter(Phase::Head);
            origin
        }
    };
    if let Some(Origin { from, .. }) = origin
        && !worker.trusted.contains(from.ip())
        && !admitted.counts_for(from.ip())
    {
        return Box::pin(turn_away(&worker, stream)).await;
    }
    let peer = known(&arrived, &stream, SocketAddr::new(address, peer.port()), origin);
    let mut serving = pin!(converse(worker, &arrived, stream, peer, watch.clone()));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_waits_takes_little_room() {
        // A hundred thousand of them are a hundred thousand times this, and what their sockets take.
        let served = size(serve);
        assert!(served <= 800, "{served} bytes");
    }
}
