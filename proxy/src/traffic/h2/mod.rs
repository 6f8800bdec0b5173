//! HTTP/2 towards clients: a connection's streams, each a request of its own, until the connection ends.
//!
//! Frames, header compression and flow control are the `h2` crate's; how much of anything a client may have of us is
//! ours (`calm`, `meter`, `unsent`). Every stream has a task (`seats`) and is watched as an HTTP/1.1 connection is.
//! Which server answers is not known here; `service.rs` does the rest. No push, no priorities: clients go without.

mod answer;
mod calm;
mod duplex;
mod frames;
mod head;
pub mod interim;
pub mod known;
mod meter;
pub mod seats;
mod stream;
mod unsent;
pub mod upload;

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use self::calm::Calm;
use self::meter::Meter;
use self::seats::Streams;
use self::stream::Begun;
use self::unsent::Piece;
use crate::listener::conn::Client;
use crate::listener::watch::Phase;

/// What a client that knows that we speak HTTP/2 sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection until it ends. `ahead` is what was read from it already.
pub async fn serve<T>(client: Rc<Client>, stream: T, ahead: Bytes)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let http2 = &client.worker.process.http2;
    http2.connections.add(1);
    let calm = Rc::new(Calm::new(client.watch.clone()));
    let stream = Rc::new(RefCell::new(stream));
    let meter = Meter::new(stream.clone(), ahead, calm.clone());
    let ended = match settings().handshake(meter).await {
        Ok(connection) => {
            let streams = Streams::new(client.worker.seats.clone());
            let mut serving = Serving { connection, client: client.clone(), calm, streams, told: None, leaves: None };
            poll_fn(|cx| serving.poll(cx)).await
        }
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => {}
        Err(error) => {
            tracing::debug!(%error, "a connection of HTTP/2 ended");
            match error.reason() {
                Some(reason) if error.is_library() => {
                    client.worker.process.refused.add(1);
                    http2.goaways.of(reason).add(1);
                }
                // The client's own, or its connection broke.
                Some(_) | None => return,
            }
        }
    }
    linger(&stream).await;
}

/// What we say of ourselves, and how much a client may have of us at once.
fn settings() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(LONGEST_HEAD)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_concurrent_reset_streams(RESET_REMEMBERED)
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(Some(MOST_ERRORS))
        .enable_connect_protocol();
    builder
}

/// A connection being served.
struct Serving<T> {
    connection: Connection<Meter<T>, Piece>,
    client: Rc<Client>,
    calm: Rc<Calm>,
    streams: Streams,
    /// How the client was told to go.
    told: Option<Reason>,
    /// When a client that was told to go and does nothing is left.
    leaves: Option<Pin<Box<Sleep>>>,
}

impl<T> Serving<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    /// Ready when the connection has ended; `Err` when one of both has ended it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.streams.watch(cx);
        loop {
            self.tell();
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    let streams = &self.client.worker.process.http2.streams;
                    streams.add(1);
                    self.calm.accepted();
                    // Before anything is made of it: many may come before the first is looked at.
                    let Some(held) = self.calm.hold(head::size(&request)) else {
                        respond.send_reset(Reason::REFUSED_STREAM);
                        continue;
                    };
                    let (connection, calm) = (self.client.clone(), self.calm.clone());
                    self.streams.serve(Begun { connection, calm, held, request, respond });
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => self.calm.all_accepted(),
            }
            if self.told == self.calm.fault() || self.calm.fault().is_none() {
                break;
            }
        }
        self.enter_phase();
        self.poll_leave(cx)
    }

    /// Tells the client to go, where it is time to.
    fn tell(&mut self) {
        let goaways = &self.client.worker.process.http2.goaways;
        if let Some(fault) = self.calm.fault() {
            if self.told != Some(fault) {
                self.told = Some(fault);
                self.leaves = None;
                self.connection.abrupt_shutdown(fault);
                self.client.worker.process.refused.add(1);
                goaways.of(fault).add(1);
            }
        } else if self.told.is_none() && (self.client.watch.is_finishing() || self.client.worker.is_draining()) {
            self.told = Some(Reason::NO_ERROR);
            self.connection.graceful_shutdown();
            goaways.no_error.add(1);
        }
    }

    /// Notes what the connection does, for its worker.
    fn enter_phase(&self) {
        let phase = if self.calm.is_in_head() {
            Phase::Head
        } else if self.streams.is_empty() {
            Phase::Idle
        } else {
            Phase::Busy
        };
        if self.client.watch.phase().0 != phase {
            self.client.watch.enter(phase);
        }
    }

    /// Leaves a client that was told to go, and had the time to.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let patience = match self.told {
            Some(Reason::NO_ERROR) if self.streams.is_empty() => PATIENCE,
            Some(Reason::NO_ERROR) | None => {
                self.leaves = None;
                return Poll::Pending;
            }
            Some(_) => LINGER,
        };
        let leaves = self.leaves.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(leaves.as_mut().poll(cx));
        Poll::Ready(Ok(()))
    }
}

/// Gives a client the time to read why its connection ends: closed over unread bytes, it would be reset.
async fn linger<T>(stream: &RefCell<T>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let rest = async {
        let down = poll_fn(|cx| Pin::new(&mut *stream.borrow_mut()).poll_shutdown(cx)).await;
        let mut scratch = [0; 1024];
        while down.is_ok() {
            let read = poll_fn(|cx| {
                let mut room = ReadBuf::new(&mut scratch);
                ready!(Pin::new(&mut *stream.borrow_mut()).poll_read(cx, &mut room))?;
                Poll::Ready(std::io::Result::Ok(room.filled().len()))
            });
            if !matches!(read.await, Ok(1..)) {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// Bytes of a request's body that may be on their way before its server takes them.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all requests of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Requests of a connection at once: no fewer than RFC 9113 section 5.1.2 asks for, and no more than may be begun and
/// taken back.
const MOST_STREAMS: u32 = 100;
/// Longest head in bytes, 32 for each field included, as for HTTP/1.1.
const LONGEST_HEAD: u32 = super::h1::head::MAX_HEAD as u32;
/// Bytes of a response that wait to be written, for each stream; `unsent` bounds their sum.
const SEND_BUFFER: usize = 16 * 1024;
/// Requests taken back before anybody looked at them.
const RESET_UNSEEN: usize = 50;
/// Streams that we ended and the client may not know of.
const RESET_REMEMBERED: usize = 200;
const RESET_MEMORY: Duration = Duration::from_secs(5);
/// Streams ended by a client's mistakes, as long as its connection lives.
const MOST_ERRORS: usize = 1000;
/// How long a client that was told to go may stay without a request.
const PATIENCE: Duration = Duration::from_secs(5);
const LINGER: Duration = Duration::from_secs(1);
