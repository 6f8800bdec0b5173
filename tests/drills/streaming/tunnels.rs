//! F5: a thousand WebSockets on which nothing happens for two minutes (`ETNA_DRILLS_IDLE_SECONDS` says another time),
//! and then everything at once.

use std::time::{Duration, Instant};

use etna_tests::scene::Scene;
use etna_tests::stand_in::StandIn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::denial::Memory;
use crate::drill::{Length, Outcome};

pub(super) async fn run(length: Length) -> Outcome {
    let many = length.pick(1000, 100);
    let said = std::env::var("ETNA_DRILLS_IDLE_SECONDS").ok().and_then(|text| text.parse().ok());
    let idle = Duration::from_secs(said.unwrap_or(length.pick(120, 1)));
    let scene = Scene::alone("tunnels").await;
    let server = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", server.address)]).await;
    let proxy = scene.proxy("etna").await;
    proxy.until_status("a.test", "/", 200).await;
    let mut wrong = Vec::new();
    let mut tunnels = Vec::new();
    // The first ones pay for what all share.
    let first = many / 5;
    for n in 0..first {
        match open(proxy.listen).await {
            Ok(tunnel) => tunnels.push(tunnel),
            Err(why) => wrong.push(format!("{n} of the first: {why}")),
        }
    }
    let memory = Memory::watch(proxy.pid());
    for n in 0..many {
        match open(proxy.listen).await {
            Ok(tunnel) => tunnels.push(tunnel),
            Err(why) => wrong.push(format!("{n}: {why}")),
        }
    }
    tokio::time::sleep(idle).await;
    // The last ones are counted a moment after they were told that they stand.
    let mut counted = 0.0;
    let until = Instant::now() + crate::protocol::SOON;
    while counted < f64::from(many + first) && Instant::now() < until {
        counted = proxy.metrics().await.sum("etna_tunnels", &[]).unwrap_or_default();
    }
    let each = memory.stop().await / 1024.0 / f64::from(many);
    let mut pings = JoinSet::new();
    for tunnel in tunnels {
        pings.spawn(ping(tunnel));
    }
    wrong.extend(pings.join_all().await.into_iter().filter_map(Result::err));
    if counted != f64::from(many + first) {
        wrong.push(format!("{counted} of {} were left", many + first));
    }
    if each > 30.0 {
        wrong.push(format!("{each:.1} KiB each"));
    }
    let figure = format!("idle for {} s; {counted} left; {each:.1} KiB of memory each", idle.as_secs());
    crate::protocol::outcome(&format!("{many} tunnels"), many as usize * 2, figure, &wrong)
}

async fn open(to: std::net::SocketAddr) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
    let head = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.map_err(|error| error.to_string())?);
    }
    if answer.starts_with(b"HTTP/1.1 101 ") { Ok(stream) } else { Err(String::from_utf8_lossy(&answer).into_owned()) }
}

/// A ping, as a server that sends back what it gets answers it: with the same bytes.
async fn ping(mut stream: TcpStream) -> Result<(), String> {
    let frame = b"\x89\x84\x01\x02\x03\x04\x71\x6b\x6d\x63";
    stream.write_all(frame).await.map_err(|error| format!("ping: {error}"))?;
    let mut back = [0; 10];
    let read = tokio::time::timeout(crate::protocol::SOON, stream.read_exact(&mut back)).await;
    match read {
        Ok(Ok(_)) if back == *frame => Ok(()),
        other => Err(format!("ping: {other:?}")),
    }
}
