//! Connections that are opened, used once, and then only held, until this process is killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::begin;
use super::http::Incoming;
use crate::tls;

/// What is held.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Hold {
    pub(crate) to: SocketAddr,
    pub(crate) host: String,
    pub(crate) connections: usize,
    /// The certificate that is believed; without one nothing is encrypted.
    pub(crate) roots: Option<PathBuf>,
}

enum Held {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Hold {
    /// Fails as soon as a connection is not held by the other side.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = self.roots.as_deref().map(|roots: &Path| tls::config(true, roots)).transpose()?.map(Arc::new);
        let mut held = Vec::with_capacity(self.connections);
        let mut opening = JoinSet::new();
        for _ in 0..self.connections {
            if opening.len() == AT_ONCE {
                held.push(opening.join_next().await.context("nothing opens")???);
            }
            opening.spawn(open(self.to, self.host.clone(), config.clone()));
        }
        while let Some(opened) = opening.join_next().await {
            held.push(opened??);
        }
        begin()?;
        loop {
            tokio::time::sleep(BETWEEN_LOOKS).await;
            let closed = held.iter().filter(|held| held.is_closed()).count();
            anyhow::ensure!(closed == 0, "{closed} of {} connections were closed", held.len());
        }
    }
}

impl Held {
    fn is_closed(&self) -> bool {
        let socket = match self {
            Held::Plain(socket) => socket,
            Held::Secure(stream) => stream.get_ref().0,
        };
        // Only an end is looked for: bytes that wait say that somebody is there.
        !matches!(socket.try_read(&mut [0]), Ok(1..) | Err(_)) || socket.take_error().ok().flatten().is_some()
    }
}

async fn open(to: SocketAddr, host: String, config: Option<Arc<ClientConfig>>) -> anyhow::Result<Held> {
    let socket = TcpStream::connect(to).await.context("connect")?;
    socket.set_nodelay(true)?;
    let Some(config) = config else { return Ok(Held::Plain(once(socket, &host).await?)) };
    let name = ServerName::try_from(host.clone())?;
    let stream = TlsConnector::from(config).connect(name, socket).await.context("handshake")?;
    Ok(Held::Secure(Box::new(once(stream, &host).await?)))
}

/// One request and its answer.
async fn once<S: AsyncRead + AsyncWrite + Unpin>(stream: S, host: &str) -> anyhow::Result<S> {
    let mut incoming = Incoming::new(stream);
    incoming.stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    incoming.stream.flush().await?;
    let answer = incoming.head().await?.context("closed instead of an answer")?;
    answer.expect("200")?;
    incoming.skip(answer.length()?, |_| ()).await?;
    Ok(incoming.stream)
}

const AT_ONCE: usize = 32;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
