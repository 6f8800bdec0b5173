//! Servers that fail, clients that leave: who is told what, and what is tried again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use etna_tests::client::{self, request};
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::wait::{ensure, eventually};
use http_body_util::Full;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_server_that_refuses_is_replaced_unnoticed() {
    let scene = Scene::open("refuses").await;
    let (a, gone) = (StandIn::start("a").await, StandIn::start("gone").await);
    scene.route("b", "a.test", &[("a", a.address), ("gone", gone.address)]).await;
    let proxy = scene.proxy("etna").await;
    drop(gone);
    for method in ["GET", "POST", "PUT", "DELETE"] {
        for _ in 0..4 {
            let asked = request(method, "a.test", "/").body(Full::from("a body")).unwrap();
            let answer = client::send(proxy.listen, asked).await.unwrap();
            assert_eq!((answer.status, answer.server()), (200, "a"), "{method}: {}", answer.text());
            assert_eq!(answer.json()["body"], "a body");
        }
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_replaced_unnoticed() {
    let scene = Scene::open("kept").await;
    let a = StandIn::start("a").await;
    let address = a.address;
    scene.route("a", "a.test", &[("s", address)]).await;
    let proxy = scene.proxy("etna").await;
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 200);
    drop(a);
    let _again = eventually("the port is free", SOON, async || {
        TcpListener::bind(address).await.map(drop).map_err(|error| error.to_string())?;
        Ok::<_, String>(StandIn::start_at("again", address).await)
    })
    .await;
    for _ in 0..3 {
        let asked = request("POST", "a.test", "/").body(Full::from("x")).unwrap();
        assert_eq!(client::send(proxy.listen, asked).await.unwrap().server(), "again");
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again() {
    let scene = Scene::open("once").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    scene.route("b", "a.test", &[("a", a.address), ("b", b.address)]).await;
    let proxy = scene.proxy("etna").await;
    a.set(Manner::Close);
    b.set(Manner::Close);
    let asked = request("POST", "a.test", "/").body(Full::from("pay")).unwrap();
    assert_eq!(client::send(proxy.listen, asked).await.unwrap().status, 502);
    assert_eq!(a.requests() + b.requests(), 1, "a POST that was sent is sent once");
    // A GET can be repeated, at another server.
    b.set(Manner::Answer);
    for _ in 0..4 {
        assert_eq!(proxy.get("a.test", "/").await.unwrap().server(), "b");
    }
}

#[tokio::test]
async fn a_body_that_is_short_is_sent_again_with_its_request() {
    let scene = Scene::open("replays").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    scene.route("b", "a.test", &[("a", a.address), ("b", b.address)]).await;
    let proxy = scene.proxy("etna").await;
    a.set(Manner::Close);
    for _ in 0..4 {
        let asked = request("PUT", "a.test", "/").body(Full::from(vec![b'x'; 40_000])).unwrap();
        let answer = client::send(proxy.listen, asked).await.unwrap();
        assert_eq!((answer.status, answer.server()), (200, "b"), "{}", answer.text());
        assert_eq!(answer.json()["body_bytes"], 40_000);
    }
    assert!(a.requests() > 0);
    let retries = proxy.metrics().await.sum("etna_retries_total", &[("reason", "broken")]);
    assert_eq!(retries, Some(a.requests() as f64));
}

#[tokio::test]
async fn a_server_that_accepts_no_connection_is_not_waited_for() {
    let scene = Scene::open("blackhole").await;
    let a = StandIn::start("a").await;
    let (hole, _held) = black_hole().await;
    scene.route("b", "a.test", &[("a", a.address), ("hole", hole)]).await;
    let proxy = scene.proxy("etna").await;
    for method in ["GET", "POST", "GET", "POST"] {
        let began = Instant::now();
        let asked = request(method, "a.test", "/").body(Full::from("a body")).unwrap();
        let answer = client::send(proxy.listen, asked).await.unwrap();
        assert_eq!((answer.status, answer.server()), (200, "a"), "{method}: {}", answer.text());
        // A second on an idle machine; the kernel itself tries for two minutes.
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("etna_retries_total", &[("reason", "connect")]) >= Some(1.0));
}

/// An address where connections are neither made nor refused: the kernel drops what asks for one, its queue being full.
async fn black_hole() -> (std::net::SocketAddr, (TcpListener, Vec<TcpStream>)) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        held.push(stream);
        assert!(held.len() < 100, "its queue has no end");
    }
    (address, (listener, held))
}

#[tokio::test]
async fn a_predicate_says_when_another_server_is_asked() {
    let scene = Scene::open("predicate").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    // Each its own backend: a server that fails often in a row is left alone.
    for id in ["plain", "asks", "gets", "wrong"] {
        scene.route(id, &format!("{id}.test"), &[("a", a.address), ("b", b.address)]).await;
    }
    for (id, predicate) in [
        ("asks", r#"ResponseCode() == 503 && Attempts() <= 2"#),
        ("gets", r#"RequestMethod() == "GET" && ResponseCode() == 503"#),
        ("wrong", "Attempts() < two"),
    ] {
        let mut value = frontend(&format!("Host(`{id}.test`)"), id);
        value["Settings"]["FailoverPredicate"] = predicate.into();
        scene.put(&frontend_key(id), value).await;
    }
    let proxy = scene.proxy("etna").await;
    a.set(Manner::Status(503));
    let statuses = async |method: &str, host: &str| {
        let mut statuses = Vec::new();
        for _ in 0..4 {
            let asked = request(method, host, "/").body(Full::from("a body")).unwrap();
            let answer = client::send(proxy.listen, asked).await.unwrap();
            assert_eq!(answer.json()["body"], "a body");
            statuses.push(answer.status);
        }
        statuses.sort_unstable();
        statuses
    };
    assert_eq!(statuses("POST", "plain.test").await, [200, 200, 503, 503]);
    assert_eq!(statuses("POST", "asks.test").await, [200; 4]);
    assert_eq!(statuses("GET", "gets.test").await, [200; 4]);
    assert_eq!(statuses("POST", "gets.test").await, [200, 200, 503, 503]);
    assert_eq!(statuses("GET", "wrong.test").await, [200, 200, 503, 503], "the default is in force");
    let problems = proxy.problems().await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(
        (problems[0]["column"].as_u64(), problems[0]["effect"].as_str()),
        (Some(14), Some("the default is in force"))
    );
}

#[tokio::test]
async fn second_attempts_are_a_fifth_at_most() {
    let scene = Scene::open("budget").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    let mut value = frontend("Host(`a.test`)", "b");
    value["Settings"]["FailoverPredicate"] = "ResponseCode() == 503".into();
    scene.put(&server_key("b", "a"), server_at(a.address)).await;
    scene.put(&server_key("b", "b"), server_at(b.address)).await;
    scene.put(&frontend_key("f"), value).await;
    let proxy = scene.proxy("etna").await;
    a.set(Manner::Status(503));
    b.set(Manner::Status(503));
    let began = Instant::now();
    let mut connection = client::Connection::open(proxy.listen).await.unwrap();
    for _ in 0..1000 {
        assert_eq!(connection.get("a.test", "/").await.unwrap().status, 503);
    }
    let allowed = 1200.0 + 10.0 + 10.0 * began.elapsed().as_secs_f64();
    let attempts = (a.requests() + b.requests()) as f64;
    assert!((1100.0..=allowed).contains(&attempts), "{attempts} of {allowed}");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("etna_retries_total", &[("reason", "status")]), Some(attempts - 1000.0));
    // Who was not asked about again was denied it.
    let denied = metrics.sum("etna_backend_retries_denied_total", &[("backend", "b")]).unwrap_or_default();
    assert!(denied > 0.0 && denied >= 2000.0 - attempts, "{denied} of {attempts}");
}

#[tokio::test]
async fn every_failure_has_its_status() {
    let scene = Scene::open("status").await;
    let gone = StandIn::start("gone").await;
    let slow = StandIn::start("slow").await;
    slow.set(Manner::Hang);
    scene.route("gone", "gone.test", &[("s", gone.address)]).await;
    scene.put("backends/slow/backend", json!({"Type": "http", "Settings": {"Timeouts": {"Read": "300ms"}}})).await;
    scene.route("slow", "slow.test", &[("s", slow.address)]).await;
    scene.put(&frontend_key("empty"), frontend("Host(`empty.test`)", "empty")).await;
    drop(gone);
    let proxy = scene.proxy("etna").await;
    for (host, status) in [("gone.test", 502), ("empty.test", 503), ("slow.test", 504), ("nowhere.test", 404)] {
        let answer = proxy.get(host, "/").await.unwrap();
        assert_eq!(answer.status, status, "{host}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_passed_off_as_whole() {
    let scene = Scene::open("breaks").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    a.set(Manner::CloseInBody);
    let error = proxy.get("a.test", "/").await.expect_err("half a body is no body");
    assert!(error.contains("body"), "{error}");
    a.set(Manner::Answer);
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let scene = Scene::open("leaves").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    a.set(Manner::Hang);
    let mut stream = TcpStream::connect(proxy.listen).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    eventually("the server has it", SOON, async || ensure(a.requests() == 1, "not yet")).await;
    drop(stream);
    eventually("the server sees it go", SOON, async || ensure(a.abandoned() == 1, "not yet")).await;
}

#[tokio::test]
async fn bodies_stream_both_ways_and_are_never_gathered() {
    let scene = Scene::open("streams").await;
    // A server of our own: it answers before it has read, and echoes as it reads.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.put(&server_key("b", "s"), server_at(listener.local_addr().unwrap())).await;
    scene.put(&frontend_key("f"), frontend("Host(`a.test`)", "b")).await;
    let proxy = scene.proxy("etna").await;
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        // Chunks in, chunks out: the framing is the same.
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let mut stream = TcpStream::connect(proxy.listen).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    for word in ["one", "two", "three"] {
        stream.write_all(format!("{:x}\r\n{word}\r\n", word.len()).as_bytes()).await.unwrap();
        // Each word comes back before the next one is sent.
        let seen = async {
            while !head.windows(word.len()).any(|window| window == word.as_bytes()) {
                head.push(stream.read_u8().await.unwrap());
            }
        };
        tokio::time::timeout(SOON, seen).await.unwrap_or_else(|_| panic!("{word} does not come back"));
    }
    drop(stream);
    echo.abort();
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_server_back() {
    let scene = Scene::open("pressure").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.put(&server_key("b", "s"), server_at(listener.local_addr().unwrap())).await;
    scene.put(&frontend_key("f"), frontend("Host(`a.test`)", "b")).await;
    let proxy = scene.proxy("etna").await;
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = sent.clone();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1u64 << 40).as_bytes())
            .await
            .unwrap();
        let piece = vec![b'x'; 64 * 1024];
        while stream.write_all(&piece).await.is_ok() {
            counter.fetch_add(piece.len() as u64, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let memory = proxy.memory();
    let mut stream = TcpStream::connect(proxy.listen).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    // It stands still once every buffer on the way is full.
    let mut last = (0, Instant::now());
    eventually("the server is held back", Duration::from_secs(20), async || {
        let now = sent.load(std::sync::atomic::Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        ensure(now > 0 && last.1.elapsed() > Duration::from_millis(500), format!("it has sent {now} bytes"))
    })
    .await;
    let grown = proxy.memory().saturating_sub(memory);
    assert!(grown < 16 << 20, "the proxy grew by {grown} bytes");
    drop(stream);
    eventually("the server is let go", SOON, async || ensure(server.is_finished(), "it still sends")).await;
}

#[tokio::test]
async fn a_request_body_above_the_limit_is_refused() {
    let scene = Scene::open("limit").await;
    let a = StandIn::start("a").await;
    scene.put(&server_key("b", "s"), server_at(a.address)).await;
    let mut value = frontend("Host(`a.test`)", "b");
    value["Settings"]["Limits"] = json!({"MaxBodyBytes": 1000});
    scene.put(&frontend_key("f"), value).await;
    let proxy = scene.proxy("etna").await;
    for (size, status) in [(1000, 200), (1001, 413)] {
        let body = Full::from(Bytes::from(vec![b'x'; size]));
        let answer = client::send(proxy.listen, request("POST", "a.test", "/").body(body).unwrap()).await.unwrap();
        assert_eq!(answer.status, status, "{size} bytes: {}", answer.text());
    }
}

const SOON: Duration = Duration::from_secs(20);
