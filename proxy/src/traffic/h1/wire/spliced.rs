//! Long bodies on a connection in the clear, as the kernel moves them by itself.

use std::io;
use std::task::{Context, Poll};

use super::Wire;
use crate::backend::framing::Framing;
use crate::listener::stream::Stream;
use crate::listener::watch::Waiting;
use crate::splice::Pipe;
use crate::traffic::body::BodyError;

impl Wire {
    /// A pipe for bytes that come from here or go here, where one can be had and the kernel can read them.
    pub fn pipe(&self) -> Option<Pipe> {
        if self.is_tls() { None } else { self.scratch.pipes.take() }
    }

    /// How much of the request's body is still to come and can be moved inside the kernel: all of it, or nothing.
    pub fn bulk(&self) -> u64 {
        match *self.incoming.borrow() {
            Framing::Length(left) if !self.is_tls() && !self.has_more() && !self.is_held() => left,
            _ => 0,
        }
    }

    /// Moves what has come of the request's body into an empty pipe, and says how much, where [`Wire::bulk`] says that
    /// it can.
    pub fn poll_body_into(&self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        let stream = self.stream.borrow();
        let (left @ 1.., Stream::Plain(stream)) = (self.bulk(), &*stream) else {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::Unsupported).into()));
        };
        match pipe.poll_fill(stream, left, cx) {
            Poll::Ready(Ok(0)) => {
                self.ended.set(true);
                Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()))
            }
            Poll::Ready(Ok(came)) => {
                self.watch.moved(came, Waiting::Body);
                self.incoming.borrow_mut().came(came);
                Poll::Ready(Ok(came))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending if self.watch.is_slow() => Poll::Ready(Err(BodyError::Slow)),
            Poll::Pending => {
                self.watch.waits_for(Waiting::Body);
                Poll::Pending
            }
        }
    }

    /// Sends what a pipe holds, or some of it, to the client.
    pub fn poll_drain(&self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let written = match &*self.stream.borrow() {
            Stream::Plain(stream) => pipe.poll_drain(stream, cx),
            Stream::Tls(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        };
        self.wrote(&written);
        written
    }
}
