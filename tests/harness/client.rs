//! A client for single requests: hyper on one connection, no pool, no retry, no redirect, everything bounded.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A whole response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its header.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// One header, empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The id of the server that answered.
    pub fn server(&self) -> &str {
        self.header("x-backend")
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON: {error}: {}", self.text()))
    }
}

/// A request without a body.
pub fn request(method: &str, host: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header(HOST, host)
}

/// `GET` on a connection of its own.
pub async fn get(to: SocketAddr, host: &str, path: &str) -> Result<Answer, String> {
    send(to, request("GET", host, path).body(Full::default()).expect("a valid request")).await
}

/// Any request on a connection of its own.
pub async fn send(to: SocketAddr, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    Connection::open(to).await?.send(request).await
}

/// A keep-alive connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    closing: bool,
}

impl Connection {
    /// Opens one.
    pub async fn open(to: SocketAddr) -> Result<Connection, String> {
        let within = tokio::time::timeout(PATIENCE, TcpStream::connect(to)).await;
        let stream = within.map_err(|_| "connecting took too long")?.map_err(|error| format!("connect: {error}"))?;
        let _ = stream.set_nodelay(true);
        Connection::over(stream).await
    }

    /// One over a byte stream that stands already.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Connection, String> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| shown(&error))?;
        tokio::spawn(connection);
        Ok(Connection { sender, closing: false })
    }

    /// Whether it can take another request: the last answer did not say that it closes.
    pub fn is_open(&self) -> bool {
        !self.closing && !self.sender.is_closed()
    }

    /// Sends a request and reads the whole answer. Never tries again.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let exchange = async {
            self.sender.ready().await.map_err(|error| shown(&error))?;
            let response = self.sender.send_request(request).await.map_err(|error| shown(&error))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| format!("in the body: {}", shown(&error)))?.to_bytes();
            let closes = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"close");
            self.closing = head.headers.get(CONNECTION).is_some_and(closes);
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| "no answer in time".to_owned())?
    }

    /// `GET` on this connection.
    pub async fn get(&mut self, host: &str, path: &str) -> Result<Answer, String> {
        self.send(request("GET", host, path).body(Full::default()).expect("a valid request")).await
    }
}

/// An error with its causes.
fn shown(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The longest any request of a test may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends bytes as they are, and what comes back until the other side closes or nothing more comes for a while.
pub async fn raw(to: SocketAddr, bytes: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(to).await.expect("connect");
    stream.write_all(bytes).await.expect("write");
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    let mut patience = BEGINNING;
    while let Ok(Ok(n @ 1..)) = tokio::time::timeout(patience, stream.read(&mut buffer)).await {
        got.extend_from_slice(&buffer[..n]);
        patience = QUIET;
    }
    String::from_utf8_lossy(&got).into_owned()
}

/// Until an answer begins, on a machine that does other things, too.
const BEGINNING: Duration = Duration::from_secs(10);
/// How long nothing comes until nothing more is expected.
const QUIET: Duration = Duration::from_secs(3);
