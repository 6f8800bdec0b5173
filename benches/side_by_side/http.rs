//! The smallest HTTP client that does: one request a connection, to ask peers whether they serve and to program Etna.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The name and the value of the cookie that it sets, if it does.
    pub(crate) cookie: Option<String>,
    pub(crate) body: String,
}

/// `GET path` with a Host of its own.
pub(crate) async fn get(to: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    send(to, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
}

/// `POST path` with JSON; anything but 2xx is an error.
pub(crate) async fn post(to: SocketAddr, path: &str, body: &str) -> anyhow::Result<()> {
    write(to, "POST", path, body).await
}

/// `PUT path` with JSON; anything but 2xx is an error.
pub(crate) async fn put(to: SocketAddr, path: &str, body: &str) -> anyhow::Result<()> {
    write(to, "PUT", path, body).await
}

async fn write(to: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<()> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = send(to, &(head + body)).await?;
    anyhow::ensure!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.body.trim());
    Ok(())
}

async fn send(to: SocketAddr, request: &str) -> anyhow::Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(LARGEST).read_to_end(&mut bytes).await?;
        anyhow::Ok(bytes)
    };
    let bytes = timeout(LONGEST, exchange).await.with_context(|| format!("{to} does not answer"))??;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("{to} answered without a head"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let fields = head.split("\r\n").filter_map(|line| line.split_once(": "));
    let set = fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    let cookie = set.and_then(|(_, value)| Some(value.split(';').next()?.to_owned()));
    let body = body.to_owned();
    Ok(Answer { status: status.with_context(|| format!("{to} answered without a status"))?, cookie, body })
}

const LONGEST: Duration = Duration::from_secs(5);
const LARGEST: u64 = 1 << 20;
