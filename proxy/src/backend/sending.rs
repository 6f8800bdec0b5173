//! A request's body on its way to a server: framed, written as the server takes it, begun again where that is possible.

mod outflow;
mod spliced;

use std::fmt::Write as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite as _;
use tokio::task::coop::poll_proceed;

use super::replay::Replay;
use super::stream::Stream;
use crate::splice::Pipe;
use crate::traffic::body::{BodyError, RequestBody};

pub(super) use outflow::Outflow;

/// A request's body on its way to a server.
#[derive(Debug)]
pub struct Sending {
    body: RequestBody,
    chunked: bool,
    /// Framed and not written yet.
    pending: BytesMut,
    /// What is moved inside the kernel and not written yet; then nothing is pending.
    pipe: Option<Pipe>,
    /// Bytes written so far.
    written: u64,
    /// Whether some of that may still be inside TLS.
    unflushed: bool,
    state: SendState,
    /// What was taken from the body, where it may have to be sent again.
    replay: Option<Box<Replay>>,
    /// Whether the server is to say first whether it wants it.
    held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendState {
    Fresh,
    Begun,
    /// All was taken from the client; `pending` is the rest.
    Ended,
    /// The server takes no more.
    Refused,
}

impl Sending {
    /// A body that was not begun.
    pub fn new(body: RequestBody, chunked: bool, held: bool) -> Sending {
        Sending {
            body,
            chunked,
            pending: BytesMut::new(),
            pipe: None,
            written: 0,
            unflushed: false,
            state: SendState::Fresh,
            replay: None,
            held,
        }
    }

    /// Whether the server is to say first whether it wants it.
    pub(super) fn is_held(&self) -> bool {
        self.held && self.state == SendState::Fresh
    }

    /// The server wants it, or says nothing: it is sent.
    pub(super) fn release(&mut self) {
        self.held = false;
    }

    /// Bytes written so far: as long as they grow, nobody is late.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether everything was sent.
    pub fn is_done(&self) -> bool {
        match self.state {
            SendState::Fresh => {
                !self.chunked && self.body.is_end_stream() && self.replay.as_ref().is_none_or(|kept| kept.is_empty())
            }
            SendState::Begun | SendState::Refused => false,
            SendState::Ended => self.pending.is_empty() && !self.unflushed,
        }
    }

    /// Keeps what is sent of a short body, so that it can be sent again. Only before it was begun.
    pub fn keep(&mut self) {
        if self.state == SendState::Fresh && self.replay.is_none() && !self.is_done() && !self.is_kept() {
            self.replay = Some(Box::default());
        }
    }

    /// Whether it can go back to the beginning.
    pub fn can_rewind(&self) -> bool {
        self.state == SendState::Fresh || self.is_kept() || self.replay.as_ref().is_some_and(|kept| kept.is_whole())
    }

    /// Goes back to the beginning, where that is possible.
    pub fn rewind(&mut self) -> bool {
        let replayed = self.replay.as_mut().is_some_and(|kept| kept.rewind());
        let possible = self.state == SendState::Fresh || replayed || self.body.rewind();
        if possible {
            self.pending.clear();
            self.pipe = None;
            self.unflushed = false;
            self.state = SendState::Fresh;
        }
        possible
    }

    fn is_kept(&self) -> bool {
        matches!(self.body, RequestBody::Empty | RequestBody::Whole { .. })
    }

    /// Writes what can be written. `Err` is the client's fault; a server that takes no more is left alone.
    pub(super) fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let mut moved = 0;
        loop {
            if self.is_spliced(stream) {
                match ready!(self.poll_spliced(stream, &mut moved, cx))? {
                    true => continue,
                    false if self.state == SendState::Refused => return Poll::Ready(Ok(())),
                    false => {}
                }
            }
            let gathered = self.gather(stream, cx)?;
            ready!(self.poll_write(stream, cx));
            if self.is_done() || self.is_held() || self.state == SendState::Refused {
                return Poll::Ready(Ok(()));
            }
            ready!(gathered);
            // However much comes, other connections have their turn.
            ready!(poll_proceed(cx)).made_progress();
        }
    }

    /// Takes what has come of the body: short pieces go out together, or a client that sends bytes one by one would cost a
    /// system call each.
    fn gather(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Result<Poll<()>, BodyError> {
        while matches!(self.state, SendState::Fresh | SendState::Begun)
            && !self.is_done()
            && !self.is_held()
            && self.pending.len() < TOGETHER
            && (self.pending.is_empty() || !self.is_bulk(stream))
        {
            self.state = SendState::Begun;
            match self.poll_frame(cx) {
                Poll::Ready(Some(frame)) => match frame?.into_data() {
                    Ok(data) => self.queue(&data),
                    Err(frame) => self.end(frame.trailers_ref()),
                },
                Poll::Ready(None) => self.end(None),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(Poll::Ready(()))
    }

    fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        while !self.pending.is_empty() || self.unflushed {
            match ready!(self.poll_write_some(stream, cx)) {
                Ok(written) => {
                    self.written += written as u64;
                    self.pending.advance(written);
                }
                Err(_) => {
                    self.pending.clear();
                    self.unflushed = false;
                    self.state = SendState::Refused;
                }
            }
        }
        Poll::Ready(())
    }

    /// Writes some of what is pending, or, where nothing is, what lies inside TLS.
    fn poll_write_some(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match stream {
            Stream::Plain(stream) => loop {
                match stream.try_write(&self.pending) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        // Its error shows in the next write.
                        let _ = ready!(stream.poll_write_ready(cx));
                    }
                    written => return Poll::Ready(written),
                }
            },
            Stream::Tls(_) if self.pending.is_empty() => {
                ready!(Pin::new(stream).poll_flush(cx))?;
                self.unflushed = false;
                Poll::Ready(Ok(0))
            }
            Stream::Tls(_) => {
                self.unflushed = true;
                Pin::new(stream).poll_write(cx, &self.pending)
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.replay {
            Some(replay) => replay.poll_frame(&mut self.body, cx),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.state = SendState::Ended;
        if self.chunked {
            self.pending.extend_from_slice(b"0\r\n");
            for (name, value) in trailers.into_iter().flatten() {
                self.pending.extend_from_slice(name.as_str().as_bytes());
                self.pending.extend_from_slice(b": ");
                self.pending.extend_from_slice(value.as_bytes());
                self.pending.extend_from_slice(b"\r\n");
            }
            self.pending.extend_from_slice(b"\r\n");
        }
    }

    fn queue(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if self.chunked {
            // Writing to memory cannot fail.
            let _ = write!(self.pending, "{:x}\r\n", data.len());
        }
        self.pending.extend_from_slice(data);
        if self.chunked {
            self.pending.extend_from_slice(b"\r\n");
        }
    }
}

/// Bytes that are gathered before they are written.
const TOGETHER: usize = 16 * 1024;
