//! A request's body on its way to a server: framed, written as the server takes it, begun again where that is possible.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use http_body::Body as _;
use tokio::net::TcpStream;

use crate::traffic::body::{BodyError, RequestBody};

/// A request's body on its way to a server.
#[derive(Debug)]
pub struct Sending {
    body: RequestBody,
    chunked: bool,
    /// Framed and not written yet.
    pending: BytesMut,
    /// Bytes written so far.
    written: u64,
    state: SendState,
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
    pub fn new(body: RequestBody, chunked: bool) -> Sending {
        Sending { body, chunked, pending: BytesMut::new(), written: 0, state: SendState::Fresh }
    }

    /// Bytes written so far: as long as they grow, nobody is late.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether everything was sent.
    pub fn is_done(&self) -> bool {
        match self.state {
            SendState::Fresh => !self.chunked && self.body.is_end_stream(),
            SendState::Begun | SendState::Refused => false,
            SendState::Ended => self.pending.is_empty(),
        }
    }

    /// Goes back to the beginning, where that is possible.
    pub fn rewind(&mut self) -> bool {
        let possible = self.state == SendState::Fresh || self.body.rewind();
        if possible {
            self.pending.clear();
            self.state = SendState::Fresh;
        }
        possible
    }

    /// Writes what can be written. `Err` is the client's fault; a server that takes no more is left alone.
    pub(super) fn poll(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            while !self.pending.is_empty() {
                match stream.try_write(&self.pending) {
                    Ok(written) => {
                        self.written += written as u64;
                        self.pending.advance(written);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        // Its error shows in the next write.
                        let _ = ready!(stream.poll_write_ready(cx));
                    }
                    Err(_) => {
                        self.pending.clear();
                        self.state = SendState::Refused;
                    }
                }
            }
            if self.is_done() || self.state == SendState::Refused {
                return Poll::Ready(Ok(()));
            }
            self.state = SendState::Begun;
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // Trailers: nothing in HTTP/1.1 that was announced depends on them.
                    if let Ok(data) = frame.into_data() {
                        self.queue(&data);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => {
                    self.state = SendState::Ended;
                    if self.chunked {
                        self.pending.extend_from_slice(b"0\r\n\r\n");
                    }
                }
            }
        }
    }

    fn queue(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if self.chunked {
            self.pending.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
        }
        self.pending.extend_from_slice(data);
        if self.chunked {
            self.pending.extend_from_slice(b"\r\n");
        }
    }
}
