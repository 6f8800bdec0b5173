//! What a site promises beyond which container is asked, with servers that stand in for its containers.

use std::collections::BTreeSet;
use std::time::Duration;

use etna_tests::client::{request, send};
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, server_at, server_key};
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::wait::{ensure, eventually};
use http_body_util::Full;
use serde_json::{Value, json};

/// A site `w.test` with a public and an admin server, which nobody checks.
async fn site(scene: &Scene, more: Value) -> (StandIn, StandIn) {
    let (public, admin) = (StandIn::start("public").await, StandIn::start("admin").await);
    for (id, server) in [("pub", &public), ("adm", &admin)] {
        scene.put(&format!("backends/{id}/backend"), json!({ "Type": "http", "HealthCheck": false })).await;
        scene.put(&server_key(id, "s"), server_at(server.address)).await;
    }
    let mut site = json!({ "Preset": "wordpress", "Hosts": ["w.test"], "Public": "pub", "Admin": "adm" });
    for (name, value) in more.as_object().expect("an object") {
        site[name] = value.clone();
    }
    scene.put("sites/w", site).await;
    (public, admin)
}

async fn status(proxy: &Proxy, path: &str) -> u16 {
    proxy.get("w.test", path).await.unwrap().status
}

#[tokio::test]
async fn who_logs_in_is_given_more_time_than_visitors() {
    let scene = Scene::open("site-time").await;
    let (public, admin) = site(&scene, json!({ "Timeouts": { "Public": "300ms" } })).await;
    let proxy = scene.proxy("etna").await;
    for server in [&public, &admin] {
        server.set(Manner::Slow(Duration::from_millis(800)));
    }
    assert_eq!(status(&proxy, "/").await, 504);
    for path in ["/wp-admin/update.php", "/wp-login.php", "/wp-cron.php", "/xmlrpc.php"] {
        assert_eq!(status(&proxy, path).await, 200, "{path}");
    }
    let within = async |path: &str| {
        let answer = proxy.json(&format!("/v3/explain?url=http://w.test{path}")).await;
        answer["answers_within"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!((within("/").await.as_str(), within("/wp-admin/").await.as_str()), ("300ms", "5m0s"));

    // What the backend says itself counts.
    let own = json!({ "Type": "http", "HealthCheck": false, "Settings": { "Timeouts": { "Read": "400ms" } } });
    scene.put("backends/adm/backend", own).await;
    eventually("the backend's own limit is in force", Duration::from_secs(20), async || {
        let within = within("/wp-admin/").await;
        ensure(within == "400ms", within)
    })
    .await;
    assert_eq!(status(&proxy, "/wp-admin/").await, 504);
}

#[tokio::test]
async fn of_the_login_page_only_unlocking_a_post_is_public() {
    let scene = Scene::open("site-postpass").await;
    let _servers = site(&scene, json!({})).await;
    let proxy = scene.proxy("etna").await;
    proxy.until_status("w.test", "/", 200).await;
    for (method, query, server) in [
        ("POST", "action=postpass", "public"),
        ("POST", "x=1&action=postpass", "public"),
        ("GET", "action=postpass", "admin"),
        ("POST", "action=login", "admin"),
        ("POST", "action=postpass&action=login", "admin"),
        ("POST", "action=postpass&%61ction=login", "admin"),
        ("POST", "action=login&action=postpass", "admin"),
        ("POST", "action=postpass&action[]=x", "admin"),
        ("POST", "action=postpass&action%5Bx%5D=login", "admin"),
        ("POST", "action=postpass&+action=login", "admin"),
    ] {
        let asked = request(method, "w.test", &format!("/wp-login.php?{query}"));
        let answer = send(proxy.listen, asked.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!((answer.status, answer.server()), (200, server), "{method} {query}");
    }
}

#[tokio::test]
async fn a_session_of_phps_stays_at_one_public_container() {
    let scene = Scene::open("site-session").await;
    let (_public, _admin) = site(&scene, json!({})).await;
    let more = [StandIn::start("second").await, StandIn::start("third").await];
    for (n, server) in more.iter().enumerate() {
        scene.put(&server_key("pub", &format!("s{n}")), server_at(server.address)).await;
    }
    let proxies = [scene.proxy("one").await, scene.proxy("two").await];
    let revision =
        scene.put("backends/pub/backend", json!({ "Type": "http", "HealthCheck": false, "Policy": "p2c" })).await;
    let mut all = BTreeSet::new();
    for proxy in &proxies {
        proxy.until_revision(revision).await;
    }
    for session in 0..24 {
        let mut seen = BTreeSet::new();
        for n in 0..8 {
            let asked =
                request("GET", "w.test", &format!("/page-{n}")).header("cookie", format!("a=b; PHPSESSID={session}"));
            let answer = send(proxies[n % 2].listen, asked.body(Full::default()).unwrap()).await.unwrap();
            seen.insert(answer.server().to_owned());
        }
        assert_eq!(seen.len(), 1, "session {session}: {seen:?}");
        all.extend(seen);
    }
    assert_eq!(all.len(), 3, "{all:?}");
}
