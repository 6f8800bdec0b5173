//! The PROXY protocol: who is believed about whose connection it is, what becomes of the others, and what servers are
//! told. Clients come from 127.0.0.9, proxies in front from 127.0.0.1.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use etna_tests::process::Process;
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend_key};
use etna_tests::stand_in::StandIn;
use etna_tests::wait::{ensure, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 8443\r\n";
const V1_UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
const KEEP: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const FRONT: [u8; 4] = [127, 0, 0, 1];
const STRANGER: [u8; 4] = [127, 0, 0, 9];
const TRUST: [&str; 2] = ["--trusted-proxies", "127.0.0.1/32"];

/// The same as [`V1`], over TLS.
fn v2() -> Vec<u8> {
    let ends = [203, 0, 113, 7, 198, 51, 100, 1, 0x12, 0x67, 0x20, 0xfb];
    [&V2_LOCAL[..12], &[0x21, 0x11, 0, 20], &ends, &[0x20, 0, 5, 1, 0, 0, 0, 1]].concat()
}

async fn connect(to: SocketAddr, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(from), 0).into()).unwrap();
    let stream = socket.connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// What comes back until the other side closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut got = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut got)).await;
    // A connection that is closed over what was not read ends in a reset.
    let _ = read.expect("the other side closes");
    String::from_utf8_lossy(&got).into_owned()
}

/// What comes back for bytes in one piece.
async fn said(to: SocketAddr, from: [u8; 4], bytes: &[&[u8]]) -> String {
    let mut stream = connect(to, from).await;
    stream.write_all(&bytes.concat()).await.unwrap();
    rest(stream).await
}

/// Reads an answer of a connection that stays, in which the server says that it got this.
async fn until_answered(stream: &mut TcpStream, what: &str) {
    let mut got = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&got).contains(&format!("\"{what}\"")) || !got.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "{}", String::from_utf8_lossy(&got));
        }
    };
    tokio::time::timeout(LONG, read).await.expect("an answer");
}

/// What the server got under a name.
fn got(answer: &str, name: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let body = body.find('{').map_or(body, |at| &body[at..=body.rfind('}').unwrap()]);
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    let fields = body["headers"].as_array().unwrap().iter().filter(|field| field[0] == name);
    fields.filter_map(|field| field[1].as_str()).collect::<Vec<_>>().join(" & ")
}

async fn refused(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metrics().await.sum("etna_proxy_protocol_refused_total", &[("reason", reason)]).unwrap_or_default()
}

/// A route to one server, and a proxy behind another one.
async fn scene(name: &str, flags: &[&str]) -> (Scene, StandIn, Proxy) {
    let scene = Scene::open(name).await;
    let server = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", server.address)]).await;
    let proxy = scene.proxy_with("etna", &[&TRUST, flags].concat()).await;
    (scene, server, proxy)
}

#[tokio::test]
async fn a_trusted_proxy_says_whose_connection_it_is() {
    let (scene, _server, proxy) = scene("proxy-believed", &["--proxy-protocol", "optional"]).await;
    for (header, proto) in [(V1.to_vec(), "http"), (v2(), "https")] {
        let answer = said(proxy.listen, FRONT, &[&header, REQUEST]).await;
        assert_eq!(got(&answer, "x-forwarded-for"), "203.0.113.7");
        assert_eq!(got(&answer, "x-real-ip"), "203.0.113.7");
        assert_eq!(got(&answer, "x-forwarded-port"), "8443");
        assert_eq!(got(&answer, "x-forwarded-proto"), proto);
    }
    // Its own connections are its own, and without a header it is as any other trusted proxy.
    for header in [V1_UNKNOWN, V2_LOCAL, b""] {
        let answer = said(proxy.listen, FRONT, &[header, REQUEST]).await;
        assert_eq!(got(&answer, "x-forwarded-for"), "127.0.0.1");
    }
    // What the client itself claims is a stranger's claim.
    let claim = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    assert_eq!(got(&said(proxy.listen, FRONT, &[V1, claim]).await, "x-forwarded-for"), "203.0.113.7");

    let route = r#"Host("a.test") && ClientIP("203.0.113.0/24")"#;
    scene.put(&frontend_key("a"), json!({"Type": "http", "BackendId": "a", "Route": route})).await;
    proxy.until_status("a.test", "/", 404).await;
    got(&said(proxy.listen, FRONT, &[V1, REQUEST]).await, "host");
}

