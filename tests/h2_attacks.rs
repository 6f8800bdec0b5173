//! Clients of HTTP/2 that want to use up what others need: what each gets is bounded, and it is told why.

use std::net::SocketAddr;
use std::time::Duration;

use etna_tests::h2::*;
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::wait::{ensure, eventually};
use tokio::net::TcpListener;

async fn bed(name: &str) -> (Scene, StandIn, Proxy, SocketAddr) {
    let scene = Scene::open(name).await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    let at = open(&scene, &proxy).await;
    (scene, a, proxy, at)
}

/// Sends the same so many times, and reads what comes: how the connection ended by then, if it did.
async fn flood(at: SocketAddr, times: u32, mut each: impl FnMut(u32) -> Vec<u8>) -> Outcome {
    let mut wire = Wire::open(at).await;
    for n in 0..times {
        if wire.send(&each(n)).await.is_err() {
            break;
        }
        // What has been sent is looked at in good time.
        if n % 50 == 49
            && let outcome @ (Outcome::GoAway(_) | Outcome::Closed) = wire.outcome_within(0, SHORT).await
        {
            return outcome;
        }
    }
    wire.outcome(0).await
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

fn update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_cost_servers_little() {
    let (_scene, a, proxy, at) = bed("h2rapid").await;
    a.set(Manner::Hang);
    let outcome = flood(at, 1000, |n| [get(2 * n + 1, "a.test", "/"), reset(2 * n + 1)].concat()).await;
    assert_eq!(outcome, Outcome::GoAway(ENHANCE_YOUR_CALM));
    assert!(a.requests() <= 100, "{} requests reached the server", a.requests());
    // The same for one who waits until its server has them.
    let mut wire = Wire::open(at).await;
    let mut stream = 1;
    let before = a.requests();
    let outcome = loop {
        let _ = wire.send(&get(stream, "a.test", "/")).await;
        let wanted = before + u64::from(stream / 2) + 1;
        let has = eventually("the server has it", SOON, async || {
            let ended = wire_ended(&proxy).await;
            ensure(a.requests() >= wanted || ended >= 2.0, "not yet")
        });
        has.await;
        let _ = wire.send(&reset(stream)).await;
        stream += 2;
        if wire_ended(&proxy).await >= 2.0 {
            break wire.outcome(0).await;
        }
        assert!(stream < 1000, "it goes on");
    };
    assert_eq!(outcome, Outcome::GoAway(ENHANCE_YOUR_CALM));
    assert!(a.requests() - before <= 100, "{} requests reached the server", a.requests() - before);
}

/// Connections told to calm down.
async fn wire_ended(proxy: &Proxy) -> f64 {
    proxy.metrics().await.sum("etna_http2_goaways_total", &[("reason", "enhance_your_calm")]).unwrap_or(0.0)
}

#[tokio::test]
async fn errors_that_make_us_reset_are_counted() {
    let (_scene, a, _proxy, at) = bed("h2madeyou").await;
    a.set(Manner::Hang);
    let begin = |n: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &request("GET", "a.test", "/"));
    for (name, fault) in [
        ("a window beyond all bounds", (|stream| update(stream, 0x7fff_ffff)) as fn(u32) -> Vec<u8>),
        ("a window by 0", |stream| update(stream, 0)),
        ("HEADERS after the end", |stream| frame(HEADERS, 5, stream, &request("GET", "a.test", "/"))),
        ("DATA after the end", |stream| frame(DATA, 0, stream, b"x")),
        ("PRIORITY on itself", |stream| frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[1]].concat())),
    ] {
        let outcome = flood(at, 1100, |n| [begin(n), fault(2 * n + 1)].concat()).await;
        assert!(matches!(outcome, Outcome::GoAway(_)), "{name}: {outcome:?}");
    }
    let outcome = flood(at, 1100, |n| {
        let block = [request("GET", "a.test", "/"), field("connection", "x")].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block)
    })
    .await;
    assert!(matches!(outcome, Outcome::GoAway(_)), "malformed heads: {outcome:?}");
}

#[tokio::test]
async fn frames_that_carry_nothing_are_borne_for_a_while() {
    let (_scene, a, _proxy, at) = bed("h2floods").await;
    a.set(Manner::Hang);
    let begin = |n: u32| if n == 0 { frame(HEADERS, END_HEADERS, 1, &request("POST", "a.test", "/")) } else { vec![] };
    let floods: [(&str, Vec<u8>); 8] = [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("PING's answer", frame(PING, ACK, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &setting(4, 65_535))),
        ("empty SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", update(0, 1)),
        ("empty DATA", frame(DATA, 0, 1, &[])),
        ("an unknown type", frame(0xbe, 0, 0, &[])),
    ];
    for (name, wire) in floods {
        // A thousand, and some more for every second that it takes.
        let outcome = flood(at, 3000, |n| [begin(n), wire.clone()].concat()).await;
        assert_eq!(outcome, Outcome::GoAway(ENHANCE_YOUR_CALM), "{name}");
    }
}

