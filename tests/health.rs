//! Servers that are ill: found by checks and by requests, left alone, taken back, and asked all the same when nobody is
//! well.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use etna_tests::client::{Connection, request};
use etna_tests::load::{Load, Plan};
use etna_tests::proxy::Proxy;
use etna_tests::report::measured;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::wait::{ensure, eventually};
use http_body_util::Full;
use serde_json::{Value, json};

/// How often each server answers, right or wrong, so many requests.
async fn spread(proxy: &Proxy, host: &str, requests: usize) -> BTreeMap<String, usize> {
    let mut connection = Connection::open(proxy.listen).await.unwrap();
    let mut spread = BTreeMap::new();
    for _ in 0..requests {
        let answer = connection.get(host, "/").await.unwrap();
        *spread.entry(answer.server().to_owned()).or_default() += 1;
    }
    spread
}

/// Waits until both of two servers answer: one that is back gets its share little by little.
async fn until_both(proxy: &Proxy, host: &str) {
    eventually("both answer", LONG, async || {
        let spread = spread(proxy, host, 20).await;
        ensure(spread.len() == 2, format!("{spread:?}"))
    })
    .await;
}

fn only(server: &str, requests: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([(server.to_owned(), requests)])
}

/// What the proxy says of a backend.
async fn health(proxy: &Proxy, backend: &str) -> Value {
    proxy.json(&format!("/v3/health?backend={backend}")).await["backends"][0].take()
}

/// What it says of one server.
async fn of(proxy: &Proxy, backend: &str, server: &str) -> Value {
    let health = health(proxy, backend).await;
    let servers = health["servers"].as_array().cloned().unwrap_or_default();
    servers.into_iter().find(|known| known["id"] == server).unwrap_or_else(|| panic!("no {server}: {health}"))
}

async fn until(proxy: &Proxy, backend: &str, server: &str, word: &str, reason: &str) -> Value {
    eventually(&format!("{server} is {word}: {reason}"), LONG, async || {
        let known = of(proxy, backend, server).await;
        ensure(known["health"] == word && known["reason"] == reason, known.to_string()).map(|()| known)
    })
    .await
}

fn backend(check: Value) -> Value {
    json!({ "Type": "http", "HealthCheck": check })
}

fn quick(more: Value) -> Value {
    let mut check = json!({ "Path": "/healthz", "Interval": "100ms", "Timeout": "5s", "Rise": 2, "Fall": 2 });
    for (name, value) in more.as_object().expect("an object") {
        check[name] = value.clone();
    }
    check
}

#[tokio::test]
async fn a_server_whose_check_fails_gets_nothing_until_it_is_well() {
    let scene = Scene::open("check").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    scene.put("backends/b/backend", backend(quick(json!({ "Expect": [200] })))).await;
    scene.route("b", "a.test", &[("a", a.address), ("b", b.address)]).await;
    let proxy = scene.proxy("etna").await;
    until(&proxy, "b", "a", "up", "ok").await;
    until(&proxy, "b", "b", "up", "ok").await;
    a.set(Manner::Status(404));
    let known = until(&proxy, "b", "a", "down", "status").await;
    assert_eq!((&known["serving"], &known["detail"]), (&json!(false), &json!("answered 404")));
    assert_eq!(spread(&proxy, "a.test", 20).await, only("b", 20));
    let explained = proxy.json("/v3/explain?url=http://a.test/").await;
    assert_eq!(explained["servers"][0]["id"], "b");
    assert_eq!(
        (&explained["servers"][1]["health"], &explained["servers"][1]["reason"]),
        (&json!("down"), &json!("status"))
    );
    assert_eq!(explained["servers"][1]["note"], "not asked while another is well");
    assert_eq!(explained["balancing"]["panic"], false);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("etna_server_up", &[("server", "a")]), Some(0.0));
    assert_eq!(metrics.sum("etna_server_up", &[("server", "b")]), Some(1.0));
    assert!(metrics.sum("etna_health_checks_total", &[("result", "status")]) >= Some(2.0));
    assert_eq!(proxy.json("/v3/status").await["health"]["not_well"], 1);
    proxy.until_said("server is ill").await;
    a.set(Manner::Answer);
    until(&proxy, "b", "a", "up", "ok").await;
    until_both(&proxy, "a.test").await;
    // Without a check nobody is doubted any more.
    a.set(Manner::Status(404));
    until(&proxy, "b", "a", "down", "status").await;
    proxy.until_revision(scene.put("backends/b/backend", json!({ "Type": "http" })).await).await;
    assert_eq!(of(&proxy, "b", "a").await["health"], "unchecked");
    let explained = proxy.json("/v3/explain?url=http://a.test/").await;
    assert_eq!(explained["servers"][0]["reason"], json!(null), "{explained}");
}

