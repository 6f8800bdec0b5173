//! One HTTP/1.1 request on one connection, and its answer by lines.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::engine::Error;
use crate::engine::wire::{Failure, LONGEST_LINE, SILENCE};
use crate::file;

/// Where an admin API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `HOST:PORT`.
    Tcp(String),
    /// A socket's path.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(address) => write!(f, "http://{address}"),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The `Host` under which an admin API answers: its address as it was given or, where that was a name, the address the
/// name led to. A name it refuses, for a web page could have made one of its own lead there (DNS rebinding).
pub fn host_field(given: &str, peer: SocketAddr) -> String {
    let host = given.rsplit_once(':').map_or(given, |(host, _)| host);
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // `localhost` it knows, and a tunnel on `::1` may end at its 127.0.0.1.
    if literal.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost") {
        return given.to_owned();
    }
    // Without the zone of a link-local address, which is ours alone.
    SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string()
}

/// The other side, and what we show it.
pub(super) struct Peer {
    pub(super) target: Target,
    pub(super) token_file: Option<PathBuf>,
}

impl Peer {
    /// Sends a request below `/v3/store`; an answer other than 200 becomes the error it is.
    pub(super) async fn ask(&self, method: Method, what: &str, body: Option<Vec<u8>>) -> Result<Lines, Error> {
        let request = self.request(method, what, body).await?;
        let response = match tokio::time::timeout(LONGEST_REQUEST, self.send(request)).await {
            Ok(response) => response?,
            Err(_) => return Err(unavailable(format!("{} does not answer", self.target))),
        };
        let status = response.status();
        let lines = Lines { body: response.into_body(), buffer: BytesMut::new(), peer: self.target.to_string() };
        if status == StatusCode::OK {
            return Ok(lines);
        }
        let body = lines.whole().await?;
        Err(match serde_json::from_slice::<Failure>(&body) {
            Ok(failure) => failure.into(),
            Err(_) => self.refused(status, &body),
        })
    }

    async fn request(&self, method: Method, what: &str, body: Option<Vec<u8>>) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/v3/store/{what}"))
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json");
        // Read each time, so that a new token needs no restart.
        if let Some(path) = &self.token_file {
            let token = file::text_soon(path.clone()).await;
            let token = token.map_err(|e| invalid(format!("cannot read {}: {e}", path.display())))?;
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        let body = Full::new(Bytes::from(body.unwrap_or_default()));
        request.body(body).map_err(|error| invalid(format!("{}: {error}", self.target)))
    }

    async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        match &self.target {
            Target::Tcp(address) => {
                let stream = connect(TcpStream::connect(address)).await.map_err(|error| self.unreached(error))?;
                let _ = stream.set_nodelay(true);
                let peer = stream.peer_addr().map_err(|error| self.unreached(error))?;
                let host = HeaderValue::try_from(host_field(address, peer));
                request.headers_mut().insert(HOST, host.map_err(|error| invalid(format!("{}: {error}", self.target)))?);
                self.exchange(stream, request).await
            }
            Target::Unix(path) => {
                let stream = connect(UnixStream::connect(path)).await.map_err(|error| self.unreached(error))?;
                self.exchange(stream, request).await
            }
        }
    }

    async fn exchange<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Error> {
        let broke = |error| broke(&self.target.to_string(), error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
        // Ends with the answer, or when that is dropped.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(broke)
    }

    fn unreached(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                Error::Denied { reason: format!("{}: {error}; join the group of its socket", self.target) }
            }
            _ => {
                let context = format!("cannot reach {}; is `etna serve` running there?", self.target);
                Error::Unavailable { context, source: Some(Box::new(error)) }
            }
        }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Error {
        let message = serde_json::from_slice::<Refused>(body).ok().map(|refused| refused.message);
        let text = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
        let text: String = text.trim().chars().take(LONGEST_QUOTE).collect();
        let said = format!("{} answered {status}: {text}", self.target);
        match status {
            StatusCode::UNAUTHORIZED => {
                Error::Denied { reason: format!("{said}; give the file with its admin token as the password file") }
            }
            // Not for want of the token: the answer says why and what to do.
            StatusCode::FORBIDDEN => Error::Denied { reason: said },
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                invalid(format!("{said}; there is no etna with a store there, or an older one"))
            }
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => invalid(said),
            _ => unavailable(said),
        }
    }
}

/// What an admin API says that refuses a request before its store is asked.
#[derive(serde::Deserialize)]
struct Refused {
    message: String,
}

/// An answer, line by line.
pub(super) struct Lines {
    body: Incoming,
    buffer: BytesMut,
    peer: String,
}

impl Lines {
    /// The next line without its end, or `None` at the end of the answer.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer.get(searched..).and_then(|new| new.iter().position(|byte| *byte == b'\n')) {
                let mut line = self.buffer.split_to(searched + end + 1);
                line.truncate(searched + end);
                return Ok(Some(line.freeze()));
            }
            searched = self.buffer.len();
            if !self.more(LONGEST_LINE).await? {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(unavailable(format!("{} broke off in the middle of a line", self.peer))),
                };
            }
        }
    }

    /// All of the answer.
    pub(super) async fn whole(mut self) -> Result<Bytes, Error> {
        while self.more(LONGEST_ANSWER).await? {}
        Ok(self.buffer.freeze())
    }

    async fn more(&mut self, most: usize) -> Result<bool, Error> {
        loop {
            let frame = match tokio::time::timeout(SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(broke(&self.peer, error)),
                Ok(None) => return Ok(false),
                Err(_) => return Err(unavailable(format!("{} has fallen silent", self.peer))),
            };
            let Ok(data) = frame.into_data() else { continue };
            if self.buffer.len() + data.len() > most {
                return Err(unavailable(format!("{} answers more than {most} bytes at once", self.peer)));
            }
            self.buffer.extend_from_slice(&data);
            return Ok(true);
        }
    }
}

async fn connect<S>(connecting: impl Future<Output = io::Result<S>>) -> io::Result<S> {
    match tokio::time::timeout(LONGEST_CONNECT, connecting).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn broke(peer: &str, error: hyper::Error) -> Error {
    Error::Unavailable { context: format!("the connection to {peer} broke"), source: Some(Box::new(error)) }
}

fn unavailable(context: String) -> Error {
    Error::Unavailable { context, source: None }
}

fn invalid(reason: String) -> Error {
    Error::Invalid { reason }
}

const LONGEST_CONNECT: Duration = Duration::from_secs(2);
/// Until the head of the answer. A commit may wait for a slow disk.
const LONGEST_REQUEST: Duration = Duration::from_secs(12);
/// Of an answer that is not read by lines, in bytes.
const LONGEST_ANSWER: usize = 4 << 20;
/// In characters.
const LONGEST_QUOTE: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_said_as_the_address_it_led_to() {
        let host = |given: &str, peer: &str| host_field(given, peer.parse().unwrap());
        assert_eq!(host("core-01:8182", "10.0.0.11:8182"), "10.0.0.11:8182");
        assert_eq!(host("core-01:8182", "[fd00::1]:8182"), "[fd00::1]:8182");
        assert_eq!(host("core-01:8182", "[fe80::1%2]:8182"), "[fe80::1]:8182");
        assert_eq!(host("core-01:8182", "[::ffff:10.0.0.11]:8182"), "10.0.0.11:8182");
        assert_eq!(host("127.1:9", "127.0.0.1:9"), "127.0.0.1:9");
        for given in ["10.0.0.11:8182", "[fd00::1]:8182", "localhost:8182", "LOCALHOST:1"] {
            assert_eq!(host(given, "127.0.0.1:8182"), given);
        }
    }
}
