//! A client's stream of bytes with a meter on it: what comes and goes is counted before HTTP/2 is made of it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::calm::Calm;
use crate::listener::watch::Waiting;

/// A stream with a meter. The stream is shared with who closes it in the end.
pub(super) struct Meter<T> {
    stream: Rc<RefCell<T>>,
    /// What was read from it before.
    ahead: Bytes,
    calm: Rc<Calm>,
}

impl<T> Meter<T> {
    /// Measures a stream, from which `ahead` was read already.
    pub(super) fn new(stream: Rc<RefCell<T>>, ahead: Bytes, calm: Rc<Calm>) -> Meter<T> {
        Meter { stream, ahead, calm }
    }

    fn written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(written)) => {
                self.calm.written(*written);
                self.calm.watch().moved(*written, Waiting::Reader);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.calm.watch().waits_for(Waiting::Reader),
        }
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Meter<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.calm.fault().is_some() {
            // Nothing more is done for it. The connection's task looks for itself.
            return Poll::Pending;
        }
        if self.calm.is_ahead() {
            // What came is looked at first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = room.filled().len();
        if self.ahead.is_empty() {
            ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, room))?;
        } else {
            let here = room.remaining().min(self.ahead.len());
            room.put_slice(&self.ahead[..here]);
            self.ahead.advance(here);
        }
        self.calm.read(&room.filled()[before..]);
        if self.calm.fault().is_some() {
            // Of what ends the connection nothing is looked at any more.
            room.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Meter<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream.borrow_mut()).poll_write_vectored(cx, slices);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }
}