#[tokio::test]
async fn a_server_whose_page_lacks_a_word_is_ill_and_a_port_can_be_enough() {
    let scene = Scene::open("body").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    a.set(Manner::Page(200, "", "<html></html>"));
    scene.put("backends/b/backend", backend(quick(json!({ "Body": "\"server\"" })))).await;
    scene.route("b", "a.test", &[("a", a.address), ("b", b.address)]).await;
    scene.put("backends/t/backend", backend(json!({ "Type": "tcp", "Interval": "100ms", "Fall": 1 }))).await;
    scene.route("t", "t.test", &[("a", a.address), ("b", b.address)]).await;
    let proxy = scene.proxy("etna").await;
    until(&proxy, "b", "a", "down", "body").await;
    until(&proxy, "b", "b", "up", "ok").await;
    assert_eq!(spread(&proxy, "a.test", 20).await, only("b", 20));
    until(&proxy, "t", "a", "up", "ok").await;
    until(&proxy, "t", "b", "up", "ok").await;
    until_both(&proxy, "t.test").await;
    drop(a);
    until(&proxy, "t", "a", "down", "unreachable").await;
}

#[tokio::test]
async fn a_new_server_is_used_once_it_was_found_well() {
    let scene = Scene::open("newserver").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    // The interval is long: a new server is not kept waiting for it.
    const INTERVAL: Duration = Duration::from_secs(30);
    scene.put("backends/b/backend", backend(json!({ "Interval": "30s" }))).await;
    scene.route("b", "a.test", &[("b", b.address)]).await;
    let proxy = scene.proxy("etna").await;
    // Nobody else: it is used before it is known.
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 200);
    until(&proxy, "b", "b", "up", "ok").await;
    a.set(Manner::Status(500));
    proxy.until_revision(scene.put(&server_key("b", "a"), server_at(a.address)).await).await;
    assert_eq!(spread(&proxy, "a.test", 20).await, only("b", 20));
    until(&proxy, "b", "a", "starting", "status").await;
    a.set(Manner::Answer);
    let began = Instant::now();
    until(&proxy, "b", "a", "up", "ok").await;
    assert!(began.elapsed() < INTERVAL, "{:?}", began.elapsed());
    until_both(&proxy, "a.test").await;
}

#[tokio::test]
async fn a_server_that_fails_requests_is_left_alone_and_tried_again() {
    let scene = Scene::open("ejected").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    scene.route("b", "a.test", &[("a", a.address), ("b", b.address)]).await;
    let proxy = scene.proxy("etna").await;
    a.set(Manner::Status(503));
    eventually("it is ejected", SOON, async || {
        spread(&proxy, "a.test", 2).await;
        let known = of(&proxy, "b", "a").await;
        ensure(known["health"] == "ejected" && known["reason"] == "gateway", known.to_string())
    })
    .await;
    let asked = a.requests();
    assert_eq!(spread(&proxy, "a.test", 50).await, only("b", 50));
    assert_eq!(a.requests(), asked);
    assert_eq!(asked, 5, "five failures in a row");
    assert_eq!(proxy.metrics().await.sum("etna_server_ejections_total", &[("server", "a")]), Some(1.0));
    proxy.until_said("server ejected").await;
    a.set(Manner::Answer);
    let began = Instant::now();
    eventually("it is back", LONG, async || {
        spread(&proxy, "a.test", 4).await;
        let known = of(&proxy, "b", "a").await;
        ensure(known["serving"] == true, known.to_string())
    })
    .await;
    measured(&format!("an ejected server was back after {:.1?}", began.elapsed()));
    proxy.until_said("server is back").await;
    until_both(&proxy, "a.test").await;
}

