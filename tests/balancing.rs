//! Which server answers: weights, policies, tiers, drains, stickiness.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use etna_tests::client::{Answer, Connection, request};
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::wait::{ensure, eventually};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

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
    eventually("a is busy", SOON, async || ensure(a.requests() > before, "not yet")).await;
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

#[tokio::test]
async fn a_sticky_client_whose_server_dies_moves_once() {
    let scene = Scene::open("stickymoves").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    scene.put("backends/b/backend", json!({"Type": "http", "Sticky": {}})).await;
    scene.route("b", "a.test", &[("a", a.address), ("b", b.address)]).await;
    let proxy = scene.proxy("etna").await;
    let first = proxy.get("a.test", "/").await.unwrap();
    let (dying, staying) = if first.server() == "a" { (a, "b") } else { (b, "a") };
    drop(dying);
    let moved = with_cookie(&proxy, &cookie(&first)).await;
    assert_eq!((moved.status, moved.server()), (200, staying));
    let stays = with_cookie(&proxy, &cookie(&moved)).await;
    assert_eq!((stays.server(), stays.header("set-cookie")), (staying, ""));
}

#[tokio::test]
async fn a_draining_server_lets_its_clients_go_in_the_end() {
    let scene = Scene::open("draintime").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    const DRAIN: Duration = Duration::from_secs(2);
    scene.put("backends/b/backend", json!({"Type": "http", "Sticky": {}, "DrainTimeout": "2s"})).await;
    scene.route("b", "a.test", &[("a", a.address), ("b", b.address)]).await;
    let proxy = scene.proxy("etna").await;
    let first = proxy.get("a.test", "/").await.unwrap();
    let id = first.server().to_owned();
    let drained = if id == "a" { &a } else { &b };
    let began = Instant::now();
    let revision = scene.put(&server_key("b", &id), server(drained, json!({"State": "draining"}))).await;
    proxy.until_revision(revision).await;
    let stays = with_cookie(&proxy, &cookie(&first)).await;
    // Unless the machine stood still for that long.
    assert!(stays.server() == id || began.elapsed() >= DRAIN, "{stays:?} after {:?}", began.elapsed());
    let moved = eventually("the client is let go", SOON, async || {
        let answer = with_cookie(&proxy, &cookie(&first)).await;
        if answer.server() == id { Err("it is still there") } else { Ok(answer) }
    })
    .await;
    assert!(!cookie(&moved).is_empty());
}

#[tokio::test]
async fn a_new_server_starts_slowly_and_explain_says_so() {
    let scene = Scene::open("slowstart").await;
    let servers = [StandIn::start("a").await, StandIn::start("b").await, StandIn::start("c").await];
    for (id, slow_start) in [("slow", "10m"), ("quick", "0s")] {
        scene.put(&format!("backends/{id}/backend"), json!({"Type": "http", "SlowStart": slow_start})).await;
        let old = [("a", servers[0].address), ("b", servers[1].address)];
        scene.route(id, &format!("{id}.test"), &old).await;
    }
    let proxy = scene.proxy("etna").await;
    assert!(spread(&proxy, "slow.test", 100).await.values().all(|count| *count == 50), "at the start nobody is new");
    let mut revision = 0;
    for id in ["slow", "quick"] {
        revision = scene.put(&server_key(id, "c"), server_at(servers[2].address)).await;
    }
    proxy.until_revision(revision).await;
    // While it has nothing to do, it takes whatever comes.
    let new = &servers[2];
    new.set(Manner::Hang);
    let hanging = tokio::spawn({
        let listen = proxy.listen;
        async move { while etna_tests::client::get(listen, "slow.test", "/").await.is_ok() {} }
    });
    eventually("the new server is busy", SOON, async || ensure(new.requests() == 1, "not yet")).await;
    new.set(Manner::Answer);
    let slow = spread(&proxy, "slow.test", 300).await;
    // A tenth of a third is ten.
    assert!((1..40).contains(slow.get("c").unwrap_or(&0)), "{slow:?}");
    assert_eq!(spread(&proxy, "quick.test", 300).await["c"], 100);
    hanging.abort();
    let explained = proxy.json("/v3/explain?url=http://slow.test/").await;
    assert_eq!(explained["balancing"]["slow_start"], "10m0s");
    let new = explained["servers"].as_array().unwrap().iter().find(|server| server["id"] == "c").unwrap();
    assert!(new["share"].as_f64().unwrap() < 0.2, "{new}");
}

