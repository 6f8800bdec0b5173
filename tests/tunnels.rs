//! WebSocket: switched protocols are a tunnel, byte for byte, counted, and untouched by changes.

use std::time::Duration;

use etna_tests::h2::{self, Outcome, Wire};
use etna_tests::scene::{Scene, frontend, frontend_key};
use etna_tests::stand_in::StandIn;
use etna_tests::wait::{ensure, eventually};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

async fn open(to: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let head = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("an answer"));
    }
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(answer.contains("upgrade: websocket\r\n") && answer.contains("connection: upgrade\r\n"), "{answer}");
    stream
}

async fn echo(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    let read = tokio::time::timeout(SOON, stream.read_exact(&mut back)).await;
    read.expect("it comes back").expect("the tunnel is open");
    assert_eq!(back, text);
}

#[tokio::test]
async fn a_tunnel_carries_bytes_and_outlives_changes() {
    let scene = Scene::open("tunnel").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    let mut tunnel = open(proxy.listen).await;
    echo(&mut tunnel, b"hello").await;
    echo(&mut tunnel, &vec![7; 200_000]).await;
    assert_eq!(proxy.metrics().await.sum("etna_tunnels", &[]), Some(1.0));

    scene.put(&frontend_key("other"), frontend("Host(`b.test`)", "a")).await;
    let revision = scene.delete(&frontend_key("a")).await;
    proxy.until_revision(revision).await;
    echo(&mut tunnel, b"still there").await;

    drop(tunnel);
    eventually("it is counted off", SOON, async || {
        let open = proxy.metrics().await.sum("etna_tunnels", &[]);
        ensure(open == Some(0.0), format!("{open:?}"))
    })
    .await;
    assert_eq!(proxy.metrics().await.sum("etna_tunnels_total", &[]), Some(1.0));
}

#[tokio::test]
async fn a_server_that_ends_ends_the_tunnel() {
    let scene = Scene::open("tunnelend").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    let mut tunnel = open(proxy.listen).await;
    echo(&mut tunnel, b"hello").await;
    drop(a);
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(SOON, tunnel.read_to_end(&mut rest)).await.expect("the tunnel ends");
    assert!(rest.is_empty());
}

/// A server that says something last and takes no more is heard to its end, although the client goes on talking and is
/// slow to listen.
#[tokio::test]
async fn last_words_are_heard() {
    let scene = Scene::open("tunnelwords").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.route("a", "a.test", &[("s", listener.local_addr().unwrap())]).await;
    let said = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await.unwrap());
        }
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.read_u8().await.unwrap();
        stream.write_all(&[7; WORDS]).await.unwrap();
    });
    let proxy = scene.proxy("etna").await;
    let mut client = Wire::open(h2::open(&scene, &proxy).await).await;
    let method = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http")];
    let fields = [&method[..], &[(":authority", "a.test"), (":path", "/"), ("sec-websocket-version", "13")]].concat();
    let opening = h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &h2::block(&fields));
    client.send(&[h2::frame(h2::SETTINGS, 0, 0, &h2::setting(4, 10)), opening].concat()).await.unwrap();
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    client.send(&h2::frame(h2::DATA, 0, 1, b"?")).await.unwrap();
    said.await.unwrap();
    // Each is with the server before the next one is sent.
    for _ in 0..20 {
        client.send(&h2::frame(h2::DATA, 0, 1, b"but")).await.unwrap();
        client.send(&h2::frame(h2::PING, 0, 0, &[0; 8])).await.unwrap();
        client.until("the answer", |frame| frame.kind == h2::PING && frame.flags & h2::ACK != 0).await;
    }
    client.send(&h2::frame(h2::WINDOW_UPDATE, 0, 1, &0xffff_u32.to_be_bytes())).await.unwrap();
    let mut heard = 0;
    let is_last =
        |frame: &h2::Frame| frame.stream == 1 && (frame.kind == h2::RST_STREAM || frame.flags & h2::END_STREAM != 0);
    client
        .until("the end", |frame| {
            heard += if frame.kind == h2::DATA { frame.payload.len() } else { 0 };
            is_last(frame)
        })
        .await;
    // The first ten bytes came before.
    assert_eq!(heard, WORDS - 10);
}

#[tokio::test]
async fn a_tunnel_counts_against_a_limit_as_long_as_it_is_open() {
    let scene = Scene::open("tunnellimit").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let limit = json!({"Id": "limit", "Type": "connlimit", "Priority": 1,
        "Middleware": {"Connections": 1, "Variable": "client.ip"}});
    scene.put("frontends/a/middlewares/limit", limit).await;
    let proxy = scene.proxy("etna").await;
    let mut tunnel = open(proxy.listen).await;
    echo(&mut tunnel, b"hello").await;
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 429);
    drop(tunnel);
    proxy.until_status("a.test", "/", 200).await;
}

/// Bytes that fit into the buffers of a connection at once.
const WORDS: usize = 32 * 1024;
const SOON: Duration = Duration::from_secs(20);