#[tokio::test]
async fn the_last_server_and_half_of_them_are_never_left_alone() {
    let scene = Scene::open("last").await;
    let (a, b, c) = (StandIn::start("a").await, StandIn::start("b").await, StandIn::start("c").await);
    [&a, &b, &c].into_iter().for_each(|server| server.set(Manner::Status(503)));
    scene.route("one", "one.test", &[("a", a.address)]).await;
    scene.route("three", "three.test", &[("a", a.address), ("b", b.address), ("c", c.address)]).await;
    let proxy = scene.proxy("etna").await;
    assert_eq!(spread(&proxy, "one.test", 30).await, only("a", 30));
    assert_eq!(of(&proxy, "one", "a").await["serving"], true);
    spread(&proxy, "three.test", 60).await;
    let known = health(&proxy, "three").await;
    assert_eq!((&known["serving"], &known["panic"]), (&json!(2), &json!(false)), "{known}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_costs_what_it_was_asked_and_no_more() {
    let scene = Scene::alone("hangs").await;
    let (a, b, c) = (StandIn::start("a").await, StandIn::start("b").await, StandIn::start("c").await);
    scene.put("backends/b/backend", json!({ "Type": "http", "Settings": { "Timeouts": { "Read": "1s" } } })).await;
    scene.route("b", "a.test", &[("a", a.address), ("b", b.address), ("c", c.address)]).await;
    let proxy = scene.proxy("etna").await;
    let load = Load::start(Plan {
        to: vec![proxy.listen],
        rate: 200,
        connections: 100,
        request: |host, n| request("GET", host, "/").header("x-test-id", n).body(Full::default()).unwrap(),
        host: "a.test".into(),
        check: |_, answer| if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) },
    });
    load.more(100).await;
    a.set(Manner::Hang);
    let hung = Instant::now();
    until(&proxy, "b", "a", "ejected", "timeout").await;
    let ejected = hung.elapsed();
    load.more(100).await;
    let asked = a.requests();
    load.more(100).await;
    assert_eq!(a.requests(), asked, "nobody asks it");
    a.set(Manner::Answer);
    let thawed = Instant::now();
    until(&proxy, "b", "a", "unchecked", "ok").await;
    let back = thawed.elapsed();
    let report = load.stop().await;
    measured(&format!("hung: ejected after {ejected:.1?}, back after {back:.1?}; {}", report.summary()));
    // A third of the requests until it was ejected, and of those that had been sent to it by then.
    let most = 200.0 / 3.0 * (ejected.as_secs_f64() + 1.0) + 20.0;
    assert!((report.wrong.len() as f64) < most, "{} failed, {most} may", report.wrong.len());
}

#[tokio::test]
async fn with_nobody_well_all_are_asked_and_that_is_shown() {
    let scene = Scene::open("panic").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    let gone = StandIn::start("gone").await;
    let port = gone.address.port();
    drop(gone);
    // The checks are wrong: they ask where nobody listens.
    scene.put("backends/b/backend", backend(quick(json!({ "Port": port })))).await;
    scene.route("b", "a.test", &[("a", a.address), ("b", b.address)]).await;
    let proxy = scene.proxy("etna").await;
    until(&proxy, "b", "a", "down", "unreachable").await;
    until(&proxy, "b", "b", "down", "unreachable").await;
    let mut connection = Connection::open(proxy.listen).await.unwrap();
    for _ in 0..40 {
        assert_eq!(connection.get("a.test", "/").await.unwrap().status, 200);
    }
    until_both(&proxy, "a.test").await;
    assert_eq!(health(&proxy, "b").await["panic"], true);
    assert_eq!(proxy.json("/v3/explain?url=http://a.test/").await["balancing"]["panic"], true);
    assert_eq!(proxy.json("/v3/status").await["health"]["panic"], json!(["b"]));
    assert_eq!(proxy.metrics().await.sum("etna_backend_panic", &[("backend", "b")]), Some(1.0));
    proxy.until_said("no server is well").await;
    proxy.until_revision(scene.put("backends/b/backend", backend(quick(json!({})))).await).await;
    until(&proxy, "b", "a", "up", "ok").await;
    proxy.until_said("a server is well again").await;
}

