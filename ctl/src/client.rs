//! A client of the admin API, over TCP or a unix socket: one request, one connection, everything bounded.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etna_store::Engine;
use etna_store::engine::remote::host_field;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::failure::Failure;
use crate::store;

/// A running `etna`, by its admin API.
pub(crate) struct Client {
    target: Target,
    token: Option<HeaderValue>,
    url: String,
    token_file: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// `host:port`
    Tcp(String),
    Unix(PathBuf),
}

impl Client {
    /// The one at a URL, with the token of a file.
    pub(crate) fn new(url: &str, token_file: Option<&Path>) -> Result<Client, Failure> {
        let token = token_file.map(read_token).transpose()?;
        Ok(Client { target: Target::parse(url)?, token, url: url.to_owned(), token_file: token_file.map(Into::into) })
    }

    /// The store behind it.
    pub(crate) async fn engine(&self) -> Result<Arc<dyn Engine>, Failure> {
        store::behind(&self.url, self.token_file.as_deref()).await
    }

    /// Reads.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(Method::GET, path, None).await
    }

    /// Sends a request, and gives its JSON answer if that is a success.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let answer = match &self.target {
            Target::Tcp(address) => {
                let stream = self.connect(TcpStream::connect(address)).await?;
                let peer = stream.peer_addr().map_err(|error| Failure::unread(format!("{}: {error}", self.target)))?;
                self.exchange(stream, self.request(method, path, &host_field(address, peer), body)?).await
            }
            Target::Unix(path_on_disk) => {
                let stream = self.connect(UnixStream::connect(path_on_disk)).await?;
                self.exchange(stream, self.request(method, path, "localhost", body)?).await
            }
        };
        let (status, bytes) = answer?;
        let value: Option<Value> = serde_json::from_slice(&bytes).ok();
        let Some(value) = value else {
            let (target, status) = (&self.target, status.as_str());
            return Err(Failure::unread(format!("{target} answered {status} and no JSON: is it an etna's admin API?")));
        };
        if status.is_success() {
            return Ok(value);
        }
        let message = value["message"].as_str().unwrap_or(status.as_str());
        Err(match status {
            StatusCode::UNAUTHORIZED => Failure::refused(format!("{message} (--token-file FILE)")),
            status if status.is_server_error() => Failure::unread(format!("{}: {message}", self.target)),
            _ => Failure::refused(message),
        })
    }

    async fn connect<S>(&self, connecting: impl Future<Output = std::io::Result<S>>) -> Result<S, Failure> {
        let error = match timeout(LONGEST_CONNECT, connecting).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", LONGEST_CONNECT.as_secs()),
        };
        Err(Failure::unread(format!(
            "cannot reach etna at {}: {error}. Is it running? Start it with `etna serve`, or name another one with \
             --admin URL or ETNA_ADMIN_URL",
            self.target
        )))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        host: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, host).header(ACCEPT, JSON);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, JSON);
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        request.body(Full::new(body)).map_err(|error| Failure::usage(format!("cannot ask for {path}: {error}")))
    }

    async fn exchange<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: &dyn std::fmt::Display| {
            Failure::unread(format!("{} broke off: {error}. Is it an etna's admin API?", self.target))
        };
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
            // Ends by itself when the answer is read and the sender dropped.
            tokio::spawn(connection);
            let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
            Ok((status, body.map_err(|error| broken(&error))?.to_bytes()))
        };
        timeout(LONGEST_EXCHANGE, exchange).await.unwrap_or_else(|_| {
            let seconds = LONGEST_EXCHANGE.as_secs();
            Err(Failure::unread(format!("{} did not answer within {seconds} s: see its log", self.target)))
        })
    }
}

impl Target {
    fn parse(url: &str) -> Result<Target, Failure> {
        let wrong = |hint: &str| Failure::usage(format!("--admin {url}: {hint}"));
        if let Some(path) = url.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') {
                Ok(Target::Unix(path.into()))
            } else {
                Err(wrong("the path after unix: must be absolute"))
            };
        }
        if url.starts_with("https://") {
            return Err(wrong("the admin API has no TLS; tunnel it (ssh -L 8182:127.0.0.1:8182 HOST)"));
        }
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        match authority.parse::<http::uri::Authority>() {
            Ok(parsed) if parsed.port_u16().is_some() || parsed.host() == authority => {
                let port = if parsed.port().is_some() { "" } else { DEFAULT_PORT };
                Ok(Target::Tcp(format!("{authority}{port}")))
            }
            _ => Err(wrong("write http://HOST:PORT or unix:/PATH")),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Tcp(address) => write!(f, "http://{address}"),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A path's segment, whatever characters an id has.
pub(crate) fn segment(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn read_token(path: &Path) -> Result<HeaderValue, Failure> {
    let text = etna_store::file::text(path)
        .map_err(|error| Failure::unread(format!("cannot read the token file {}: {error}", path.display())))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim()))
        .map_err(|_| Failure::unread(format!("the token file {} holds no token", path.display())))?;
    value.set_sensitive(true);
    Ok(value)
}

const JSON: &str = "application/json";
const DEFAULT_PORT: &str = ":8182";
const LONGEST_CONNECT: Duration = Duration::from_secs(5);
/// A little longer than an etna waits for its store.
const LONGEST_EXCHANGE: Duration = Duration::from_secs(40);
const LONGEST_ANSWER: usize = 512 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let tcp = |text: &str| Target::Tcp(text.to_owned());
        assert_eq!(Target::parse("http://127.0.0.1:8182"), Ok(tcp("127.0.0.1:8182")));
        assert_eq!(Target::parse("http://127.0.0.1/"), Ok(tcp("127.0.0.1:8182")));
        assert_eq!(Target::parse("[::1]:9"), Ok(tcp("[::1]:9")));
        assert_eq!(Target::parse("unix:/run/etna/etna.sock"), Ok(Target::Unix("/run/etna/etna.sock".into())));
        assert_eq!(Target::parse("unix:///run/a"), Ok(Target::Unix("/run/a".into())));
        for bad in ["unix:run", "https://a", "http://", "http://a/b", "http://u@h", "http://a:99999"] {
            assert!(matches!(Target::parse(bad), Err(Failure::Usage(_))), "{bad}");
        }
    }

    #[tokio::test]
    async fn what_is_no_etna_is_named() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for status in ["404 Not Found", "200 OK", "503 Service Unavailable"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\nConnection: close\r\n\r\n<p/>");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let client = Client::new(&format!("http://{address}"), None).unwrap();
        for status in ["404", "200", "503"] {
            let failure = client.get("/v3/status").await.unwrap_err();
            let Failure::Unread(text) = failure else { panic!("{failure}") };
            assert!(
                text.starts_with(&format!("http://{address} answered {status} and no JSON: is it an etna")),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn a_name_is_said_as_an_address() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}").await.unwrap();
            String::from_utf8(head[..read].to_vec()).unwrap().to_lowercase()
        });
        // A name to the resolver, and no address to Rust.
        let client = Client::new(&format!("http://127.1:{port}"), None).unwrap();
        client.get("/v3/status").await.unwrap();
        let head = asked.await.unwrap();
        assert!(head.contains(&format!("\r\nhost: 127.0.0.1:{port}\r\n")), "{head}");
    }

    #[test]
    fn ids_stay_one_segment() {
        assert_eq!(segment("a/b ü"), "a%2Fb%20%C3%BC");
    }
}
