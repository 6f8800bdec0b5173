//! TLS towards servers: who is believed, who we are, and that nothing meant to be encrypted goes in the clear.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use etna_store::seal::KeyPair;
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key, server_key};
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::tls::Authority;
use etna_tests::wait::{ensure, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A server with this certificate.
async fn secure(id: &str, pair: &KeyPair) -> StandIn {
    StandIn::start_tls(id, ANY, Arc::new(Authority::server(pair, None))).await
}

/// A backend with such TLS settings, and everything of a host of the same name leading to it.
async fn route(scene: &Scene, id: &str, urls: &[String], tls: Value) -> i64 {
    for (n, url) in urls.iter().enumerate() {
        scene.put(&server_key(id, &format!("s{n}")), json!({ "URL": url })).await;
    }
    scene.put(&frontend_key(id), frontend(&format!("Host(`{id}.test`)"), id)).await;
    scene.put(&format!("backends/{id}/backend"), backend(tls)).await
}

fn backend(tls: Value) -> Value {
    json!({ "Type": "http", "Settings": { "TLS": tls } })
}

/// By the name that certificates are for.
fn by_name(server: &StandIn) -> String {
    format!("https://localhost:{}", server.address.port())
}

fn by_address(server: &StandIn) -> String {
    format!("https://{}", server.address)
}

async fn handshakes(proxy: &Proxy, result: &str) -> f64 {
    proxy.metrics().await.sum("etna_server_tls_handshakes_total", &[("result", result)]).unwrap()
}

#[tokio::test]
async fn who_is_believed_and_who_is_not() {
    let scene = Scene::open("servers-tls-verify").await;
    let authority = Authority::new(scene.folder());
    let stranger = Authority::new(tempfile::tempdir().unwrap().path());
    let ca = json!({ "CA": authority.pem() });
    let good = secure("good", &authority.issue(&["localhost"])).await;
    let ip = secure("ip", &authority.issue(&["127.0.0.1"])).await;
    let named = secure("named", &authority.issue(&["app.internal"])).await;
    let strange = secure("strange", &stranger.issue(&["localhost"])).await;
    let ended = secure("ended", &authority.issue_until(&["localhost"], 2001)).await;
    let plain = StandIn::start("plain").await;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let signed = KeyPair::new(made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes());
    let own = secure("own", &signed).await;
    route(&scene, "own", &[by_name(&own)], json!({ "CA": made.cert.pem() })).await;
    route(&scene, "good", &[by_name(&good)], ca.clone()).await;
    route(&scene, "ip", &[by_address(&ip)], ca.clone()).await;
    let name = json!({ "CA": authority.pem(), "ServerName": "app.internal" });
    route(&scene, "named", &[by_address(&named)], name).await;
    route(&scene, "trusting", &[by_address(&strange)], json!({ "InsecureSkipVerify": true })).await;
    for (id, server) in [("strange", &strange), ("ended", &ended), ("plain", &plain)] {
        route(&scene, id, &[by_name(server)], ca.clone()).await;
    }
    route(&scene, "misnamed", &[by_address(&good)], ca.clone()).await;
    // Whom the system believes, with a file of authorities that knows nobody here.
    route(&scene, "system", &[by_name(&good)], json!({})).await;
    let proxy = scene.proxy("etna").await;

    for (id, server) in [("good", "good"), ("ip", "ip"), ("named", "named"), ("own", "own"), ("trusting", "strange")] {
        let answer = proxy.get(&format!("{id}.test"), "/x").await.unwrap();
        assert_eq!((answer.status, answer.server()), (200, server), "{id}: {}", proxy.said());
        // How servers are spoken to is nobody's business but ours.
        assert!(answer.text().contains(r#"["x-forwarded-proto","http"]"#), "{}", answer.text());
    }
    for (id, told) in [
        ("strange", "invalid peer certificate"),
        ("ended", "expired"),
        ("misnamed", "not valid for name"),
        ("plain", ""),
        ("system", "invalid peer certificate"),
    ] {
        let answer = proxy.get(&format!("{id}.test"), "/x").await.unwrap();
        assert_eq!(answer.status, 502, "{id}: {}", answer.text());
        let explained = proxy.json(&format!("/v3/explain?url=http://{id}.test/")).await;
        let error = explained["servers"][0]["handshake_error"].as_str().unwrap_or_default().to_owned();
        assert!(!error.is_empty() && error.contains(told), "{id}: {explained}");
        proxy.until_said("a handshake with a server failed").await;
    }
    assert_eq!(plain.requests() + ended.requests(), 0, "nothing was sent in the clear");
    assert_eq!(strange.requests(), 1);
    assert_eq!((handshakes(&proxy, "full").await, handshakes(&proxy, "failed").await), (5.0, 5.0));
    let problems = proxy.problems().await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0]["reason"].as_str().unwrap().contains("not verified"), "{problems:?}");

    // A certificate that is believed again is used at once.
    scene.put("backends/strange/backend", backend(json!({ "CA": stranger.pem() }))).await;
    proxy.until_status("strange.test", "/", 200).await;
    let explained = proxy.json("/v3/explain?url=http://strange.test/").await;
    assert!(explained["servers"][0]["handshake_error"].is_null(), "{explained}");
}

#[tokio::test]
async fn the_systems_authorities_are_believed_where_none_are_named() {
    let scene = Scene::open("servers-tls-system").await;
    let authority = Authority::new(scene.folder());
    let server = secure("a", &authority.issue(&["localhost"])).await;
    route(&scene, "a", &[by_name(&server)], Value::Null).await;
    let file = scene.folder().join("system.pem");
    for (name, pem, status) in [("with", authority.pem(), 200), ("without", String::new(), 503)] {
        std::fs::write(&file, pem).unwrap();
        let mut command = Proxy::command(name, &scene.store(), &[], scene.folder());
        command.env("SSL_CERT_FILE", &file).env_remove("SSL_CERT_DIR");
        let proxy = Proxy::run(name, command, scene.folder(), Duration::from_secs(20)).await;
        proxy.until_ready(Duration::from_secs(20)).await;
        assert_eq!(proxy.get("a.test", "/").await.unwrap().status, status, "{name}");
        let problems = proxy.problems().await;
        let told =
            problems.iter().any(|problem| problem["reason"].as_str().unwrap().contains("no certificate authorities"));
        assert_eq!(told, status != 200, "{problems:?}");
    }
}

#[tokio::test]
async fn connections_are_kept_and_sessions_go_on() {
    let scene = Scene::open("servers-tls-kept").await;
    let authority = Authority::new(scene.folder());
    let config = Arc::new(Authority::server(&authority.issue(&["localhost"]), None));
    let mut server = StandIn::start_tls("a", ANY, config.clone()).await;
    route(&scene, "a", &[by_name(&server)], json!({ "CA": authority.pem() })).await;
    let proxy = scene.proxy_with("etna", &["--workers", "1"]).await;
    let ask = async || proxy.get("a.test", "/").await.unwrap().status;
    for _ in 0..20 {
        assert_eq!(ask().await, 200);
    }
    assert_eq!((server.connections(), server.handshakes()), (1, [1, 0, 0]));
    let body = vec![b'x'; 3_000_000];
    let request = etna_tests::client::request("POST", "a.test", "/").body(body.into()).unwrap();
    let answer = etna_tests::client::send(proxy.listen, request).await.unwrap();
    assert_eq!((answer.status, answer.json()["body_bytes"].as_u64()), (200, Some(3_000_000)));
    assert_eq!(server.connections(), 1);

    // What the server closes after each answer begins with the last session.
    server.set(Manner::Header("connection", "close"));
    for _ in 0..5 {
        assert_eq!(ask().await, 200);
    }
    assert_eq!(server.handshakes(), [1, 4, 0]);

    // One that is gone and comes back.
    let address = server.address;
    drop(server);
    eventually("it is gone", SOON, async || ensure(ask().await == 502, "still there")).await;
    server = StandIn::start_tls("a", address, config).await;
    for _ in 0..5 {
        assert_eq!(ask().await, 200);
    }
    assert_eq!(server.handshakes()[2], 0);

    // What was made on other terms is not used any more.
    let before = server.connections();
    let settings = json!({ "CA": authority.pem(), "SessionTicketsDisabled": true });
    let revision = scene.put("backends/a/backend", backend(settings)).await;
    proxy.until_revision(revision).await;
    let full = server.handshakes()[0];
    assert_eq!(ask().await, 200);
    assert_eq!((server.connections() - before, server.handshakes()[0] - full), (1, 1));
}

#[tokio::test]
async fn we_show_a_certificate_where_one_is_wanted() {
    let scene = Scene::open("servers-tls-client").await;
    let authority = Authority::new(scene.folder());
    let config = Authority::server(&authority.issue(&["localhost"]), Some(&authority));
    let server = StandIn::start_tls("a", ANY, Arc::new(config)).await;
    let settings = |pair: Option<String>| json!({ "CA": authority.pem(), "KeyPair": pair });
    route(&scene, "a", &[by_name(&server)], settings(None)).await;
    let proxy = scene.proxy_with("etna", &["--seal-key", authority.seal_key()]).await;
    // Servers of TLS 1.3 refuse after the handshake: also that is no answer.
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 502);
    scene.put("backends/a/backend", backend(settings(Some(authority.sealed(&authority.issue(&["etna"])))))).await;
    proxy.until_status("a.test", "/", 200).await;
    assert!(proxy.problems().await.is_empty());

    // One that cannot be opened does not replace one that could.
    let stranger = Authority::new(tempfile::tempdir().unwrap().path());
    let bad = settings(Some(stranger.sealed(&stranger.issue(&["etna"]))));
    let revision = scene.put("backends/a/backend", backend(bad)).await;
    proxy.until_revision(revision).await;
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 200);
    let problems = proxy.problems().await;
    let told = problems.iter().any(|problem| problem["reason"].as_str().unwrap().contains("Settings.TLS.KeyPair"));
    assert!(told, "{problems:?}");
    let blind = scene.proxy("blind").await;
    assert_eq!(blind.get("a.test", "/").await.unwrap().status, 503);
    let told = blind.problems().await.iter().any(|problem| problem["hint"] == "start etna with --seal-key FILE");
    assert!(told, "{:?}", blind.problems().await);
}

