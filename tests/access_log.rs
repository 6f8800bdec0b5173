//! The access log: a line of JSON for each request, whatever it was asked in, that tells no secret and stops nobody.

use std::path::Path;
use std::time::Duration;

use etna_tests::client::{self, raw, request};
use etna_tests::process::signal;
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key};
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::wait::{ensure, eventually};
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A proxy with one server, and an access log.
async fn bed(name: &str, log: &Path) -> (Scene, StandIn, Proxy) {
    let scene = Scene::open(name).await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy_with("etna", &["--access-log", log.to_str().unwrap()]).await;
    (scene, a, proxy)
}

/// The lines so far, each of which has to be JSON.
fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Waits until there is a line for a path.
async fn line(log: &Path, path: &str) -> Value {
    eventually(&format!("{path} has its line"), SOON, async || {
        let all = lines(log);
        all.iter().find(|line| line["path"] == path).cloned().ok_or_else(|| format!("{all:?}"))
    })
    .await
}

#[tokio::test]
async fn every_request_has_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let (scene, a, proxy) = bed("accesslog", &log).await;
    let begun = proxy.listen;

    let post = request("POST", "a.test", "/post?pwd=s3cret").header("referer", "http://a.test/?key=s3cret");
    let post = post.header("user-agent", "x\"\\").header("x-request-id", "r1");
    let answer = client::send(begun, post.body(Full::from("0123456789")).unwrap()).await.unwrap();
    let said = line(&log, "/post").await;
    assert_eq!(
        (&said["client"], &said["host"], &said["method"]),
        (&"127.0.0.1".into(), &"a.test".into(), &"POST".into())
    );
    assert_eq!((&said["protocol"], &said["status"]), (&"HTTP/1.1".into(), &200.into()));
    assert_eq!((&said["bytes_received"], &said["bytes_sent"]), (&10.into(), &answer.body.len().into()));
    assert_eq!((&said["frontend"], &said["backend"], &said["server"]), (&"a".into(), &"a".into(), &"s".into()));
    assert_eq!((&said["tries"], &said["request_id"]), (&1.into(), &"r1".into()));
    assert_eq!((&said["query"], &said["referer"]), (&"pwd=*".into(), &"http://a.test/?key=*".into()));
    assert!(said["duration_ms"].as_f64() >= said["upstream_ms"].as_f64() && said["upstream_ms"].is_number(), "{said}");
    assert!(said.get("broken_by").is_none() && said.get("tls").is_none(), "{said}");

    // What no frontend takes, what is no request, and what tries to write a line of its own.
    proxy.get("b.test", "/unrouted").await.unwrap();
    let said = line(&log, "/unrouted").await;
    assert_eq!((&said["status"], &said["error"]), (&404.into(), &"no route".into()));
    assert!(said.get("frontend").is_none() && said.get("tries").is_none(), "{said}");
    raw(begun, b"GET / HTTP/1.1\r\nHost: a.test\r\nX\x00: y\r\n\r\n").await;
    raw(
        begun,
        b"GET /forged HTTP/1.1\r\nHost: a.test\r\nUser-Agent: \xff\"}\t{\"status\":200\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(line(&log, "/forged").await["user_agent"], "\u{fffd}\"}\t{\"status\":200");
    let nonsense = eventually("what is no request has its line", SOON, async || {
        lines(&log).into_iter().find(|line| line.get("path").is_none()).ok_or("none yet")
    })
    .await;
    assert_eq!((&nonsense["status"], nonsense.get("method")), (&400.into(), None));

    // A client that leaves, and a server that breaks off.
    a.set(Manner::Hang);
    let mut left = TcpStream::connect(begun).await.unwrap();
    left.write_all(b"GET /left HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    eventually("the server has it", SOON, async || ensure(a.requests() >= 3, format!("{}", a.requests()))).await;
    drop(left);
    let said = line(&log, "/left").await;
    assert_eq!((&said["status"], &said["broken_by"], &said["server"]), (&0.into(), &"client".into(), &"s".into()));
    a.set(Manner::CloseInBody);
    assert!(proxy.get("a.test", "/half").await.is_err());
    let said = line(&log, "/half").await;
    assert_eq!((&said["status"], &said["broken_by"]), (&200.into(), &"server".into()));
    a.set(Manner::Answer);

    // HTTP/2, and a WebSocket at its end.
    let at = etna_tests::h2::open(&scene, &proxy).await;
    let (client, connection) = h2::client::handshake(TcpStream::connect(at).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let asked = Request::get("http://a.test/two?x").body(()).unwrap();
    let response = client.send_request(asked, true).unwrap().0.await.unwrap();
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(data) = body.data().await {
        length += data.unwrap().len();
    }
    let said = line(&log, "/two").await;
    assert_eq!((&said["protocol"], &said["host"], &said["query"]), (&"HTTP/2.0".into(), &"a.test".into(), &"*".into()));
    assert_eq!((&said["status"], &said["bytes_sent"]), (&200.into(), &length.into()));
    let mut tunnel = TcpStream::connect(begun).await.unwrap();
    let head = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    tunnel.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(tunnel.read_u8().await.unwrap());
    }
    tunnel.write_all(b"hello").await.unwrap();
    tunnel.read_exact(&mut [0; 5]).await.unwrap();
    assert!(lines(&log).iter().all(|line| line["path"] != "/chat"), "it is not over");
    drop(tunnel);
    let said = line(&log, "/chat").await;
    assert_eq!((&said["status"], &said["bytes_received"], &said["bytes_sent"]), (&101.into(), &5.into(), &5.into()));
    assert!(said.get("broken_by").is_none(), "{said}");

    assert!(!std::fs::read_to_string(&log).unwrap().contains("s3cret"));
    // They are counted once they are written.
    eventually("all are counted", SOON, async || {
        let counted = proxy.metrics().await.sum("etna_access_log_lines_total", &[]);
        ensure(counted == Some(lines(&log).len() as f64), format!("{counted:?}"))
    })
    .await;
    assert_eq!(proxy.metrics().await.sum("etna_access_log_dropped_total", &[]), Some(0.0));
}

