//! One connection of HTTP/2, and the task that drives it: it reads and writes, and asks a server that is silent whether
//! it is still there.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::MissedTickBehavior;

use crate::backend::stream::Stream;
use crate::backend::wire::Announced;
use crate::tls::servers::ServerTls;

/// A connection that requests share.
pub(super) struct Multiplexed {
    pub(super) sender: SendRequest<Bytes>,
    /// What it began with: it is for requests of that origin alone.
    pub(super) announced: Option<Box<Announced>>,
    /// On whose terms it is encrypted.
    pub(super) terms: Option<Arc<ServerTls>>,
    pub(super) state: Rc<State>,
}

/// What of a connection its driver and its users know.
#[derive(Default)]
pub(super) struct State {
    /// Requests on it.
    pub(super) active: Cell<usize>,
    /// Whether a request was answered on it.
    pub(super) served: Cell<bool>,
    /// Seconds without a request.
    pub(super) idle: Cell<u32>,
    /// Bytes that came.
    heard: Cell<u64>,
    /// Whether it has ended.
    ended: Cell<bool>,
    /// Whether it was ended because the server did not answer: what it had begun with, nobody knows.
    pub(super) is_dead: Cell<bool>,
}

impl Multiplexed {
    /// Begins HTTP/2; `Err` where the server speaks something else.
    pub(super) async fn begin(
        stream: Stream,
        announced: Option<Box<Announced>>,
        terms: Option<Arc<ServerTls>>,
    ) -> io::Result<Multiplexed> {
        let state = Rc::new(State::default());
        let heard = Heard { stream, state: state.clone() };
        let (sender, mut connection) = builder().handshake(heard).await.map_err(io::Error::other)?;
        // Its settings say how much it takes, and whether it speaks HTTP/2 at all.
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(io::Error::other(error))),
            Poll::Pending if state.heard.get() >= FRAME_HEAD => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        tokio::task::spawn_local(drive(connection, state.clone()));
        Ok(Multiplexed { sender, announced, terms, state })
    }

    /// Whether the server takes new requests on it.
    pub(super) fn is_open(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        !self.state.ended.get() && matches!(self.sender.poll_ready(&mut context), Poll::Ready(Ok(())))
    }

    /// Requests it may carry at a time.
    pub(super) fn most(&self) -> usize {
        self.sender.current_max_send_streams().min(MOST_STREAMS)
    }
}

fn builder() -> Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(WINDOW)
        // Whoever does not read takes the room of nobody else.
        .initial_connection_window_size(WINDOW * MOST_STREAMS as u32)
        .max_header_list_size(LONGEST_HEAD)
        .max_send_buffer_size(WINDOW as usize);
    builder
}

/// Drives a connection until it ends, or the server does not answer any more.
async fn drive(mut connection: Connection<Heard, Bytes>, state: Rc<State>) {
    let mut asking = Asking::new(connection.ping_pong());
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection of HTTP/2 to a server ended");
                }
                break;
            }
            _ = seconds.tick() => {
                if asking.is_dead(&state) {
                    tracing::debug!("a server does not answer on its connection of HTTP/2 any more");
                    state.is_dead.set(true);
                    break;
                }
            }
        }
    }
    // With the connection every request ends that is still on it.
    state.ended.set(true);
}

/// Asks a server that is silent while there are requests.
struct Asking {
    pings: Option<PingPong>,
    /// Bytes heard a second ago.
    heard: u64,
    /// Seconds without a byte.
    silent: u32,
    /// Seconds since it was asked, and what had been heard by then; and whether it answered.
    asked: Option<(u32, u64)>,
}

impl Asking {
    fn new(pings: Option<PingPong>) -> Asking {
        Asking { pings, heard: 0, silent: 0, asked: None }
    }

    /// A second has passed: whether the server must be thought dead.
    fn is_dead(&mut self, state: &State) -> bool {
        let heard = state.heard.get();
        let is_silent = heard == self.heard && state.active.get() > 0;
        self.silent = if is_silent { self.silent + 1 } else { 0 };
        self.heard = heard;
        if let Some((since, by_then)) = &mut self.asked {
            *since += 1;
            if heard == *by_then && *since >= ANSWERS_WITHIN && is_silent {
                return true;
            }
            // gRPC's servers send away who asks more often while they themselves send nothing.
            if heard > *by_then + ANSWER || *since > NOT_AGAIN_WITHIN {
                self.asked = None;
            }
        }
        if self.silent >= SILENT && self.asked.is_none() {
            self.ask(heard);
        }
        false
    }

    fn ask(&mut self, heard: u64) {
        if let Some(pings) = &mut self.pings {
            // The answer to the last one, if there was one, makes room for the next.
            let _ = pings.poll_pong(&mut Context::from_waker(Waker::noop()));
            if pings.send_ping(Ping::opaque()).is_ok() {
                self.asked = Some((0, heard));
            }
        }
    }
}

/// A stream that counts what comes, and on which writing to a server that has closed is no error: what it said last is
/// still to be read, answers and with what it has not begun, and reading then comes to the end.
struct Heard {
    stream: Stream,
    state: Rc<State>,
}

impl AsyncRead for Heard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let heard = &self.state.heard;
        heard.set(heard.get() + (buf.filled().len() - before) as u64);
        polled
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        written.map(|written| or_gone(written, buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        written.map(|written| or_gone(written, bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map(|flushed| or_gone(flushed, ()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn or_gone<T>(done: io::Result<T>, whole: T) -> io::Result<T> {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    match done {
        Err(error) if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset) => Ok(whole),
        done => done,
    }
}

/// Requests on one connection at a time, where the server takes as many.
const MOST_STREAMS: usize = 100;
/// Bytes of one response's body that may wait for a client who reads slowly.
const WINDOW: u32 = 128 * 1024;
/// Longest response head, in bytes, as for HTTP/1.1.
const LONGEST_HEAD: u32 = 128 * 1024;
/// Bytes of a frame's head (RFC 9113 section 4.1).
const FRAME_HEAD: u64 = 9;
/// Bytes of the answer to a PING (RFC 9113 section 6.7).
const ANSWER: u64 = 17;
/// After so many seconds of silence a server is asked.
const SILENT: u32 = 5;
/// Seconds it has to answer.
const ANSWERS_WITHIN: u32 = 5;
/// Seconds until it is asked again, where it sends nothing but answers to that.
const NOT_AGAIN_WITHIN: u32 = 310;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(asking: &mut Asking, state: &State, seconds: u32) -> Option<u32> {
        (1..=seconds).find(|_| asking.is_dead(state))
    }

    #[test]
    fn only_who_is_silent_while_asked_is_dead() {
        let state = State::default();
        let mut asking = Asking::new(None);
        assert_eq!(after(&mut asking, &state, 1000), None, "nobody wants anything of it");
        state.active.set(1);
        assert_eq!(after(&mut asking, &state, SILENT), None);
        asking.asked = Some((0, 0));
        assert_eq!(after(&mut asking, &state, 100), Some(ANSWERS_WITHIN));
        // It answers, and is left alone for long.
        asking.asked = Some((0, 0));
        state.heard.set(ANSWER);
        assert_eq!(after(&mut asking, &state, NOT_AGAIN_WITHIN - 1), None);
        assert!(asking.asked.is_some());
        // What it sends besides makes it one that may be asked again.
        state.heard.set(100);
        assert_eq!(after(&mut asking, &state, 1), None);
        assert!(asking.asked.is_none());
    }
}
