//! A client's connection in HTTP/1.1: what arrives on it, and whether anybody is still there.
//!
//! One value, shared by the connection's loop and the body of the request it is answering; both run in one task. How
//! fast the client sends and reads is noted in the connection's [`Watch`], over which its worker looks once a second.

mod relay;
mod spliced;

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Version;
use http_body::Frame;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Interval;
use tokio_util::io::poll_read_buf;

use super::head::{self, Head};
use crate::backend::framing::{Framing, Step};
use crate::error::Error;
use crate::listener::stream::Stream;
use crate::listener::watch::{Phase, Waiting, Watch};
use crate::splice::Pipes;
use crate::traffic::body::BodyError;

/// A client's connection.
pub struct Wire {
    stream: RefCell<Stream>,
    /// Read and not used yet.
    inbox: RefCell<BytesMut>,
    /// How much of the inbox was searched for a head's end.
    scanned: Cell<usize>,
    /// What is left of the current request's body.
    incoming: RefCell<Framing>,
    /// How much is read of a body at once: more as long as more comes.
    room: Cell<usize>,
    /// Whether the client waits for `100 Continue`.
    continues: Cell<bool>,
    /// Whether the client has sent all it will.
    ended: Cell<bool>,
    /// When the current response has begun, in the watch's seconds.
    answering: Cell<Option<u32>>,
    /// Whether the client knows interim answers.
    knows_interim: Cell<bool>,
    /// The rest of an interim head that went out in part.
    begun: RefCell<Vec<u8>>,
    /// After the client ended with its request: asks whether it is still there.
    asking: RefCell<Option<Asking>>,
    /// What its worker watches of it.
    pub watch: Rc<Watch>,
    scratch: Rc<Scratch>,
}

/// What all connections of a worker share: room to read into, so that what waits for a head keeps no more than has
/// arrived, and pipes.
pub struct Scratch {
    room: RefCell<Box<[u8]>>,
    pipes: Rc<Pipes>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch { room: RefCell::new(vec![0; HEAD_READ].into()), pipes: Rc::default() }
    }
}

impl Scratch {
    /// The room, until it is asked for again: it holds nothing from one poll to the next.
    pub fn room(&self) -> RefMut<'_, [u8]> {
        RefMut::map(self.room.borrow_mut(), |room| &mut **room)
    }
}

struct Asking {
    tick: Interval,
    ticks: u32,
}

impl Wire {
    /// A connection that was just accepted.
    pub fn new(stream: Stream, watch: Rc<Watch>, scratch: Rc<Scratch>) -> Rc<Wire> {
        Rc::new(Wire {
            stream: RefCell::new(stream),
            inbox: RefCell::default(),
            scanned: Cell::new(0),
            incoming: RefCell::new(Framing::Done),
            room: Cell::new(LEAST_READ),
            continues: Cell::new(false),
            ended: Cell::new(false),
            answering: Cell::default(),
            knows_interim: Cell::new(false),
            begun: RefCell::default(),
            asking: RefCell::default(),
            watch,
            scratch,
        })
    }

    /// Takes what was read from the connection before.
    pub fn begins_with(&self, ahead: &[u8]) {
        self.inbox.borrow_mut().extend_from_slice(ahead);
    }

    /// The next request's head; `None` when the client has none, or was told to go and none has begun.
    pub fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Head>, Error>> {
        loop {
            let mut scanned = self.scanned.get();
            let read = {
                let mut inbox = self.inbox.borrow_mut();
                if inbox.is_empty() { Ok(None) } else { head::read(&mut inbox, &mut scanned) }
            };
            self.scanned.set(scanned);
            if let Some(head) = read? {
                return Poll::Ready(Ok(Some(head)));
            }
            let nothing = self.inbox.borrow().is_empty();
            if self.ended.get() || (nothing && self.watch.is_finishing()) {
                return Poll::Ready(Ok(None));
            }
            match ready!(self.poll_arrived(cx)) {
                Ok(0) | Err(_) => self.ended.set(true),
                Ok(_) => {
                    if self.watch.phase().0 == Phase::Idle {
                        self.watch.enter(Phase::Head);
                    }
                }
            }
        }
    }

