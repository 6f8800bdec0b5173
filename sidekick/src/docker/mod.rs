//! A small client of the Docker Engine API: four GETs over a unix or TCP socket.
//!
//! Paths carry no version, so that neither an old nor a new engine refuses us; podman's compatible API serves too.
//! A connection serves one request. It never writes to Docker, so a read-only socket proxy is enough.
//! Not here: what anything means (`classify`), when to ask (`follow`).

mod container;
mod events;
pub mod signal;
pub mod time;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;

pub use container::{Binding, Config, Container, Endpoint, Health, HostConfig, NetworkSettings, State};
pub use events::{Event, LINE_MAX, Parser};

/// The largest answer read, in bytes.
pub const BODY_MAX: usize = 16 << 20;

/// How long an answer may take; the event stream, once open, has no limit.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why Docker did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none we can use.
    #[error("{given:?} is no Docker address: say unix:///PATH or tcp://HOST:PORT")]
    Address {
        /// What was given.
        given: String,
    },
    /// Nobody listens, or we may not.
    #[error("Docker does not answer on {address}: {source} (is it running, and may this user open its socket?)")]
    Unreachable {
        /// Where.
        address: String,
        /// The cause.
        source: std::io::Error,
    },
    /// It took longer than ten seconds.
    #[error("Docker took more than {} s to answer GET {path}", PATIENCE.as_secs())]
    Slow {
        /// What was asked.
        path: String,
    },
    /// The connection broke.
    #[error("the connection to Docker broke at GET {path}")]
    Broken {
        /// What was asked.
        path: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It refused.
    #[error("Docker answered GET {path} with {status}: {message}")]
    Refused {
        /// What was asked.
        path: String,
        /// Its answer.
        status: StatusCode,
        /// In its words.
        message: String,
    },
    /// It answered something else than its API says.
    #[error("Docker's answer to GET {path} is not what its API says: {source}")]
    Strange {
        /// What was asked.
        path: String,
        /// The cause.
        source: serde_json::Error,
    },
}

/// Where a Docker engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    Tcp(String),
}

/// A Docker engine. Cheap to clone: it holds no connection.
#[derive(Clone, Debug)]
pub struct Docker {
    address: Address,
}

/// What `GET /version` says.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Version {
    /// Of the engine.
    pub version: String,
    /// The newest API it speaks.
    pub api_version: String,
}

#[derive(serde::Deserialize)]
struct Listed {
    #[serde(rename = "Id")]
    id: String,
}

impl Docker {
    /// Reads `unix:///PATH`, `tcp://HOST:PORT` or `http://HOST:PORT`, as `DOCKER_HOST` spells them.
    pub fn new(host: &str) -> Result<Docker, Error> {
        let wrong = || Error::Address { given: host.to_owned() };
        let address = if let Some(path) = host.strip_prefix("unix://") {
            Address::Unix(PathBuf::from(Some(path).filter(|path| path.starts_with('/')).ok_or_else(wrong)?))
        } else {
            let tcp = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://")).ok_or_else(wrong)?;
            let tcp = tcp.trim_end_matches('/');
            let (name, port) = tcp.rsplit_once(':').ok_or_else(wrong)?;
            if name.is_empty() || name.contains('/') || port.parse::<u16>().is_err() {
                return Err(wrong());
            }
            Address::Tcp(tcp.to_owned())
        };
        Ok(Docker { address })
    }

    /// As it was given, for logs.
    pub fn describe(&self) -> String {
        match &self.address {
            Address::Unix(path) => format!("unix://{}", path.display()),
            Address::Tcp(address) => format!("tcp://{address}"),
        }
    }

    /// Which engine it is.
    pub async fn version(&self) -> Result<Version, Error> {
        self.read("/version").await
    }

    /// The ids of all running containers, paused ones included.
    pub async fn running(&self) -> Result<Vec<String>, Error> {
        let listed: Vec<Listed> = self.read("/containers/json").await?;
        Ok(listed.into_iter().map(|container| container.id).collect())
    }

    /// One container by id or name, with the addresses of the one whose network it shares; `None` if there is none.
    pub async fn inspect(&self, container: &str) -> Result<Option<Container>, Error> {
        let Some(mut found) = self.inspect_one(container).await? else { return Ok(None) };
        let owner = match found.host_config.network_mode.strip_prefix("container:") {
            Some(owner) => self.inspect_one(owner).await?,
            None => None,
        };
        if let Some(owner) = owner {
            found.network_settings = owner.network_settings;
            found.host_config.port_bindings = owner.host_config.port_bindings;
            found.host_config.publish_all_ports = owner.host_config.publish_all_ports;
        }
        Ok(Some(found))
    }

