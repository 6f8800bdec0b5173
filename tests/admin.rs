//! The admin side: vulcand's API programs the proxy, explain says what would happen, and one `etna` is the store of another.

use std::process::Command;
use std::time::Duration;

use etna_tests::binaries::binary;
use etna_tests::client::{self, request};
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key};
use etna_tests::stand_in::StandIn;
use etna_tests::turn::Turn;
use etna_tests::wait::{ensure, eventually};
use http_body_util::Full;
use serde_json::{Value, json};

async fn api(proxy: &Proxy, method: &str, path: &str, body: Value) -> (u16, Value) {
    let host = proxy.admin.to_string();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let asked = request(method, &host, path).header("content-type", "application/json").body(Full::from(body)).unwrap();
    let answer = client::send(proxy.admin, asked).await.unwrap();
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

/// What `etnactl` says on stdout and stderr, and its exit code.
async fn etnactl(proxy: &Proxy, arguments: &[&str]) -> (String, String, i32) {
    let mut command = Command::new(binary("etnactl"));
    command.args(["--admin", &format!("http://{}", proxy.admin)]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

/// What a program says on stdout, and its exit code.
async fn output(program: &str, arguments: &[&str]) -> (String, i32) {
    let mut command = Command::new(binary(program));
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

#[tokio::test]
async fn healthcheck_says_what_readyz_says() {
    let scene = Scene::open("healthcheck").await;
    let proxy = scene.proxy_with("etna", &["--drain-grace", "1m"]).await;
    let admin = proxy.admin.to_string();
    let check = async |more: &[&str]| output("etna", &[&["healthcheck", "--admin", &admin], more].concat()).await;
    assert_eq!(check(&[]).await, ("ready\n".into(), 0));
    assert_eq!(check(&["--live"]).await, ("live\n".into(), 0));
    proxy.terminate();
    let (said, code) = eventually("it is not ready any more", SOON, async || {
        let (said, code) = check(&[]).await;
        ensure(code != 0, said.clone()).map(|()| (said, code))
    })
    .await;
    assert_eq!((said.lines().count(), code), (1, 1));
    assert!(said.starts_with(&format!("etna at {admin}: not ready: draining")), "{said}");
    assert_eq!(check(&["--live"]).await.1, 0, "it lives while it drains");

    // One that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (said, code) = output("etna", &["healthcheck", "--admin", &silent.local_addr().unwrap().to_string()]).await;
    assert!(code == 1 && said.contains("no answer within 2 s"), "{code}: {said}");
    assert_eq!(output("etna", &["healthcheck", "--admin", "nowhere"]).await.1, 64);
}

#[tokio::test]
async fn programs_without_flags_find_each_other() {
    let (serves, _) = output("etna", &["serve", "--help"]).await;
    assert!(serves.contains("[default: 127.0.0.1:8182]"), "{serves}");
    for program in ["etnactl", "etna-sidekick"] {
        let (asks, _) = output(program, &["--help"]).await;
        assert!(asks.contains("[default: http://127.0.0.1:8182]"), "{program}: {asks}");
    }
}

#[tokio::test]
async fn vulcands_api_programs_every_proxy_of_the_store() {
    let scene = Scene::open("api").await;
    let a = StandIn::start("a").await;
    let (first, second) = (scene.proxy("first").await, scene.proxy("second").await);
    let url = format!("http://{}", a.address);
    for (path, body) in [
        ("/v2/backends", json!({"Backend": {"Id": "b", "Type": "http"}})),
        ("/v2/backends/b/servers", json!({"Server": {"Id": "s", "URL": url}})),
        (
            "/v2/frontends",
            json!({"Frontend": {"Id": "f", "Type": "http", "BackendId": "b", "Route": "Host(`a.test`)"}}),
        ),
    ] {
        let (status, answer) = api(&first, "POST", path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    assert_eq!(second.until_status("a.test", "/", 200).await.server(), "a");
    let (status, servers) = api(&second, "GET", "/v2/backends/b/servers", Value::Null).await;
    assert_eq!((status, &servers["Servers"][0]["URL"]), (200, &json!(url)), "{servers}");
    let (status, _) = api(&second, "DELETE", "/v2/frontends/f", Value::Null).await;
    assert_eq!(status, 200);
    first.until_status("a.test", "/", 404).await;
    let (status, answer) =
        api(&first, "POST", "/v2/frontends", json!({"Frontend": {"Id": "bad", "Type": "http"}})).await;
    assert!((400..500).contains(&status), "{status} {answer}");
}

#[tokio::test]
async fn explain_says_which_frontend_and_which_servers() {
    let scene = Scene::open("explain").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let revision = scene.put(&frontend_key("deep"), frontend("Host(`a.test`) && PathPrefix(`/deep`)", "a")).await;
    let proxy = scene.proxy("etna").await;
    proxy.until_revision(revision).await;
    for (path, frontend) in [("/", "a"), ("/deep/down", "deep")] {
        let said = proxy.json(&format!("/v3/explain?method=GET&url=http://a.test{path}")).await.to_string();
        assert!(said.contains(&format!("\"{frontend}\"")) && said.contains(&a.address.to_string()), "{path}: {said}");
    }
    let none = proxy.json("/v3/explain?method=GET&url=http://nowhere.test/").await.to_string();
    assert!(none.contains("404") || none.contains("no route") || none.contains("null"), "{none}");
}

#[tokio::test]
async fn an_etna_is_the_store_of_others() {
    // Without etcd: an embedded store, reached through its owner.
    let _turn = Turn::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let a = StandIn::start("a").await;
    let embedded = format!("embedded:{}", folder.join("store").display());
    let mut owner = Proxy::start("owner", &embedded, &[], folder).await;
    let follower = Proxy::start("follower", &format!("http://{}", owner.admin), &[], folder).await;
    for (path, body) in [
        ("/v2/backends/b/servers", json!({"Server": {"Id": "s", "URL": format!("http://{}", a.address)}})),
        (
            "/v2/frontends",
            json!({"Frontend": {"Id": "f", "Type": "http", "BackendId": "b", "Route": "Host(`a.test`)"}}),
        ),
    ] {
        let (status, answer) = api(&owner, "POST", path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    owner.until_status("a.test", "/", 200).await;
    follower.until_status("a.test", "/", 200).await;
    // Acknowledged is durable: killed, and started again on the same folder.
    owner.kill();
    assert_eq!(follower.get("a.test", "/").await.unwrap().status, 200, "the last table serves without its store");
    let again = Proxy::start("again", &embedded, &[], folder).await;
    assert_eq!(again.until_status("a.test", "/", 200).await.server(), "a");
}

#[tokio::test]
async fn a_server_is_drained_and_keeps_all_else() {
    let scene = Scene::open("drained").await;
    let proxy = scene.proxy("etna").await;
    let ok = async |line: &str| {
        let said = etnactl(&proxy, &line.split(' ').collect::<Vec<_>>()).await;
        assert_eq!(said.2, 0, "{line}: {said:?}");
        (said.0, said.1)
    };
    ok("backend upsert --id b --health-check tcp").await;
    ok("server upsert -b b --id s --url http://127.0.0.1:9 --zone z --weight 3 --ttl 1h").await;
    let stored = async || proxy.json("/v3/store/key?key=backends/b/servers/s").await["item"].clone();
    let lease = stored().await["lease"].clone();
    assert!(lease.is_i64(), "{lease}");
    assert_eq!(ok("server drain -b b s").await.0, "ok s is draining\n");
    assert_eq!(ok("server drain -b b s").await.0, "ok s is draining already\n");
    assert_eq!(stored().await["lease"], lease, "a drained server still ends with its lease");
    let server = async || proxy.json("/v2/backends/b/servers/s").await;
    proxy.until_revision(stored().await["revision"].as_i64().unwrap()).await;
    let url = "http://127.0.0.1:9";
    assert_eq!(server().await, json!({"Id": "s", "URL": url, "Weight": 3, "Zone": "z", "State": "draining"}));
    assert_eq!(ok("server up -b b s").await.0, "ok s is up\n");
    proxy.until_revision(stored().await["revision"].as_i64().unwrap()).await;
    assert_eq!(server().await, json!({"Id": "s", "URL": url, "Weight": 3, "Zone": "z"}));
    // Who replaces an object learns what went with the former one.
    let removed = ok("server upsert -b b --id s --url http://127.0.0.1:9 --weight 2").await.1;
    assert_eq!(removed, "removed, as not given: Zone, TTL\n");
    assert_eq!(ok("backend upsert --id b").await.1, "removed, as not given: HealthCheck\n");
    assert_eq!(ok("backend upsert --id b").await.1, "");
    assert!(ok("backend ls").await.0.contains("b   wrr     1 "), "one server");
    ok("site upsert --id w --host w.test --public nowhere").await;
    assert!(ok("site ls").await.0.contains("nowhere (no server)"));
    assert!(ok("status").await.0.contains("1 (1 without a server"));
    let (_, said, code) = etnactl(&proxy, &["backend", "rm", "nope"]).await;
    assert!(code == 1 && said.contains("backends/nope/backend does not exist"), "{said}");
    let (_, said, code) = etnactl(&proxy, &["server", "drain", "-b", "b", "gone"]).await;
    assert!(code == 1 && said.contains("there is no server gone"), "{said}");
    let (_, said, code) = etnactl(&proxy, &["--store", "embedded:/nowhere", "backend", "upsert", "--id", "c"]).await;
    assert!(code == 64 && said.contains("--admin URL"), "{said}");
    assert_eq!(proxy.json("/v2/backends").await["Backends"].as_array().unwrap().len(), 1);
}

const SOON: Duration = Duration::from_secs(20);
