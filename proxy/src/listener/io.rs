//! Streams as hyper gets them: [`Flat`] writes small messages with one `send`; [`Watched`] also remembers when bytes
//! last arrived, in the [`Watch`] that a client's connection shares with its worker.
//!
//! hyper does not tell when a request's first byte comes in, and the limit on reading a head is another one than the
//! limit on idle connections; so the stream itself notes it. No timer is set per request: a worker looks over its
//! connections once a second and orders to close those that are late.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What a client's connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a request.
    Idle,
    /// A request's head has begun to arrive.
    Head,
    /// A request is being answered.
    Busy,
}

/// What a worker may tell a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Finish what runs, then close.
    Finish,
    /// Close now.
    Close,
}

/// A connection's state as its worker sees it. Times are the worker's seconds.
#[derive(Debug)]
pub struct Watch {
    clock: Arc<AtomicU32>,
    /// Phase in the upper half, since when in the lower.
    state: AtomicU64,
    order: AtomicU32,
    told: Notify,
    /// Whether the stream has left HTTP: then its two directions end one after the other.
    is_tunnel: AtomicBool,
    /// The second after which waiting for a server is too long; `u32::MAX` while nobody waits.
    deadline: AtomicU32,
}

impl Watch {
    /// A connection that was just accepted.
    pub fn new(clock: Arc<AtomicU32>) -> Watch {
        let watch = Watch {
            clock,
            state: AtomicU64::new(0),
            order: AtomicU32::new(0),
            told: Notify::new(),
            is_tunnel: AtomicBool::new(false),
            deadline: AtomicU32::new(u32::MAX),
        };
        // A client that connects and says nothing is as slow as one that stops in the middle of a head.
        watch.enter(Phase::Head);
        watch
    }

    /// Enters a phase now.
    pub fn enter(&self, phase: Phase) {
        let phase = match phase {
            Phase::Idle => 0,
            Phase::Head => 1,
            Phase::Busy => 2u64,
        };
        self.state.store(phase << 32 | u64::from(self.clock.load(Relaxed)), Relaxed);
    }

    /// What it is doing, and for how many seconds.
    pub fn phase(&self) -> (Phase, u32) {
        let state = self.state.load(Relaxed);
        let phase = match state >> 32 {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Busy,
        };
        (phase, self.clock.load(Relaxed).wrapping_sub(state as u32))
    }

    /// The connection becomes a tunnel.
    pub fn becomes_tunnel(&self) {
        self.is_tunnel.store(true, Relaxed);
    }

    /// Begins to wait for a server for at most so long, rounded up to the next second.
    pub fn wait_at_most(&self, limit: Duration) {
        let seconds = u32::try_from(limit.as_secs() + 1).unwrap_or(u32::MAX);
        self.deadline.store(self.clock.load(Relaxed).saturating_add(seconds), Relaxed);
    }

    /// Ends waiting.
    pub fn waited(&self) {
        self.deadline.store(u32::MAX, Relaxed);
    }

    /// Whether waiting has taken too long.
    pub fn is_overdue(&self) -> bool {
        self.clock.load(Relaxed) > self.deadline.load(Relaxed)
    }

    /// Has the connection's task look at its deadline.
    pub fn nudge(&self) {
        self.told.notify_one();
    }

    /// Tells the connection's task what to do.
    pub fn order(&self, order: Order) {
        let code = match order {
            Order::Finish => 1,
            Order::Close => 2,
        };
        self.order.fetch_max(code, Relaxed);
        self.told.notify_one();
    }

    /// Waits to be told something: an order, or `None` to look at the deadline.
    pub async fn told(&self) -> Option<Order> {
        self.told.notified().await;
        match self.order.load(Relaxed) {
            0 => None,
            1 => Some(Order::Finish),
            _ => Some(Order::Close),
        }
    }
}

/// A stream that writes several small buffers as one: for a head and a short body, copying them together costs less
/// than the kernel's gathering.
#[derive(Debug)]
pub struct Flat(TcpStream);

impl Flat {
    /// Wraps a connected stream.
    pub fn new(stream: TcpStream) -> Flat {
        Flat(stream)
    }
}

impl AsyncRead for Flat {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Flat {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs {
            [one] => Pin::new(&mut self.0).poll_write(cx, one),
            several if several.iter().map(|buf| buf.len()).sum::<usize>() <= FLAT => {
                let mut flat = [0; FLAT];
                let mut length = 0;
                for buf in several {
                    flat[length..length + buf.len()].copy_from_slice(buf);
                    length += buf.len();
                }
                Pin::new(&mut self.0).poll_write(cx, &flat[..length])
            }
            several => Pin::new(&mut self.0).poll_write_vectored(cx, several),
        }
    }
}

/// A client's stream.
#[derive(Debug)]
pub struct Watched {
    stream: Flat,
    watch: Arc<Watch>,
}

impl Watched {
    /// Notes in `watch` when bytes arrive on `stream`.
    pub fn new(stream: TcpStream, watch: Arc<Watch>) -> Watched {
        Watched { stream: Flat::new(stream), watch }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before && self.watch.phase().0 == Phase::Idle {
            self.watch.enter(Phase::Head);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper shuts a connection down only to close it right after, which says the same with one system call.
        if self.watch.is_tunnel.load(Relaxed) {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

/// Up to so many bytes are copied together.
const FLAT: usize = 2048;
