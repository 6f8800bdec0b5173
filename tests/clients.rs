//! Clients that do what the protocol allows and few expect, and those that ask for too much.

use std::time::Duration;

use etna_tests::client::raw;
use etna_tests::scene::Scene;
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::wait::{ensure, eventually};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_client_that_has_said_all_still_gets_its_answer() {
    let scene = Scene::open("halfclose").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    for manner in [Manner::Answer, Manner::Slow(Duration::from_millis(300))] {
        a.set(manner);
        let mut stream = TcpStream::connect(proxy.listen).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        assert!(got.contains("HTTP/1.1 200 OK\r\n") && got.ends_with('}'), "{got}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_until_one_is_bad() {
    let scene = Scene::open("pipeline").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    let mut wire = String::new();
    for number in 0..64 {
        let body = "x".repeat(number % 3);
        wire.push_str(&format!(
            "POST /{number} HTTP/1.1\r\nHost: a.test\r\nX-Test-Id: {number}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    }
    wire.push_str("GET / HTTP/1.1\r\nBad Name: x\r\n\r\nGET /never HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let got = raw(proxy.listen, wire.as_bytes()).await;
    let ids: Vec<usize> =
        got.lines().filter_map(|line| line.strip_prefix("x-test-id: ")).map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids, (0..64).collect::<Vec<_>>());
    assert_eq!(got.matches("HTTP/1.1 400 ").count(), 1, "{got}");
    assert_eq!(a.requests(), 64);
}

#[tokio::test]
async fn a_refusal_can_be_read_while_the_client_still_sends() {
    let scene = Scene::open("linger").await;
    let a = StandIn::start("a").await;
    scene.put("backends/a/servers/s", json!({"URL": format!("http://{}", a.address)})).await;
    let frontend = json!({"Type": "http", "BackendId": "a", "Route": "Host(`a.test`)",
        "Settings": {"Limits": {"MaxBodyBytes": 65536}}});
    scene.put("frontends/f/frontend", frontend).await;
    let proxy = scene.proxy("etna").await;
    for framing in ["Content-Length: 50000000", "Transfer-Encoding: chunked"] {
        let mut stream = TcpStream::connect(proxy.listen).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // All of it is sent before anything is read.
        for _ in 0..50_000_000 / 0x10000 {
            if framing.starts_with('T') {
                stream.write_all(b"10000\r\n").await.unwrap();
            }
            stream.write_all(&vec![b'x'; 0x10000]).await.unwrap();
            if framing.starts_with('T') {
                stream.write_all(b"\r\n").await.unwrap();
            }
        }
        stream.shutdown().await.unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        assert!(got.starts_with("HTTP/1.1 413 ") && got.contains("connection: close"), "{framing}: {got}");
    }
}

#[tokio::test]
async fn a_body_is_not_sent_before_the_server_wants_it() {
    let scene = Scene::open("expect").await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.route("a", "a.test", &[("s", server.local_addr().unwrap())]).await;
    let proxy = scene.proxy("etna").await;
    // What the server says to the head, whether the client is asked for its body, and what it gets in the end.
    for (says, asked, status) in [
        ("HTTP/1.1 100 Continue\r\n\r\n", true, "200 OK"),
        ("", true, "200 OK"),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", false, "401 Unauthorized"),
        ("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n", false, "417 Expectation Failed"),
    ] {
        let serving = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let head = read_until(&mut stream, "\r\n\r\n").await;
            assert!(head.contains("expect: 100-continue\r\n"), "{head}");
            stream.write_all(says.as_bytes()).await.unwrap();
            let body = read_until(&mut stream, "hello").await;
            if asked {
                assert_eq!(body, "hello");
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            } else {
                assert_eq!(body, "", "the server answered without it");
            }
        };
        let asking = async {
            let mut stream = TcpStream::connect(proxy.listen).await.unwrap();
            let head = "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut got = read_until(&mut stream, "\r\n\r\n").await;
            if asked {
                assert_eq!(got, "HTTP/1.1 100 Continue\r\n\r\n");
                stream.write_all(b"hello").await.unwrap();
                got = read_until(&mut stream, "\r\n\r\n").await;
            }
            assert!(got.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{got}");
            assert_eq!(asked, !got.contains("connection: close"), "{got}");
        };
        tokio::join!(serving, asking);
    }
    let refused = raw(proxy.listen, b"PUT / HTTP/1.1\r\nHost: a.test\r\nExpect: more\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 417 "), "{refused}");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_not_waited_for() {
    let scene = Scene::open("silent").await;
    let a = StandIn::start("a").await;
    scene.route("idle", "idle.test", &[("s", a.address)]).await;
    scene.route("total", "total.test", &[("s", a.address)]).await;
    scene.put("backends/idle/backend", json!({"Type": "http", "Settings": {"Timeouts": {"Idle": "3s"}}})).await;
    scene.put("backends/total/backend", json!({"Type": "http", "Settings": {"Timeouts": {"Total": "3s"}}})).await;
    let proxy = scene.proxy("etna").await;
    a.set(Manner::HangInBody);
    for host in ["idle.test", "total.test"] {
        let answer = tokio::time::timeout(SOON, proxy.get(host, "/")).await.expect("it is cut off");
        assert!(answer.is_err(), "{host}: {answer:?}");
    }
    a.set(Manner::Hang);
    assert_eq!(proxy.get("total.test", "/").await.unwrap().status, 504);
}

#[tokio::test]
async fn who_comes_too_late_is_told_so() {
    let scene = Scene::open("crowd").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let most = scene.proxy_with("most", &["--max-connections", "20"]).await;
    let of_one = scene.proxy_with("of-one", &["--max-connections-per-client", "20"]).await;
    for proxy in [&most, &of_one] {
        let mut inside = Vec::new();
        for _ in 0..20 {
            let mut stream = TcpStream::connect(proxy.listen).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
            assert!(read_until(&mut stream, "}").await.starts_with("HTTP/1.1 200 OK\r\n"));
            inside.push(stream);
        }
        // Who says nothing in a fifth of a second is told nothing: so long this process may stand still, too.
        let mut asked = 0;
        eventually("it is told so", SOON, async || {
            asked += 1;
            let got = raw(proxy.listen, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
            ensure(got.starts_with("HTTP/1.1 503 ") && got.contains("retry-after: 1"), got)
        })
        .await;
        assert_eq!(proxy.metrics().await.sum("etna_shed_connections_total", &[]), Some(f64::from(asked)));
        drop(inside);
        eventually("there is room again", SOON, async || {
            let status = proxy.get("a.test", "/").await?.status;
            ensure(status == 200, status.to_string())
        })
        .await;
    }
}

/// What arrives until this text is in it, the end, or silence.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while !got.windows(end.len()).any(|part| part == end.as_bytes()) {
        match tokio::time::timeout(SOON, stream.read(&mut buffer)).await {
            Ok(Ok(read @ 1..)) => got.extend_from_slice(&buffer[..read]),
            Ok(_) | Err(_) => break,
        }
    }
    String::from_utf8(got).unwrap()
}

const SOON: Duration = Duration::from_secs(20);