#[tokio::test]
async fn heads_without_end_end() {
    let (_scene, _a, proxy, at) = bed("h2heads").await;
    let before = proxy.memory();
    let begun = frame(HEADERS, END_STREAM, 1, &request("GET", "a.test", "/"));
    // CONTINUATION without end: full, and empty.
    let filler = field("x", &"y".repeat(16_000));
    for (name, piece, times) in [("full", &filler[..], 64), ("empty", &[][..], 5000)] {
        let outcome = flood(at, times, |n| if n == 0 { begun.clone() } else { frame(CONTINUATION, 0, 1, piece) }).await;
        assert!(matches!(outcome, Outcome::GoAway(_) | Outcome::Closed), "{name}: {outcome:?}");
    }
    // A field that is put in the table once, and named again and again.
    let bomb = |value: usize, times: usize| {
        let mut block = request("GET", "a.test", "/");
        block.push(0x40);
        block.extend(&field("x", &"y".repeat(value))[1..]);
        block.extend(vec![0xbe; times]);
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
    };
    let crumbs = frame(HEADERS, 5, 1, &[request("GET", "a.test", "/"), field("cookie", "").repeat(1600)].concat());
    for (name, bytes) in [("one byte", bomb(1, 16_000)), ("4000 bytes", bomb(4000, 10_000)), ("crumbs", crumbs)] {
        let mut wires = Vec::new();
        for _ in 0..20 {
            let mut wire = Wire::open(at).await;
            wire.send(&bytes).await.unwrap();
            let outcome = wire.outcome(1).await;
            assert!(matches!(outcome, Outcome::GoAway(_) | Outcome::Status(431)), "{name}: {outcome:?}");
            wires.push(wire);
        }
    }
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 50_000_000, "grown by {grown} bytes");
    assert_eq!(etna_tests::client::get(at, "a.test", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn no_more_requests_run_at_once_than_said() {
    let (_scene, a, _proxy, at) = bed("h2many").await;
    a.set(Manner::Hang);
    let mut wire = Wire::open(at).await;
    let all: Vec<u8> = (0..150).flat_map(|n| get(2 * n + 1, "a.test", "/")).collect();
    wire.send(&all).await.unwrap();
    assert_eq!(wire.outcome(2 * 149 + 1).await, Outcome::Reset(REFUSED_STREAM));
    eventually("the others run", SOON, async || ensure(a.requests() == 100, format!("{}", a.requests()))).await;
}

#[tokio::test]
async fn who_does_not_read_does_not_fill_our_memory() {
    let (_scene, _a, proxy, at) = bed("h2noread").await;
    let before = proxy.memory();
    let mut wires = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::open(at).await;
        // Its window is as large as can be, and nothing is read.
        wire.send(&[frame(SETTINGS, 0, 0, &setting(4, 0x7fff_ffff)), update(0, 0x7ff0_0000)].concat()).await.unwrap();
        for n in 0..900 {
            let _ = tokio::time::timeout(SHORT, wire.send(&frame(PING, 0, 0, &[n as u8; 8]))).await;
        }
        wires.push(wire);
    }
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 20_000_000, "grown by {grown} bytes");
    assert_eq!(etna_tests::client::get(at, "a.test", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn who_dawdles_is_not_waited_for() {
    let (scene, a, proxy, at) = bed("h2slow").await;
    a.set(Manner::Page(200, "", LONG));
    let mut half_head = Wire::acknowledged(at).await;
    half_head.send(&get(1, "a.test", "/")[..20]).await.unwrap();
    // Beside it, a request that is answered.
    let mut open_head = Wire::acknowledged(at).await;
    let begun = frame(HEADERS, END_STREAM, 3, &request("GET", "a.test", "/"));
    open_head.send(&[get(1, "a.test", "/"), begun].concat()).await.unwrap();
    assert_eq!(open_head.outcome(1).await, Outcome::Status(200));
    let mut no_body = Wire::open(at).await;
    no_body.send(&frame(HEADERS, END_HEADERS, 1, &request("POST", "a.test", "/"))).await.unwrap();
    let mut no_reader = Wire::open(at).await;
    no_reader.send(&[frame(SETTINGS, 0, 0, &setting(4, 10)), get(1, "a.test", "/")].concat()).await.unwrap();
    assert_eq!(no_reader.outcome(1).await, Outcome::Status(200));
    // Who may not send is not slow: what others of its connection sent fills the window.
    let stuck = TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.put(&server_key("stuck", "s"), server_at(stuck.local_addr().unwrap())).await;
    proxy.until_revision(scene.put(&frontend_key("stuck"), frontend("Host(`stuck.test`)", "stuck")).await).await;
    let mut starving = Wire::acknowledged(at).await;
    for stream in [1, 3, 5, 7] {
        let head = frame(HEADERS, END_HEADERS, stream, &request("POST", "stuck.test", "/"));
        starving.send(&head).await.unwrap();
    }
    starving.fill(&[1, 3, 5, 7]).await;
    starving.send(&frame(HEADERS, END_HEADERS, 9, &request("POST", "a.test", "/"))).await.unwrap();
    let long = Duration::from_secs(60);
    let (half_head, open_head, no_body, no_reader, starved) = tokio::join!(
        half_head.outcome_within(1, long),
        open_head.outcome_within(3, long),
        no_body.outcome_within(1, long),
        no_reader.outcome_within(1, long),
        starving.outcome_within(9, Duration::from_secs(25)),
    );
    assert_eq!((half_head, open_head), (Outcome::GoAway(NO_ERROR), Outcome::GoAway(NO_ERROR)));
    assert_eq!(no_body, Outcome::Status(408));
    assert_eq!(no_reader, Outcome::Reset(8));
    assert_eq!(starved, Outcome::Silence);
    drop((stuck, starving));
    eventually("nothing is left", SOON, async || {
        let open = proxy.metrics().await.sum("etna_http2_streams", &[]);
        ensure(open == Some(0.0), format!("{open:?}"))
    })
    .await;
}

const LONG: &str = "a page that is longer than ten bytes";
const SOON: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);
