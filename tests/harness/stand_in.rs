//! A server that stands in for a real one: it answers with its id and what it was asked, and misbehaves when told to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http::header::{CONNECTION, LOCATION, RETRY_AFTER, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::{HandshakeKind, ServerConfig};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How it treats requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Manner {
    /// Answers 200 with its id in `X-Backend`, the request's `X-Test-Id`, and as a JSON body what it got; switches
    /// protocols when asked to, and then sends back what it receives.
    Answer,
    /// Answers with another status.
    Status(u16),
    /// Answers after a while.
    Slow(Duration),
    /// Reads the request and never answers.
    Hang,
    /// Reads the request head and closes.
    Close,
    /// Sends half of a body and closes.
    CloseInBody,
    /// Sends header and first bytes of a body, then nothing more.
    HangInBody,
    /// Adds a response header to a normal answer.
    Header(&'static str, &'static str),
    /// Answers with this status, `Location` where it redirects, else `Retry-After`, and this body.
    Page(u16, &'static str, &'static str),
}

/// A running stand-in; it closes all its connections when dropped.
pub struct StandIn {
    /// Where it listens.
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    id: String,
    manner: Mutex<Manner>,
    requests: AtomicU64,
    connections: AtomicU64,
    abandoned: AtomicU64,
    /// TLS handshakes in full, that went on with a session, and that failed.
    handshakes: [AtomicU64; 3],
    stop: CancellationToken,
}

impl StandIn {
    /// Starts one on a port of the kernel's.
    pub async fn start(id: &str) -> StandIn {
        StandIn::start_at(id, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts one where another was.
    pub async fn start_at(id: &str, address: SocketAddr) -> StandIn {
        StandIn::start_by(id, address, None).await
    }

    /// Starts one that speaks TLS.
    pub async fn start_tls(id: &str, address: SocketAddr, config: Arc<ServerConfig>) -> StandIn {
        StandIn::start_by(id, address, Some(config)).await
    }

    async fn start_by(id: &str, address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> StandIn {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().expect("it is bound");
        let inner = Arc::new(Inner {
            id: id.to_owned(),
            manner: Mutex::new(Manner::Answer),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            handshakes: Default::default(),
            stop: CancellationToken::new(),
        });
        tokio::spawn(accept(listener, tls.map(TlsAcceptor::from), inner.clone()));
        StandIn { address, inner }
    }

    /// From now on.
    pub fn set(&self, manner: Manner) {
        *self.inner.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// Requests it got so far.
    pub fn requests(&self) -> u64 {
        self.inner.requests.load(Relaxed)
    }

    /// Connections it accepted so far.
    pub fn connections(&self) -> u64 {
        self.inner.connections.load(Relaxed)
    }

    /// TLS handshakes so far: in full, that went on with a session, and that failed.
    pub fn handshakes(&self) -> [u64; 3] {
        std::array::from_fn(|i| self.inner.handshakes[i].load(Relaxed))
    }

    /// Requests whose asker went away before they were answered.
    pub fn abandoned(&self) -> u64 {
        self.inner.abandoned.load(Relaxed)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                inner.connections.fetch_add(1, Relaxed);
                match &tls {
                    None => tokio::spawn(serve(stream, inner.clone())),
                    Some(tls) => tokio::spawn(secure(tls.clone(), stream, inner.clone())),
                };
            }
        }
    }
}

async fn secure(tls: TlsAcceptor, stream: TcpStream, inner: Arc<Inner>) {
    let accepted = tls.accept(stream).await;
    let result = match &accepted {
        Ok(stream) if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) => 1,
        Ok(_) => 0,
        Err(_) => 2,
    };
    inner.handshakes[result].fetch_add(1, Relaxed);
    if let Ok(stream) = accepted {
        serve(stream, inner).await;
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, inner: Arc<Inner>) {
    let service = service_fn(|request| answer(inner.clone(), request));
    let connection = http1::Builder::new().half_close(false).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = inner.stop.cancelled() => {}
        _ = connection.with_upgrades() => {}
    }
}

type Body = UnsyncBoxBody<Bytes, Closed>;

/// Makes hyper drop the connection.
#[derive(Debug, thiserror::Error)]
#[error("closed as told")]
struct Closed;

impl From<Infallible> for Closed {
    fn from(never: Infallible) -> Closed {
        match never {}
    }
}

/// Counts a request that was dropped before it was answered.
struct Asked<'a> {
    inner: &'a Inner,
    answered: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.answered && !self.inner.stop.is_cancelled() {
            self.inner.abandoned.fetch_add(1, Relaxed);
        }
    }
}

