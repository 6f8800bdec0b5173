//! Bodies on their way through: streamed, never gathered.
//!
//! A response body carries what has to happen when it ends: the connection goes back to the pool, the request stops
//! counting as in flight. All of it happens on drop, so that it also happens when the client leaves.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::incoming::Incoming;
use super::tunnel::Tunnel;
use crate::backend::InFlight;
use crate::backend::framing::Framing;
use crate::backend::multiplexed::Receiving;
use crate::backend::pool::Keep;
use crate::backend::sending::Sending;
use crate::backend::wire::Connection;
use crate::listener::worker::Worker;
use crate::splice::Pipe;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Why a body stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection it came from broke.
    #[error(transparent)]
    Broken(#[from] io::Error),
    /// Its framing is malformed.
    #[error("a chunk is malformed")]
    Malformed,
    /// It comes too slowly.
    #[error("the body did not arrive in time")]
    Slow,
    /// It became longer than the frontend allows.
    #[error("request body too large")]
    TooLarge,
}

/// A request body towards a server.
#[derive(Debug)]
pub enum RequestBody {
    /// None.
    Empty,
    /// As it comes from the client.
    Streamed(Incoming),
    /// As it comes from the client, up to so many bytes.
    Limited(Incoming, u64),
    /// Read before, because the request may have to be sent twice.
    Whole {
        /// All of it.
        bytes: Bytes,
        /// Whether it was taken.
        taken: bool,
    },
}

impl RequestBody {
    /// A body that was read before.
    pub fn whole(bytes: Bytes) -> RequestBody {
        RequestBody::Whole { bytes, taken: false }
    }

    /// Goes back to its beginning, where that is possible.
    pub fn rewind(&mut self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Whole { taken, .. } => {
                *taken = false;
                true
            }
            RequestBody::Streamed(_) | RequestBody::Limited(..) => false,
        }
    }
}

impl RequestBody {
    /// How much is still to come that can be moved inside the kernel.
    pub fn bulk(&self) -> u64 {
        match self {
            RequestBody::Streamed(incoming) => incoming.bulk(),
            // Its length is known, and was looked at; if it should be more after all, it is copied until it is too much.
            RequestBody::Limited(incoming, left) => Some(incoming.bulk()).filter(|bulk| bulk <= left).unwrap_or(0),
            RequestBody::Empty | RequestBody::Whole { .. } => 0,
        }
    }

    /// A pipe for it, where one can be had.
    pub fn pipe(&self) -> Option<Pipe> {
        match self {
            RequestBody::Streamed(incoming) | RequestBody::Limited(incoming, _) => incoming.pipe(),
            RequestBody::Empty | RequestBody::Whole { .. } => None,
        }
    }

