//! Servers of ours behind the peers, for what nginx does not do alone: take uploads to their end, wait, say how long a
//! request was with them, echo WebSocket messages. A process of its own (`--serve`), beside the load.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::LocalSet;

use super::http::{Head, Incoming};

/// Listens at so many addresses, prints them as JSON, and serves until killed.
pub(crate) async fn serve(number: usize) -> anyhow::Result<()> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let all = LocalSet::new();
    for _ in 0..number {
        let listener = listener()?;
        addresses.push(listener.local_addr()?);
        all.spawn_local(listen(listener));
    }
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&addresses)?)?;
    all.await;
    Ok(())
}

/// Listens on loopback, with as many that wait as all peers have.
pub(crate) fn listener() -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(4096)
}

async fn listen(listener: TcpListener) {
    loop {
        match listener.accept().await {
            // How a connection ends is its client's business.
            Ok((stream, _)) => drop(tokio::task::spawn_local(connection(stream))),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut incoming = Incoming::new(stream);
    while let Some(request) = incoming.head().await? {
        let began = Instant::now();
        if request.field("sec-websocket-key").is_some() {
            return echo(incoming).await;
        }
        incoming.skip(request.length()?, |_| ()).await?;
        if request.word(1) == SLOW {
            tokio::time::sleep(A_WHILE).await;
        }
        let body = body(&request);
        let held = began.elapsed().as_nanos();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{HELD}: {held}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        incoming.stream.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// What nginx answers in their place.
fn body(request: &Head) -> String {
    if request.word(1).ends_with("/check") {
        let field = |name| request.field(name).unwrap_or_default();
        return format!("public host={} for={}", field("host"), field("x-forwarded-for"));
    }
    format!("{:.<130}", "public")
}

/// Sends back every message of a client, unmasked as a server has to (RFC 6455, 5.1).
async fn echo(mut incoming: Incoming<TcpStream>) -> anyhow::Result<()> {
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    incoming.stream.write_all(answer.as_bytes()).await?;
    let mut frame = [0; 2 + 4 + SHORTEST_LONG];
    loop {
        incoming.take(&mut frame[..6]).await?;
        let length = usize::from(frame[1] & 0x7f);
        anyhow::ensure!(frame[1] & 0x80 != 0 && length < SHORTEST_LONG, "not a short masked frame");
        let mask = [frame[2], frame[3], frame[4], frame[5]];
        let payload = &mut frame[2..2 + length];
        incoming.take(payload).await?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        frame[1] &= 0x7f;
        incoming.stream.write_all(&frame[..2 + length]).await?;
    }
}

/// The path that is answered after [`A_WHILE`].
pub(crate) const SLOW: &str = "/slow";
const A_WHILE: Duration = Duration::from_millis(20);
/// The field that says for how many nanoseconds a request was held.
pub(crate) const HELD: &str = "X-Held";
/// A WebSocket's key and what has to be answered to it: those of RFC 6455, 1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Payloads from this length on have a longer head.
const SHORTEST_LONG: usize = 126;
