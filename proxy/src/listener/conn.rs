//! One client connection: served until it ends or its worker says so.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use etna_store::object::Id;
use tokio::net::TcpStream;

use super::preface::{self, Begun};
use super::watch::{Order, Watch};
use super::worker::Worker;
use crate::stats::Process;
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
    /// What its worker watches of it.
    pub watch: Arc<Watch>,
}

/// Where a connection came in.
#[derive(Clone)]
pub(super) struct Arrived {
    pub(super) listener: Id,
    /// The listener's port, in text.
    pub(super) port: Rc<str>,
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
    let client = Rc::new(Client {
        listener: arrived.listener,
        peer: Peer { address: peer, text: peer.to_string(), proto: "http", port: arrived.port },
        watch: watch.clone(),
        worker,
    });
    if client.worker.live.knows_h2c(&client.listener) {
        let mut serving = Box::pin(speak(client, stream));
        return until_told(&watch, serving.as_mut()).await;
    }
    let mut serving = pin!(h1::serve(client.clone(), Wire::new(stream, watch.clone(), client.worker.scratch.clone())));
    until_told(&watch, serving.as_mut()).await;
}

/// Goes on until it ends, or the worker says that it must.
async fn until_told(watch: &Watch, mut serving: Pin<&mut impl Future<Output = ()>>) {
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

/// Speaks what the client begins with.
async fn speak(client: Rc<Client>, mut stream: TcpStream) {
    match preface::read(&mut stream).await {
        Some(Begun::H2(ahead)) => {
            // Its requests may wait for hours, and any of them may be a tunnel.
            tunnel::ask_whether_there(&stream);
            h2::serve(client, stream, ahead).await;
        }
        Some(Begun::H1(ahead)) => {
            let wire = Wire::new(stream, client.watch.clone(), client.worker.scratch.clone());
            wire.begins_with(&ahead);
            h1::serve(client, wire).await;
        }
        None => {}
    }
}

const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
content-type: text/plain; charset=utf-8\r\ncontent-length: 15\r\n\r\n503 overloaded\n";
const TURNED_AWAY: Duration = Duration::from_millis(200);
