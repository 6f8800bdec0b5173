//! Header fields: what is for one hop stays there, what strangers claim is replaced, framing is never copied.

use etna_tests::client::{Connection, raw, request};
use etna_tests::scene::Scene;
use etna_tests::stand_in::{Manner, StandIn};
use http_body_util::Full;
use serde_json::Value;

/// What the server got under a name, all values.
fn got<'a>(body: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = body["headers"].as_array().expect("a stand-in lists what it got");
    fields.iter().filter(|field| field[0] == name).filter_map(|field| field[1].as_str()).collect()
}

#[tokio::test]
async fn what_a_stranger_claims_is_replaced() {
    let scene = Scene::open("strangers").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    let asked = request("GET", "a.test:8181", "/")
        .header("x-forwarded-for", "203.0.113.9")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "evil.test")
        .header("x-forwarded-prefix", "/evil")
        .header("x-real-ip", "203.0.113.9")
        .header("forwarded", "for=203.0.113.9;proto=https")
        .header("proxy", "http://evil.test")
        .header("x_forwarded_proto", "https")
        .header("x-accel-redirect", "/secret")
        .header("x-own", "kept")
        .body(Full::default())
        .unwrap();
    let body = Connection::open(proxy.listen).await.unwrap().send(asked).await.unwrap().json();
    assert_eq!(got(&body, "host"), ["a.test:8181"]);
    assert_eq!(got(&body, "x-own"), ["kept"]);
    assert_eq!(got(&body, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(got(&body, "x-forwarded-proto"), ["http"]);
    assert_eq!(got(&body, "x-forwarded-host"), ["a.test:8181"]);
    assert_eq!(got(&body, "x-real-ip"), ["127.0.0.1"]);
    for name in ["x-forwarded-prefix", "proxy", "x_forwarded_proto", "x-accel-redirect"] {
        assert_eq!(got(&body, name), Vec::<&str>::new(), "{name}");
    }
    assert!(got(&body, "forwarded").iter().all(|value| !value.contains("203.0.113.9")), "{body}");
}

#[tokio::test]
async fn what_a_trusted_proxy_says_is_kept_and_extended() {
    let scene = Scene::open("trusted").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy_with("etna", &["--trusted-proxies", "127.0.0.0/8"]).await;
    let asked = request("GET", "a.test", "/")
        .header("x-forwarded-for", "203.0.113.9")
        .header("x-forwarded-proto", "https")
        .body(Full::default())
        .unwrap();
    let body = Connection::open(proxy.listen).await.unwrap().send(asked).await.unwrap().json();
    assert_eq!(got(&body, "x-forwarded-for"), ["203.0.113.9, 127.0.0.1"]);
    assert_eq!(got(&body, "x-forwarded-proto"), ["https"]);
}

#[tokio::test]
async fn fields_for_one_hop_are_not_passed_on() {
    let scene = Scene::open("hops").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    let asked = request("GET", "a.test", "/")
        .header("connection", "keep-alive, x-mine, x-forwarded-for")
        .header("x-mine", "1")
        .header("keep-alive", "timeout=1")
        .header("te", "gzip")
        .header("upgrade", "h2c")
        .header("proxy-authorization", "secret")
        .body(Full::default())
        .unwrap();
    let body = Connection::open(proxy.listen).await.unwrap().send(asked).await.unwrap().json();
    for name in ["x-mine", "keep-alive", "te", "upgrade", "proxy-authorization"] {
        assert_eq!(got(&body, name), Vec::<&str>::new(), "{name}");
    }
    // Nominated by the client, but ours.
    assert_eq!(got(&body, "x-forwarded-for"), ["127.0.0.1"]);

    a.set(Manner::Header("keep-alive", "timeout=5"));
    let answer = proxy.get("a.test", "/").await.unwrap();
    assert_eq!((answer.status, answer.header("keep-alive")), (200, ""));
}

#[tokio::test]
async fn ambiguous_requests_never_reach_a_server() {
    let scene = Scene::open("ambiguous").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    for head in [
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\n folded: x\r\n\r\n",
        "GET / HTTP/1.1\nHost: a.test\n\n",
    ] {
        let before = a.requests();
        let answer = raw(proxy.listen, head.as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let refused = (status.starts_with('4') || status == "501") && answer.contains("\r\nconnection: close\r\n");
        assert!(refused && a.requests() == before, "{head:?}: {answer:?}");
    }
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 200);
}
