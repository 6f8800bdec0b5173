//! HTTP/1.1 on one upstream connection: a request out, a response head in, then the body.
//!
//! A narrow path of our own: the request is written from the client's head in one piece, nothing is built in between,
//! and it is known exactly whether a byte of an answer was seen. The response's head is read in `wire/head.rs`, its framing
//! in `framing.rs`.

mod head;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use etna_store::object::ProxyVersion;
use http::{Method, StatusCode};
use http_body::Frame;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::poll_read_buf;

use super::buffers::{Buffers, ROOM};
use super::framing::{Framing, Malformed, Step};
use super::sending::Sending;
use super::stream::Stream;
use crate::proxy_protocol::Origin;
use crate::splice::Pipe;
use crate::tls::servers::ServerTls;
use crate::traffic::body::BodyError;
use crate::traffic::interim::Interim;

use head::MAX_HEAD;
pub(super) use head::is_for_the_proxy;
pub use head::{Head, parse};

/// An upstream connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// Read and not used yet; has room as long as something comes.
    buffer: BytesMut,
    buffers: Rc<Buffers>,
    /// How much is read at once of a body whose length is not known: more as long as more comes.
    room: usize,
    /// Whether it answered a request before: then the server may have closed it without our knowing yet.
    pub reused: bool,
    /// What it began with: it is for requests of that origin alone.
    pub announced: Option<Box<Announced>>,
}

/// What a connection tells its server first: whose it is (the PROXY protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// How that is written.
    pub version: ProxyVersion,
    /// Whose it is.
    pub origin: Origin,
}

/// Why an exchange broke.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection ended before a byte of an answer; `consumed` says whether the request's body was begun.
    #[error("the connection ended before the answer: {source}")]
    Unanswered {
        /// Whether the body can no longer be sent again.
        consumed: bool,
        /// The cause.
        source: io::Error,
    },
    /// The server says that it has not begun with the request (HTTP/2); `consumed` as above.
    #[error("the server has not begun with the request")]
    Refused {
        /// Whether the body can no longer be sent again.
        consumed: bool,
    },
    /// It ended inside the head.
    #[error("the connection ended inside the response's head")]
    Truncated,
    /// The response cannot be understood.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The request's body could not be read to its end.
    #[error("the request's body: {0}")]
    Request(#[from] BodyError),
}

impl Connection {
    /// A connection that just came to stand.
    pub fn new(stream: Stream, buffers: Rc<Buffers>) -> Connection {
        Connection { stream, buffer: BytesMut::new(), buffers, room: ROOM, reused: false, announced: None }
    }

    /// It has answered, and waits for its next request.
    pub(super) fn rests(&mut self) {
        self.reused = true;
        let buffer = std::mem::take(&mut self.buffer);
        // What a long body was read into is not kept.
        if std::mem::replace(&mut self.room, ROOM) == ROOM {
            self.buffers.give(buffer);
        }
    }

    /// Whether everything that was read from it was used.
    pub fn is_drained(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether it can still be used: open, and the server sent nothing that nobody asked for. Costs a system call only
    /// when something has arrived.
    pub fn is_usable(&mut self) -> bool {
        self.buffer.is_empty() && self.stream.is_silent()
    }

    /// Whether it was made on these terms; `None`: in the clear.
    pub fn is_of(&self, terms: Option<&Arc<ServerTls>>) -> bool {
        self.stream.is_of(terms)
    }

    /// Whether ALPN settled on HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.stream.protocol() == Some(b"h2")
    }

    /// Whether the server has not closed it, as the kernel knows at this moment. Always costs a system call.
    pub fn is_open(&self) -> bool {
        self.stream.is_open()
    }

    /// Sends a request, head first, and reads the head of the answer. When the answer comes before the body has been
    /// sent, `sending` is left where it is, to be sent on while the answer is read. `progress` counts the bytes of the
    /// body that were sent: as long as it grows, the server is not late. Interim responses go on `to` the client.
    pub async fn exchange(
        &mut self,
        method: &Method,
        head: &[u8],
        sending: &mut Sending,
        progress: &Cell<u64>,
        to: &Interim,
    ) -> Result<Head, Broken> {
        let unanswered = |source| Broken::Unanswered { consumed: false, source };
        self.stream.write_all(head).await.map_err(unanswered)?;
        if let Stream::Tls(_) = self.stream {
            self.stream.flush().await.map_err(unanswered)?;
        }
        let has_body = !sending.is_done();
        let mut interim = 0;
        // A server that knows nothing of expectations would wait for the body as long as we for its word.
        let mut silence = sending.is_held().then(|| Box::pin(tokio::time::sleep(MOST_SILENCE)));
        poll_fn(|cx| {
            if let Some(timer) = &mut silence
                && (interim > 0 || timer.as_mut().poll(cx).is_ready())
            {
                sending.release();
                silence = None;
            }
            if has_body {
                // A write that fails is not the end: the server may have answered before it stopped listening.
                let sent = sending.poll(&mut self.stream, cx);
                progress.set(sending.written());
                if let Poll::Ready(Err(error)) = sent {
                    return Poll::Ready(Err(error.into()));
                }
            }
            let before = interim;
            let head = self.poll_head(method, &mut interim, to, cx);
            if interim > before && silence.is_some() {
                cx.waker().wake_by_ref();
            }
            head
        })
        .await
        .map_err(|error| if has_body { consumed(error) } else { error })
    }

