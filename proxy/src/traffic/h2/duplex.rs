//! A stream as bytes both ways: what a WebSocket is over HTTP/2 (RFC 8441 section 5).

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::SendStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::unsent::{Piece, Unsent};
use super::upload::Upload;

/// A stream that is a tunnel.
pub(super) struct Duplex {
    upload: Upload,
    /// Arrived and not read yet.
    arrived: Bytes,
    send: SendStream<Piece>,
    unsent: Rc<Unsent>,
}

impl Duplex {
    /// Joins both halves.
    pub(super) fn new(upload: Upload, send: SendStream<Piece>, unsent: Rc<Unsent>) -> Duplex {
        Duplex { upload, arrived: Bytes::new(), send, unsent }
    }
}

impl AsyncRead for Duplex {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.arrived.is_empty() {
            match ready!(self.upload.poll_bytes(cx))? {
                Some(bytes) => self.arrived = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let here = room.remaining().min(self.arrived.len());
        room.put_slice(&self.arrived[..here]);
        self.arrived.advance(here);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(reason) = self.send.poll_reset(cx) {
            return Poll::Ready(Err(gone(reason)));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        while self.send.capacity() == 0 {
            self.send.reserve_capacity(bytes.len());
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let room = ready!(self.unsent.poll_room(cx));
        let here = self.send.capacity().min(bytes.len()).min(room);
        let piece = self.unsent.piece(Bytes::copy_from_slice(&bytes[..here]));
        Poll::Ready(self.send.send_data(piece, false).map(|()| here).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task writes on its own.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let nothing = self.unsent.piece(Bytes::new());
        Poll::Ready(self.send.send_data(nothing, true).map_err(io::Error::other))
    }
}

fn gone(reason: Result<h2::Reason, h2::Error>) -> io::Error {
    match reason {
        Ok(reason) => io::Error::new(io::ErrorKind::ConnectionReset, reason.description()),
        Err(error) => io::Error::other(error),
    }
}
