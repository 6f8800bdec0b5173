//! A real WordPress that knows itself by https, behind two tiers: TLS ends in front, and nothing goes round in circles.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use etna_tests::client::{Answer, Connection, request};
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key};
use etna_tests::site::{LOGIN, Site};
use etna_tests::tls::{Authority, TlsClient};
use etna_tests::wait::{ensure, eventually};
use http::header::SET_COOKIE;
use http_body_util::Full;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};

/// A browser that trusts the site's authority, and comes from an address of its own.
struct Browser {
    tls: TlsClient,
    host: String,
    at: SocketAddr,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    async fn send(&mut self, method: &str, path: &str, body: String) -> Answer {
        let stream = connect(self.at).await;
        let name = ServerName::try_from(self.host.clone()).unwrap();
        let stream = tokio_rustls::TlsConnector::from(self.tls.config.clone()).connect(name, stream).await.unwrap();
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let asked = request(method, &self.host, path)
            .header("cookie", cookies.join("; "))
            .header("content-type", "application/x-www-form-urlencoded");
        let answer = Connection::over(stream).await.unwrap().send(asked.body(Full::from(body)).unwrap()).await.unwrap();
        for set in answer.headers.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap()) {
            let secure = set.split(';').any(|part| part.trim().eq_ignore_ascii_case("secure"));
            // WordPress's own test of whether cookies are kept is the one that says nothing secret.
            assert!(secure || set.starts_with("wordpress_test_cookie"), "{set}");
            let (name, value) = set.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert(name.trim().to_owned(), value.to_owned());
        }
        answer
    }

    /// A page, through at most so many redirects, none of them to http.
    async fn open(&mut self, path: &str) -> Answer {
        let mut path = path.to_owned();
        for _ in 0..3 {
            let answer = self.send("GET", &path, String::new()).await;
            if !(300..400).contains(&answer.status) {
                return answer;
            }
            let location = answer.header("location").to_owned();
            let there = location.strip_prefix(&format!("https://{}", self.host));
            path = there.unwrap_or_else(|| panic!("{path} leads to {location}")).to_owned();
        }
        panic!("{path}: round in circles");
    }
}

/// From where no server is.
async fn connect(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((CLIENT, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_editor_logs_in_over_https_through_two_tiers() {
    let Some(site) = Site::secure().await else { return };
    let scene = Scene::open("wphttps").await;
    let authority = Authority::new(scene.folder());
    let front_store = scene.etcd.store(&format!("{}/front", scene.prefix));
    let flags = ["--seal-key", authority.seal_key(), "--listen-https", "127.0.0.1:0"];
    let front = Proxy::start("front", &front_store, &flags, scene.folder()).await;
    let _sidekick = scene.sidekick("host", &["--docker", &site.docker.url()]).await;
    let mut cores = Vec::new();
    for id in ["core-1", "core-2"] {
        let flags = ["--announce", id, "--announce-store", &front_store, "--trusted-proxies", "127.0.0.1/32"];
        cores.push(scene.proxy_with(id, &flags).await);
    }
    scene.put(&format!("front/hosts/{}/host", site.host), authority.host(&authority.issue(&[&site.host]), false)).await;
    let mut all = frontend(&format!("Host(`{}`)", site.host), "cores");
    all["Https"] = json!("auto");
    scene.put(&format!("front/{}", frontend_key("all")), all).await;

    let at = front.listener("https").await;
    let tls = authority.client();
    eventually("the site is served", LONG, async || {
        let answer = tls.get(at, &site.host, "/").await?;
        ensure(
            answer.status == 200 && answer.text().contains("<title>Etna testbed</title>"),
            answer.status.to_string(),
        )?;
        let login = tls.get(at, &site.host, "/wp-login.php").await?;
        ensure(login.status == 200, login.status.to_string())
    })
    .await;

    let mut clear = Connection::over(connect(front.listen).await).await.unwrap();
    let clear = clear.get(&site.host, "/wp-admin/?x=1").await.unwrap();
    let https = format!("https://{}/wp-admin/?x=1", site.host);
    assert_eq!((clear.status, clear.header("location")), (308, https.as_str()));

    let mut browser = Browser { tls, host: site.host.clone(), at, cookies: BTreeMap::new() };
    assert_eq!(browser.open("/wp-login.php").await.status, 200);
    let form = format!(
        "log={}&pwd={}&wp-submit=Log+In&testcookie=1&redirect_to=https%3A%2F%2F{}%2Fwp-admin%2F",
        LOGIN.0, LOGIN.1, site.host
    );
    let logged_in = browser.send("POST", "/wp-login.php", form).await;
    assert_eq!((logged_in.status, logged_in.server()), (302, site.admin.as_str()), "{}", logged_in.text());
    assert!(browser.cookies.keys().any(|name| name.starts_with("wordpress_sec_")), "{:?}", browser.cookies.keys());
    for _ in 0..4 {
        let dashboard = browser.open("/wp-admin/").await;
        assert_eq!((dashboard.status, dashboard.server()), (200, site.admin.as_str()));
        assert!(dashboard.text().contains("wp-admin-bar-my-account"), "{}", dashboard.text());
    }
    // Apache answers first, and Docker takes its lines behind it.
    let client = std::net::IpAddr::from(CLIENT).to_string();
    eventually("the container logs whom it answered", LONG, async || {
        let log = site.docker.run(&["logs", &site.admin]);
        let of_dashboard: Vec<&str> = log.lines().filter(|line| line.contains("\"GET /wp-admin/ ")).collect();
        assert!(of_dashboard.iter().all(|line| line.ends_with(&client)), "{of_dashboard:?}");
        ensure(of_dashboard.len() >= 4, log.clone())
    })
    .await;
}

/// Where the browser is.
const CLIENT: [u8; 4] = [127, 0, 0, 77];
const LONG: Duration = Duration::from_secs(90);