#[tokio::test]
async fn servers_of_the_own_zone_are_preferred_while_they_can_be_reached() {
    let scene = Scene::open("serverzone").await;
    let (near, far) = (StandIn::start("near").await, StandIn::start("far").await);
    scene.put(&server_key("b", "near"), server(&near, json!({"Zone": "east"}))).await;
    scene.put(&server_key("b", "far"), server(&far, json!({"Zone": "west"}))).await;
    scene.put(&frontend_key("f"), frontend("Host(`a.test`)", "b")).await;
    let proxy = scene.proxy_with("etna", &["--zone", "east"]).await;
    assert_eq!(spread(&proxy, "a.test", 20).await, BTreeMap::from([("near".into(), 20)]));
    let elsewhere = scene.proxy("elsewhere").await;
    assert_eq!(spread(&elsewhere, "a.test", 20).await.len(), 2);
    drop(near);
    assert_eq!(spread(&proxy, "a.test", 20).await, BTreeMap::from([("far".into(), 20)]));
}

#[tokio::test]
async fn a_key_goes_to_the_same_server_at_every_proxy() {
    let scene = Scene::open("hash").await;
    let mut servers = Vec::new();
    scene.put("backends/b/backend", json!({"Type": "http", "Policy": "hash", "HashOn": "header:X-Tenant"})).await;
    for id in ["a", "b", "c", "d"] {
        let server = StandIn::start(id).await;
        scene.put(&server_key("b", id), server_at(server.address)).await;
        servers.push(server);
    }
    scene.put(&frontend_key("f"), frontend("Host(`a.test`)", "b")).await;
    let proxies = [scene.proxy("etna-1").await, scene.proxy("etna-2").await];
    let before = tenants(&proxies[0]).await;
    assert_eq!(before, tenants(&proxies[1]).await);
    assert_eq!(before.values().collect::<std::collections::BTreeSet<_>>().len(), 4, "{before:?}");
    let revision = scene.delete(&server_key("b", "c")).await;
    proxies[0].until_revision(revision).await;
    for (tenant, server) in tenants(&proxies[0]).await {
        assert_ne!(server, "c");
        assert!(before[&tenant] == server || before[&tenant] == "c", "{tenant} moved without need");
    }
}

/// Which server serves each of some tenants.
async fn tenants(proxy: &Proxy) -> BTreeMap<usize, String> {
    let mut connection = Connection::open(proxy.listen).await.unwrap();
    let mut servers = BTreeMap::new();
    for tenant in 0..40 {
        let asked = request("GET", "a.test", "/").header("x-tenant", format!("tenant-{tenant}")).body(Full::default());
        servers.insert(tenant, connection.send(asked.unwrap()).await.unwrap().server().to_owned());
    }
    servers
}

#[tokio::test]
async fn the_faster_server_gets_more() {
    let scene = Scene::open("ewma").await;
    let (quick, slow) = (StandIn::start("quick").await, StandIn::start("slow").await);
    // By far more than the other one is held up by whatever else the machine does.
    slow.set(Manner::Slow(Duration::from_millis(500)));
    scene.put("backends/b/backend", json!({"Type": "http", "Policy": "ewma"})).await;
    scene.route("b", "a.test", &[("quick", quick.address), ("slow", slow.address)]).await;
    let proxy = scene.proxy("etna").await;
    let spread = spread(&proxy, "a.test", 200).await;
    assert!(spread["quick"] > 160, "{spread:?}");
}

