//! A connection becomes encrypted.

use std::io;
use std::sync::Arc;

use rustls::{HandshakeKind, ProtocolVersion, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::client;
use super::terms::{ACME, HTTP2};
use crate::listener::stream::Stream;

/// What a handshake settled.
#[derive(Debug)]
pub struct Secured {
    /// The name the client asked for, in lower case.
    pub name: Option<Box<str>>,
    /// What is spoken from now on.
    pub protocol: Spoken,
    /// Whether it goes on with an earlier session.
    pub resumed: bool,
    /// Whether TLS is 1.3.
    pub is_13: bool,
    /// Header fields that tell servers of the client's certificate, where they are to be told of one.
    pub client: Option<Box<str>>,
}

/// What is spoken inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1, also where the client named nothing.
    Http1,
    /// HTTP/2.
    Http2,
    /// Nothing: an authority has seen what it wanted (RFC 8737).
    Acme,
}

/// Shakes hands. How long that may take is its worker's business.
pub(crate) async fn accept(
    config: Arc<ServerConfig>,
    tells_servers: bool,
    stream: TcpStream,
) -> io::Result<(Stream, Secured)> {
    let accepting =
        TlsAcceptor::from(config).accept_with(stream, |connection| connection.set_buffer_limit(Some(MOST_BUFFERED)));
    let stream = accepting.await?;
    let (_, connection) = stream.get_ref();
    let shown = connection.peer_certificates().and_then(<[_]>::first).filter(|_| tells_servers);
    let secured = Secured {
        name: connection.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase().into()),
        protocol: match connection.alpn_protocol() {
            Some(HTTP2) => Spoken::Http2,
            Some(ACME) => Spoken::Acme,
            _ => Spoken::Http1,
        },
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        is_13: connection.protocol_version() == Some(ProtocolVersion::TLSv1_3),
        client: shown.map(|certificate| client::fields(certificate).into()),
    };
    Ok((Stream::Tls(Box::new(stream)), secured))
}

/// Bytes that wait to be sent because the client does not read.
const MOST_BUFFERED: usize = 64 * 1024;