    /// Goes on sending a request's body.
    pub fn poll_send(&mut self, sending: &mut Sending, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        sending.poll(&mut self.stream, cx)
    }

    /// Reads a response's head; `interim` counts the 1xx answers before it.
    fn poll_head(
        &mut self,
        method: &Method,
        interim: &mut u32,
        to: &Interim,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, Broken>> {
        loop {
            if let Some(head) = parse(&mut self.buffer, method)? {
                if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(head));
                }
                *interim += 1;
                if *interim > MOST_INTERIM {
                    return Poll::Ready(Err(Malformed::TooLong.into()));
                }
                to.relay(head.status, head.fields, cx);
                continue;
            }
            if self.buffer.len() > MAX_HEAD {
                return Poll::Ready(Err(Malformed::TooLong.into()));
            }
            let nothing_yet = self.buffer.is_empty() && *interim == 0;
            let ended = match ready!(self.poll_fill(LEAST_ROOM, cx)) {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => continue,
                Err(error) => error,
            };
            return Poll::Ready(Err(if nothing_yet {
                Broken::Unanswered { consumed: false, source: ended }
            } else {
                Broken::Truncated
            }));
        }
    }

    /// Reads on in the body.
    pub fn poll_body(&mut self, framing: &mut Framing, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match framing {
                Framing::Done => return Poll::Ready(None),
                Framing::Length(left) if !self.buffer.is_empty() => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
                    framing.came(here);
                    return Poll::Ready(Some(Ok(Frame::data(self.buffer.split_to(here).freeze()))));
                }
                Framing::UntilClose if !self.buffer.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(self.buffer.split().freeze()))));
                }
                Framing::Chunked(chunks) => match chunks.step(&mut self.buffer) {
                    Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Step::End(trailers)) => {
                        *framing = Framing::Done;
                        if trailers.is_empty() {
                            return Poll::Ready(None);
                        }
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                    Ok(Step::More) => {}
                    Err(error) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                },
                Framing::Length(_) | Framing::UntilClose => {}
            }
            let more = match framing {
                Framing::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX).clamp(ROOM, LARGE_READ),
                _ => self.room,
            };
            match ready!(self.poll_fill(more, cx)) {
                Ok(0) if matches!(framing, Framing::UntilClose) => *framing = Framing::Done,
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(read) if read >= more => self.room = (2 * more).min(LARGE_READ),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Reads what has come, with room for about so many bytes.
    fn poll_fill(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.buffer.is_empty() || room > ROOM {
            self.buffer.reserve(room);
        } else if self.buffer.capacity() < LEAST_ROOM {
            let used = std::mem::replace(&mut self.buffer, self.buffers.take());
            self.buffers.give(used);
        }
        let read = poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.buffer);
        if read.is_pending() && self.buffer.is_empty() && room <= ROOM {
            self.buffers.give(std::mem::take(&mut self.buffer));
        }
        read
    }

    /// How much of a body is still to come and can be moved inside the kernel: all of it, or nothing.
    pub fn bulk(&self, framing: &Framing) -> u64 {
        match (framing, &self.stream) {
            (Framing::Length(left), Stream::Plain(_)) if self.buffer.is_empty() => *left,
            _ => 0,
        }
    }

    /// Moves what has come of a body into an empty pipe, and says how much, where [`Connection::bulk`] says that it can.
    pub fn poll_into(
        &mut self,
        framing: &mut Framing,
        pipe: &mut Pipe,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let (left, Stream::Plain(stream)) = (self.bulk(framing), &self.stream) else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        let came = ready!(pipe.poll_fill(stream, left, cx))?;
        if came == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        framing.came(came);
        Poll::Ready(Ok(came))
    }

    /// The stream, and what was read from it already, once it no longer speaks HTTP.
    pub fn into_tunnel(self) -> (Stream, Bytes) {
        (self.stream, self.buffer.freeze())
    }
}

fn consumed(error: Broken) -> Broken {
    match error {
        Broken::Unanswered { source, .. } => Broken::Unanswered { consumed: true, source },
        other => other,
    }
}

/// 1xx answers before the one that counts.
pub(super) const MOST_INTERIM: u32 = 8;
/// How long a server may take to say whether it wants a body.
const MOST_SILENCE: Duration = Duration::from_millis(500);
/// Room for a head and a body of some kilobytes: with less, they would take two reads.
const LEAST_ROOM: usize = 12 * 1024;
const LARGE_READ: usize = 64 * 1024;