#[tokio::test]
async fn a_server_is_never_given_more_than_its_limit() {
    let scene = Scene::open("serverlimit").await;
    let a = StandIn::start("a").await;
    let limit = json!({"Requests": 2, "Queue": 3, "Wait": "20s"});
    scene.put("backends/b/backend", json!({"Type": "http", "Limit": limit})).await;
    scene.route("b", "a.test", &[("a", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    a.set(Manner::Hang);
    let ask = || {
        let listen = proxy.listen;
        tokio::spawn(async move { etna_tests::client::get(listen, "a.test", "/").await })
    };
    let hanging = [ask(), ask()];
    eventually("both places are taken", SOON, async || ensure(a.requests() == 2, "not yet")).await;
    let waiting = [ask(), ask(), ask()];
    eventually("three wait", SOON, async || {
        let waiting = proxy.metrics().await.sum("etna_backend_queue", &[("backend", "b")]);
        ensure(waiting == Some(3.0), format!("{waiting:?}"))
    })
    .await;
    let refused = proxy.get("a.test", "/").await.unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    let explained = proxy.json("/v3/explain?url=http://a.test/").await;
    assert_eq!(explained["balancing"]["limit"]["waiting"], 3, "{explained}");
    assert_eq!(a.requests(), 2);
    // Those who leave make room for those who wait.
    a.set(Manner::Answer);
    hanging.into_iter().for_each(|asking| asking.abort());
    for asked in waiting {
        assert_eq!(asked.await.unwrap().unwrap().status, 200);
    }
    let full = proxy.metrics().await.sum("etna_backend_queued_total", &[("outcome", "full")]);
    assert_eq!(full, Some(1.0));
}

#[tokio::test]
async fn nobody_waits_for_longer_than_is_said() {
    let scene = Scene::open("waits").await;
    let a = StandIn::start("a").await;
    scene.put("backends/b/backend", json!({"Type": "http", "Limit": {"Requests": 1, "Wait": "100ms"}})).await;
    scene.route("b", "a.test", &[("a", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    a.set(Manner::Hang);
    let listen = proxy.listen;
    let hanging = tokio::spawn(async move { etna_tests::client::get(listen, "a.test", "/").await });
    eventually("the place is taken", SOON, async || ensure(a.requests() == 1, "not yet")).await;
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 503);
    assert_eq!(proxy.metrics().await.sum("etna_backend_queued_total", &[("outcome", "expired")]), Some(1.0));
    hanging.abort();
}

#[tokio::test]
async fn who_waits_is_served_by_what_its_backend_has_become() {
    let scene = Scene::open("waitschange").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    let limit = |requests| json!({"Type": "http", "Limit": {"Requests": requests, "Queue": 100, "Wait": "10m"}});
    scene.put("backends/b/backend", limit(1)).await;
    scene.route("b", "a.test", &[("a", a.address)]).await;
    let proxy = scene.proxy("etna").await;

    // Another server takes the place of the one they wait for, which is as busy as before.
    let mut line = Line::at(&proxy, &a).await;
    let there = (server_key("b", "b"), Some(server_at(b.address)));
    scene.change(vec![there, (server_key("b", "a"), None)]).await;
    line.is_answered_by("b").await;
    drop(line);

    // The only one begins to drain.
    let mut line = Line::at(&proxy, &b).await;
    let revision = scene.put(&server_key("b", "b"), server(&b, json!({"State": "draining"}))).await;
    proxy.until_revision(revision).await;
    line.held.abort();
    line.is_answered_by("b").await;
    // All drain already.
    let mut line = Line::at(&proxy, &b).await;
    line.held.abort();
    line.is_answered_by("b").await;

    // It may be given more.
    let mut line = Line::at(&proxy, &b).await;
    scene.put("backends/b/backend", limit(2)).await;
    line.is_answered_by("b").await;
    let revision = scene.put("backends/b/backend", limit(1)).await;
    drop(line);
    proxy.until_revision(revision).await;

    // It has no server any more: nobody waits for what will not come.
    let mut line = Line::at(&proxy, &b).await;
    scene.delete(&server_key("b", "b")).await;
    for asked in line.waiting.drain(..) {
        let answer = asked.await.unwrap().unwrap();
        assert_eq!((answer.status, answer.text().contains("server")), (503, true), "{}", answer.text());
    }
    drop(line);

    // It is deleted, and where it was leads to another one.
    let revision = scene.put(&server_key("b", "b"), server_at(b.address)).await;
    proxy.until_revision(revision).await;
    let mut line = Line::at(&proxy, &b).await;
    scene.put(&server_key("other", "a"), server_at(a.address)).await;
    let leads_there = (frontend_key("b"), Some(frontend("Host(`a.test`)", "other")));
    let gone = ["backends/b/backend".to_owned(), server_key("b", "b")].map(|key| (key, None));
    scene.change(gone.into_iter().chain([leads_there]).collect()).await;
    line.is_answered_by("a").await;
}

/// A request that keeps a server busy, and others that wait for it.
struct Line {
    held: JoinHandle<Result<Answer, String>>,
    waiting: Vec<JoinHandle<Result<Answer, String>>>,
}

impl Line {
    async fn at(proxy: &Proxy, server: &StandIn) -> Line {
        let listen = proxy.listen;
        let ask = || tokio::spawn(async move { etna_tests::client::get(listen, "a.test", "/").await });
        server.set(Manner::Hang);
        let before = server.requests();
        let held = ask();
        eventually("the place is taken", SOON, async || ensure(server.requests() > before, "not yet")).await;
        let waiting: Vec<_> = (0..3).map(|_| ask()).collect();
        eventually("three wait", SOON, async || {
            let waiting = proxy.metrics().await.sum("etna_backend_queue", &[("backend", "b")]);
            ensure(waiting == Some(3.0), format!("{waiting:?}"))
        })
        .await;
        server.set(Manner::Answer);
        Line { held, waiting }
    }

    async fn is_answered_by(&mut self, server: &str) {
        for asked in self.waiting.drain(..) {
            let answer = tokio::time::timeout(SOON, asked).await.expect("it is answered soon").unwrap().unwrap();
            assert_eq!((answer.status, answer.server()), (200, server), "{}", answer.text());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.held.abort();
    }
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

const SOON: Duration = Duration::from_secs(20);
