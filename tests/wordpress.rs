//! The whole house on a real WordPress: containers that the sidekick alone registers in etcd, and three proxies on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etna_tests::browser::Browser;
use etna_tests::client::{Answer, request};
use etna_tests::load::{Load, Plan, Report};
use etna_tests::proxy::Proxy;
use etna_tests::report::measured;
use etna_tests::scene::Scene;
use etna_tests::sidekick::Sidekick;
use etna_tests::site::{LOGIN, PUBLIC, Site};
use etna_tests::wait::{ensure, eventually};
use http::Request;
use http_body_util::Full;

/// A site, a sidekick, and proxies that serve it.
struct Cluster {
    proxies: Vec<Proxy>,
    _sidekick: Sidekick,
    scene: Scene,
    site: Arc<Site>,
}

impl Cluster {
    /// Waits until every proxy serves the site from every container.
    async fn start(name: &str, site: &Arc<Site>, scene: Scene) -> Cluster {
        let sidekick = scene.sidekick(&format!("host-{name}"), &["--docker", &site.docker.url()]).await;
        let mut proxies = Vec::new();
        for n in 1..=3 {
            proxies.push(scene.proxy(&format!("etna-{n}")).await);
        }
        let cluster = Cluster { proxies, _sidekick: sidekick, scene, site: site.clone() };
        cluster.until_registered(PUBLIC, 1).await;
        cluster
    }

    /// Waits until so many servers stand in etcd, and every proxy has seen that.
    async fn until_registered(&self, public: usize, admin: usize) {
        eventually("the sidekick has registered the containers", LONG, async || {
            for (role, wanted) in [("public", public), ("admin", admin)] {
                let servers = self.scene.below(&format!("backends/{}-{role}/servers/", self.site.host)).await;
                let up =
                    servers.iter().filter(|(_, value)| !String::from_utf8_lossy(value).contains("draining")).count();
                ensure(up == wanted, format!("{up} of {wanted} {role} servers: {servers:?}"))?;
            }
            Ok::<_, String>(())
        })
        .await;
        // One more key, so that there is a revision to wait for.
        let revision = self.scene.put("hosts/marker.test/host", serde_json::json!({"Name": "marker.test"})).await;
        for proxy in &self.proxies {
            proxy.until_revision(revision).await;
        }
    }

    /// Waits until every proxy has found every container well.
    async fn until_well(&self) {
        for proxy in &self.proxies {
            eventually("all containers are well", LONG, async || {
                let health = proxy.json("/v3/health").await;
                let backends = health["backends"].as_array().cloned().unwrap_or_default();
                let servers = backends.iter().filter_map(|backend| backend["servers"].as_array()).flatten();
                let well = servers.filter(|server| server["health"] == "up" && server["reason"] == "ok").count();
                ensure(well == PUBLIC + 1, health.to_string())
            })
            .await;
        }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.proxies.iter().map(|proxy| proxy.listen).collect()
    }

    fn browser(&self) -> Browser {
        Browser::new(&self.site.authority(), self.addresses())
    }

    /// Visitors of the front page at a rate that the containers can serve.
    fn visitors(&self) -> Load {
        Load::start(Plan {
            to: self.addresses(),
            rate: 15,
            connections: VISITORS,
            request: visit,
            host: self.site.authority(),
            check: is_front_page,
        })
    }

    /// What a container was asked so far.
    fn log_of(&self, container: &str) -> String {
        self.site.docker.run(&["logs", container])
    }
}

fn visit(host: &str, n: u64) -> Request<Full<Bytes>> {
    request("GET", host, &format!("/?visit={n}")).body(Full::default()).expect("a valid request")
}

fn is_front_page(_: u64, answer: &Answer) -> Result<(), String> {
    let is_right = answer.status == 200 && answer.text().contains("<title>Etna testbed</title>");
    if is_right {
        Ok(())
    } else {
        Err(format!("{} {}", answer.status, answer.text().chars().take(200).collect::<String>()))
    }
}

