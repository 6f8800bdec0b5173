//! Which server answers: weights, policies, tiers, drains, stickiness.

use std::collections::BTreeMap;
use std::time::Duration;

use etna_tests::client::{Answer, Connection, request};
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::wait::{ensure, eventually};
use http_body_util::Full;
use serde_json::{Value, json};

/// How often each server answers so many requests.
async fn spread(proxy: &Proxy, host: &str, requests: usize) -> BTreeMap<String, usize> {
    let mut connection = Connection::open(proxy.listen).await.unwrap();
    let mut spread = BTreeMap::new();
    for _ in 0..requests {
        let answer = connection.get(host, "/").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        *spread.entry(answer.server().to_owned()).or_default() += 1;
    }
    spread
}

fn server(server: &StandIn, more: Value) -> Value {
    let mut value = server_at(server.address);
    for (key, more) in more.as_object().expect("an object") {
        value[key] = more.clone();
    }
    value
}

#[tokio::test]
async fn round_robin_keeps_weights_exactly() {
    let scene = Scene::open("weights").await;
    let (a, b, c) = (StandIn::start("a").await, StandIn::start("b").await, StandIn::start("c").await);
    scene.put("backends/b/backend", json!({"Type": "http", "Policy": "wrr"})).await;
    scene.put(&server_key("b", "a"), server(&a, json!({"Weight": 5}))).await;
    scene.put(&server_key("b", "b"), server(&b, json!({"Weight": 1}))).await;
    scene.put(&server_key("b", "c"), server(&c, json!({"Weight": 0}))).await;
    scene.put(&frontend_key("f"), frontend("Host(`a.test`)", "b")).await;
    let proxy = scene.proxy_with("etna", &["--workers", "1"]).await;
    assert_eq!(spread(&proxy, "a.test", 60).await, BTreeMap::from([("a".into(), 50), ("b".into(), 10)]));
}

#[tokio::test]
async fn two_choices_avoid_the_server_that_is_busy() {
    let scene = Scene::open("choices").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    scene.put("backends/b/backend", json!({"Type": "http", "Policy": "p2c"})).await;
    scene.route("b", "a.test", &[("a", a.address), ("b", b.address)]).await;
    let proxy = scene.proxy("etna").await;
    let idle = spread(&proxy, "a.test", 100).await;
    assert!(idle.values().all(|count| *count > 20), "{idle:?}");
    a.set(Manner::Hang);
    let before = a.requests();
    // One after the other on one connection, so that nothing is in flight at b when one of them hangs at a.
    let mut connection = Connection::open(proxy.listen).await.unwrap();
    let asking = tokio::spawn(async move { while connection.get("a.test", "/").await.is_ok() {} });
    eventually("a is busy", Duration::from_secs(5), async || ensure(a.requests() > before, "not yet")).await;
    let busy = spread(&proxy, "a.test", 40).await;
    assert_eq!(busy, BTreeMap::from([("b".into(), 40)]));
    asking.abort();
}

#[tokio::test]
async fn a_higher_tier_serves_only_when_no_lower_one_can() {
    let scene = Scene::open("tiers").await;
    let (near, far) = (StandIn::start("near").await, StandIn::start("far").await);
    scene.put(&server_key("b", "near"), server(&near, json!({"Priority": 1}))).await;
    scene.put(&server_key("b", "far"), server(&far, json!({"Priority": 2}))).await;
    scene.put(&frontend_key("f"), frontend("Host(`a.test`)", "b")).await;
    let proxy = scene.proxy("etna").await;
    assert_eq!(spread(&proxy, "a.test", 6).await, BTreeMap::from([("near".into(), 6)]));
    // Nobody listens there any more: the next tier is asked, and the client does not notice.
    drop(near);
    assert_eq!(spread(&proxy, "a.test", 6).await, BTreeMap::from([("far".into(), 6)]));
}

#[tokio::test]
async fn a_draining_server_keeps_its_clients_and_gets_no_others() {
    let scene = Scene::open("drainingserver").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    scene.put("backends/b/backend", json!({"Type": "http", "Sticky": {}})).await;
    scene.route("b", "a.test", &[("a", a.address), ("b", b.address)]).await;
    let proxy = scene.proxy("etna").await;
    let first = proxy.get("a.test", "/").await.unwrap();
    let (drained, other) = if first.server() == "a" { (&a, "b") } else { (&b, "a") };
    let id = first.server().to_owned();
    let revision = scene.put(&server_key("b", &id), server(drained, json!({"State": "draining"}))).await;
    proxy.until_revision(revision).await;
    assert_eq!(spread(&proxy, "a.test", 6).await, BTreeMap::from([(other.to_owned(), 6)]));
    assert_eq!(with_cookie(&proxy, &cookie(&first)).await.server(), id);
    // Without any other, it is better than nothing.
    let revision = scene.delete(&server_key("b", other)).await;
    proxy.until_revision(revision).await;
    assert_eq!(proxy.get("a.test", "/").await.unwrap().server(), id);
}

#[tokio::test]
async fn a_cookie_sticks_to_one_server_at_every_proxy() {
    let scene = Scene::open("sticky").await;
    let mut servers = Vec::new();
    scene.put("backends/b/backend", json!({"Type": "http", "Sticky": {"Cookie": "stay"}})).await;
    for id in ["alpha", "beta", "gamma"] {
        let server = StandIn::start(id).await;
        scene.put(&server_key("b", id), server_at(server.address)).await;
        servers.push((id, server));
    }
    scene.put(&frontend_key("f"), frontend("Host(`a.test`)", "b")).await;
    let proxies = [scene.proxy("etna-1").await, scene.proxy("etna-2").await, scene.proxy("etna-3").await];
    let first = proxies[0].get("a.test", "/").await.unwrap();
    let set = first.header("set-cookie");
    assert!(set.starts_with("stay=") && set.contains("HttpOnly") && set.contains("SameSite=Lax"), "{set}");
    assert!(!set.contains("Secure") && !set.contains("127.0.0.1") && !set.contains(first.server()), "{set}");
    let cookie = cookie(&first);
    for proxy in proxies.iter().cycle().take(9) {
        let answer = with_cookie(proxy, &cookie).await;
        assert_eq!(answer.server(), first.server());
        assert_eq!(answer.header("set-cookie"), "", "it is not set again");
    }
    // Its server goes: another one takes over, and says so.
    let revision = scene.delete(&server_key("b", first.server())).await;
    for proxy in &proxies {
        proxy.until_revision(revision).await;
    }
    let moved = with_cookie(&proxies[1], &cookie).await;
    assert_ne!(moved.server(), first.server());
    let cookie = self::cookie(&moved);
    assert_eq!(with_cookie(&proxies[2], &cookie).await.server(), moved.server());
    assert_eq!(with_cookie(&proxies[0], "stay=made-up").await.status, 200);
}

fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie");
    assert!(!set.is_empty(), "no cookie was set: {answer:?}");
    set.split(';').next().unwrap_or_default().to_owned()
}

async fn with_cookie(proxy: &Proxy, cookie: &str) -> Answer {
    let asked =
        request("GET", "a.test", "/").header("cookie", format!("other=1; {cookie}")).body(Full::default()).unwrap();
    Connection::open(proxy.listen).await.unwrap().send(asked).await.unwrap()
}
