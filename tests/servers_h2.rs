//! HTTP/2 to servers: every request is answered as over HTTP/1.1, many on one connection, and nothing is lost when a
//! server sends us away.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etna_tests::client;
use etna_tests::etcd::free_ports;
use etna_tests::h2 as raw;
use etna_tests::h2_server::{H2Server, Terms, speaks_something_else};
use etna_tests::process::Process;
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key, server_key};
use etna_tests::stand_in::StandIn;
use etna_tests::tls::Authority;
use etna_tests::wait::{ensure, eventually};
use http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(30);

/// A backend that speaks HTTP/2 with these servers, and everything of a host of the same name leading to it.
async fn route(scene: &Scene, id: &str, urls: &[String], tls: Value, more: Value) {
    let mut value = json!({ "Type": "http", "Settings": { "Protocol": "h2", "TLS": tls } });
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    scene.put(&format!("backends/{id}/backend"), value).await;
    for (n, url) in urls.iter().enumerate() {
        scene.put(&server_key(id, &format!("s{n}")), json!({ "URL": url })).await;
    }
    scene.put(&frontend_key(id), frontend(&format!("Host(`{id}.test`)"), id)).await;
}

fn plain(server: &H2Server) -> String {
    format!("http://{}", server.address)
}

async fn bed(name: &str, terms: Terms, flags: &[&str]) -> (Scene, H2Server, Proxy) {
    let scene = Scene::open(name).await;
    let server = H2Server::start("a", terms, None).await;
    route(&scene, "a", &[plain(&server)], Value::Null, json!({})).await;
    let proxy = scene.proxy_with("etna", flags).await;
    (scene, server, proxy)
}

async fn post(proxy: &Proxy, path: &str, body: impl Into<Bytes>) -> Result<client::Answer, String> {
    let body: Bytes = body.into();
    client::send(proxy.listen, client::request("POST", "a.test", path).body(body.into()).unwrap()).await
}

