//! A connection becomes encrypted.

use std::io;
use std::sync::Arc;

use rustls::server::{Acceptor, ClientHello};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::client;
use super::terms::{ACME, HTTP2};
use crate::listener::stream::Stream;
use crate::table::LiveTable;

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

/// Shakes hands. How long that may take is its worker's business. `refusing`: the table that has to have a host of the
/// name that the client asks for; `tells_servers`: whether they are told of the client's certificate.
pub(crate) async fn accept(
    config: Arc<ServerConfig>,
    refusing: Option<&LiveTable>,
    tells_servers: bool,
    stream: TcpStream,
) -> io::Result<(Stream, Secured)> {
    let bounded = |connection: &mut ServerConnection| connection.set_buffer_limit(Some(MOST_BUFFERED));
    let stream = match refusing {
        None => TlsAcceptor::from(config).accept_with(stream, bounded).await?,
        Some(live) => {
            let mut begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            if !has_host(live, &begun.client_hello()) {
                begun.io.write_all(UNRECOGNIZED_NAME).await?;
                return Err(io::Error::other("no host has the name that the client asks for"));
            }
            begun.into_stream_with(config, bounded).await?
        }
    };
    let (_, connection) = stream.get_ref();
    let shown = connection.peer_certificates().and_then(<[_]>::first).filter(|_| tells_servers);
    let secured = Secured {
        name: connection.server_name().map(|name| plain(name).into()),
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

/// Whether a host has the name that a client asks for. An authority that looks whether it is ours comes before.
fn has_host(live: &LiveTable, hello: &ClientHello<'_>) -> bool {
    let is_authority = hello.alpn().is_some_and(|mut names| names.any(|name| name == ACME));
    is_authority || hello.server_name().is_some_and(|name| live.table().certificates.find(&plain(name)).is_some())
}

/// A name as hosts have it.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// A fatal alert (RFC 6066 section 3); rustls, finding no certificate, would say `access_denied`.
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];
/// Bytes that wait to be sent because the client does not read.
const MOST_BUFFERED: usize = 64 * 1024;