#[tokio::test]
async fn where_a_header_is_required_nothing_else_is_served() {
    let (_scene, server, proxy) = scene("proxy-required", &["--proxy-protocol", "required"]).await;
    got(&said(proxy.listen, FRONT, &[V1, REQUEST]).await, "host");
    let v2 = v2();
    let malformed: [&[u8]; 8] = [
        REQUEST,
        b"PROXY TCP4 203.0.113.7 198.51.100.1 4711\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 99999\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        &[0x16, 3, 1, 2, 0, 1, 0],
        &[b'P'; 5000],
    ];
    for (before, bytes) in malformed.into_iter().enumerate() {
        assert_eq!(said(proxy.listen, FRONT, &[bytes, REQUEST]).await, "", "{bytes:?}");
        assert_eq!(refused(&proxy, "malformed").await, (before + 1) as f64, "{bytes:?}");
    }
    proxy.until_said("PROXY protocol header").await;
    // A check that only connects is nothing to speak of.
    drop(connect(proxy.listen, FRONT).await);
    // Of strangers not even a right one is read.
    for header in [V1, &v2, b""] {
        assert_eq!(said(proxy.listen, STRANGER, &[header, REQUEST]).await, "");
    }
    assert_eq!((refused(&proxy, "stranger").await, refused(&proxy, "malformed").await), (3.0, 8.0));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn where_it_is_optional_a_strangers_header_is_no_request() {
    let (scene, server, proxy) = scene("proxy-stranger", &["--proxy-protocol", "optional"]).await;
    let v2 = v2();
    for header in [V1, V1_UNKNOWN, V2_LOCAL, &v2] {
        let answer = said(proxy.listen, STRANGER, &[header, REQUEST]).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_eq!(server.requests(), 0);
    assert_eq!(got(&said(proxy.listen, STRANGER, &[REQUEST]).await, "x-forwarded-for"), "127.0.0.9");
    // A listener that expects nothing reads nothing, whoever sends it.
    let plain = scene.proxy_with("plain", &TRUST).await;
    assert!(said(plain.listen, FRONT, &[V1, REQUEST]).await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn it_may_come_byte_by_byte_but_not_for_ever() {
    let (_scene, _server, proxy) = scene("proxy-slow", &["--proxy-protocol", "required"]).await;
    for header in [V1, &v2()] {
        let mut stream = connect(proxy.listen, FRONT).await;
        for byte in [header, REQUEST].concat() {
            stream.write_all(&[byte]).await.unwrap();
        }
        assert_eq!(got(&rest(stream).await, "x-forwarded-for"), "203.0.113.7");
    }
    let began = Instant::now();
    let silent = connect(proxy.listen, FRONT).await;
    let mut slow = connect(proxy.listen, FRONT).await;
    slow.write_all(&V1[..30]).await.unwrap();
    assert_eq!(tokio::join!(rest(silent), rest(slow)), (String::new(), String::new()));
    let took = began.elapsed();
    assert!(took > Duration::from_secs(4), "{took:?}");
    assert_eq!(refused(&proxy, "late").await, 2.0);
}

#[tokio::test]
async fn a_stored_listener_says_what_it_expects_and_of_whom() {
    let (scene, _server, proxy) = scene("proxy-stored", &[]).await;
    let listener = |more: Value| {
        let mut value = json!({"Protocol": "http", "Address": {"Network": "tcp", "Address": "127.0.0.1:0"}});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        value
    };
    scene
        .put(
            "listeners/l",
            listener(json!({"ProxyProtocol": "PROXY_V2", "ProxyProtocolRequired": true,
                "ProxyProtocolFrom": ["127.0.0.9/32"]})),
        )
        .await;
    let address = eventually("it listens", LONG, async || {
        let status = proxy.json("/v3/status").await;
        status["listeners"]["l"].as_str().and_then(|text| text.parse::<SocketAddr>().ok()).ok_or("not yet")
    })
    .await;
    assert_eq!(got(&said(address, STRANGER, &[&v2(), REQUEST]).await, "x-forwarded-for"), "203.0.113.7");
    assert_eq!(said(address, STRANGER, &[V1, REQUEST]).await, "", "another version");
    assert_eq!(said(address, FRONT, &[&v2(), REQUEST]).await, "", "trusted elsewhere");
    let shown = proxy.json("/v2/listeners/l").await;
    assert_eq!(shown["ProxyProtocol"], "PROXY_V2", "{shown}");

    // A change is in force without a new socket; connections that stand keep theirs.
    let mut standing = connect(address, STRANGER).await;
    standing.write_all(&[&v2(), KEEP].concat()).await.unwrap();
    until_answered(&mut standing, "203.0.113.7").await;
    scene.put("listeners/l", listener(json!({"ProxyProtocol": "PROXY"}))).await;
    eventually("the command line's are believed", LONG, async || {
        ensure(said(address, FRONT, &[V1, REQUEST]).await.contains("203.0.113.7"), "not yet")
    })
    .await;
    assert_eq!(proxy.json("/v3/status").await["listeners"]["l"], address.to_string());
    standing.write_all(REQUEST).await.unwrap();
    assert_eq!(got(&rest(standing).await, "x-forwarded-for"), "203.0.113.7");
    // The workers are told one after the other.
    eventually("strangers are not", LONG, async || {
        let answer = said(address, STRANGER, &[&v2(), REQUEST]).await;
        ensure(answer.starts_with("HTTP/1.1 400 "), answer)
    })
    .await;

    let nobody = scene.proxy("nobody").await;
    scene.put("listeners/l", listener(json!({"ProxyProtocol": "PROXY", "ProxyProtocolRequired": true}))).await;
    eventually("a listener that serves nobody is a problem", LONG, async || {
        let problems = json!(nobody.problems().await).to_string();
        ensure(problems.contains("ProxyProtocolFrom"), problems)
    })
    .await;
    assert!(!json!(proxy.problems().await).to_string().contains("ProxyProtocolFrom"));
}

#[tokio::test]
async fn limits_of_a_client_are_those_of_the_real_one() {
    let flags = ["--proxy-protocol", "required", "--max-connections-per-client", "2"];
    let (_scene, _server, proxy) = scene("proxy-limits", &flags).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(proxy.listen, FRONT).await;
        stream.write_all(&[V1, KEEP].concat()).await.unwrap();
        until_answered(&mut stream, "203.0.113.7").await;
        held.push(stream);
    }
    // Who says nothing in a fifth of a second is told nothing: so long this process may stand still, too.
    eventually("a third one is told that there is no room", LONG, async || {
        let answer = said(proxy.listen, FRONT, &[V1, REQUEST]).await;
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
        ensure(answer.starts_with("HTTP/1.1 503 "), answer)
    })
    .await;
    // Others come through the same proxy, and so do its own.
    let other = b"PROXY TCP4 203.0.113.8 198.51.100.1 4711 80\r\n";
    for _ in 0..3 {
        got(&said(proxy.listen, FRONT, &[other, REQUEST]).await, "host");
        got(&said(proxy.listen, FRONT, &[V2_LOCAL, REQUEST]).await, "host");
    }
    drop(held);
    eventually("they are gone", LONG, async || {
        let answer = said(proxy.listen, FRONT, &[V1, REQUEST]).await;
        ensure(answer.starts_with("HTTP/1.1 200 "), answer)
    })
    .await;
}

#[tokio::test]
async fn one_proxy_tells_the_next() {
    for (name, version) in [("proxy-tiers-1", "PROXY_V1"), ("proxy-tiers-2", "PROXY_V2")] {
        let scene = Scene::open(name).await;
        let server = StandIn::start("a").await;
        let core = scene.proxy_with("core", &["--proxy-protocol", "required", TRUST[0], TRUST[1]]).await;
        // The core tier sees its own address as the host.
        scene.route("a", "127.0.0.1", &[("s", server.address)]).await;
        scene.route("core", "a.test", &[("core-1", core.listen)]).await;
        let check = json!({"Type": "http", "Interval": "100ms"});
        let settings = json!({"ProxyProtocol": version});
        scene.put("backends/core/backend", json!({"Type": "http", "Settings": settings, "HealthCheck": check})).await;
        let to_core = json!({"Type": "http", "BackendId": "core", "Route": "Host(\"a.test\")"});
        scene.put(&frontend_key("core"), to_core).await;
        let front = scene.proxy_with("front", &["--trusted-proxies", "127.0.0.8/32"]).await;

        eventually("the core tier serves, and is well", LONG, async || {
            let answer = said(front.listen, STRANGER, &[REQUEST]).await;
            ensure(answer.contains("\"127.0.0.9\""), answer)?;
            ensure(server.requests() > 5, "no checks yet")
        })
        .await;
        let answer = said(front.listen, STRANGER, &[REQUEST]).await;
        assert_eq!(got(&answer, "x-forwarded-for"), "127.0.0.9");
        assert_eq!(got(&answer, "x-forwarded-port"), front.listen.port().to_string());

        // What a proxy before the first one said of the client goes on.
        let through = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.7\r\n\
            X-Forwarded-Proto: https\r\n\r\n";
        let answer = said(front.listen, [127, 0, 0, 8], &[through]).await;
        assert_eq!(got(&answer, "x-forwarded-for"), "203.0.113.7");
        assert_eq!(got(&answer, "x-forwarded-proto"), if version == "PROXY_V2" { "https" } else { "http" });

        // A client that stays has a connection that stays; nobody else gets it.
        let opened = async || front.metrics().await.sum("etna_upstream_connections_total", &[]).unwrap();
        let before = opened().await;
        let mut staying = connect(front.listen, STRANGER).await;
        for _ in 0..5 {
            staying.write_all(KEEP).await.unwrap();
            until_answered(&mut staying, "127.0.0.9").await;
        }
        assert_eq!(opened().await - before, 1.0);
        let other = said(front.listen, [127, 0, 0, 10], &[REQUEST]).await;
        assert_eq!(got(&other, "x-forwarded-for"), "127.0.0.10");
        assert_eq!(opened().await - before, 2.0);
        for reason in ["stranger", "malformed", "late"] {
            assert_eq!(refused(&core, reason).await, 0.0, "{reason}: {}", core.said());
        }
    }
}

#[tokio::test]
async fn haproxy_in_front() {
    let (scene, _server, proxy) = scene("proxy-haproxy", &["--proxy-protocol", "required"]).await;
    for (name, send) in [("v1", "send-proxy"), ("v2", "send-proxy-v2 check inter 100ms"), ("v2s", "send-proxy-v2-ssl")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = scene.folder().join(format!("haproxy-{name}.cfg"));
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n\
             listen all\n  bind fd@3\n  server etna {} {send}\n",
            proxy.listen
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec 3<&0 0</dev/null; exec haproxy -db -f {}", config.display()));
        command.stdin(Stdio::from(OwnedFd::from(listener)));
        let haproxy = Process::start_group(&format!("haproxy-{name}"), &mut command, scene.folder());
        let answer = said(address, STRANGER, &[REQUEST]).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}: {}", haproxy.said());
        assert_eq!(got(&answer, "x-forwarded-for"), "127.0.0.9");
        assert_eq!(got(&answer, "x-forwarded-port"), address.port().to_string());
        assert_eq!(got(&answer, "x-forwarded-proto"), "http");
    }
    for reason in ["stranger", "malformed", "late"] {
        assert_eq!(refused(&proxy, reason).await, 0.0, "{reason}: {}", proxy.said());
    }
}

/// Until something has happened, on a machine that does other things, too.
const LONG: Duration = Duration::from_secs(30);