#[tokio::test]
async fn another_server_is_asked_and_checks_speak_tls_too() {
    let scene = Scene::open("servers-tls-checks").await;
    let authority = Authority::new(scene.folder());
    let stranger = Authority::new(tempfile::tempdir().unwrap().path());
    let good = secure("good", &authority.issue(&["localhost"])).await;
    let also = secure("also", &authority.issue(&["localhost"])).await;
    let strange = secure("strange", &stranger.issue(&["localhost"])).await;
    let urls = [by_name(&good), by_name(&also), by_name(&strange)];
    route(&scene, "a", &urls, json!({ "CA": authority.pem() })).await;
    let proxy = scene.proxy("etna").await;
    for _ in 0..30 {
        assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 200);
    }
    let health = proxy.json("/v3/health?backend=a").await;
    let shown = &health["backends"][0]["servers"][2];
    assert_eq!((&shown["health"], &shown["reason"]), (&json!("ejected"), &json!("tls")), "{health}");

    for kind in ["http", "tcp"] {
        let id = format!("checked-{kind}");
        route(&scene, &id, &urls, json!({ "CA": authority.pem() })).await;
        let mut value = backend(json!({ "CA": authority.pem() }));
        value["HealthCheck"] = json!({ "Type": kind, "Interval": "100ms" });
        scene.put(&format!("backends/{id}/backend"), value).await;
        eventually("checks tell them apart", SOON, async || {
            let health = proxy.json(&format!("/v3/health?backend={id}")).await;
            let servers = &health["backends"][0]["servers"];
            let is = |n: usize| (servers[n]["serving"].as_bool(), servers[n]["reason"].as_str());
            let told = is(0) == (Some(true), Some("ok")) && is(2) == (Some(false), Some("tls"));
            ensure(told, health.to_string())
        })
        .await;
    }
    assert_eq!(strange.requests(), 0);
}

#[tokio::test]
async fn a_websocket_goes_through() {
    let scene = Scene::open("servers-tls-tunnel").await;
    let authority = Authority::new(scene.folder());
    let server = secure("a", &authority.issue(&["localhost"])).await;
    route(&scene, "a", &[by_name(&server)], json!({ "CA": authority.pem() })).await;
    let proxy = scene.proxy("etna").await;
    let mut stream = TcpStream::connect(proxy.listen).await.unwrap();
    let head = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    let (mut read, mut write) = stream.into_split();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    let all = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&all).await.unwrap();
        write
    });
    let mut back = vec![0; sent.len()];
    tokio::time::timeout(SOON, read.read_exact(&mut back)).await.unwrap().unwrap();
    assert!(back == sent);
    drop(writing.await.unwrap());
}

const SOON: Duration = Duration::from_secs(20);