/// Everything that is said to a request, until the connection ends.
async fn said(proxy: &Proxy, request: &str) -> String {
    let mut stream = TcpStream::connect(proxy.listen).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_share_a_connection_and_carry_all() {
    let (_scene, server, proxy) = bed("servers-h2", Terms::default(), &["--workers", "1"]).await;
    let request = client::request("GET", "a.test", "/x?y=z").header("cookie", "a=1").header("te", "trailers");
    let request = request.header("connection", "x-secret").header("x-secret", "1").body(Bytes::new().into()).unwrap();
    let answer = client::send(proxy.listen, request).await.unwrap();
    assert_eq!((answer.status, answer.server()), (200, "a"), "{}", proxy.said());
    let told = answer.json();
    assert_eq!(told["path"], "http://a.test/x?y=z");
    let headers = told["headers"].as_array().unwrap();
    for field in [json!(["cookie", "a=1"]), json!(["x-forwarded-for", "127.0.0.1"]), json!(["te", "trailers"])] {
        assert!(headers.contains(&field), "{headers:?}");
    }
    let names: Vec<_> = headers.iter().map(|field| field[0].as_str().unwrap()).collect();
    assert!(!names.contains(&"x-secret") && !names.contains(&"host"), "{names:?}");
    for length in [0, 1, 70_000, 3_000_000] {
        let body = vec![b'b'; length];
        let answer = post(&proxy, "/echo", body.clone()).await.unwrap();
        assert!(answer.status == 200 && answer.body == body, "{length}: {} {}", answer.status, answer.body.len());
        let answer = proxy.get("a.test", &format!("/large?{length}")).await.unwrap();
        assert_eq!((answer.body.len(), answer.header("content-length")), (length, &*length.to_string()));
    }
    let request = client::request("HEAD", "a.test", "/large?5").body(Bytes::new().into()).unwrap();
    assert_eq!(client::send(proxy.listen, request).await.unwrap().header("content-length"), "5");
    let answer = post(&proxy, "/early", vec![0; 5_000_000]).await;
    assert!(answer.is_err() || answer.unwrap().text() == "early");
    let together = (0..200).map(|_| proxy.get("a.test", "/"));
    for answer in futures_util::future::join_all(together).await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert!(server.connections() <= 3, "{}", server.connections());
    assert_eq!(proxy.metrics().await.sum("etna_errors_total", &[]), Some(0.0));
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let (scene, _server, proxy) = bed("servers-h2-trailers", Terms::default(), &[]).await;
    let grpc = "POST /grpc HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nTE: trailers\r\nContent-Length: 1\r\n\r\nx";
    let answer = said(&proxy, grpc).await;
    assert!(answer.contains("transfer-encoding: chunked\r\n"), "{answer}");
    assert!(answer.ends_with("0\r\ngrpc-status: 0\r\n\r\n"), "{answer}");
    let echo = "POST /echo HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n0\r\nx-end: 1\r\n\r\n";
    let answer = said(&proxy, echo).await;
    assert!(answer.ends_with("3\r\nabc\r\n0\r\nx-end: 1\r\n\r\n"), "{answer}");

    // The same for a client of HTTP/2.
    let at = raw::open(&scene, &proxy).await;
    let (client, connection) = h2::client::handshake(TcpStream::connect(at).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = Request::post("http://a.test/grpc").header("te", "trailers").body(()).unwrap();
    let (response, mut body) = client.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"x"), true).unwrap();
    let mut answer = response.await.unwrap().into_body();
    while let Some(data) = answer.data().await {
        answer.flow_control().release_capacity(data.unwrap().len()).unwrap();
    }
    assert_eq!(answer.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_and_fills_no_memory() {
    let (_scene, server, proxy) = bed("servers-h2-slow", Terms::default(), &["--workers", "1"]).await;
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 200);
    let before = proxy.memory();
    let mut slow = Vec::new();
    for _ in 0..30 {
        let mut stream = TcpStream::connect(proxy.listen).await.unwrap();
        stream.write_all(b"GET /large?100000000 HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 100]).await.unwrap() > 0);
        slow.push(stream);
    }
    for _ in 0..50 {
        assert_eq!(proxy.get("a.test", "/large?300000").await.unwrap().body.len(), 300_000);
    }
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown}");
    assert!(server.connections() <= 2, "{}", server.connections());
}

#[tokio::test]
async fn nothing_fails_when_a_server_sends_connections_away() {
    let terms = Terms { goaway_after: 20, at_once: 10 };
    let (_scene, server, proxy) = bed("servers-h2-goaway", terms, &["--workers", "2"]).await;
    let proxy = Arc::new(proxy);
    let asking = (0..24).map(|n: usize| {
        let proxy = proxy.clone();
        tokio::spawn(async move {
            for _ in 0..60 {
                let answer = match n % 2 {
                    0 => proxy.get("a.test", "/").await,
                    _ => post(&proxy, "/echo", vec![b'x'; 2000]).await,
                };
                let answer = answer.unwrap();
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        })
    });
    for asked in futures_util::future::join_all(asking).await {
        asked.unwrap();
    }
    assert!(server.connections() > 50, "{}", server.connections());
    let retried = proxy.metrics().await.sum("etna_retries_total", &[]).unwrap();
    println!("{} connections, {} requests, {retried} retries", server.connections(), server.requests());
}

#[tokio::test]
async fn what_was_not_begun_is_sent_again_whatever_it_is() {
    let (_scene, server, proxy) = bed("servers-h2-refused", Terms::default(), &["--workers", "1"]).await;
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 200);
    server.refuse(2);
    assert_eq!(post(&proxy, "/echo", "once").await.unwrap().text(), "once");
    server.abandon(2);
    // A connection that is there is not a new one: it must go first.
    server.refuse(1);
    assert_eq!(post(&proxy, "/echo", "twice").await.unwrap().text(), "twice");
    let reason = [("reason", "refused")];
    assert_eq!(proxy.metrics().await.sum("etna_retries_total", &reason), Some(3.0));
    let (_scene, server, proxy) = bed("servers-h2-abandoned", Terms::default(), &["--workers", "1"]).await;
    server.abandon(2);
    assert_eq!(post(&proxy, "/echo", "thrice").await.unwrap().text(), "thrice");
    assert_eq!((server.connections(), server.requests()), (3, 1));
    assert_eq!(proxy.metrics().await.sum("etna_retries_total", &reason), Some(2.0));
    // One that never takes anything is not asked for ever.
    server.refuse(1000);
    assert_eq!(post(&proxy, "/echo", "never").await.unwrap().status, 502);
    server.refuse(0);
    // What was begun is not sent again, unless it does no harm.
    assert_eq!(post(&proxy, "/reset", "x").await.unwrap().status, 502);
    assert_eq!(server.requests(), 2);
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn who_leaves_cancels_and_limits_hold() {
    let (scene, server, proxy) = bed("servers-h2-cancel", Terms::default(), &["--workers", "1"]).await;
    let mut leaving = TcpStream::connect(proxy.listen).await.unwrap();
    leaving.write_all(b"GET /hang HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    eventually("it is asked", SOON, async || ensure(server.requests() == 1, "not yet")).await;
    drop(leaving);
    eventually("the server is told", SOON, async || ensure(server.cancelled() == 1, "not yet")).await;
    let quick = json!({ "Type": "http", "Settings": { "Protocol": "h2", "Timeouts": { "Read": "300ms" } } });
    let revision = scene.put("backends/a/backend", quick).await;
    proxy.until_revision(revision).await;
    assert_eq!(proxy.get("a.test", "/hang").await.unwrap().status, 504);
    eventually("the server is told", SOON, async || ensure(server.cancelled() == 2, "not yet")).await;
    eventually("nothing runs", SOON, async || {
        let explained = proxy.json("/v3/explain?url=http://a.test/").await;
        ensure(explained["servers"][0]["in_flight"] == 0, explained.to_string())
    })
    .await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn over_tls_the_server_settles_which_version_it_is() {
    let scene = Scene::open("servers-h2-tls").await;
    let authority = Authority::new(scene.folder());
    let config = || Authority::server(&authority.issue(&["localhost"]), None);
    let new = H2Server::start("new", Terms::default(), Some(config())).await;
    let old = StandIn::start_tls("old", ([127, 0, 0, 1], 0).into(), Arc::new(config())).await;
    let tls = json!({ "CA": authority.pem() });
    let check = json!({ "HealthCheck": { "Type": "http", "Interval": "100ms" } });
    let url = |port: u16| format!("https://localhost:{port}");
    route(&scene, "new", &[url(new.address.port())], tls.clone(), check.clone()).await;
    route(&scene, "old", &[url(old.address.port())], tls, check).await;
    let proxy = scene.proxy_with("etna", &["--workers", "1"]).await;
    for _ in 0..5 {
        for (id, by) in [("new", "https://new.test/"), ("old", "/")] {
            let answer = proxy.get(&format!("{id}.test"), "/").await.unwrap();
            assert_eq!((answer.status, answer.server()), (200, id), "{}", proxy.said());
            assert_eq!(answer.json()["path"], by);
        }
    }
    for id in ["new", "old"] {
        eventually("checks speak it too", SOON, async || {
            let health = proxy.json(&format!("/v3/health?backend={id}")).await;
            ensure(health["backends"][0]["servers"][0]["health"] == "up", health.to_string())
        })
        .await;
    }
    // WebSockets need HTTP/1.1.
    let head = "GET / HTTP/1.1\r\nHost: old.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut stream = TcpStream::connect(proxy.listen).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
}

#[tokio::test]
async fn who_speaks_something_else_is_said_to() {
    let scene = Scene::open("servers-h2-else").await;
    let address = speaks_something_else(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let url = format!("http://{address}");
    route(&scene, "a", &[url], Value::Null, json!({})).await;
    let check = json!({ "HealthCheck": { "Type": "http", "Interval": "100ms" } });
    let server = H2Server::start("b", Terms::default(), None).await;
    route(&scene, "b", &[plain(&server), format!("http://{address}")], Value::Null, check).await;
    let proxy = scene.proxy("etna").await;
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 502);
    let explained = proxy.json("/v3/explain?url=http://a.test/").await;
    let error = explained["servers"][0]["handshake_error"].as_str().unwrap_or_default();
    assert!(error.starts_with("HTTP/2: "), "{explained}");
    eventually("checks tell them apart", SOON, async || {
        let health = proxy.json("/v3/health?backend=b").await;
        let servers = &health["backends"][0]["servers"];
        ensure(servers[0]["health"] == "up" && servers[1]["reason"] == "broken", health.to_string())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(proxy.get("b.test", "/").await.unwrap().server(), "b");
    }
}

#[tokio::test]
async fn nghttpd_behind() {
    let scene = Scene::open("servers-h2-nghttpd").await;
    let authority = Authority::new(scene.folder());
    let pair = authority.issue(&["localhost"]);
    let file = |name: &str, content: &[u8]| {
        let path = scene.folder().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let (key, cert) = (file("key.pem", pair.key()), file("cert.pem", pair.cert()));
    let large: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    file("large", &large);
    let mut running = Vec::new();
    for ((id, tls), port) in [("plain", false), ("secure", true)].into_iter().zip(free_ports(2)) {
        let mut command = Command::new("nghttpd");
        command.arg("-d").arg(scene.folder()).args(["-a", "127.0.0.1", "--echo-upload"]);
        match tls {
            false => command.arg("--no-tls").arg(port.to_string()),
            true => command.arg(port.to_string()).arg(&key).arg(&cert),
        };
        running.push(Process::start_group(id, &mut command, scene.folder()));
        let scheme = if tls { "https" } else { "http" };
        route(&scene, id, &[format!("{scheme}://localhost:{port}")], json!({ "CA": authority.pem() }), json!({})).await;
    }
    let proxy = scene.proxy("etna").await;
    for id in ["plain", "secure"] {
        let host = format!("{id}.test");
        let answer = proxy.until_status(&host, "/large", 200).await;
        assert!(answer.body == large, "{id}: {}", answer.body.len());
        assert!(answer.header("server").starts_with("nghttpd"));
        assert_eq!(proxy.get(&host, "/nothing").await.unwrap().status, 404);
        let request = client::request("POST", &host, "/large").body(Bytes::from(large.clone()).into()).unwrap();
        let answer = client::send(proxy.listen, request).await.unwrap();
        assert!(answer.status == 200 && answer.body == large, "{id}: {} {}", answer.status, answer.body.len());
    }
}

#[tokio::test]
async fn nginx_behind() {
    let scene = Scene::open("servers-h2-nginx").await;
    let authority = Authority::new(scene.folder());
    let pair = authority.issue(&["localhost"]);
    let folder = scene.folder().display().to_string();
    std::fs::write(scene.folder().join("key.pem"), pair.key()).unwrap();
    std::fs::write(scene.folder().join("cert.pem"), pair.cert()).unwrap();
    let large: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(scene.folder().join("large"), &large).unwrap();
    let ports = free_ports(3);
    // Few requests a connection, so that it is always about to send us away.
    let config = format!(
        "daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; worker_processes 1; events {{}}\n\
         http {{ access_log off; client_body_temp_path {folder}/body; keepalive_requests 7; root {folder};\n\
         ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;\n\
         server {{ listen 127.0.0.1:{} ssl; }}\n server {{ listen 127.0.0.1:{} ssl http2; }}\n\
         server {{ listen 127.0.0.1:{} http2; }} }}\n",
        ports[0], ports[1], ports[2]
    );
    let file = scene.folder().join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(scene.folder()).arg("-c").arg(&file);
    let nginx = Process::start_group("nginx", &mut command, scene.folder());
    let tls = json!({ "CA": authority.pem() });
    for (n, (id, scheme)) in [("old", "https"), ("secure", "https"), ("plain", "http")].into_iter().enumerate() {
        let url = format!("{scheme}://localhost:{}", ports[n]);
        route(&scene, id, &[url], tls.clone(), json!({})).await;
    }
    let proxy = scene.proxy("etna").await;
    for id in ["old", "secure", "plain"] {
        let host = format!("{id}.test");
        proxy.until_status(&host, "/nginx.conf", 200).await;
        let asking = (0..8).map(|_| async {
            for _ in 0..20 {
                let answer = proxy.get(&host, "/large").await.unwrap();
                assert!(answer.status == 200 && answer.body == large, "{id}: {} {}", answer.status, nginx.said());
            }
        });
        futures_util::future::join_all(asking).await;
    }
}
