//! The store fails in ways worse than being away: emptied, rewound, forgetful, forbidden, or not there at the start.
//! Traffic goes on with what is known to be right, and what is held is shown and can be released.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, PutOptions};
use etna_tests::binaries::binary;
use etna_tests::process::{output_of, signal};
use etna_tests::proxy::Proxy;
use etna_tests::report::measured;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::stand_in::StandIn;
use etna_tests::wait::{ensure, eventually};
use serde_json::json;

use crate::store_gone::{LONG, put_to_served, traffic, until_away};

/// An application of three servers beside others, so that it is not all there is.
async fn applications(scene: &Scene) -> Vec<StandIn> {
    let servers = [StandIn::start("s0").await, StandIn::start("s1").await, StandIn::start("s2").await];
    let addresses: Vec<(&str, SocketAddr)> =
        ["s0", "s1", "s2"].into_iter().zip(servers.iter().map(|server| server.address)).collect();
    scene.route("a", "a.test", &addresses).await;
    for other in ["b", "c", "d", "e"] {
        scene.route(other, &format!("{other}.test"), &addresses[..1]).await;
    }
    servers.into()
}

async fn until_held(proxy: &Proxy, keys: u64) {
    eventually(&format!("{keys} keys are held"), LONG, async || {
        let held = proxy.json("/v3/suspects").await;
        ensure(held["count"] == keys, held.to_string())
    })
    .await;
}

async fn until_following(proxy: &Proxy) {
    eventually("the proxy follows its store", LONG, async || {
        let status = proxy.json("/v3/status").await;
        ensure(status["following"] == true && status["stale"] == false, status.to_string())
    })
    .await;
}

async fn has_problem(proxy: &Proxy, text: &str) {
    eventually(&format!("a problem says {text:?}"), LONG, async || {
        let problems = proxy.problems().await;
        let said = problems.iter().any(|problem| problem.to_string().contains(text));
        ensure(said, format!("{problems:?}"))
    })
    .await;
}

