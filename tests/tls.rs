//! TLS at the edge: whose certificate a name gets, what changes without touching a connection, sessions that go on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use etna_tests::client::{Connection, request};
use etna_tests::proxy::Proxy;
use etna_tests::scene::Scene;
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::tls::{Authority, https_listener};
use etna_tests::wait::{ensure, eventually};
use http_body_util::Full;
use rustls::HandshakeKind;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

/// Where servers listen.
const SERVERS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A scene with an https listener, and a server behind `a.test` and `b.test`.
async fn scene(name: &str) -> (Scene, Authority, StandIn) {
    let scene = Scene::open(name).await;
    let authority = Authority::new(scene.folder());
    // Not where the clients are.
    let server = StandIn::start_at("a", SocketAddr::from((SERVERS, 0))).await;
    for host in ["a.test", "b.test", "x.wild.test"] {
        scene.route(host, host, &[("s", server.address)]).await;
    }
    scene.put("listeners/https", https_listener(json!({}))).await;
    (scene, authority, server)
}

async fn proxy(scene: &Scene, authority: &Authority) -> Proxy {
    scene.proxy_with("etna", &["--seal-key", authority.seal_key()]).await
}

#[tokio::test]
async fn a_name_gets_the_certificate_of_its_host() {
    let (scene, authority, _server) = scene("tls-names").await;
    let client = authority.client();
    for (host, names, default) in [
        ("a.test", &["a.test"][..], false),
        ("*.wild.test", &["*.wild.test"], false),
        ("b.test", &["b.test", "other.test"], true),
    ] {
        scene.put(&format!("hosts/{host}/host"), authority.host(&authority.issue(names), default)).await;
    }
    let proxy = proxy(&scene, &authority).await;
    let at = proxy.listener("https").await;
    for host in ["a.test", "b.test", "x.wild.test"] {
        let answer = client.get(at, host, "/x").await.unwrap();
        assert_eq!((answer.status, answer.server()), (200, "a"), "{host}");
        let told = answer.json()["headers"].as_array().unwrap().clone();
        assert!(told.contains(&json!(["x-forwarded-proto", "https"])), "{told:?}");
    }
    let (b, other) =
        (client.certificate(at, "b.test").await.unwrap(), client.certificate(at, "other.test").await.unwrap());
    assert_eq!(b, other);
    let refused = client.connect(at, "unknown.test").await.unwrap_err();
    assert!(refused.contains("not valid for name"), "it got the default host's certificate: {refused}");

    // One connection is for one certificate.
    let mut kept = client.open(at, "a.test").await.unwrap();
    assert_eq!(kept.get("b.test", "/").await.unwrap().status, 421);
    assert_eq!(kept.get("a.test", "/").await.unwrap().status, 200);
    let mut kept = client.open(at, "other.test").await.unwrap();
    assert_eq!(kept.get("b.test", "/").await.unwrap().status, 200);

    scene.put("listeners/https", https_listener(json!({ "UnknownHost": "refuse" }))).await;
    eventually("unknown names are refused", SOON, async || {
        let refused = client.connect(at, "unknown.test").await.unwrap_err();
        ensure(refused.contains("alert"), refused)
    })
    .await;
    assert_eq!(client.get(at, "a.test", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn only_what_is_better_replaces_a_certificate() {
    let (scene, authority, _server) = scene("tls-replace").await;
    let client = authority.client();
    let first = authority.issue(&["a.test"]);
    scene.put("hosts/a.test/host", authority.host(&first, false)).await;
    let proxy = proxy(&scene, &authority).await;
    let at = proxy.listener("https").await;
    let mut kept = client.open(at, "a.test").await.unwrap();
    let served = client.certificate(at, "a.test").await.unwrap();

    let stranger = Authority::new(tempfile::tempdir().unwrap().path());
    let mixed = etna_store::seal::KeyPair::new(first.cert().to_vec(), authority.issue(&["a.test"]).key().to_vec());
    for (bad, reason) in [
        (authority.host(&authority.issue_until(&["a.test"], 2001), false), "ended"),
        (stranger.host(&stranger.issue(&["a.test"]), false), "no key of the seal key file opens it"),
        (authority.host(&mixed, false), "the key cannot be used"),
        (json!({ "Settings": { "KeyPair": "e30=" } }), "seal it again"),
    ] {
        let revision = scene.put("hosts/a.test/host", bad).await;
        proxy.until_revision(revision).await;
        let problems = proxy.problems().await;
        let told = problems.iter().any(|problem| problem["reason"].as_str().unwrap().contains(reason));
        assert!(told, "{reason}: {problems:?}");
        assert_eq!(client.certificate(at, "a.test").await.unwrap(), served, "{reason}");
    }
    let revision = scene.put("hosts/a.test/host", authority.host(&authority.issue(&["a.test"]), false)).await;
    proxy.until_revision(revision).await;
    assert_ne!(client.certificate(at, "a.test").await.unwrap(), served);
    assert!(proxy.problems().await.is_empty());
    assert_eq!(kept.get("a.test", "/").await.unwrap().status, 200, "a connection from before goes on");

    let revision = scene.delete("hosts/a.test/host").await;
    proxy.until_revision(revision).await;
    assert!(client.connect(at, "a.test").await.is_err());
    assert!(proxy.problems().await.iter().any(|problem| problem["reason"] == "no host has a certificate"));
    assert_eq!(kept.get("a.test", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_session_goes_on_at_another_proxy_and_after_a_restart() {
    let (scene, authority, _server) = scene("tls-tickets").await;
    scene.put("hosts/a.test/host", authority.host(&authority.issue(&["a.test"]), false)).await;
    let (one, other) = tokio::join!(proxy(&scene, &authority), async {
        scene.proxy_with("other", &["--seal-key", authority.seal_key()]).await
    });
    let (at_one, at_other) = (one.listener("https").await, other.listener("https").await);
    eventually("the keys of tickets are shared", SOON, async || {
        let keys = scene.below("tickets/").await;
        assert!(keys.iter().all(|(_, value)| value.starts_with(b"{\"Encryption\"")), "sealed");
        ensure(keys.len() == 2, format!("{} keys", keys.len()))
    })
    .await;
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        eventually("a session goes on elsewhere", SOON, async || {
            // Its tickets come with the first answer.
            let client = authority.client_of(versions);
            assert_eq!(client.get(at_one, "a.test", "/").await.unwrap().status, 200);
            let stream = client.connect(at_other, "a.test").await.unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(Connection::over(stream).await?.get("a.test", "/").await?.status, 200);
            ensure(kind == Some(HandshakeKind::Resumed), format!("{versions:?}: {kind:?}"))
        })
        .await;
    }
    assert!(other.metrics().await.sum("etna_tls_handshakes_total", &[("result", "resumed")]).unwrap() >= 2.0);
}

#[tokio::test]
async fn what_is_spoken_may_change_on_the_same_address() {
    let (scene, authority, _server) = scene("tls-change").await;
    scene.put("hosts/a.test/host", authority.host(&authority.issue(&["a.test"]), false)).await;
    let proxy = proxy(&scene, &authority).await;
    let at = proxy.listener("https").await;
    let listener =
        |protocol: &str| json!({ "Protocol": protocol, "Address": { "Network": "tcp", "Address": at.to_string() } });
    // Port 0 is one address, the port it stands for another.
    scene.delete("listeners/https").await;
    eventually("it is closed", SOON, async || ensure(tokio::net::TcpStream::connect(at).await.is_err(), "it accepts"))
        .await;
    scene.put("listeners/web", listener("https")).await;
    proxy.listener("web").await;
    let client = authority.client();
    assert_eq!(client.get(at, "a.test", "/").await.unwrap().status, 200);
    scene.put("listeners/web", listener("http")).await;
    eventually("it speaks HTTP in the clear", SOON, async || {
        let answer = etna_tests::client::get(at, "a.test", "/").await?;
        ensure(answer.status == 200, answer.text())
    })
    .await;
    // The workers are told one after the other.
    eventually("it speaks TLS no more", SOON, async || ensure(client.connect(at, "a.test").await.is_err(), "it does"))
        .await;
}

#[tokio::test]
async fn old_versions_are_refused_and_policies_kept() {
    let (scene, authority, _server) = scene("tls-versions").await;
    scene.put("hosts/a.test/host", authority.host(&authority.issue(&["a.test"]), true)).await;
    scene.put("listeners/modern", https_listener(json!({ "TLS": { "Policy": "modern" } }))).await;
    let proxy = proxy(&scene, &authority).await;
    let (intermediate, modern) = (proxy.listener("https").await, proxy.listener("modern").await);
    let old = authority.client_of(&[&rustls::version::TLS12]);
    assert!(old.connect(intermediate, "a.test").await.is_ok());
    assert!(old.connect(modern, "a.test").await.is_err());
    assert!(authority.client().connect(modern, "a.test").await.is_ok());
    // No library of ours still speaks what must be refused.
    for version in ["-tls1", "-tls1_1"] {
        let output = tokio::process::Command::new("openssl")
            .args(["s_client", "-connect", &intermediate.to_string(), version, "-cipher", "ALL:@SECLEVEL=0"])
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("Cipher is (NONE)") && !output.status.success(), "{version}: {said}");
    }
}

#[tokio::test]
async fn bodies_of_all_sizes_pass_and_a_tunnel_stands() {
    let (scene, authority, server) = scene("tls-bodies").await;
    scene.put("hosts/a.test/host", authority.host(&authority.issue(&["a.test"]), false)).await;
    let proxy = proxy(&scene, &authority).await;
    let at = proxy.listener("https").await;
    let mut kept = authority.client().open(at, "a.test").await.unwrap();
    for size in [0, 1, 16 * 1024, 100_000, 5_000_000] {
        server.set(Manner::Page(200, "", String::leak("x".repeat(size))));
        let body = Full::from("y".repeat(size));
        let answer = kept.send(request("POST", "a.test", "/").body(body).unwrap()).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, size));
    }
    server.set(Manner::Answer);
    let answer =
        kept.send(request("POST", "a.test", "/").body(Full::from("y".repeat(5_000_000))).unwrap()).await.unwrap();
    assert_eq!(answer.json()["body_bytes"], 5_000_000);
    let mut stream = authority.client().connect(at, "a.test").await.unwrap();
    let upgrade = "GET /upgrade HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut said = [0; 12];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"HTTP/1.1 101");
}

#[tokio::test]
async fn a_certificate_is_replaced_under_handshakes() {
    let (scene, authority, _server) = scene("tls-rotate").await;
    let pairs: Vec<_> = (0..20).map(|_| authority.host(&authority.issue(&["a.test"]), false)).collect();
    scene.put("hosts/a.test/host", pairs[0].clone()).await;
    let proxy = proxy(&scene, &authority).await;
    let at = proxy.listener("https").await;
    let stop = tokio_util::sync::CancellationToken::new();
    let handshakes = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, handshakes, authority) = (stop.clone(), handshakes.clone(), authority.client());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let answer = authority.get(at, "a.test", "/").await.unwrap();
                    assert_eq!(answer.status, 200);
                    handshakes.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let mut replaced = 0;
    while replaced < 100 || (handshakes.load(Relaxed) <= 50 && !clients.iter().any(JoinHandle::is_finished)) {
        scene.put("hosts/a.test/host", pairs[replaced % pairs.len()].clone()).await;
        replaced += 1;
    }
    stop.cancel();
    for client in clients {
        client.await.unwrap();
    }
    println!("{handshakes:?} handshakes, the certificate replaced {replaced} times");
    assert_eq!(proxy.metrics().await.sum("etna_tls_handshakes_total", &[("result", "failed")]), Some(0.0));
}

#[tokio::test]
async fn clients_in_the_clear_are_sent_to_https() {
    let (scene, authority, server) = scene("tls-redirect").await;
    scene.put("hosts/a.test/host", authority.host(&authority.issue(&["a.test"]), false)).await;
    for host in ["a.test", "b.test"] {
        let mut value = etna_tests::scene::frontend(&format!("Host(`{host}`)"), host);
        value["Https"] = json!("auto");
        value["Hsts"] = json!(3600);
        scene.put(&etna_tests::scene::frontend_key(host), value).await;
    }
    let proxy = proxy(&scene, &authority).await;
    let at = proxy.listener("https").await;
    let asked = request("POST", "a.test:8080", "/x?y=1").body(Full::default()).unwrap();
    let answer = etna_tests::client::send(proxy.listen, asked).await.unwrap();
    assert_eq!((answer.status, answer.header("location")), (308, "https://a.test/x?y=1"));
    assert_eq!(server.requests(), 0);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((SERVERS, 0))).unwrap();
    let mut own = Connection::over(socket.connect(proxy.listen).await.unwrap()).await.unwrap();
    assert_eq!(own.get("a.test", "/").await.unwrap().status, 200, "the site's own container calls back");
    for (query, outcome) in [
        ("http://a.test:8080/x?y=1", "308, sent to https://a.test/x?y=1"),
        ("https://a.test/x", "forwarded to backend a.test"),
        ("http://a.test/x&client=127.0.0.2", "forwarded to backend a.test"),
        ("http://b.test/x", "forwarded to backend b.test"),
    ] {
        let query = query.replacen("?y", "%3Fy", 1);
        assert_eq!(proxy.json(&format!("/v3/explain?url={query}")).await["outcome"], outcome, "{query}");
    }
    let challenge = proxy.get("a.test", "/.well-known/acme-challenge/token").await.unwrap();
    assert_eq!(challenge.status, 200, "it is the server's to answer");
    let uncertified = proxy.get("b.test", "/").await.unwrap();
    assert_eq!((uncertified.status, uncertified.header("strict-transport-security")), (200, ""));

    let client = authority.client();
    let answer = client.get(at, "a.test", "/").await.unwrap();
    assert_eq!((answer.status, answer.header("strict-transport-security")), (200, "max-age=3600"));
    for (location, fitting) in [("http://a.test/next", "https://a.test/next"), ("http://a.test/", "http://a.test/")] {
        server.set(Manner::Page(302, location, ""));
        assert_eq!(client.get(at, "a.test", "/").await.unwrap().header("location"), fitting);
    }

    // A proxy in front that is believed has ended TLS.
    let behind =
        scene.proxy_with("behind", &["--seal-key", authority.seal_key(), "--trusted-proxies", "127.0.0.1/32"]).await;
    server.set(Manner::Answer);
    let forwarded =
        |proto: &str| request("GET", "a.test", "/").header("x-forwarded-proto", proto).body(Full::default()).unwrap();
    assert_eq!(etna_tests::client::send(behind.listen, forwarded("https")).await.unwrap().status, 200);
    assert_eq!(etna_tests::client::send(proxy.listen, forwarded("https")).await.unwrap().status, 308, "a stranger");
}

const SOON: Duration = Duration::from_secs(20);
