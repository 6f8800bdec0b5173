//! One client connection: HTTP/1.1 on it, until it ends or its worker says so.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use etna_store::object::Id;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::io::{Order, Phase, Watch, Watched};
use super::worker::Worker;
use crate::traffic::service;
use crate::traffic::trust::Peer;

/// A client's connection, as its requests see it.
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

/// A request being answered on a connection: until this value is dropped.
pub struct Busy(Arc<Watch>);

impl Client {
    /// A request has arrived.
    pub fn begin(&self) -> Busy {
        self.watch.enter(Phase::Busy);
        Busy(self.watch.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// Where a connection came in.
#[derive(Clone)]
pub(super) struct Arrived {
    pub(super) listener: Id,
    /// The listener's port, in text.
    pub(super) port: Rc<str>,
}

/// Serves a connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, arrived: Arrived, stream: TcpStream, peer: SocketAddr) {
    let running = worker.running();
    let watch = running.watch().clone();
    let peer = peer.ip().to_canonical();
    let client = Rc::new(Client {
        listener: arrived.listener,
        peer: Peer { address: peer, text: peer.to_string(), proto: "http", port: arrived.port },
        watch: watch.clone(),
        worker,
    });
    let io = TokioIo::new(Watched::new(stream, watch.clone()));
    let service = service_fn(move |request| {
        let client = client.clone();
        async move { Ok::<_, Infallible>(service::handle(client, request).await) }
    });
    let connection = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            biased;
            // Errors are the client's: it went away, or spoke something else than HTTP and was told so.
            _ = connection.as_mut() => break,
            told = watch.told() => match told {
                Some(Order::Finish) => connection.as_mut().graceful_shutdown(),
                Some(Order::Close) => break,
                // Whatever waits in this task is polled again by the next turn.
                None => {}
            },
        }
    }
}

/// Header fields of a request.
const MAX_HEADERS: usize = 100;
/// Longest request head, in bytes.
const MAX_HEAD: usize = 64 * 1024;