async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
    inner.requests.fetch_add(1, Relaxed);
    let manner = inner.manner.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut asked = Asked { inner: &inner, answered: false };
    match manner {
        Manner::Close => return Err(Closed),
        Manner::Hang => std::future::pending::<()>().await,
        Manner::Slow(time) => tokio::time::sleep(time).await,
        _ => {}
    }
    let response = if request.headers().contains_key(UPGRADE) {
        switch(&inner, request)
    } else {
        tell(&inner, request, &manner).await?
    };
    asked.answered = true;
    Ok(response)
}

/// The normal answer, varied by manner.
async fn tell(inner: &Inner, request: Request<Incoming>, manner: &Manner) -> Result<Response<Body>, Closed> {
    let (head, body) = request.into_parts();
    let received = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let headers: Vec<(&str, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let told = json!({
        "server": inner.id,
        "method": head.method.as_str(),
        "path": head.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&received[..received.len().min(1024)]),
        "body_bytes": received.len(),
    });
    let text = Bytes::from(told.to_string());
    let rest = || futures_util::stream::pending::<Result<Frame<Bytes>, Closed>>();
    let half = text.slice(..text.len() / 2);
    let body = match manner {
        Manner::CloseInBody => {
            // The half must have left before the connection goes.
            let broken = stream::once(async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(Closed)
            });
            StreamBody::new(stream::iter([Ok(Frame::data(half))]).chain(broken)).boxed_unsync()
        }
        Manner::HangInBody => StreamBody::new(stream::iter([Ok(Frame::data(half))]).chain(rest())).boxed_unsync(),
        Manner::Page(_, _, body) => Full::from(*body).map_err(Closed::from).boxed_unsync(),
        _ => Full::new(text).map_err(Closed::from).boxed_unsync(),
    };
    let mut response = Response::new(body);
    if let Manner::Status(status) = manner {
        *response.status_mut() = StatusCode::from_u16(*status).expect("a status");
    }
    if let Manner::Page(status, field, _) = manner {
        *response.status_mut() = StatusCode::from_u16(*status).expect("a status");
        let name = if response.status().is_redirection() { LOCATION } else { RETRY_AFTER };
        if !field.is_empty() {
            response.headers_mut().insert(name, http::HeaderValue::from_static(field));
        }
    }
    if let Manner::Header(name, value) = manner {
        response.headers_mut().append(*name, http::HeaderValue::from_static(value));
    }
    sign(&mut response, inner);
    if let Some(id) = head.headers.get("x-test-id") {
        response.headers_mut().insert("x-test-id", id.clone());
    }
    Ok(response)
}

/// Switches protocols, and sends back whatever comes.
fn switch(inner: &Inner, request: Request<Incoming>) -> Response<Body> {
    let protocol = request.headers()[UPGRADE].clone();
    let stop = inner.stop.clone();
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let mut stream = TokioIo::new(upgraded);
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = tokio::select! {
                () = stop.cancelled() => return,
                read = stream.read(&mut buffer) => read,
            };
            let Ok(n @ 1..) = read else { return };
            if stream.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Full::default().map_err(Closed::from).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, protocol);
    response.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("upgrade"));
    sign(&mut response, inner);
    response
}

fn sign(response: &mut Response<Body>, inner: &Inner) {
    response.headers_mut().insert("x-backend", http::HeaderValue::from_str(&inner.id).expect("an id is plain text"));
}