fn etnactl(proxy: &Proxy, arguments: &[&str]) -> String {
    let admin = format!("http://{}", proxy.admin);
    output_of(Command::new(binary("etnactl")).args(["--admin", &admin]).args(arguments))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_the_store() {
    let scene = Scene::with_etcd("cold", 1).await;
    let _servers = applications(&scene).await;
    let mut proxy = scene.proxy("etna").await;
    proxy.until_kept(1).await;
    proxy.until_kept(scene.put("backends/f/backend", json!({ "Type": "http" })).await).await;
    let file = proxy.last_table().expect("it is kept");
    let (newest, previous) = (std::fs::read(&file).unwrap(), std::fs::read(file.with_extension("1")).unwrap());
    scene.etcd.kill(0);
    proxy.kill();

    // With a table on disk: at once, and it says what it is.
    let mut proxy = scene.proxy("etna").await;
    let load = traffic(&proxy);
    load.more(100).await;
    let status = proxy.json("/v3/status").await;
    assert!(status["stale"] == true && status["from_disk"] == true && status["ready"] == true, "{status}");
    assert!(status["age_seconds"].as_f64().is_some_and(|age| (0.0..60.0).contains(&age)), "{status}");
    assert_eq!(proxy.metrics().await.sum("etna_store_stale", &[]), Some(1.0));
    has_problem(&proxy, "last table on disk").await;
    assert!(etnactl(&proxy, &["status"]).contains("last table on disk"));

    // Without one: it listens, says why it serves nothing, and waits.
    let empty = Proxy::launch("empty", &scene.store(), &[], scene.folder(), LONG).await;
    let ready = empty.admin_get("/readyz").await.unwrap();
    assert!(ready.status == 503 && ready.text().contains("starting"), "{} {}", ready.status, ready.text());
    assert_eq!(empty.get("a.test", "/").await.unwrap().status, 503);
    has_problem(&empty, "every request is answered 503").await;
    let said = etnactl(&empty, &["status"]);
    assert!(said.contains("none: the store was not read yet") && said.contains("nothing is checked"), "{said}");

    // The store comes: neither is started again, nothing is interrupted.
    scene.etcd.resume(0);
    scene.etcd.ready(0).await;
    until_following(&proxy).await;
    empty.until_ready(LONG).await;
    assert_eq!(empty.get("a.test", "/").await.unwrap().status, 200);
    put_to_served(&scene, &proxy, "back").await;
    load.more(100).await;
    load.stop().await.assert_all_right();
    drop(empty);

    // Damage anywhere: the generation before serves, else none; never another table.
    scene.etcd.kill(0);
    proxy.kill();
    for at in [0, 20, newest.len() / 2, newest.len() - 1] {
        let mut flipped = newest.clone();
        flipped[at] ^= 0x40;
        std::fs::write(&file, flipped).unwrap();
        std::fs::write(file.with_extension("1"), &previous).unwrap();
        let mut proxy = scene.proxy("etna").await;
        assert_eq!(proxy.json("/v3/status").await["counts"]["frontends"], 5, "byte {at}");
        assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 200, "byte {at}");
        proxy.kill();
    }
    for bytes in [&newest[..newest.len() / 2], b"", b"etna last table\n\x02\0\0\0"] {
        std::fs::write(&file, bytes).unwrap();
        std::fs::write(file.with_extension("1"), bytes).unwrap();
        let mut proxy = Proxy::launch("etna", &scene.store(), &[], scene.folder(), LONG).await;
        eventually("it has seen that the store is away", LONG, async || {
            let status = proxy.json("/v3/status").await;
            ensure(!status["error"].is_null(), status.to_string())
        })
        .await;
        assert_eq!(proxy.admin_get("/readyz").await.unwrap().status, 503);
        proxy.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_deleted_by_mistake() {
    let scene = Scene::with_etcd("prefix", 1).await;
    let mut servers = applications(&scene).await;
    let proxy = scene.proxy("etna").await;
    let other = scene.proxy("other").await;
    let load = traffic(&proxy);
    load.more(50).await;
    scene.delete_below("backends/").await;
    until_held(&proxy, 7).await;
    load.more(300).await;
    let status = proxy.json("/v3/status").await;
    assert!(status["suspect"][0]["why"].as_str().is_some_and(|why| why.contains("vanished")), "{status}");
    assert_eq!(proxy.metrics().await.sum("etna_suspects", &[]), Some(7.0));
    has_problem(&proxy, "is held").await;
    assert!(etnactl(&proxy, &["suspects"]).contains("vanished at once"));

    // What no longer answers is believed to be gone.
    drop(servers.pop());
    until_held(&proxy, 6).await;
    // What is put back is no suspect.
    scene.put(&server_key("a", "s0"), server_at(servers[0].address)).await;
    until_held(&proxy, 5).await;
    load.stop().await.assert_all_right();

    // A rename passes at once.
    let route = |backend: &str| Some(frontend("Host(`a.test`)", backend));
    let renamed = vec![
        (server_key("new", "s0"), Some(server_at(servers[0].address))),
        (frontend_key("a"), route("new")),
        (server_key("a", "s0"), None),
    ];
    proxy.until_revision(scene.change(renamed).await).await;
    until_held(&proxy, 5).await;

    // Released at one proxy, it is released at all of them.
    until_held(&other, 5).await;
    assert!(etnactl(&proxy, &["suspects", "--release"]).contains("5 keys released; the other proxies were told"));
    until_held(&proxy, 0).await;
    until_held(&other, 0).await;
    proxy.until_status("b.test", "/", 503).await;
    proxy.until_status("a.test", "/", 200).await;
    proxy.until_said("audit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_wiped_and_an_older_backup_restored() {
    let scene = Scene::with_etcd("wiped", 1).await;
    let _servers = applications(&scene).await;
    let proxy = scene.proxy_with("etna", &["--hold", "1"]).await;
    let load = traffic(&proxy);
    put_to_served(&scene, &proxy, "before").await;
    let backup = scene.etcd.back_up(0);
    put_to_served(&scene, &proxy, "after").await;
    proxy.until_kept(proxy.revision().await).await;

    scene.etcd.kill(0);
    scene.etcd.wipe(0);
    scene.etcd.resume(0);
    scene.etcd.ready(0).await;
    until_held(&proxy, 14).await;
    // Nobody deleted anything, so no time makes it believed; nor does a start anew.
    load.more(900).await;
    until_held(&proxy, 14).await;
    put_to_served(&scene, &proxy, "meanwhile").await;
    load.stop().await.assert_all_right();
    proxy.until_kept(proxy.revision().await).await;
    drop(proxy);
    let proxy = scene.proxy_with("etna", &["--hold", "1"]).await;
    until_held(&proxy, 14).await;
    let load = traffic(&proxy);
    load.more(100).await;

    // The backup knows all but what came after it.
    scene.etcd.kill(0);
    scene.etcd.restore(0, &backup);
    scene.etcd.resume(0);
    scene.etcd.ready(0).await;
    until_following(&proxy).await;
    put_to_served(&scene, &proxy, "again").await;
    eventually("only what is nowhere is held", LONG, async || {
        let held = proxy.json("/v3/suspects").await;
        let keys = held["keys"].as_array().unwrap();
        let wrong = keys.iter().any(|key| key != "frontends/after/frontend" && key != "frontends/meanwhile/frontend");
        ensure(!wrong, held.to_string())
    })
    .await;
    load.more(100).await;
    load.stop().await.assert_all_right();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_that_end_in_a_storm() {
    let scene = Scene::with_etcd("storm", 1).await;
    let servers = applications(&scene).await;
    let mut client = scene.etcd.client().await;
    let register = async |client: &mut Client| {
        for (n, server) in servers.iter().enumerate() {
            // One lease each, as of sidekicks on three machines.
            let lease = client.lease_grant(3, None).await.unwrap().id();
            let key = format!("{}/{}", scene.prefix, server_key("a", &format!("s{n}")));
            let value = server_at(server.address).to_string();
            client.put(key, value, Some(PutOptions::new().with_lease(lease))).await.unwrap();
        }
    };
    let proxy = scene.proxy("etna").await;
    let load = traffic(&proxy);
    register(&mut client).await;
    scene.etcd.freeze(0);
    load.more(1500).await;
    scene.etcd.thaw(0);
    scene.etcd.ready(0).await;
    eventually("the leases have ended, and all servers are held, also those that went first", LONG, async || {
        let stored = scene.below("backends/a/").await.len();
        let held = proxy.json("/v3/suspects").await["count"].as_u64();
        ensure(stored == 0 && held == Some(3), format!("{stored} stored, {held:?} held"))
    })
    .await;
    load.more(300).await;
    let mut client = scene.etcd.client().await;
    register(&mut client).await;
    eventually("all are back", LONG, async || {
        let status = proxy.json("/v3/status").await;
        let none = status["suspect"].as_array().is_some_and(Vec::is_empty);
        ensure(none && status["counts"]["servers"] == 7, status.to_string())
    })
    .await;
    load.stop().await.assert_all_right();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forbidden_is_not_empty() {
    let scene = Scene::with_etcd("forbidden", 1).await;
    let _servers = applications(&scene).await;
    let mut proxy = scene.proxy("etna").await;
    proxy.until_kept(1).await;
    let load = traffic(&proxy);
    let mut client = scene.etcd.client().await;
    client.role_add("root").await.unwrap();
    client.user_add("root", "secret", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();
    scene.etcd.kill(0);
    scene.etcd.resume(0);
    eventually("the proxy is refused", LONG, async || {
        let error = proxy.json("/v3/status").await["error"].to_string();
        ensure(error.contains("refused"), error)
    })
    .await;
    until_away(&proxy).await;
    load.more(300).await;
    assert_eq!(proxy.json("/v3/suspects").await["count"], 0);
    load.stop().await.assert_all_right();
    // Nor at the start.
    proxy.kill();
    let proxy = scene.proxy("etna").await;
    assert_eq!(proxy.json("/v3/status").await["from_disk"], true);
    let load = traffic(&proxy);
    load.more(100).await;
    let options = ConnectOptions::new().with_user("root", "secret");
    let mut root = Client::connect([scene.etcd.address(0)], Some(options)).await.unwrap();
    root.auth_disable().await.unwrap();
    until_following(&proxy).await;
    load.more(100).await;
    load.stop().await.assert_all_right();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_nothing() {
    let scene = Scene::open("full").await;
    let server = StandIn::start("s").await;
    let proxy = scene.proxy("etna").await;
    let load = traffic(&proxy);
    proxy.until_kept(scene.put("backends/b/backend", json!({ "Type": "http" })).await).await;
    // Whoever runs the tests, nobody can make a file of it.
    let file = proxy.last_table().expect("it is kept");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(file.join("in-the-way")).unwrap();
    std::fs::create_dir_all(file.with_extension("1").join("in-the-way")).unwrap();
    let revision = scene.route("a", "a.test", &[("s", server.address)]).await;
    proxy.until_status("a.test", "/", 200).await;
    has_problem(&proxy, "the last table cannot be written").await;
    eventually("it is counted", LONG, async || {
        let errors = proxy.metrics().await.sum("etna_last_table_errors_total", &[]);
        ensure(errors >= Some(1.0), format!("{errors:?}"))
    })
    .await;
    std::fs::remove_dir_all(&file).unwrap();
    std::fs::remove_dir_all(file.with_extension("1")).unwrap();
    proxy.until_kept(revision).await;
    eventually("the problem is solved", LONG, async || {
        let problems = proxy.problems().await;
        ensure(problems.is_empty(), format!("{problems:?}"))
    })
    .await;
    drop(load);
}

/// Proxies of two stores with one directory: each keeps its own table and leaves the other's alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_share_a_directory() {
    let scene = Scene::with_etcd("shared", 1).await;
    let _servers = applications(&scene).await;
    let mut proxy = scene.proxy("etna").await;
    proxy.until_kept(1).await;
    let prefix = format!("other-{}", proxy.pid());
    let other = scene.etcd.store(&prefix);
    // Of the same name, so in the same directory.
    let mut second = Proxy::launch("etna", &other, &["--workers", "1"], scene.folder(), LONG).await;
    let mut client = scene.etcd.client().await;
    for times in 1..4 {
        let put = client.put(format!("/{prefix}/sites/x"), format!("{{\"n\":{times}}}"), None).await.unwrap();
        second.until_kept(put.header().unwrap().revision()).await;
    }
    signal(second.pid(), "INT");
    second.end(LONG).await;
    eventually("the first one says again where it is", LONG, async || {
        let said = std::fs::read_to_string(proxy.state_dir.join("addresses.json")).unwrap_or_default();
        ensure(said.contains(&format!("\"pid\":{}", proxy.pid())), said)
    })
    .await;
    proxy.kill();
    scene.etcd.kill(0);
    let proxy = scene.proxy("etna").await;
    proxy.until_status("a.test", "/", 200).await;
}

/// How long from the start of the process until a request is answered, with nothing but the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_routes_from_disk() {
    let scene = Scene::alone_with_etcd("disk").await;
    let server = StandIn::start("s").await;
    let routes = (0..10_000).map(|n| (frontend_key(&format!("f{n}")), frontend(&format!("Host(`h{n}.test`)"), "b")));
    scene.put(&server_key("b", "s"), server_at(server.address)).await;
    scene.put_all(routes).await;
    let mut proxy = scene.proxy("etna").await;
    proxy.until_kept(1).await;
    proxy.kill();
    scene.etcd.kill(0);
    let started = Instant::now();
    let proxy = Proxy::launch("etna", &scene.store(), &[], scene.folder(), LONG).await;
    eventually("it serves", LONG, async || {
        let answer = proxy.get("h9999.test", "/").await?;
        ensure(answer.status == 200, format!("{}", answer.status))
    })
    .await;
    let took = started.elapsed();
    measured(&format!("10,000 routes served from disk {took:?} after the start of the process"));
    // This is a debug build on a busy machine; the drill measures a release build.
    assert!(took < Duration::from_secs(20), "{took:?}");
}
