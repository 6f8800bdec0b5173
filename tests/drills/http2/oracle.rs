//! Servers that keep what they get: one of HTTP/1.1, which reads every byte strictly, and one of HTTP/2.
//!
//! Frames and fields of HTTP/2 are read by the `h2` crate, which refuses what is malformed; what it lets pass is held
//! against the same rules as a request of HTTP/1.1.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::protocol::oracle::{Oracle, Seen};
use crate::protocol::strict::{self, Fields};

/// Either of them.
pub(super) enum Server {
    /// Of HTTP/1.1.
    Old(Oracle),
    /// Of HTTP/2 in the clear.
    New(New),
}

/// One of HTTP/2; it closes its connections when dropped.
pub(super) struct New {
    address: SocketAddr,
    inner: Arc<Inner>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Inner {
    seen: Mutex<Vec<Seen>>,
    unfinished: AtomicUsize,
}

impl Server {
    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Server::Old(server) => server.address,
            Server::New(server) => server.address,
        }
    }

    /// What it saw since it was asked last.
    pub(super) fn take(&self) -> Vec<Seen> {
        match self {
            Server::Old(server) => server.take(),
            Server::New(server) => {
                std::mem::take(&mut server.inner.seen.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }

    /// Requests of which it has got a part.
    pub(super) fn unfinished(&self) -> usize {
        match self {
            Server::Old(server) => server.unfinished(),
            Server::New(server) => server.inner.unfinished.load(Relaxed),
        }
    }
}

impl New {
    /// Starts one.
    pub(super) async fn start() -> New {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (inner, stop) = (Arc::<Inner>::default(), CancellationToken::new());
        let (kept, stopped) = (inner.clone(), stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (inner, stop) = (kept.clone(), stopped.clone());
                tokio::spawn(stop.run_until_cancelled_owned(async move { serve(stream, inner).await }));
            }
        }));
        New { address, inner, stop }
    }
}

impl Drop for New {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Inner {
    fn note(&self, what: Seen) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

async fn serve(stream: TcpStream, inner: Arc<Inner>) {
    // Who speaks HTTP/1.1 to it, for a WebSocket, has said nothing that it understands.
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(accepted) = connection.accept().await {
        match accepted {
            Ok((request, respond)) => {
                inner.unfinished.fetch_add(1, Relaxed);
                let inner = inner.clone();
                tokio::spawn(async move {
                    let _ = answer(&inner, request, respond).await;
                    inner.unfinished.fetch_sub(1, Relaxed);
                });
            }
            Err(error) if error.is_io() => return,
            Err(error) => return inner.note(Seen::Ambiguous(format!("a fault of HTTP/2: {error}"))),
        }
    }
}

async fn answer(inner: &Inner, asked: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let (head, mut body) = asked.into_parts();
    let line = format!("{} {}", head.method, head.uri);
    let mut request = strict::Request {
        method: head.method.to_string(),
        target: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        version: 1,
        fields: fields(&head.headers),
        ..strict::Request::default()
    };
    let wrong = wrong(&head.headers, head.uri.authority().map(|authority| authority.as_str()));
    request.fields.extend(head.uri.authority().map(|host| ("host".to_owned(), host.as_str().as_bytes().to_vec())));
    match whole(&mut body).await {
        Ok((bytes, trailers)) => (request.body, request.trailers) = (bytes, trailers),
        Err(_) => {
            inner.note(Seen::Partial(line));
            return Ok(());
        }
    }
    let text = format!("{} {} {}", request.method, request.target, request.body.len());
    let is_head = request.method == "HEAD";
    inner.note(match wrong.or_else(|| strict::leaks(&request)) {
        Some(why) => Seen::Ambiguous(why),
        None => Seen::Clean(request),
    });
    let mut response = Response::new(());
    response.headers_mut().insert("content-length", HeaderValue::from(text.len()));
    let mut out = respond.send_response(response, is_head)?;
    if is_head { Ok(()) } else { out.send_data(text.into(), true) }
}

async fn whole(body: &mut RecvStream) -> Result<(Vec<u8>, Fields), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, body.trailers().await?.map(|trailers| fields(&trailers)).unwrap_or_default()))
}

fn fields(headers: &HeaderMap) -> Fields {
    let mut fields: Fields = Vec::new();
    for (name, value) in headers {
        match fields.iter_mut().find(|(known, _)| known == "cookie" && name == "cookie") {
            // Crumbs are as good as the whole (RFC 9113 section 8.2.3).
            Some((_, whole)) => whole.extend_from_slice(&[b"; ", value.as_bytes()].concat()),
            None => fields.push((name.as_str().to_owned(), value.as_bytes().to_vec())),
        }
    }
    fields
}

/// What another server, or another proxy before one of HTTP/1.1, could read in two ways.
fn wrong(headers: &HeaderMap, authority: Option<&str>) -> Option<String> {
    if headers.get_all("content-length").iter().count() > 1 {
        return Some("more than one length".into());
    }
    match headers.contains_key("host") || authority.is_none_or(str::is_empty) {
        true => Some(format!(":authority {authority:?} and host {:?}", headers.get("host"))),
        false => None,
    }
}