async fn log_in(browser: &mut Browser, admin: &str) {
    let page = browser.get("/wp-login.php").await;
    assert_eq!((page.status, page.server()), (200, admin), "{}", page.text());
    let fields = [
        ("log", LOGIN.0),
        ("pwd", LOGIN.1),
        ("wp-submit", "Log In"),
        ("testcookie", "1"),
        ("redirect_to", "/wp-admin/"),
    ];
    let answer = browser.post("/wp-login.php", &fields).await;
    assert_eq!((answer.status, answer.server()), (302, admin), "{}", answer.text());
    assert!(browser.has_cookie("wordpress_logged_in_"), "not logged in: {answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anonymous_visitors_are_spread_over_the_public_containers() {
    let Some(site) = Site::shared().await else { return };
    let _use = site.take().await;
    let cluster = Cluster::start("spread", &site, Scene::open("wpspread").await).await;
    cluster.until_well().await;
    let mut browser = cluster.browser();
    let mut spread: BTreeMap<String, usize> = BTreeMap::new();
    for n in 0..300 {
        let answer = browser.get("/").await;
        is_front_page(n, &answer).unwrap();
        *spread.entry(answer.server().to_owned()).or_default() += 1;
    }
    measured(&format!("300 anonymous requests: {spread:?}"));
    assert_eq!(spread.keys().cloned().collect::<Vec<_>>(), site.public_names());
    assert!(spread.values().all(|count| *count >= 60), "{spread:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_editor_logs_in_and_publishes_through_whichever_proxy() {
    let Some(site) = Site::shared().await else { return };
    let _use = site.take().await;
    let cluster = Cluster::start("editor", &site, Scene::open("wpeditor").await).await;
    let mut browser = cluster.browser();
    log_in(&mut browser, &site.admin).await;
    let dashboard = browser.get("/wp-admin/").await;
    assert_eq!((dashboard.status, dashboard.server()), (200, &*site.admin));
    assert!(dashboard.text().contains("id=\"wpadminbar\""), "no dashboard: {}", dashboard.text());
    let nonce = browser.get("/wp-admin/admin-ajax.php?action=rest-nonce").await;
    assert_eq!((nonce.status, nonce.server()), (200, &*site.admin));
    let title = format!("Published by test {}", std::process::id());
    let post = serde_json::json!({"title": title, "content": "Through three proxies.", "status": "publish"});
    let headers = [("content-type", "application/json"), ("x-wp-nonce", &*nonce.text())];
    let body = post.to_string().into();
    let published = browser.send("POST", "/index.php?rest_route=/wp/v2/posts", &headers, body).await;
    assert_eq!((published.status, published.server()), (201, &*site.admin), "{}", published.text());
    let id = published.json()["id"].as_u64().expect("a post has an id");
    let edit = browser.get(&format!("/wp-admin/post.php?post={id}&action=edit")).await;
    assert_eq!((edit.status, edit.server()), (200, &*site.admin));
    // Anybody sees it, on whichever public container.
    let mut visitor = cluster.browser();
    for _ in 0..PUBLIC {
        let seen = visitor.get(&format!("/?p={id}")).await;
        assert_eq!(seen.status, 200, "{}", seen.text());
        assert!(seen.text().contains(&title), "the post is not shown by {}", seen.server());
        assert!(site.public_names().contains(&seen.server().to_owned()), "{} answered", seen.server());
    }
    assert_logs(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_only_the_admin_container_has_is_found() {
    let Some(site) = Site::shared().await else { return };
    let _use = site.take().await;
    let cluster = Cluster::start("upload", &site, Scene::open("wpupload").await).await;
    let mut browser = cluster.browser();
    log_in(&mut browser, &site.admin).await;
    let nonce = browser.get("/wp-admin/admin-ajax.php?action=rest-nonce").await.text();
    let headers = [
        ("content-type", "text/plain"),
        ("content-disposition", "attachment; filename=\"note.txt\""),
        ("x-wp-nonce", &*nonce),
    ];
    let uploaded = browser.send("POST", "/index.php?rest_route=/wp/v2/media", &headers, Bytes::from("a note\n")).await;
    assert_eq!(uploaded.status, 201, "{}", uploaded.text());
    let url = uploaded.json()["source_url"].as_str().expect("an upload has a URL").to_owned();
    let path = url.strip_prefix(&site.url()).expect("it is the site's own").to_owned();
    let mut visitor = cluster.browser();
    for _ in 0..6 {
        let answer = visitor.get(&path).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "a note\n"), "{path}");
    }
    let missing = visitor.get(&path.replace("note", "missing")).await;
    assert_eq!(missing.status, 404);
}

/// Every spelling of the admin's paths that Apache takes for one.
const ADMIN_PATHS: [&str; 14] = [
    "/wp-admin",
    "/wp-admin/",
    "/wp-admin/index.php",
    "/wp-admin/admin-ajax.php?action=x",
    "/wp-admin/admin-post.php",
    "//wp-admin/",
    "///wp-admin//index.php",
    "/wp-content/../wp-admin/",
    "/./wp-admin/",
    "/%77p-admin/",
    "/wp-login.php",
    "//wp-login.php",
    "/%77p-login.php",
    "/wp-login.php/extra",
];

/// Requests for the admin, however spelled, that a container got so far.
fn admin_requests(cluster: &Cluster, container: &str) -> usize {
    let is_admin =
        |line: &&str| ["/wp-admin/", "/wp-admin ", "/wp-login.php", "%77p-"].iter().any(|path| line.contains(path));
    cluster.log_of(container).lines().filter(is_admin).filter(|line| !line.contains(LOOKS_ALIKE)).count()
}

/// A query is no path.
const LOOKS_ALIKE: &str = "/?q=/wp-admin/";

/// What containers say themselves: the public ones never saw the admin asked for, the admin one did.
fn assert_logs(cluster: &Cluster) {
    for container in cluster.site.public_names() {
        assert_eq!(admin_requests(cluster, &container), 0, "{container}: {}", cluster.log_of(&container));
    }
    assert!(admin_requests(cluster, &cluster.site.admin) > 0, "the log does not show what it should");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_of_an_admin_path_reaches_a_public_container_admin_down_or_not() {
    let Some(site) = Site::shared().await else { return };
    let _use = site.take().await;
    let cluster = Cluster::start("paths", &site, Scene::open("wppaths").await).await;
    let mut browser = cluster.browser();
    for path in ADMIN_PATHS {
        for method in ["GET", "POST"] {
            let answer = browser.send(method, path, &[], Bytes::new()).await;
            assert_eq!(answer.server(), site.admin, "{method} {path}: {}", answer.status);
        }
    }
    // What merely looks alike is anybody's.
    for path in ["/wp-admins-guide/", "/about-wp-admin/", "/my-wp-login.php-page/", LOOKS_ALIKE] {
        let answer = browser.get(path).await;
        assert!(site.public_names().contains(&answer.server().to_owned()), "{path}: {} answered", answer.server());
    }
    assert_logs(&cluster);
    site.docker.run(&["stop", &site.admin]);
    cluster.until_registered(PUBLIC, 0).await;
    for path in ADMIN_PATHS {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, 503, "{path} without an admin container is answered by {:?}", answer.server());
    }
    is_front_page(0, &browser.get("/").await).unwrap();
    assert_logs(&cluster);
    // It comes back with another port.
    site.docker.run(&["start", &site.admin]);
    cluster.until_registered(PUBLIC, 1).await;
    // Registered as soon as it is started, it may not listen yet.
    eventually("the admin container serves again", LONG, async || {
        let answer = browser.get("/wp-login.php").await;
        ensure(answer.server() == site.admin, format!("{} {}", answer.status, answer.text()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_stopped_under_load_fails_nothing() {
    let Some(site) = Site::shared().await else { return };
    let _use = site.take().await;
    let cluster = Cluster::start("stop", &site, Scene::alone("wpstop").await).await;
    let (victim, report) = end_one_under_load(&cluster, "stop").await;
    report.assert_all_right();
    replace(&cluster, &victim).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_killed_under_load_fails_at_most_what_it_was_answering() {
    let Some(site) = Site::shared().await else { return };
    let _use = site.take().await;
    let cluster = Cluster::start("kill", &site, Scene::alone("wpkill").await).await;
    let (victim, report) = end_one_under_load(&cluster, "kill").await;
    // At any moment a connection has one request; only those whose answer had begun cannot be asked again elsewhere.
    assert!(report.wrong.len() <= VISITORS, "{:?}", report.wrong);
    for (_, _, why) in &report.wrong {
        assert!(why.contains("body"), "a request failed that had no answer yet: {why}");
    }
    replace(&cluster, &victim).await;
}

/// Ends a public container with a command of Docker's while visitors come, and waits until it serves nobody.
async fn end_one_under_load(cluster: &Cluster, command: &'static str) -> (String, Report) {
    let load = cluster.visitors();
    load.more(30).await;
    let victim = cluster.site.public_names().remove(0);
    let (docker, name) = (cluster.site.docker.clone(), victim.clone());
    tokio::task::spawn_blocking(move || docker.run(&[command, &name])).await.unwrap();
    cluster.until_registered(PUBLIC - 1, 1).await;
    load.more(60).await;
    let report = load.stop().await;
    measured(&format!("docker {command} under load: {}; {:?}", report.summary(), report.by_server));
    assert!(report.by_server.len() >= PUBLIC, "not everybody was asked: {:?}", report.by_server);
    (victim, report)
}

/// A new container takes the place of an ended one, and is found by itself.
async fn replace(cluster: &Cluster, victim: &str) {
    cluster.site.forget(victim);
    cluster.site.docker.run(&["rm", "--force", victim]);
    let name = cluster.site.add_public().await;
    cluster.until_registered(PUBLIC, 1).await;
    let mut browser = cluster.browser();
    eventually("the new container serves", LONG, async || {
        let answer = browser.get("/").await;
        ensure(answer.server() == name, answer.server().to_owned())
    })
    .await;
}

const VISITORS: usize = 6;
const LONG: Duration = Duration::from_secs(90);
