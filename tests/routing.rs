//! A key put in etcd is a route, whatever the order of keys; a rule finds its frontend by documented specificity.

use etna_tests::client::{Connection, request};
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::stand_in::StandIn;
use http_body_util::Full;
use serde_json::json;

#[tokio::test]
async fn a_key_put_in_etcd_is_served() {
    let scene = Scene::open("put").await;
    let (a, proxy) = (StandIn::start("a").await, scene.proxy("etna").await);
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 404);
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let answer = proxy.until_status("a.test", "/x?y=1", 200).await;
    assert_eq!(answer.server(), "a");
    assert_eq!(answer.json()["path"], "/x?y=1");
    scene.delete(&frontend_key("a")).await;
    proxy.until_status("a.test", "/", 404).await;
}

#[tokio::test]
async fn a_frontend_may_come_before_its_backend() {
    let scene = Scene::open("order").await;
    let (a, proxy) = (StandIn::start("a").await, scene.proxy("etna").await);
    scene.put(&frontend_key("f"), frontend("Host(`a.test`)", "b")).await;
    proxy.until_status("a.test", "/", 503).await;
    scene.put(&server_key("b", "s"), server_at(a.address)).await;
    proxy.until_status("a.test", "/", 200).await;
    scene.delete(&server_key("b", "s")).await;
    proxy.until_status("a.test", "/", 503).await;
}

