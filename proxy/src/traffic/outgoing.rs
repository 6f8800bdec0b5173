//! A request as it goes out: its head, its body and how that is framed, and whose it is.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use etna_store::object::{HttpVersion, ProxyVersion};
use http::Method;
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::body::{BodyError, RequestBody};
use super::headers;
use super::incoming::Incoming;
use crate::backend::Backend;
use crate::backend::sending::Sending;
use crate::backend::wire::Announced;
use crate::error::Error;
use crate::failover::Predicate;
use crate::listener::conn::Client;
use crate::message::RequestHead;
use crate::proxy_protocol::Origin;

/// A request as servers get it. Nothing of it is used up by sending it, but the body.
pub(super) struct Outgoing<'a> {
    pub(super) head: Rc<RequestHead>,
    pub(super) framing: headers::Framing,
    /// Whether the client's forwarding fields are believed.
    pub(super) believe: bool,
    pub(super) server_name: Option<&'a str>,
    /// Whether servers see the client's `Host` or their own.
    pub(super) pass_host: bool,
    pub(super) websocket: bool,
    /// Whether its body waits to be asked for.
    pub(super) expect: bool,
    /// Whether it runs in a task of its own, which the worker's look at its connections does not wake.
    pub(super) alone: bool,
    pub(super) body: Sending,
    /// When it goes to another server, where the frontend says so itself.
    pub(super) failover: Option<&'a Predicate>,
}

impl Outgoing<'_> {
    /// Whether a backend's servers are asked by HTTP/2. What becomes a tunnel is not: only HTTP/1.1 switches protocols.
    pub(super) fn goes_by_http2(&self, backend: &Backend) -> bool {
        backend.spec.protocol == HttpVersion::H2 && !self.websocket
    }
}

/// The client's address, as trusted proxies tell it.
pub(super) fn client_address(client: &Client, outgoing: &Outgoing<'_>) -> IpAddr {
    client.worker.trusted.client(client.peer.address, &outgoing.head.fields)
}

/// What a server that wants to know is told of a request: who its client is, as servers read it in `X-Forwarded-For`.
pub(super) fn announced(client: &Client, outgoing: &Outgoing<'_>, version: ProxyVersion) -> Announced {
    let Client { peer, .. } = client;
    let address = client_address(client, outgoing);
    // Which port a client behind another proxy has is not known.
    let port = if address == peer.address { peer.from_port } else { 0 };
    // Version 1 cannot say so, and a connection is not to be lost to a difference that is not seen.
    let tls = version == ProxyVersion::V2 && peer.is_secure(&outgoing.head.fields, outgoing.believe);
    let from = SocketAddr::new(address, port);
    Announced { version, origin: Origin { from, to: peer.to, tls } }
}

/// The body as it will be sent; read before when the request may have to be sent to a second backend.
pub(super) async fn request_body(body: Incoming, limit: Option<u64>, twice: bool) -> Result<RequestBody, Error> {
    if body.is_end_stream() {
        return Ok(RequestBody::Empty);
    }
    let length = body.size_hint().exact();
    if let (Some(limit), Some(length)) = (limit, length)
        && length > limit
    {
        return Err(Error::TooLarge);
    }
    if twice && length.is_some_and(|length| length <= LONGEST_COPY) {
        let whole = Box::pin(body.collect()).await.map_err(|error| body_fault(&error))?;
        return Ok(RequestBody::whole(whole.to_bytes()));
    }
    Ok(match limit {
        Some(limit) => RequestBody::Limited(body, limit),
        None => RequestBody::Streamed(body),
    })
}

/// How the body that is really sent is framed.
pub(super) fn framing(head: &RequestHead, body: &RequestBody) -> headers::Framing {
    match body.size_hint().exact() {
        // A body that could be there and is not is said to be empty.
        Some(0) if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => headers::Framing::Length(0),
        Some(0) => headers::Framing::None,
        Some(length) => headers::Framing::Length(length),
        None => headers::Framing::Chunked,
    }
}

/// The client's part in a request that broke while its body was being sent.
pub(super) fn body_fault(error: &BodyError) -> Error {
    match error {
        BodyError::TooLarge => Error::TooLarge,
        BodyError::Broken(_) => Error::BadRequest("the body ended early"),
        BodyError::Malformed => Error::BadRequest("a chunk is malformed"),
        BodyError::Slow => Error::SlowClient,
    }
}

/// Longest body kept for sending it twice, in bytes.
const LONGEST_COPY: u64 = 64 * 1024;
