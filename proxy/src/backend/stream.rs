//! A server's byte stream: TCP, or TLS on it.
//!
//! An enum, so that a connection in the clear pays a comparison and nothing else.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustls::HandshakeKind;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::tls::servers::ServerTls;

/// What a server's connection reads from and writes to.
pub enum Stream {
    /// In the clear.
    Plain(TcpStream),
    /// Encrypted. Boxed: a connection in the clear takes no room for it.
    Tls(Box<Encrypted>),
}

/// TLS, and on whose terms.
pub struct Encrypted {
    stream: TlsStream<TcpStream>,
    terms: Arc<ServerTls>,
}

impl Stream {
    /// TLS that was just agreed upon.
    pub fn encrypted(stream: TlsStream<TcpStream>, terms: Arc<ServerTls>) -> Stream {
        Stream::Tls(Box::new(Encrypted { stream, terms }))
    }

    /// The connection beneath.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(tls) => tls.stream.get_ref().0,
        }
    }

    /// Whether it was made on these terms, `None` being in the clear: what was agreed upon before a change no longer
    /// counts.
    pub fn is_of(&self, terms: Option<&Arc<ServerTls>>) -> bool {
        match (self, terms) {
            (Stream::Plain(_), None) => true,
            (Stream::Tls(tls), Some(terms)) => Arc::ptr_eq(&tls.terms, terms),
            (Stream::Plain(_), Some(_)) | (Stream::Tls(_), None) => false,
        }
    }

    /// Whether it goes on with an earlier session.
    pub fn is_resumed(&self) -> bool {
        matches!(self, Stream::Tls(tls) if tls.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Whether it is TLS.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// What ALPN settled.
    pub fn protocol(&self) -> Option<&[u8]> {
        match self {
            Stream::Plain(_) => None,
            Stream::Tls(tls) => tls.stream.get_ref().1.alpn_protocol(),
        }
    }

    /// Whether nothing has come that nobody asked for, not even its end. Costs a system call only when something has
    /// arrived. What TLS itself sends between two answers, such as tickets, is taken in.
    pub fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        match self {
            Stream::Plain(stream) => {
                matches!(stream.try_read(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock)
            }
            Stream::Tls(tls) => {
                let mut context = Context::from_waker(Waker::noop());
                Pin::new(&mut tls.stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }

    /// Whether nothing waits to be read, not even its end, as the kernel knows at this moment. Always costs a system
    /// call. Of TLS, a ticket that comes late counts as its end: then another connection is opened for nothing.
    pub fn is_open(&self) -> bool {
        let peeked = SockRef::from(self.tcp()).peek(&mut [MaybeUninit::uninit()]);
        matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Stream::Plain(_)) { "Plain" } else { "Tls" })
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(tls) => Pin::new(&mut tls.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(tls) => Pin::new(&mut tls.stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(tls) => Pin::new(&mut tls.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
        }
    }
}