#[tokio::test]
async fn a_wordpress_site_is_checked_without_being_told() {
    let scene = Scene::open("wphealth").await;
    let database = "<h1>Error establishing a database connection</h1>";
    let public: [(&str, Manner, &str, &str); 8] = [
        ("well", Manner::Answer, "up", "ok"),
        ("blank", Manner::Page(200, "", "\n"), "down", "blank"),
        ("database", Manner::Page(500, "", database), "down", "database"),
        ("maintenance", Manner::Page(503, "600", "Briefly unavailable"), "down", "maintenance"),
        ("uninstalled", Manner::Page(302, "http://blog.test/wp-admin/install.php", ""), "down", "not-installed"),
        ("denied", Manner::Page(403, "", "Forbidden"), "down", "status"),
        ("silent", Manner::Hang, "down", "timeout"),
        ("broken", Manner::Close, "down", "broken"),
    ];
    let admin: [(&str, Manner, &str, &str); 2] = [
        ("closed", Manner::Page(403, "", "Forbidden"), "up", "ok"),
        ("mismatch", Manner::Page(302, "https://blog.test/wp-login.php", ""), "up", "scheme-mismatch"),
    ];
    let mut running = Vec::new();
    for (backend, servers) in [("pub", &public[..]), ("adm", &admin[..])] {
        for (id, manner, ..) in servers {
            let server = StandIn::start(id).await;
            server.set(manner.clone());
            scene.put(&server_key(backend, id), server_at(server.address)).await;
            running.push(server);
        }
    }
    let site = json!({ "Preset": "wordpress", "Hosts": ["blog.test"], "Public": "pub", "Admin": "adm" });
    scene.put("sites/blog", site).await;
    let proxy = scene.proxy("etna").await;
    for (backend, servers) in [("pub", &public[..]), ("adm", &admin[..])] {
        for (id, _, word, reason) in servers {
            let known = until(&proxy, backend, id, word, reason).await;
            assert_eq!(known["serving"], json!(*word == "up"), "{known}");
        }
    }
    assert_eq!(health(&proxy, "adm").await["check"]["path"], "/wp-login.php");
    assert_eq!(spread(&proxy, "blog.test", 20).await, only("well", 20));
    // With no public server left that is well, the admin containers serve its pages.
    running[0].set(Manner::Page(200, "", ""));
    proxy.until_revision(scene.delete(&server_key("adm", "mismatch")).await).await;
    until(&proxy, "pub", "well", "down", "blank").await;
    assert_eq!(proxy.get("blog.test", "/").await.unwrap().server(), "closed");
    // The backend's own word counts more than the site's.
    let off = json!({ "Type": "http", "HealthCheck": false });
    proxy.until_revision(scene.put("backends/pub/backend", off).await).await;
    assert_eq!(of(&proxy, "pub", "blank").await["health"], "unchecked");
}

#[tokio::test]
async fn a_check_that_cannot_be_read_is_a_problem_and_the_last_one_goes_on() {
    let scene = Scene::open("badcheck").await;
    let a = StandIn::start("a").await;
    scene.put("backends/b/backend", backend(quick(json!({})))).await;
    scene.route("b", "a.test", &[("a", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    until(&proxy, "b", "a", "up", "ok").await;
    proxy.until_revision(scene.put("backends/b/backend", backend(json!({ "Pfad": "/" }))).await).await;
    let problems = proxy.problems().await;
    assert_eq!(problems[0]["reason"], "unknown field \"HealthCheck.Pfad\"", "{problems:?}");
    assert_eq!(health(&proxy, "b").await["check"]["path"], "/healthz");
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn many_servers_are_checked_and_followed() {
    let scene = Scene::open("manychecks").await;
    let a = StandIn::start("a").await;
    // Every address of 127.0.0.0/8 is this machine's; nobody listens on most of these.
    let nobody = |n: u16| SocketAddr::from(([127, 9, (n / 250) as u8, (n % 250) as u8 + 1], 9));
    scene.put("backends/b/backend", backend(json!({ "Interval": "1s" }))).await;
    scene.put(&frontend_key("b"), frontend("Host(`a.test`)", "b")).await;
    let ill = (0..1_000).map(|n| (server_key("b", &format!("ill-{n}")), server_at(nobody(n))));
    scene.put_all(ill.chain([(server_key("b", "well"), server_at(a.address))])).await;
    let proxy = scene.proxy("etna").await;
    eventually("all were found as they are", LONG, async || {
        let known = health(&proxy, "b").await;
        let down =
            known["servers"].as_array().expect("a list").iter().filter(|server| server["health"] == "down").count();
        ensure(down == 1_000 && known["serving"] == 1, format!("{down} are down"))
    })
    .await;
    assert_eq!(spread(&proxy, "a.test", 20).await, only("a", 20));
    scene.delete_below("backends/b/servers/ill-").await;
    // So many at once are held until it was found that nobody answers there.
    eventually("they are believed to be gone", LONG, async || {
        let known = health(&proxy, "b").await;
        let left = known["servers"].as_array().expect("a list").len();
        ensure(left == 1, format!("{left} are left"))
    })
    .await;
    let before = proxy.metrics().await.sum("etna_health_checks_total", &[("result", "unreachable")]);
    until(&proxy, "b", "well", "up", "ok").await;
    let well = async || proxy.metrics().await.sum("etna_health_checks_total", &[("result", "ok")]).unwrap_or(0.0);
    let goal = well().await + 3.0;
    eventually("the one that is left is checked on", LONG, async || ensure(well().await >= goal, "not yet")).await;
    let after = proxy.metrics().await.sum("etna_health_checks_total", &[("result", "unreachable")]);
    assert!(
        after.unwrap_or(0.0) - before.unwrap_or(0.0) <= 300.0,
        "what is gone is still checked: {before:?} {after:?}"
    );
}

const SOON: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(40);
