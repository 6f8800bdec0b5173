//! TERM: not ready at once, a grace period, no new work, what runs is finished, and the process ends with 0.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etna_tests::client::{Answer, Connection, get, request};
use etna_tests::load::{Load, Plan};
use etna_tests::proxy::Proxy;
use etna_tests::report::measured;
use etna_tests::scene::{Scene, server_key};
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::wait::{ensure, eventually};
use http::Request;
use http_body_util::Full;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn not_ready(proxy: &Proxy) {
    eventually("it is not ready any more", SOON, async || match proxy.admin_get("/readyz").await {
        Ok(answer) => ensure(answer.status == 503, format!("{}", answer.status)),
        Err(_) => Ok(()),
    })
    .await;
}

async fn no_new_connections(to: SocketAddr) {
    eventually("no new connections are taken", SOON, async || ensure(Connection::open(to).await.is_err(), "they are"))
        .await;
}

#[tokio::test]
async fn a_request_that_runs_is_finished() {
    let scene = Scene::open("term").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let mut proxy = scene.proxy("etna").await;
    a.set(Manner::Slow(Duration::from_secs(1)));
    let listen = proxy.listen;
    let running = tokio::spawn(async move { get(listen, "a.test", "/").await });
    let mut idle = Connection::open(listen).await.unwrap();
    eventually("the server has it", SOON, async || ensure(a.requests() == 1, "not yet")).await;
    proxy.terminate();
    not_ready(&proxy).await;
    let answer = running.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.server()), (200, "a"));
    // One that stays idle is closed some seconds after the grace period.
    assert_eq!(proxy.end(LONG).await.code(), Some(0), "{}", proxy.said());
    assert!(idle.get("a.test", "/").await.is_err());
}

/// WordPress asks itself for `wp-cron.php` and hangs up at once.
#[tokio::test]
async fn a_job_whose_caller_hung_up_is_finished() {
    let scene = Scene::open("termcron").await;
    let a = StandIn::start("a").await;
    scene.put("sites/blog", json!({"Preset": "wordpress", "Hosts": ["a.test"], "Public": "a", "Admin": "a"})).await;
    // A check would be a request, too, and one that is given up.
    scene.put("backends/a/backend", json!({"Type": "http", "HealthCheck": false})).await;
    scene.put(&server_key("a", "s"), json!({"URL": format!("http://{}", a.address)})).await;
    let mut proxy = scene.proxy("etna").await;
    a.set(Manner::Slow(Duration::from_secs(4)));
    let mut caller = TcpStream::connect(proxy.listen).await.unwrap();
    caller.write_all(b"POST /wp-cron.php HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    eventually("the server has it", SOON, async || ensure(a.requests() == 1, "not yet")).await;
    drop(caller);
    let began = Instant::now();
    proxy.terminate();
    assert_eq!(proxy.end(LONG).await.code(), Some(0), "{}", proxy.said());
    assert_eq!(a.abandoned(), 0, "cut after {:?}", began.elapsed());
}

#[tokio::test]
async fn connections_are_taken_for_the_grace_period_and_told_to_go() {
    let scene = Scene::open("grace").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    const GRACE: Duration = Duration::from_secs(4);
    let mut proxy = scene.proxy_with("etna", &["--drain-grace", "4"]).await;
    let told = Instant::now();
    proxy.terminate();
    not_ready(&proxy).await;
    // Each worker is told for itself, so that one may not know yet what another one does.
    let (mut answered, mut sent_away) = (0, 0);
    let refused = eventually("no new connections are taken", SOON, async || match proxy.get("a.test", "/").await {
        Ok(answer) => {
            assert_eq!(answer.status, 200, "{answer:?}");
            answered += 1;
            sent_away += u32::from(answer.header("connection") == "close");
            Err("they are")
        }
        Err(error) => Ok(error),
    })
    .await;
    assert!(told.elapsed() >= GRACE, "{refused} after {:?}", told.elapsed());
    assert!(sent_away > 0, "nobody of {answered} was told to go");
    no_new_connections(proxy.listen).await;
    assert_eq!(proxy.end(SOON).await.code(), Some(0), "{}", proxy.said());
}

#[tokio::test]
async fn an_idle_connection_gets_one_more_answer_and_is_told_to_go() {
    let scene = Scene::open("lastanswer").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let mut proxy = scene.proxy_with("etna", &["--drain-grace", "0"]).await;
    let mut kept = Connection::open(proxy.listen).await.unwrap();
    assert_eq!(kept.get("a.test", "/").await.unwrap().header("connection"), "");
    proxy.terminate();
    no_new_connections(proxy.listen).await;
    let last = kept.get("a.test", "/").await.unwrap();
    assert_eq!((last.status, last.header("connection")), (200, "close"));
    assert_eq!(proxy.end(SOON).await.code(), Some(0), "{}", proxy.said());
}

/// What a balancer in front does: it sees that a proxy is not ready, and sends what comes next elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_nothing_fails_where_a_balancer_in_front_looks_at_readiness() {
    fn asked(host: &str, n: u64) -> Request<Full<Bytes>> {
        request("GET", host, &format!("/{n}")).header("x-test-id", n).body(Full::default()).expect("a valid request")
    }
    fn right(n: u64, answer: &Answer) -> Result<(), String> {
        let is_right = answer.status == 200 && answer.header("x-test-id") == n.to_string();
        if is_right { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
    }
    let scene = Scene::alone("drainload").await;
    let a = StandIn::start("a").await;
    a.set(Manner::Slow(Duration::from_millis(20)));
    scene.route("a", "a.test", &[("s", a.address)]).await;
    // Longer than what comes while it lasts.
    let mut proxy = scene.proxy_with("etna", &["--drain-grace", "10"]).await;
    let plan = Plan {
        to: vec![proxy.listen],
        rate: 300,
        connections: 32,
        request: asked,
        host: "a.test".into(),
        check: right,
    };
    let load = Load::start(plan);
    load.more(300).await;
    proxy.terminate();
    not_ready(&proxy).await;
    load.more(150).await;
    let report = load.stop().await;
    measured(&format!("TERM under load: {}", report.summary()));
    report.assert_all_right();
    assert_eq!(proxy.end(LONG).await.code(), Some(0), "{}", proxy.said());
}

#[tokio::test]
async fn a_proxy_without_clients_ends_after_the_grace_period_and_at_once_when_interrupted() {
    let scene = Scene::open("idle").await;
    let mut proxy = scene.proxy_with("etna", &["--drain-grace", "0"]).await;
    proxy.terminate();
    assert_eq!(proxy.end(SOON).await.code(), Some(0), "{}", proxy.said());
    let mut proxy = scene.proxy_with("second", &["--drain-grace", "30"]).await;
    etna_tests::process::signal(proxy.pid(), "INT");
    assert_eq!(proxy.end(SOON).await.code(), Some(0), "{}", proxy.said());
}

#[tokio::test]
async fn what_does_not_end_is_cut_in_time() {
    let scene = Scene::open("cut").await;
    let a = StandIn::start("a").await;
    a.set(Manner::Hang);
    scene.route("a", "a.test", &[("s", a.address)]).await;
    // The grace period is part of the time.
    let mut proxy = scene.proxy_with("etna", &["--drain", "2", "--drain-grace", "30"]).await;
    let listen = proxy.listen;
    let hanging = tokio::spawn(async move { get(listen, "a.test", "/").await });
    eventually("the server has it", SOON, async || ensure(a.requests() == 1, "not yet")).await;
    let told = Instant::now();
    proxy.terminate();
    assert_eq!(proxy.end(SOON).await.code(), Some(0), "{}", proxy.said());
    assert!(told.elapsed() > Duration::from_millis(1900), "{:?}", told.elapsed());
    let answer = hanging.await.unwrap();
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status >= 500));
}