    /// Everything that happens to containers and networks from now on, and what happened since `since`
    /// (nanoseconds since 1970 by Docker's clock) as far as Docker remembers it.
    pub async fn events(&self, since: i64) -> Result<Events, Error> {
        const FILTERS: &str = "%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%7D";
        let path = format!(
            "/events?since={}.{:09}&filters={FILTERS}",
            since.div_euclid(1_000_000_000),
            since.rem_euclid(1_000_000_000)
        );
        let (response, connection) = self.get(&path).await?;
        let (response, connection) = refuse(&path, response, connection).await?;
        Ok(Events { body: response.into_body(), parser: Parser::default(), _connection: connection })
    }

    async fn inspect_one(&self, container: &str) -> Result<Option<Container>, Error> {
        match self.read(&format!("/containers/{}/json", encode(container))).await {
            Ok(container) => Ok(Some(container)),
            Err(Error::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let read = async {
            let (response, connection) = self.get(path).await?;
            let (response, _connection) = refuse(path, response, connection).await?;
            let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
            let body = body.map_err(|source| Error::Broken { path: path.to_owned(), source })?.to_bytes();
            serde_json::from_slice(&body).map_err(|source| Error::Strange { path: path.to_owned(), source })
        };
        tokio::time::timeout(PATIENCE, read).await.map_err(|_| Error::Slow { path: path.to_owned() })?
    }

    async fn get(&self, path: &str) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), Error> {
        let connect = async {
            let unreachable = |source| Error::Unreachable { address: self.describe(), source };
            match &self.address {
                Address::Unix(socket) => send(UnixStream::connect(socket).await.map_err(unreachable)?, path).await,
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                    // An event stream is silent for hours; without this a host that vanished is never noticed.
                    let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(30));
                    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(unreachable)?;
                    send(stream, path).await
                }
            }
        };
        tokio::time::timeout(PATIENCE, connect).await.map_err(|_| Error::Slow { path: path.to_owned() })?
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), Error> {
    let broken = |source: hyper::Error| Error::Broken { path: path.to_owned(), source: source.into() };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Its error is also the sender's and the body's.
    let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
    let request =
        Request::get(path).header("host", "docker").header("user-agent", "etna-sidekick").body(Empty::<Bytes>::new());
    let request = request.map_err(|source| Error::Broken { path: path.to_owned(), source: source.into() })?;
    Ok((sender.send_request(request).await.map_err(broken)?, connection))
}

/// Turns an answer that is no success into an error with Docker's own words.
async fn refuse(
    path: &str,
    response: Response<Incoming>,
    connection: AbortOnDropHandle<()>,
) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), Error> {
    let status = response.status();
    if status.is_success() {
        return Ok((response, connection));
    }
    let read = Limited::new(response.into_body(), 64 << 10).collect();
    let body = tokio::time::timeout(PATIENCE, read).await;
    let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = json["message"].as_str().unwrap_or("no reason given").to_owned();
    Err(Error::Refused { path: path.to_owned(), status, message })
}

/// A name as one segment of a path.
fn encode(segment: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    segment
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// An open event stream.
pub struct Events {
    body: Incoming,
    parser: Parser,
    _connection: AbortOnDropHandle<()>,
}

impl Events {
    /// The next event; `None` once the stream has ended, as it does when Docker restarts. Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.parser.pop() {
                return Ok(Some(event));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.parser.feed(data);
                    }
                    let bad = self.parser.take_bad();
                    if bad > 0 {
                        tracing::warn!(event = "docker-line-skipped", lines = bad, "Docker sent what is no event");
                    }
                }
                Some(Err(source)) => return Err(Error::Broken { path: "/events".into(), source: source.into() }),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:2375", "http://proxy:2375/"] {
            assert!(Docker::new(good).is_ok(), "{good}");
        }
        for bad in
            ["", "unix://", "unix://relative", "ssh://host", "tcp://host", "tcp://:1", "tcp://h:x", "npipe:////./p"]
        {
            assert!(matches!(Docker::new(bad), Err(Error::Address { .. })), "{bad}");
        }
    }

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(encode("wordpress-1"), "wordpress-1");
        assert_eq!(encode("../é?"), "..%2F%C3%A9%3F");
    }
}
