//! HTTP/2 with clients: every stream is a request like any other, and what its server says comes back whole.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etna_tests::h2::{self as raw, Outcome, Wire};
use etna_tests::process::output_of;
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::tls::{Authority, TlsClient, https_listener};
use etna_tests::wait::{ensure, eventually};
use h2::RecvStream;
use h2::client::{SendRequest, handshake};
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A proxy with one server, and where it understands HTTP/2.
pub(crate) async fn bed(name: &str) -> (Scene, StandIn, Proxy, SocketAddr) {
    let scene = Scene::open(name).await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    let at = raw::open(&scene, &proxy).await;
    (scene, a, proxy, at)
}

pub(crate) async fn connect(to: SocketAddr) -> SendRequest<Bytes> {
    begin(TcpStream::connect(to).await.unwrap()).await
}

pub(crate) async fn begin(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Bytes> {
    let (client, connection) = handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

pub(crate) fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://a.test{path}"))
}

/// The whole of a body: its bytes and its trailers.
pub(crate) async fn whole(mut body: RecvStream) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.into(), body.trailers().await?))
}

pub(crate) async fn get(client: &mut SendRequest<Bytes>, path: &str) -> (Response<()>, Value) {
    let (response, _) = client.send_request(request("GET", path).body(()).unwrap(), true).unwrap();
    let (head, body) = within(response).await.unwrap().into_parts();
    let (bytes, _) = within(whole(body)).await.unwrap();
    (Response::from_parts(head, ()), serde_json::from_slice(&bytes).unwrap_or_default())
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

fn sent<'a>(told: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = told["headers"].as_array().unwrap().iter();
    fields.filter(|field| field[0] == name).map(|field| field[1].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_get_is_answered_as_over_http_1() {
    let (_scene, _a, proxy, at) = bed("h2get").await;
    let mut client = connect(at).await;
    let (head, told) = get(&mut client, "/x?y=1").await;
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["x-backend"], "a");
    assert!(head.headers().contains_key("date") && head.headers().contains_key("content-length"));
    assert_eq!((told["method"].as_str(), told["path"].as_str()), (Some("GET"), Some("/x?y=1")));
    assert_eq!(sent(&told, "host"), ["a.test"]);
    assert_eq!(sent(&told, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(sent(&told, "x-forwarded-proto"), ["http"]);

    // The same listener serves HTTP/1.1, and others do not know HTTP/2.
    assert_eq!(etna_tests::client::get(at, "a.test", "/").await.unwrap().status, 200);
    let mut other = Wire::open(proxy.listen).await;
    assert_eq!(other.outcome(1).await, Outcome::Closed);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("etna_http2_connections_total", &[]), Some(1.0));
    assert_eq!(metrics.sum("etna_http2_streams_total", &[]), Some(1.0));
}

/// What a program says, while the server in this process goes on.
async fn run(program: &'static str, arguments: Vec<String>) -> String {
    tokio::task::spawn_blocking(move || output_of(Command::new(program).args(arguments))).await.unwrap()
}

#[tokio::test]
async fn other_peoples_clients_are_served() {
    let (_scene, _a, _proxy, at) = bed("h2clients").await;
    let url = format!("http://{at}/");
    let arguments = |line: &str| line.split(' ').map(str::to_owned).chain([url.clone()]).collect::<Vec<_>>();
    let upload = "x".repeat(100_000);
    let curl = format!("--silent --show-error --http2-prior-knowledge --header Host:a.test --data {upload}");
    let said = run("curl", arguments(&curl)).await;
    assert!(said.contains("\"body_bytes\":100000"), "{said}");
    let said = run("nghttp", arguments("--header=:authority:a.test --verbose")).await;
    assert!(said.contains(":status: 200"), "{said}");
    let load = "--requests=2000 --clients=4 --max-concurrent-streams=50 --header=:authority:a.test";
    let said = run("h2load", arguments(load)).await;
    assert!(said.contains("2000 done, 2000 succeeded, 0 failed"), "{said}");
}

#[tokio::test]
async fn tls_agrees_on_http_2_unless_a_listener_does_not() {
    let scene = Scene::open("h2tls").await;
    let authority = Authority::new(scene.folder());
    let a = StandIn::start("a").await;
    for host in ["a.test", "b.test"] {
        scene.route(host, host, &[("s", a.address)]).await;
    }
    scene.put("hosts/a.test/host", authority.host(&authority.issue(&["a.test"]), false)).await;
    scene.put("hosts/b.test/host", authority.host(&authority.issue(&["b.test"]), false)).await;
    scene.put("listeners/https", https_listener(json!({}))).await;
    scene.put("listeners/old", https_listener(json!({ "HTTP2": false }))).await;
    let proxy = scene.proxy_with("etna", &["--seal-key", authority.seal_key()]).await;
    let mut config = (*authority.client().config).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = TlsClient { config: Arc::new(config) };
    let stream = client.connect(proxy.listener("https").await, "a.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut client_of_a = begin(stream).await;
    let (head, told) = get(&mut client_of_a, "/x").await;
    assert_eq!(head.status(), 200);
    assert_eq!(sent(&told, "x-forwarded-proto"), ["https"]);
    // A large body, both ways of which are encrypted.
    let (response, mut send) = client_of_a.send_request(request("POST", "/").body(()).unwrap(), false).unwrap();
    send.reserve_capacity(LARGE);
    send.send_data(vec![b'x'; LARGE].into(), true).unwrap();
    let (bytes, _) = within(whole(within(response).await.unwrap().into_body())).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap()["body_bytes"], LARGE);
    // One connection is for one certificate.
    let other = Request::get("https://b.test/").body(()).unwrap();
    let (response, _) = client_of_a.send_request(other, true).unwrap();
    assert_eq!(within(response).await.unwrap().status(), 421);
    assert_eq!(get(&mut client_of_a, "/").await.0.status(), 200);

    let stream = client.connect(proxy.listener("old").await, "a.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn bodies_and_trailers_come_through_both_ways() {
    let scene = Scene::open("h2bodies").await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.route("a", "a.test", &[("s", server.local_addr().unwrap())]).await;
    let proxy = scene.proxy("etna").await;
    let at = raw::open(&scene, &proxy).await;
    let mut client = connect(at).await;

    // No length: chunks, and trailers of which some are not forwarded.
    let (response, mut send) = client.send_request(request("POST", "/").body(()).unwrap(), false).unwrap();
    send.send_data("hello".into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    trailers.insert("content-length", "9".parse().unwrap());
    send.send_trailers(trailers).unwrap();
    let mut stream = within(server.accept()).await.unwrap().0;
    let got = until(&mut stream, "0\r\nx-sum: 7\r\n\r\n", "hello").await;
    assert!(
        got.contains("transfer-encoding: chunked\r\n") && got.ends_with("5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"),
        "{got}"
    );
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
        Trailer: x-end\r\n\r\n3\r\nabc\r\n0\r\nX-End: 8\r\nContent-Length: 3\r\n\r\n";
    stream.write_all(answer.as_bytes()).await.unwrap();
    let response = within(response).await.unwrap();
    assert!(!response.headers().contains_key("x-hop") && !response.headers().contains_key("transfer-encoding"));
    let (bytes, trailers) = within(whole(response.into_body())).await.unwrap();
    let trailers = trailers.unwrap();
    assert_eq!((&bytes[..], &trailers["x-end"], trailers.len()), (&b"abc"[..], &"8".parse().unwrap(), 1));

    // A length: the same one. GET may have a body, too.
    let asked = request("GET", "/").header("content-length", "4").body(()).unwrap();
    let (response, mut send) = client.send_request(asked, false).unwrap();
    send.send_data("four".into(), true).unwrap();
    let got = until(&mut stream, "\r\n\r\nfour", "GET").await;
    assert!(got.starts_with("GET / HTTP/1.1\r\n") && got.contains("content-length: 4\r\n"), "{got}");
    stream.write_all(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n").await.unwrap();
    let response = within(response).await.unwrap();
    assert_eq!(response.status(), 304);
    assert!(response.body().is_end_stream());

    // HEAD: a length, and no body.
    let (response, _) = client.send_request(request("HEAD", "/").body(()).unwrap(), true).unwrap();
    until(&mut stream, "\r\n\r\n", "HEAD").await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n").await.unwrap();
    let response = within(response).await.unwrap();
    assert_eq!(response.headers()["content-length"], "7");
    assert!(response.body().is_end_stream());
}

/// Reads until what was read ends so, and holds the other.
async fn until(stream: &mut TcpStream, end: &str, holds: &str) -> String {
    let mut text = String::new();
    let mut room = [0; 4096];
    while !(text.ends_with(end) && text.contains(holds)) {
        let n = within(stream.read(&mut room)).await.unwrap();
        assert!(n > 0, "{text}");
        text.push_str(std::str::from_utf8(&room[..n]).unwrap());
    }
    text
}

#[tokio::test]
async fn many_large_bodies_share_a_connection() {
    let scene = Scene::open("h2large").await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.route("a", "a.test", &[("s", server.local_addr().unwrap())]).await;
    let proxy = scene.proxy("etna").await;
    let at = raw::open(&scene, &proxy).await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = server.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    let client = connect(at).await;
    let mut running = tokio::task::JoinSet::new();
    for n in 0..20_u8 {
        let mut client = client.clone();
        running.spawn(async move {
            let asked = request("POST", "/").header("content-length", LARGE).body(()).unwrap();
            let (response, mut send) = client.send_request(asked, false).unwrap();
            let sending = async move {
                let mut left = LARGE;
                while left > 0 {
                    send.reserve_capacity(left.min(10_000));
                    let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
                    let here = room.min(left);
                    left -= here;
                    send.send_data(vec![n; here].into(), left == 0).unwrap();
                }
            };
            let receiving = async { whole(within(response).await.unwrap().into_body()).await.unwrap().0 };
            let ((), bytes) = tokio::join!(sending, receiving);
            assert!(bytes.len() == LARGE && bytes.iter().all(|byte| *byte == n));
        });
    }
    while let Some(done) = tokio::time::timeout(Duration::from_secs(60), running.join_next()).await.expect("in time") {
        done.unwrap();
    }
}

/// Sends a body of a length back while it comes.
async fn echo(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\nConnection: close\r\n\r\n");
    let (mut from, mut to) = stream.split();
    to.write_all(answer.as_bytes()).await.unwrap();
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

#[tokio::test]
async fn what_a_slow_server_does_not_take_stays_with_the_client() {
    let (scene, _a, proxy, at) = bed("h2window").await;
    let slow = TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.put(&server_key("slow", "s"), server_at(slow.local_addr().unwrap())).await;
    proxy.until_revision(scene.put(&frontend_key("slow"), frontend("Host(`slow.test`)", "slow")).await).await;
    let before = proxy.memory();
    let head = raw::frame(raw::HEADERS, raw::END_HEADERS, 1, &raw::request("POST", "slow.test", "/"));
    let piece = raw::frame(raw::DATA, 0, 1, &[7; 16_384]);

    // Who keeps to the windows is stopped, and others beside it are not.
    let mut wire = Wire::acknowledged(at).await;
    wire.send(&head).await.unwrap();
    let mut stream = eventually("the server is asked", SOON, async || {
        let accepted = tokio::time::timeout(Duration::from_millis(100), slow.accept()).await;
        accepted.map(|accepted| accepted.unwrap().0).map_err(|_| "not yet")
    })
    .await;
    wire.fill(&[1]).await;
    wire.send(&raw::get(3, "a.test", "/")).await.unwrap();
    assert_eq!(wire.outcome(3).await, Outcome::Status(200));
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 10_000_000, "grown by {grown} bytes");

    // When the server takes it, the client may go on.
    tokio::spawn(async move {
        let mut room = vec![0; 65_536];
        while matches!(stream.read(&mut room).await, Ok(1..)) {}
    });
    wire.until("a larger window", |frame| frame.kind == raw::WINDOW_UPDATE && frame.stream == 1).await;

    // Who does not keep to them breaks the connection (RFC 9113 section 6.9.1).
    let mut greedy = Wire::acknowledged(at).await;
    greedy.send(&head).await.unwrap();
    for _ in 0..4000 {
        if greedy.send(&piece).await.is_err() {
            break;
        }
    }
    let outcome = greedy.outcome(1).await;
    assert!(
        matches!(outcome, Outcome::GoAway(raw::FLOW_CONTROL_ERROR) | Outcome::Reset(raw::FLOW_CONTROL_ERROR)),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_body_is_asked_for_when_its_server_wants_it() {
    let (_scene, _a, _proxy, at) = bed("h2expect").await;
    let head = |host: &str| {
        let more = raw::block(&[("expect", "100-continue"), ("content-length", "4")]);
        raw::frame(raw::HEADERS, raw::END_HEADERS, 1, &[raw::request("POST", host, "/"), more].concat())
    };
    let mut wire = Wire::open(at).await;
    wire.send(&head("a.test")).await.unwrap();
    wire.until("100 Continue", |frame| frame.status() == Some(100)).await;
    wire.send(&raw::frame(raw::DATA, raw::END_STREAM, 1, b"body")).await.unwrap();
    assert_eq!(wire.outcome(1).await, Outcome::Status(200));
    let mut refused = Wire::open(at).await;
    refused.send(&head("nobody.test")).await.unwrap();
    let first = refused.until("an answer", |frame| frame.kind == raw::HEADERS).await;
    assert_eq!(first.status(), Some(404));
}

#[tokio::test]
async fn a_websocket_is_a_stream() {
    let (_scene, a, proxy, at) = bed("h2websocket").await;
    let mut wire = Wire::open(at).await;
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", "/chat"),
        ("sec-websocket-version", "13"),
    ];
    wire.send(&raw::frame(raw::HEADERS, raw::END_HEADERS, 1, &raw::block(&fields))).await.unwrap();
    assert_eq!(wire.outcome(1).await, Outcome::Status(200));
    for text in [&b"hello"[..], b"again"] {
        wire.send(&raw::frame(raw::DATA, 0, 1, text)).await.unwrap();
        let back = wire.until("an echo", |frame| frame.kind == raw::DATA && !frame.payload.is_empty()).await;
        assert_eq!(back.payload, text);
    }
    // Others go on beside it.
    wire.send(&raw::get(3, "a.test", "/")).await.unwrap();
    assert_eq!(wire.outcome(3).await, Outcome::Status(200));
    assert_eq!(proxy.metrics().await.sum("etna_tunnels", &[]), Some(1.0));
    // The client ends its half, the server its own.
    wire.send(&raw::frame(raw::DATA, raw::END_STREAM, 1, b"bye")).await.unwrap();
    wire.until("the end", |frame| frame.stream == 1 && frame.kind == raw::DATA && frame.flags & raw::END_STREAM != 0)
        .await;
    eventually("it is counted off", SOON, async || {
        let open = proxy.metrics().await.sum("etna_tunnels", &[]);
        ensure(open == Some(0.0), format!("{open:?}"))
    })
    .await;
    // A server that does not switch has not opened it.
    a.set(Manner::Hang);
    wire.send(&raw::frame(raw::HEADERS, raw::END_HEADERS, 5, &raw::block(&fields))).await.unwrap();
    wire.send(&raw::frame(raw::RST_STREAM, 0, 5, &8u32.to_be_bytes())).await.unwrap();
    wire.send(&raw::get(7, "nobody.test", "/")).await.unwrap();
    assert_eq!(wire.outcome(7).await, Outcome::Status(404));
}

const LARGE: usize = 3_000_000;
pub(crate) const SOON: Duration = Duration::from_secs(20);