    /// A request begins, with this body to come.
    pub fn begin(&self, framing: Framing, expects_continue: bool, version: Version) {
        self.continues.set(expects_continue && !matches!(framing, Framing::Done));
        self.incoming.replace(framing);
        self.answering.set(None);
        self.knows_interim.set(version == Version::HTTP_11);
        self.watch.enter(Phase::Busy);
    }

    /// The response to it begins. Whoever ends some time after that has left.
    pub fn answer(&self) {
        self.answering.set(Some(self.watch.now()));
        self.continues.set(false);
    }

    /// Whether the whole request has arrived.
    pub fn is_request_whole(&self) -> bool {
        matches!(*self.incoming.borrow(), Framing::Done)
    }

    /// How much of the request's body is still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match *self.incoming.borrow() {
            Framing::Done => Some(0),
            Framing::Length(left) => Some(left),
            Framing::Chunked(_) | Framing::UntilClose => None,
        }
    }

    /// Whether something arrived that nobody has used.
    pub fn has_more(&self) -> bool {
        !self.inbox.borrow().is_empty()
    }

    /// Whether the client still waits to be told to send its body.
    pub fn is_held(&self) -> bool {
        self.continues.get()
    }

    /// Reads on in the request's body.
    pub fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.continues.get() && !self.inbox.borrow().is_empty() {
            // It did not wait.
            self.continues.set(false);
        }
        if self.continues.get() {
            ready!(self.poll_interim(cx))?;
            self.continues.set(false);
        }
        loop {
            let mut incoming = self.incoming.borrow_mut();
            let mut inbox = self.inbox.borrow_mut();
            match &mut *incoming {
                Framing::Done => return Poll::Ready(None),
                Framing::Length(left) if !inbox.is_empty() => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(inbox.len());
                    incoming.came(here);
                    return Poll::Ready(Some(Ok(Frame::data(inbox.split_to(here).freeze()))));
                }
                Framing::Chunked(chunks) if !inbox.is_empty() => match chunks.step(&mut inbox) {
                    Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Step::End(trailers)) => {
                        *incoming = Framing::Done;
                        let trailers = (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers)));
                        return Poll::Ready(trailers);
                    }
                    Ok(Step::More) => {}
                    Err(_) => return Poll::Ready(Some(Err(BodyError::Malformed))),
                },
                Framing::Length(_) | Framing::Chunked(_) | Framing::UntilClose => {}
            }
            drop((incoming, inbox));
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => {
                    self.ended.set(true);
                    return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Pending if self.watch.is_slow() => return Poll::Ready(Some(Err(BodyError::Slow))),
                Poll::Pending => {
                    self.watch.waits_for(Waiting::Body);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Ready when nobody is there any more to be answered. A client that ends its side about when its request ends may
    /// still read (`nc -N`) or be gone altogether; what is sent to one that is gone comes back as an error.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_request_whole() {
            // Whoever reads the body finds out.
            return Poll::Pending;
        }
        while !self.ended.get() {
            if self.inbox.borrow().len() >= MOST_AHEAD {
                return Poll::Pending;
            }
            match ready!(self.poll_arrived(cx)) {
                Ok(0) if self.answering.get().is_some_and(|began| self.watch.now() > began + ENDS_WITHIN) => {
                    return Poll::Ready(());
                }
                Ok(0) => {
                    self.ended.set(true);
                    // Where nothing is sent for long, the kernel asks.
                    let keepalive = TcpKeepalive::new().with_time(KERNEL_ASKS).with_interval(KERNEL_ASKS);
                    let _ = SockRef::from(self.stream.borrow().tcp()).set_tcp_keepalive(&keepalive);
                }
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        let mut asking = self.asking.borrow_mut();
        let asking = asking.get_or_insert_with(|| Asking { tick: tokio::time::interval(ASK_EVERY), ticks: 0 });
        loop {
            ready!(asking.tick.poll_tick(cx));
            asking.ticks += 1;
            if asking.ticks > 2 * ASK_AFTER {
                asking.tick.reset_after(ASK_LATER);
            }
            if !matches!(self.stream.borrow().tcp().take_error(), Ok(None)) {
                return Poll::Ready(());
            }
            // Any client has to put up with an interim answer (RFC 9110 section 15.2).
            if asking.ticks == ASK_AFTER && self.answering.get().is_none() && self.knows_interim.get() {
                let _ = self.poll_interim(cx);
            }
        }
    }

    /// Writes to the client.
    pub fn poll_write(&self, head: &[u8], body: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        let stream = Pin::new(&mut *stream);
        let written = match (head.is_empty(), body.is_empty()) {
            (_, true) => stream.poll_write(cx, head),
            (true, false) => stream.poll_write(cx, body),
            (false, false) => stream.poll_write_vectored(cx, &[io::IoSlice::new(head), io::IoSlice::new(body)]),
        };
        self.wrote(&written);
        written
    }

    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(written)) => self.watch.moved(*written, Waiting::Reader),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.watch.waits_for(Waiting::Reader),
        }
    }

    /// Has everything written go out, where something is between us and the kernel.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut *self.stream.borrow_mut()).poll_flush(cx);
        if flushed.is_pending() {
            self.watch.waits_for(Waiting::Reader);
        }
        flushed
    }

    /// Reads and forgets what the client still sends, and whether it has ended.
    pub fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<bool> {
        self.inbox.borrow_mut().clear();
        match ready!(self.poll_fill(cx)) {
            Ok(0) | Err(_) => Poll::Ready(true),
            Ok(_) => Poll::Ready(false),
        }
    }

    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(*self.stream.borrow(), Stream::Tls(_))
    }

    /// Says that nothing more comes from us.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }

    /// Has the connection end with a reset, so that a body without a length does not look complete.
    pub fn reset(&self) {
        let _ = self.stream.borrow().tcp().set_zero_linger();
    }

    /// The stream, and what was read from it already, once it no longer speaks HTTP. Every request has been dropped.
    pub fn into_tunnel(self: Rc<Wire>) -> Option<(Stream, Bytes)> {
        let wire = Rc::into_inner(self)?;
        Some((wire.stream.into_inner(), wire.inbox.into_inner().freeze()))
    }

    /// Reads what has arrived of heads.
    fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = self.scratch.room();
        let mut room = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut room))?;
        self.inbox.borrow_mut().extend_from_slice(room.filled());
        Poll::Ready(Ok(room.filled().len()))
    }

    /// Reads what has arrived of a body.
    fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox.borrow_mut();
        let room = self.room.get();
        inbox.reserve(room);
        let read = poll_read_buf(Pin::new(&mut *self.stream.borrow_mut()), cx, &mut *inbox);
        if let Poll::Ready(Ok(read)) = &read {
            self.watch.moved(*read, Waiting::Body);
            self.room.set(if *read >= room { (2 * room).min(BODY_READ) } else { (room / 2).max(LEAST_READ) });
        }
        read
    }

    fn poll_interim(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_begun(cx))?;
        // Nothing is waiting to be sent before a response, so that its 25 bytes always fit.
        let written = ready!(self.poll_write(INTERIM, &[], cx))?;
        Poll::Ready(if written == INTERIM.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) })
    }
}

const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const HEAD_READ: usize = 16 * 1024;
const LEAST_READ: usize = 4 * 1024;
const BODY_READ: usize = 64 * 1024;
/// Bytes of the next requests that are read while one is answered.
const MOST_AHEAD: usize = 16 * 1024;
/// Seconds, rounded down, after a response's begin until which a client's end is that of its request.
const ENDS_WITHIN: u32 = 1;
const ASK_EVERY: Duration = Duration::from_millis(20);
const ASK_AFTER: u32 = 3;
const ASK_LATER: Duration = Duration::from_secs(1);
const KERNEL_ASKS: Duration = Duration::from_secs(10);