    /// Moves some of that into an empty pipe, and says how much.
    pub fn poll_into(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        match self {
            RequestBody::Streamed(incoming) => incoming.poll_into(pipe, cx),
            RequestBody::Limited(incoming, left) => {
                let came = ready!(incoming.poll_into(pipe, cx))?;
                *left = left.saturating_sub(came as u64);
                Poll::Ready(Ok(came))
            }
            RequestBody::Empty | RequestBody::Whole { .. } => {
                Poll::Ready(Err(io::Error::from(io::ErrorKind::Unsupported).into()))
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Streamed(incoming) => Pin::new(incoming).poll_frame(cx),
            RequestBody::Limited(incoming, left) => {
                let polled = Pin::new(incoming).poll_frame(cx);
                let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match left.checked_sub(length) {
                    Some(rest) => *left = rest,
                    None => return Poll::Ready(Some(Err(BodyError::TooLarge))),
                }
                Poll::Ready(Some(Ok(frame)))
            }
            RequestBody::Whole { taken: true, .. } => Poll::Ready(None),
            RequestBody::Whole { bytes, taken } => {
                *taken = true;
                Poll::Ready(Some(Ok(Frame::data(bytes.clone()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Streamed(incoming) | RequestBody::Limited(incoming, _) => incoming.is_end_stream(),
            RequestBody::Whole { taken, .. } => *taken,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Streamed(incoming) | RequestBody::Limited(incoming, _) => incoming.size_hint(),
            RequestBody::Whole { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

/// A response body towards the client.
pub struct ResponseBody {
    source: Source,
    /// How long it may be silent.
    idle: Duration,
    /// What a middleware holds until here.
    _guard: Option<Box<dyn Any + Send>>,
}

enum Source {
    Whole(Option<Bytes>),
    Upstream(Upstream),
    Multiplexed(Box<Receiving>),
    Tunnel(Option<Box<Tunnel>>),
}

/// A response as it comes from a server.
pub struct Upstream {
    /// The connection, to be kept for the next request once this body has ended.
    connection: Option<Connection>,
    framing: Framing,
    /// The request's body, where the answer came before all of it was sent.
    sending: Option<Box<Sending>>,
    keep: Keep,
    worker: Rc<Worker>,
    _in_flight: InFlight,
}

impl Upstream {
    /// A body that hands its connection back to the pool when it has ended; with `keep` of 0 seconds it closes it.
    pub fn new(
        connection: Connection,
        framing: Framing,
        sending: Sending,
        keep: Keep,
        worker: Rc<Worker>,
        in_flight: InFlight,
    ) -> Upstream {
        let sending = (!sending.is_done()).then(|| Box::new(sending));
        let mut body = Upstream { connection: Some(connection), framing, sending, keep, worker, _in_flight: in_flight };
        body.release_if_ended();
        body
    }

    /// A body dropped before its end drops the connection with it, and the server sees that nobody listens.
    fn release_if_ended(&mut self) {
        if matches!(self.framing, Framing::Done)
            && let Some(connection) = self.connection.take()
            // Where the request was not sent whole, the next one would be taken for its rest.
            && self.sending.is_none()
        {
            self.worker.pool.put(connection, self.keep, self.worker.now());
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        if let Some(sending) = &mut self.sending {
            match connection.poll_send(sending, cx) {
                Poll::Ready(Ok(())) if sending.is_done() => self.sending = None,
                Poll::Ready(Ok(())) | Poll::Pending => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
            }
        }
        let polled = connection.poll_body(&mut self.framing, cx);
        if let Poll::Ready(Some(Err(_))) = polled {
            // Nothing on it can be trusted any more.
            self.connection = None;
        }
        self.release_if_ended();
        polled
    }

    fn bulk(&self) -> u64 {
        match &self.connection {
            Some(connection) if self.sending.is_none() => connection.bulk(&self.framing),
            _ => 0,
        }
    }

    fn poll_into(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        let polled = connection.poll_into(&mut self.framing, pipe, cx);
        if matches!(&polled, Poll::Ready(Err(error)) if error.kind() != io::ErrorKind::Unsupported) {
            self.connection = None;
        }
        self.release_if_ended();
        polled
    }
}

impl ResponseBody {
    /// A body of our own.
    pub fn whole(bytes: impl Into<Bytes>) -> ResponseBody {
        let bytes: Bytes = bytes.into();
        ResponseBody { source: Source::Whole((!bytes.is_empty()).then_some(bytes)), idle: Duration::MAX, _guard: None }
    }

    /// A server's body.
    pub fn upstream(upstream: Upstream, idle: Duration) -> ResponseBody {
        ResponseBody { source: Source::Upstream(upstream), idle, _guard: None }
    }

    /// A server's body, as HTTP/2 has it.
    pub fn multiplexed(receiving: Receiving, idle: Duration) -> ResponseBody {
        ResponseBody { source: Source::Multiplexed(Box::new(receiving)), idle, _guard: None }
    }

    /// How long it may be silent before it has broken off.
    pub fn longest_silence(&self) -> Duration {
        self.idle
    }

    /// What follows a 101.
    pub fn tunnel(tunnel: Tunnel) -> ResponseBody {
        ResponseBody { source: Source::Tunnel(Some(Box::new(tunnel))), idle: Duration::MAX, _guard: None }
    }

    /// Takes the tunnel out, where there is one.
    pub fn take_tunnel(&mut self) -> Option<Tunnel> {
        match &mut self.source {
            Source::Tunnel(tunnel) => tunnel.take().map(|tunnel| tunnel.guarded(self._guard.take())),
            Source::Whole(_) | Source::Upstream(_) | Source::Multiplexed(_) => None,
        }
    }

    /// How much is still to come that can be moved inside the kernel.
    pub fn bulk(&self) -> u64 {
        match &self.source {
            Source::Upstream(upstream) => upstream.bulk(),
            Source::Whole(_) | Source::Multiplexed(_) | Source::Tunnel(_) => 0,
        }
    }

    /// Moves some of that into an empty pipe, and says how much.
    pub fn poll_into(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.source {
            Source::Upstream(upstream) => upstream.poll_into(pipe, cx),
            Source::Whole(_) | Source::Multiplexed(_) | Source::Tunnel(_) => {
                Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
            }
        }
    }

    /// Goes on sending the request's body, where the answer came before all of it was sent.
    pub fn poll_sending(&mut self, cx: &mut Context<'_>) {
        match &mut self.source {
            Source::Upstream(Upstream { connection: Some(connection), sending: Some(sending), .. }) => {
                // What goes wrong is found again when the response is read on.
                let _ = connection.poll_send(sending, cx);
            }
            Source::Multiplexed(receiving) => receiving.poll_sending(cx),
            Source::Whole(_) | Source::Upstream(_) | Source::Tunnel(_) => {}
        }
    }

    /// The same body, holding a middleware's guard until it has ended.
    pub fn guarded(mut self, guard: impl Any + Send) -> ResponseBody {
        // Guards nest: the one before stays alive inside the new one.
        let before = self._guard.take();
        self._guard = Some(Box::new((before, guard)));
        self
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.source {
            Source::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Upstream(upstream) => upstream.poll(cx),
            Source::Multiplexed(receiving) => receiving.poll_frame(cx),
            Source::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_none(),
            Source::Upstream(upstream) => matches!(upstream.framing, Framing::Done),
            Source::Multiplexed(receiving) => receiving.is_end(),
            Source::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Upstream(upstream) => match upstream.framing {
                Framing::Done => SizeHint::with_exact(0),
                Framing::Length(left) => SizeHint::with_exact(left),
                Framing::Chunked(_) | Framing::UntilClose => SizeHint::default(),
            },
            Source::Multiplexed(receiving) => receiving.size_hint(),
            Source::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}