#[tokio::test]
async fn a_log_is_rotated_and_goes_on_in_a_new_process() {
    let folder = tempfile::tempdir().unwrap();
    let (log, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let scene = Scene::open("accesslogmoved").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let (mut proxy, _) = scene.upgradable("etna", &["--access-log", log.to_str().unwrap()]).await;
    proxy.until_status("a.test", "/before", 200).await;
    line(&log, "/before").await;
    std::fs::rename(&log, &moved).unwrap();
    signal(proxy.pid(), "HUP");
    eventually("it is opened anew", SOON, async || ensure(log.exists(), "it is not there")).await;
    proxy.until_status("a.test", "/after", 200).await;
    line(&log, "/after").await;
    assert!(lines(&moved).iter().all(|line| line["path"] == "/before"));

    proxy.upgrade().await;
    proxy.until_status("a.test", "/upgraded", 200).await;
    line(&log, "/upgraded").await;
    assert!(lines(&log).iter().any(|line| line["path"] == "/after"), "what was there stays");
    eventually("it is counted", SOON, async || {
        let counted = proxy.metrics().await.sum("etna_access_log_lines_total", &[]);
        ensure(counted >= Some(1.0), format!("{counted:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_and_a_pipe_that_nobody_reads_stop_nobody() {
    let (scene, a, proxy) = bed("accesslogfull", Path::new("/dev/full")).await;
    proxy.until_status("a.test", "/", 200).await;
    eventually("it is a problem", SOON, async || {
        let problems = proxy.problems().await;
        let told = problems.iter().any(|problem| problem["key"] == "--access-log /dev/full");
        ensure(told, format!("{problems:?}"))
    })
    .await;
    eventually("it is counted", SOON, async || {
        let lost = proxy.metrics().await.sum("etna_access_log_dropped_total", &[("reason", "error")]);
        ensure(lost >= Some(1.0), format!("{lost:?}"))
    })
    .await;
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 200);
    drop(proxy);

    let pipe = scene.folder().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    scene.put(&frontend_key("b"), frontend("Host(`b.test`)", "a")).await;
    let mut proxy = scene.proxy_with("piped", &["--access-log", pipe.to_str().unwrap()]).await;
    let long = format!("/{}", "x".repeat(1900));
    let mut connection = client::Connection::open(proxy.listen).await.unwrap();
    // More than a pipe holds.
    for _ in 0..100 {
        assert_eq!(connection.get("b.test", &long).await.unwrap().status, 200);
    }
    assert_eq!(a.requests(), 102);
    proxy.terminate();
    let ended = proxy.end(Duration::from_secs(60)).await;
    assert!(ended.success(), "{ended}: {}", proxy.said());
}

#[tokio::test]
async fn it_may_be_told_on_standard_output_and_is_off_unless_asked_for() {
    let scene = Scene::open("accesslogout").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let flags = ["--access-log", "-", "--access-log-query", "full"];
    let proxy = scene.proxy_with("out", &flags).await;
    proxy.until_status("a.test", "/said?a=b", 200).await;
    eventually("it is said", SOON, async || {
        let said = proxy.said();
        let line = said.lines().find(|line| line.contains("\"path\":\"/said\""));
        let line: Value = serde_json::from_str(line.ok_or_else(|| said.clone())?).map_err(|error| error.to_string())?;
        ensure(line["query"] == "a=b", line.to_string())
    })
    .await;
    let quiet = scene.proxy("quiet").await;
    quiet.until_status("a.test", "/", 200).await;
    assert_eq!(quiet.metrics().await.sum("etna_access_log_lines_total", &[]), None);
}

const SOON: Duration = Duration::from_secs(20);
