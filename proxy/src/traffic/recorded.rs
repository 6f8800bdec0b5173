//! What the access log is told of a client's requests. Nothing of it is done where there is no access log.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::incoming::Incoming;
use crate::access::record::{Asking, Recorder};
use crate::listener::conn::Client;
use crate::message::RequestHead;

/// A request: when this value is dropped it is over, one way or another, and its line is complete.
pub(super) struct Recorded<'c>(pub(super) &'c Client);

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        if let Some(access) = &self.0.access {
            access.finish(self.0.worker.cut.is_cancelled());
        }
    }
}

/// A request has arrived; its body, counted.
pub(super) fn begin(client: &Client, head: &RequestHead, body: Incoming) -> Incoming {
    let Some(access) = &client.access else { return body };
    let address = client.worker.trusted.client(client.peer.address, &head.fields);
    access.begin(Asking { client: address, is_tls13: is_tls13(client) }, Some(head));
    body.counted(access)
}

/// What has arrived is no request.
pub(super) fn begin_nothing(client: &Client) {
    if let Some(access) = &client.access {
        access.begin(Asking { client: client.peer.address, is_tls13: is_tls13(client) }, None);
    }
}

fn is_tls13(client: &Client) -> Option<bool> {
    client.secured.as_ref().map(|secured| secured.is_13)
}

/// A tunnel's client, whose bytes are counted.
pub(super) struct Counted<T> {
    stream: T,
    access: Option<Rc<Recorder>>,
}

impl<T> Counted<T> {
    pub(super) fn new(stream: T, client: &Client) -> Counted<T> {
        Counted { stream, access: client.access.clone() }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, room);
        if let Some(access) = &self.access {
            access.received(room.filled().len() - before);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let (Some(access), Poll::Ready(Ok(written))) = (&self.access, &written) {
            access.sent(*written);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
