//! Two tiers: an `etna` in front of three that announce themselves. They come and go under load, and the client's address
//! and scheme reach the server through both.

mod example;

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use etna_tests::binaries::binary;
use etna_tests::load::Load;
use etna_tests::process::output_of;
use etna_tests::proxy::Proxy;
use etna_tests::report::measured;
use etna_tests::scene::{Scene, frontend, frontend_key};
use etna_tests::stand_in::StandIn;
use etna_tests::wait::{always, ensure, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

/// Both tiers of a scene: the cores follow its prefix, the front one beside it.
struct Tiers {
    cores: Vec<Proxy>,
    front: Proxy,
    scene: Scene,
}

impl Tiers {
    async fn start(scene: Scene, flags: &[&str]) -> Tiers {
        let front = Proxy::start("front", &front_store(&scene), &[], scene.folder()).await;
        let mut cores = Vec::new();
        for n in 1..=3 {
            cores.push(start_core(&scene, n, flags).await);
        }
        let tiers = Tiers { cores, front, scene };
        let routed = tiers.put_front(&frontend_key("all"), frontend("PathRegexp(`/.*`)", "cores")).await;
        tiers.front.until_revision(routed).await;
        tiers.until_in_rotation().await;
        tiers
    }

    /// The servers that stand in the front's store: id, address, state.
    async fn announced(&self) -> Vec<(String, Value)> {
        let options = etcd_client::GetOptions::new().with_prefix();
        let below = format!("{}-front/backends/cores/servers/", self.scene.prefix);
        let client = self.scene.etcd.client().await;
        let answer = client.kv_client().get(below.clone(), Some(options)).await.expect("etcd answers");
        let id = |key: &[u8]| String::from_utf8_lossy(&key[below.len()..]).into_owned();
        answer.kvs().iter().map(|kv| (id(kv.key()), serde_json::from_slice(kv.value()).expect("JSON"))).collect()
    }

    async fn server(&self, id: &str) -> Option<Value> {
        self.announced().await.into_iter().find(|(its, _)| its == id).map(|(_, value)| value)
    }

    /// Puts an object into the front's store; the revision that wrote it.
    async fn put_front(&self, key: &str, value: Value) -> i64 {
        let key = format!("{}-front/{key}", self.scene.prefix);
        let client = self.scene.etcd.client().await;
        let response = client.kv_client().put(key, value.to_string(), None).await.expect("etcd takes a put");
        response.header().expect("etcd's answers have a header").revision()
    }

    /// Waits until the front gives requests to every core where it is now, and nobody drains.
    async fn until_in_rotation(&self) {
        eventually("the front serves through all cores", LONG, async || {
            let health = self.front.json("/v3/health?backend=cores").await;
            for core in &self.cores {
                let url = format!("http://{}", core.listen);
                let servers = health["backends"][0]["servers"].as_array().cloned().unwrap_or_default();
                let there = servers.iter().find(|server| server["url"] == url);
                ensure(there.is_some_and(|server| server["serving"] == true), format!("{url}: {health}"))?;
                let announced = self.announced().await;
                let up = announced.iter().any(|(_, value)| value["URL"] == url && value["State"].is_null());
                ensure(up, format!("{announced:?}"))?;
            }
            Ok::<_, String>(())
        })
        .await;
    }

    /// Waits until a core is unannounced.
    async fn until_gone(&self, id: &str, within: Duration) -> Duration {
        let began = Instant::now();
        eventually("it is unannounced", within, async || ensure(self.server(id).await.is_none(), "it is still there"))
            .await;
        began.elapsed()
    }
}

fn front_store(scene: &Scene) -> String {
    scene.etcd.store(&format!("{}-front", scene.prefix))
}

fn name(n: usize) -> String {
    format!("core-{n}")
}

/// Starts a core from a program of its own, with the state it had if it ran before.
async fn start_core(scene: &Scene, n: usize, more: &[&str]) -> Proxy {
    start_core_for(scene, n, TTL, more).await
}

/// The same, announced for longer than that.
async fn start_core_for(scene: &Scene, n: usize, ttl: Duration, more: &[&str]) -> Proxy {
    let program = scene.folder().join(format!("bin-{}", name(n)));
    if !program.exists() {
        std::fs::copy(binary("etna"), &program).expect("the program can be copied");
    }
    let (id, store, ttl) = (name(n), front_store(scene), ttl.as_secs().to_string());
    let mut flags = vec!["--announce", &id, "--announce-store", &store, "--announce-ttl", &ttl];
    flags.extend(["--trusted-proxies", "127.0.0.1/32"]);
    flags.extend(more);
    Proxy::start_upgradable(&id, &program, &scene.store(), &flags, scene.folder()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cores_that_restart_and_are_replaced_fail_nothing() {
    let scene = Scene::alone("tiers").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    scene.route("a", "a.test", &[("s1", a.address), ("s2", b.address)]).await;
    let mut tiers = Tiers::start(scene, &[]).await;
    eventually("all cores are listed", LONG, async || {
        let admin = format!("http://{}", tiers.cores[0].admin);
        let listed = output_of(Command::new(binary("etnactl")).args(["--admin", &admin, "proxies", "ls"]));
        ensure((1..=3).all(|n| listed.contains(&name(n))), listed)
    })
    .await;

    let load = Load::both(tiers.front.listen, [200, 40], 24);
    load[0].more(100).await;
    for n in 1..=3 {
        let core = &mut tiers.cores[n - 1];
        core.terminate();
        assert_eq!(core.end(LONG).await.code(), Some(0), "{}", core.said());
        assert_eq!(tiers.server(&name(n)).await, None, "it takes its leave");
        load[0].more(100).await;
        tiers.cores[n - 1] = start_core(&tiers.scene, n, &[]).await;
        tiers.until_in_rotation().await;
        load[0].more(100).await;
    }
    for n in 1..=3 {
        let former = tiers.cores[n - 1].upgrade().await;
        let pid = tiers.cores[n - 1].pid().to_string();
        let told = async || {
            let server = tiers.server(&name(n)).await.expect("it is announced all the time");
            ensure(server["Meta"]["pid"] == pid.as_str(), server.to_string())
        };
        eventually("the next process is announced", LONG, told).await;
        assert_ne!(former.to_string(), pid);
        load[0].more(100).await;
    }
    // The former ones' leases are the next ones'.
    always("they stay", TTL * 2, async || ensure(tiers.announced().await.len() == 3, "one is gone")).await;
    tiers.until_in_rotation().await;
    for (kind, load) in ["kept", "new"].into_iter().zip(load) {
        let report = load.stop().await;
        measured(&format!("3 cores restarted, 3 replaced, {kind} connections: {}", report.summary()));
        report.assert_all_right();
    }
    for core in &tiers.cores {
        assert_eq!(core.problems().await, Vec::<Value>::new());
        assert_eq!(core.metrics().await.sum("etna_announced", &[]), Some(2.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cores_that_are_killed_fail_what_they_were_answering_and_go_with_their_lease() {
    let scene = Scene::alone("tiers-killed").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    scene.route("a", "a.test", &[("s1", a.address), ("s2", b.address)]).await;
    let mut tiers = Tiers::start(scene, &[]).await;
    let load = Load::both(tiers.front.listen, [200, 40], 24);
    let began = Instant::now();
    load[0].more(100).await;
    let mut kills = Vec::new();
    for n in 1..=3 {
        kills.push(began.elapsed());
        tiers.cores[n - 1].kill();
        let gone = tiers.until_gone(&name(n), TTL + LONG).await;
        measured(&format!("{} killed: unannounced after {:.1} s of {TTL:?}", name(n), gone.as_secs_f64()));
        load[0].more(50).await;
        tiers.cores[n - 1] = start_core_for(&tiers.scene, n, LONG, &[]).await;
        tiers.until_in_rotation().await;
        load[0].more(50).await;
    }
    for (kind, load) in ["kept", "new"].into_iter().zip(load) {
        let report = load.stop().await;
        measured(&format!("3 cores killed, {kind} connections: {}", report.summary()));
        // What was on its way in that moment; a connection has one request at a time.
        let of_a_kill = |at: &Duration| kills.iter().any(|kill| *at >= *kill && *at < *kill + TTL);
        let late: Vec<_> = report.wrong.iter().filter(|(_, at, _)| !of_a_kill(at)).collect();
        assert!(late.is_empty(), "{late:?} {kills:?}");
        assert!(report.wrong.len() <= kills.len() * 24, "{:?}", report.wrong);
    }

    // Back before its lease has ended: it goes on with it, wherever it listens now.
    tiers.cores[0].kill();
    tiers.cores[0] = start_core(&tiers.scene, 1, &[]).await;
    let url = format!("http://{}", tiers.cores[0].listen);
    eventually("it is announced where it is", LONG, async || {
        let server = tiers.server(&name(1)).await.expect("its lease has not ended");
        ensure(server["URL"] == url.as_str(), server.to_string())
    })
    .await;
    assert_eq!(tiers.cores[0].problems().await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_stops_nothing_and_is_told_when_it_is_back() {
    let scene = Scene::with_etcd("tiers-away", 1).await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s1", a.address)]).await;
    let tiers = Tiers::start(scene, &[]).await;
    tiers.scene.etcd.kill(0);
    let is_about_it = |problem: &Value| problem["reason"].as_str().is_some_and(|text| text.contains("announce"));
    for core in &tiers.cores {
        eventually("it is a problem", 2 * LONG, async || {
            ensure(core.problems().await.iter().any(is_about_it), "no problem yet")
        })
        .await;
    }
    always("requests are answered", TTL * 2, async || {
        let answer = tiers.front.get("a.test", "/").await?;
        ensure(answer.status == 200, answer.text())
    })
    .await;
    tiers.scene.etcd.resume(0);
    tiers.scene.etcd.ready(0).await;
    tiers.until_in_rotation().await;
    for core in &tiers.cores {
        eventually("the problem is solved", LONG, async || {
            let problems = core.problems().await;
            ensure(problems.is_empty(), format!("{problems:?}"))
        })
        .await;
        assert_eq!(core.json("/v3/status").await["announcement"]["places"][0]["state"], "announced");
    }
}

/// A request from an address of its own, and what the server says that it got.
async fn from(source: &str, to: SocketAddr, head: &str) -> (Value, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    stream.write_all(format!("GET / HTTP/1.1\r\nConnection: close\r\n{head}\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
    (serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")), head.to_owned())
}

/// What the server got under a name.
fn got<'a>(told: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = told["headers"].as_array().expect("a stand-in lists what it got");
    fields.iter().filter(|field| field[0] == name).filter_map(|field| field[1].as_str()).collect()
}

#[tokio::test]
async fn the_clients_address_and_scheme_and_stickiness_survive_both_hops() {
    let scene = Scene::open("tiers-fields").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    scene.route("a", "a.test", &[("s1", a.address), ("s2", b.address)]).await;
    scene.put("backends/a/backend", json!({ "Type": "http", "Sticky": true })).await;
    scene.put("backends/h/backend", json!({ "Type": "http", "Policy": "hash", "HashOn": "client" })).await;
    scene.route("h", "h.test", &[("s1", a.address), ("s2", b.address)]).await;
    let tiers = Tiers::start(scene, &[]).await;

    let claims = "Host: a.test:8080\r\nX-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: https\r\n\
        Forwarded: for=10.9.9.9\r\n";
    let (told, _) = from("127.0.0.9", tiers.front.listen, claims).await;
    let port = tiers.front.listen.port().to_string();
    assert_eq!(got(&told, "host"), ["a.test:8080"]);
    assert_eq!(got(&told, "x-forwarded-for"), ["127.0.0.9, 127.0.0.1"]);
    assert_eq!(got(&told, "x-real-ip"), ["127.0.0.9"]);
    assert_eq!(got(&told, "x-forwarded-proto"), ["http"]);
    assert_eq!(got(&told, "x-forwarded-host"), ["a.test:8080"]);
    assert_eq!(got(&told, "x-forwarded-port"), [port.as_str()]);
    let forwarded = got(&told, "forwarded").join(", ");
    assert!(forwarded.starts_with("for=127.0.0.9;") && forwarded.contains("for=127.0.0.1;"), "{forwarded}");
    assert!(!forwarded.contains("10.9.9.9"), "{forwarded}");

    // One before the front that ends TLS, which the front believes.
    let flags = ["--trusted-proxies", "127.0.0.8/32"];
    let front = Proxy::start("front-2", &front_store(&tiers.scene), &flags, tiers.scene.folder()).await;
    let ended = "Host: a.test\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Port: 443\r\nX-Forwarded-Host: www.a.test\r\n";
    eventually("the second one serves", LONG, async || {
        ensure(front.get("a.test", "/").await?.status == 200, "not yet")
    })
    .await;
    let (told, head) = from("127.0.0.8", front.listen, ended).await;
    assert_eq!(got(&told, "x-forwarded-for"), ["203.0.113.9, 127.0.0.8, 127.0.0.1"]);
    for (field, value) in
        [("x-forwarded-proto", "https"), ("x-forwarded-port", "443"), ("x-forwarded-host", "www.a.test")]
    {
        assert_eq!(got(&told, field), [value]);
    }
    let cookie = |head: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:"));
        line.unwrap_or_else(|| panic!("no cookie: {head}"))["set-cookie:".len()..].trim().to_owned()
    };
    assert!(cookie(&head).contains("Secure"), "{head}");
    let (_, plain) = from("127.0.0.9", tiers.front.listen, "Host: a.test\r\n").await;
    assert!(!cookie(&plain).contains("Secure"), "{plain}");

    // Whichever core has them, a cookie and an address lead to one server.
    let sticky = cookie(&head);
    let sticky = sticky.split(';').next().unwrap();
    let wanted = told["server"].as_str().unwrap().to_owned();
    let (first, _) = from("127.0.0.7", tiers.front.listen, "Host: h.test\r\n").await;
    for _ in 0..12 {
        let (told, _) = from("127.0.0.9", tiers.front.listen, &format!("Host: a.test\r\nCookie: {sticky}\r\n")).await;
        assert_eq!(told["server"], wanted.as_str());
        let (told, _) = from("127.0.0.7", tiers.front.listen, "Host: h.test\r\n").await;
        assert_eq!(told["server"], first["server"]);
    }
    for core in &tiers.cores {
        let served = core.metrics().await.sum("etna_server_requests_total", &[]);
        assert!(served.is_some_and(|served| served > 0.0), "every core had some");
    }
}

#[tokio::test]
async fn a_name_belongs_to_one_core_and_an_operator_may_drain_it() {
    let scene = Scene::open("tiers-names").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s1", a.address)]).await;
    let tiers = Tiers::start(scene, &[]).await;
    let store = front_store(&tiers.scene);
    let flags = ["--announce", "core-2", "--announce-store", &store, "--announce-ttl", "3s"];
    let mut second = tiers.scene.proxy_with("twin", &flags).await;
    let problem = eventually("the second one says so", LONG, async || {
        second.problems().await.into_iter().next().ok_or("no problem yet")
    })
    .await;
    let reason = problem["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(&tiers.cores[1].listen.to_string()) && problem["key"] != "", "{problem}");
    eventually("it is counted, and shown", LONG, async || {
        let failures = second.metrics().await.sum("etna_announce_failures_total", &[]);
        let announcement = second.json("/v3/status").await["announcement"].take();
        ensure(failures > Some(0.0) && announcement["places"][0]["state"] == "absent", announcement.to_string())
    })
    .await;
    // It serves all the same, and what it leaves is not its own.
    assert_eq!(second.get("a.test", "/").await.unwrap().status, 200);
    second.terminate();
    assert_eq!(second.end(LONG).await.code(), Some(0));
    let url = format!("http://{}", tiers.cores[1].listen);
    assert_eq!(tiers.server("core-2").await.unwrap()["URL"], url.as_str());

    let mut drain = Command::new(binary("etnactl"));
    drain.args(["--admin", &format!("http://{}", tiers.front.admin), "server", "drain", "-b", "cores", "core-3"]);
    output_of(&mut drain);
    always("an operator's word stands", TTL, async || {
        let server = tiers.server("core-3").await.ok_or("it is gone")?;
        ensure(server["State"] == "draining", server.to_string())
    })
    .await;
}

/// How long an announcement outlives a core here.
const TTL: Duration = Duration::from_secs(6);
const LONG: Duration = Duration::from_secs(30);