#[tokio::test]
async fn a_second_term_cuts_at_once_and_a_tunnel_has_its_deadline() {
    let scene = Scene::open("force").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    for (name, again) in [("twice", true), ("deadline", false)] {
        let mut proxy = scene.proxy_with(name, &["--drain", if again { "60" } else { "1" }]).await;
        let mut tunnel = TcpStream::connect(proxy.listen).await.unwrap();
        let head = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        tunnel.write_all(head.as_bytes()).await.unwrap();
        let mut byte = [0];
        tunnel.read_exact(&mut byte).await.unwrap();
        proxy.terminate();
        not_ready(&proxy).await;
        if again {
            proxy.terminate();
        }
        assert_eq!(proxy.end(SOON).await.code(), Some(0), "{}", proxy.said());
    }
}

#[tokio::test]
async fn a_hangup_reads_the_admin_token_again() {
    let scene = Scene::open("hangup").await;
    let file = scene.folder().join("token");
    std::fs::write(&file, "first-token-0123456789").unwrap();
    let mut proxy = {
        // Readiness needs no token; addresses come from the file.
        let flags = ["--admin-token-file", file.to_str().unwrap(), "--drain-grace", "0"];
        scene.proxy_with("etna", &flags).await
    };
    let status = async |token: &str| {
        let admin = proxy.admin.to_string();
        let asked = request("GET", &admin, "/v3/status").header("authorization", format!("Bearer {token}"));
        etna_tests::client::send(proxy.admin, asked.body(Full::default()).unwrap()).await.unwrap().status
    };
    assert_eq!((status("first-token-0123456789").await, status("second-token-0123456789").await), (200, 401));
    std::fs::write(&file, "second-token-0123456789").unwrap();
    etna_tests::process::signal(proxy.pid(), "HUP");
    eventually("the new token is asked for", SOON, async || {
        ensure(status("second-token-0123456789").await == 200, "not yet")
    })
    .await;
    assert_eq!(status("first-token-0123456789").await, 401);
    // One that cannot be used changes nothing.
    std::fs::write(&file, "short").unwrap();
    etna_tests::process::signal(proxy.pid(), "HUP");
    proxy.until_said("stays as it was").await;
    assert_eq!(status("second-token-0123456789").await, 200);
    proxy.kill();
}

/// Until something has happened, on a machine that does other things, too.
const SOON: Duration = Duration::from_secs(20);
/// Until a process has ended that lets idle connections stand for some seconds.
const LONG: Duration = Duration::from_secs(60);