#[tokio::test]
async fn a_delete_touches_the_key_it_names_and_no_other() {
    let scene = Scene::open("delete").await;
    let (a, b) = (StandIn::start("a").await, StandIn::start("b").await);
    scene.route("b", "a.test", &[("srv1", a.address), ("srv10", b.address)]).await;
    scene.route("b1", "b1.test", &[("srv1", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    let revision = scene.delete(&server_key("b", "srv1")).await;
    proxy.until_revision(revision).await;
    for _ in 0..4 {
        assert_eq!(proxy.get("a.test", "/").await.unwrap().server(), "b");
    }
    assert_eq!(proxy.get("b1.test", "/").await.unwrap().server(), "a");
}

#[tokio::test]
async fn a_prefix_is_not_the_beginning_of_another() {
    let scene = Scene::open("prefix").await;
    let a = StandIn::start("a").await;
    scene.route("b", "b.test", &[("s", a.address)]).await;
    // A neighbour in the same etcd, whose prefix merely begins like ours.
    let mut neighbour = scene.etcd.client().await.kv_client();
    let key = |id: &str| format!("{}-longer/{}", scene.prefix, frontend_key(id));
    neighbour.put(key("a"), frontend("Host(`a.test`)", "b").to_string(), None).await.unwrap();
    neighbour.put(key("b"), frontend("Host(`b.test`)", "b").to_string(), None).await.unwrap();
    let proxy = scene.proxy("etna").await;
    assert_eq!(proxy.get("b.test", "/").await.unwrap().status, 200);
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 404);
    neighbour.delete(key("b"), None).await.unwrap();
    let revision = scene.put(&frontend_key("c"), frontend("Host(`c.test`)", "b")).await;
    proxy.until_revision(revision).await;
    assert_eq!(proxy.get("b.test", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn no_spelling_of_a_path_steps_around_a_prefix() {
    let scene = Scene::open("around").await;
    let (inner, open) = (StandIn::start("inner").await, StandIn::start("open").await);
    scene.put(&server_key("inner", "s"), server_at(inner.address)).await;
    scene.put(&frontend_key("inner"), frontend("Host(`a.test`) && PathPrefix(`/admin`)", "inner")).await;
    scene.route("open", "a.test", &[("s", open.address)]).await;
    let proxy = scene.proxy("etna").await;
    for path in ["/x/../admin", "/%61dmin/x", "//admin", "/x/..%2fadmin", "/admin/../x"] {
        let answer = proxy.get("a.test", path).await.unwrap();
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert!(answer.text().contains("leads elsewhere"), "{}", answer.text());
    }
    assert_eq!((inner.requests(), open.requests()), (0, 0));
    for (path, server) in [("/admin/a//b", "inner"), ("/x/../y%20z/%C3%A9", "open")] {
        let answer = proxy.get("a.test", path).await.unwrap();
        assert_eq!((answer.status, answer.server()), (200, server), "{path}");
        assert_eq!(answer.json()["path"], path);
    }
    let explained = proxy.json("/v3/explain?url=http://a.test/x/../admin").await;
    assert!(explained["outcome"].as_str().is_some_and(|outcome| outcome.starts_with("400")), "{explained}");
    let why = explained["why"].as_str().unwrap_or_default();
    assert!(why.contains("read it as /admin, which inner would have"), "{why}");
}

#[tokio::test]
async fn a_server_that_is_the_proxy_itself_takes_no_requests() {
    let scene = Scene::open("itself").await;
    let a = StandIn::start("a").await;
    let proxy = scene.proxy("etna").await;
    let passing = |backend: &str| {
        let mut value = frontend("Host(`a.test`)", backend);
        value["Settings"] = json!({ "PassHostHeader": true });
        value
    };
    scene.put(&frontend_key("f"), passing("b")).await;
    scene.put(&server_key("b", "listener"), server_at(proxy.listen)).await;
    let revision = scene.put(&server_key("b", "admin"), server_at(proxy.admin)).await;
    proxy.until_revision(revision).await;
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 503);
    let problems = proxy.problems().await;
    let own = problems.iter().filter(|problem| problem["reason"].as_str().is_some_and(|why| why.contains("itself")));
    assert_eq!(own.count(), 2, "{problems:?}");
    scene.put(&server_key("b", "a"), server_at(a.address)).await;
    proxy.until_status("a.test", "/", 200).await;
    for _ in 0..8 {
        assert_eq!(proxy.get("a.test", "/").await.unwrap().server(), "a");
    }
}

#[tokio::test]
async fn a_request_that_comes_back_over_another_proxy_ends() {
    let (here, there) = (Scene::open("loop-here").await, Scene::open("loop-there").await);
    let a = StandIn::start("a").await;
    let (first, second) = (here.proxy("first").await, there.proxy("second").await);
    for (scene, next) in [(&here, &second), (&there, &first)] {
        let mut value = frontend("Host(`a.test`)", "b");
        value["Settings"] = json!({ "PassHostHeader": true });
        scene.put(&server_key("b", "s"), server_at(next.listen)).await;
        scene.put(&frontend_key("f"), value).await;
    }
    let answer = first.until_status("a.test", "/", 508).await;
    assert!(answer.text().contains("leads back"), "{}", answer.text());
    second.until_status("a.test", "/", 508).await;
    let loops =
        [first.metrics().await.sum("etna_loops_total", &[]), second.metrics().await.sum("etna_loops_total", &[])];
    assert!(loops.iter().all(|loops| loops.is_some_and(|loops| loops >= 1.0)), "{loops:?}");

    // Two tiers in a row are none.
    there.put(&server_key("b", "s"), server_at(a.address)).await;
    let answer = first.until_status("a.test", "/", 200).await;
    assert_eq!(answer.text().matches("etna-").count(), 2, "{}", answer.text());
}

#[tokio::test]
async fn the_more_specific_rule_wins_and_priority_wins_over_that() {
    let scene = Scene::open("specific").await;
    let proxy = scene.proxy("etna").await;
    let mut servers = Vec::new();
    for (id, route, priority) in [
        ("host", "Host(`a.test`)", 0),
        ("prefix", "Host(`a.test`) && PathPrefix(`/shop`)", 0),
        ("longer", "Host(`a.test`) && PathPrefix(`/shop/cart`)", 0),
        ("exact", "Host(`a.test`) && Path(`/shop/cart/pay`)", 0),
        ("regexp", "Host(`a.test`) && PathRegexp(`^/item/[0-9]+$`)", 0),
        ("method", "Host(`a.test`) && PathPrefix(`/shop/cart`) && Method(`POST`)", 0),
        ("header", "Host(`a.test`) && Header(`X-Beta`, `yes`) && PathPrefix(`/shop`)", 10),
        ("query", "Host(`a.test`) && Query(`debug`, `1`)", 20),
        ("cookie", "Host(`a.test`) && Cookie(`canary`, `on`)", 30),
        ("not", "Host(`b.test`) && !PathPrefix(`/private`)", 0),
        ("either", "Host(`c.test`) || (Host(`d.test`) && PathPrefix(`/c`))", 0),
        ("client", "Host(`e.test`) && ClientIP(`127.0.0.0/8`)", 0),
        ("stranger", "Host(`f.test`) && ClientIP(`192.0.2.0/24`)", 0),
    ] {
        let server = StandIn::start(id).await;
        scene.put(&server_key(id, "s"), server_at(server.address)).await;
        let mut value = frontend(route, id);
        value["Priority"] = json!(priority);
        let revision = scene.put(&frontend_key(id), value).await;
        servers.push((server, revision));
    }
    proxy.until_revision(servers.last().unwrap().1).await;
    assert_eq!(proxy.problems().await, Vec::<serde_json::Value>::new());

    let mut connection = Connection::open(proxy.listen).await.unwrap();
    for (method, host, path, header, expected) in [
        ("GET", "a.test", "/", ("x", "y"), "host"),
        ("GET", "A.Test:8181", "/", ("x", "y"), "host"),
        ("GET", "a.test", "/shop", ("x", "y"), "prefix"),
        ("GET", "a.test", "/shop/cart", ("x", "y"), "longer"),
        ("GET", "a.test", "/shop/cart/pay", ("x", "y"), "exact"),
        ("GET", "a.test", "/item/17", ("x", "y"), "regexp"),
        ("GET", "a.test", "/item/x", ("x", "y"), "host"),
        ("POST", "a.test", "/shop/cart", ("x", "y"), "method"),
        ("POST", "a.test", "/shop/cart", ("x-beta", "yes"), "header"),
        ("GET", "a.test", "/shop?debug=1", ("x-beta", "yes"), "query"),
        ("GET", "a.test", "/shop?debug=1", ("cookie", "a=b; canary=on"), "cookie"),
        ("GET", "b.test", "/public", ("x", "y"), "not"),
        ("GET", "b.test", "/private/x", ("x", "y"), ""),
        ("GET", "c.test", "/", ("x", "y"), "either"),
        ("GET", "d.test", "/c/d", ("x", "y"), "either"),
        ("GET", "d.test", "/", ("x", "y"), ""),
        ("GET", "e.test", "/", ("x", "y"), "client"),
        ("GET", "f.test", "/", ("x", "y"), ""),
        ("GET", "g.test", "/", ("x", "y"), ""),
    ] {
        let asked = request(method, host, path).header(header.0, header.1).body(Full::default()).unwrap();
        let answer = connection.send(asked).await.unwrap();
        assert_eq!(answer.server(), expected, "{method} {host}{path} {header:?}: {} {}", answer.status, answer.text());
        assert_eq!(answer.status, if expected.is_empty() { 404 } else { 200 });
    }
}

#[tokio::test]
async fn the_keys_of_the_first_vulcand_are_read() {
    let scene = Scene::open("legacy").await;
    let (public, admin) = (StandIn::start("public").await, StandIn::start("admin").await);
    let url = |server: &StandIn| format!("http://{}", server.address);
    let host = "hosts/wordpress.local/locations";
    for (key, value) in [
        ("upstreams/wordpress/endpoints/core-01-wordpress-0123.service".to_owned(), url(&public)),
        ("upstreams/wordpressadmin/endpoints/core-01-wordpress-4567.service".to_owned(), url(&admin)),
        (format!("{host}/home/path"), "/".into()),
        (format!("{host}/home/upstream"), "wordpress".into()),
        (format!("{host}/wp-admin/path"), "/wp-admin.*".into()),
        (format!("{host}/wp-admin/upstream"), "wordpressadmin".into()),
        (format!("{host}/login/path"), "/wp-login.php".into()),
        (format!("{host}/login/upstream"), "wordpressadmin".into()),
    ] {
        scene.put_raw(key.as_bytes(), value.as_bytes()).await;
    }
    let proxy = scene.proxy("etna").await;
    for (path, expected) in
        [("/", "public"), ("/2015/06/hello/", "public"), ("/wp-admin/index.php", "admin"), ("/wp-login.php", "admin")]
    {
        let answer = proxy.get("wordpress.local", path).await.unwrap();
        assert_eq!((answer.status, answer.server()), (200, expected), "{path}");
        assert_eq!(answer.json()["path"], path);
    }
    scene.delete("upstreams/wordpress/endpoints/core-01-wordpress-0123.service").await;
    proxy.until_status("wordpress.local", "/", 503).await;
}

#[tokio::test]
async fn errors_are_short_and_in_the_form_the_client_reads() {
    let scene = Scene::open("errors").await;
    let proxy = scene.proxy("etna").await;
    let mut connection = Connection::open(proxy.listen).await.unwrap();
    let answer = connection.get("nowhere.test", "/").await.unwrap();
    assert_eq!((answer.status, answer.text().lines().count()), (404, 1));
    assert!(answer.header("content-type").starts_with("text/plain"), "{answer:?}");
    let asked = request("GET", "nowhere.test", "/").header("accept", "application/json").body(Full::default()).unwrap();
    let answer = connection.send(asked).await.unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (404, "application/json"));
    assert!(answer.json()["error"].is_string(), "{}", answer.text());
}

#[tokio::test]
async fn a_listener_put_in_etcd_is_opened_and_closed() {
    let scene = Scene::open("listener").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    let listener =
        |port: u16| json!({"Protocol": "http", "Address": {"Network": "tcp", "Address": format!("127.0.0.1:{port}")}});
    scene.put("listeners/second", listener(0)).await;
    let address: std::net::SocketAddr = etna_tests::wait::eventually("it is bound", SOON, async || {
        let status = proxy.json("/v3/status").await;
        status["listeners"]["second"].as_str().and_then(|text| text.parse().ok()).ok_or(status.to_string())
    })
    .await;
    assert_eq!(etna_tests::client::get(address, "a.test", "/").await.unwrap().server(), "a");
    scene.delete("listeners/second").await;
    etna_tests::wait::eventually("it is closed", SOON, async || match tokio::net::TcpStream::connect(address).await {
        Ok(_) => Err("it takes connections"),
        Err(_) => Ok(()),
    })
    .await;
    assert_eq!(proxy.get("a.test", "/").await.unwrap().status, 200);
}

const SOON: std::time::Duration = std::time::Duration::from_secs(20);
