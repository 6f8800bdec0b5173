//! Certificates that look after themselves, from a real authority on loopback: one proxy orders, any answers, all serve.

mod trouble;

use std::net::SocketAddr;
use std::time::Duration;

use etna_tests::acme::AcmeServer;
use etna_tests::client;
use etna_tests::pebble::Pebble;
use etna_tests::proxy::Proxy;
use etna_tests::scene::Scene;
use etna_tests::stand_in::StandIn;
use etna_tests::tls::{Authority, https_listener};
use etna_tests::wait::{always, ensure, eventually};
use serde_json::{Value, json};

/// A corner with an authority, a key that seals, and a server behind `a.test` and `b.test`.
struct Ground {
    scene: Scene,
    acme: AcmeServer,
    seal: Authority,
    _server: StandIn,
}

impl Ground {
    async fn new(name: &str) -> Ground {
        let scene = Scene::open(name).await;
        let (acme, seal) = (AcmeServer::start(scene.folder()).await, Authority::new(scene.folder()));
        let server = StandIn::start("a").await;
        for host in ["a.test", "b.test"] {
            scene.route(host, host, &[("s", server.address)]).await;
        }
        scene.put("listeners/https", https_listener(json!({}))).await;
        Ground { scene, acme, seal, _server: server }
    }

    /// Proxies to all of which the authority looks.
    async fn proxies<const N: usize>(&self, names: [&str; N]) -> Vec<Proxy> {
        let mut proxies = Vec::new();
        for name in names {
            proxies.push(self.proxy(name, self.seal.seal_key()).await);
        }
        let mut tls = Vec::new();
        for proxy in &proxies {
            tls.push(proxy.listener("https").await);
        }
        self.acme.look_at(proxies.iter().map(|proxy| proxy.listen).collect(), tls);
        proxies
    }

    async fn proxy(&self, name: &str, seal_key: &str) -> Proxy {
        let flags = [&["--seal-key", seal_key][..], &self.acme.flags()].concat();
        self.scene.proxy_with(name, &flags).await
    }

    async fn host(&self, name: &str, acme: Value) -> i64 {
        self.scene.put(&format!("hosts/{name}/host"), json!({ "Settings": { "Acme": acme } })).await
    }

    /// Waits until a proxy serves a name with a certificate of the authority's, which is given back.
    async fn until_served(&self, proxy: &Proxy, name: &str, within: Duration) -> Vec<u8> {
        let at = proxy.listener("https").await;
        eventually(&format!("{name} is served"), within, async || {
            let problems = proxy.problems().await;
            let served = self.acme.client().certificate(at, name).await;
            served.map_err(|error| format!("{error}; {problems:?}; {:?}", self.acme.violations()))
        })
        .await
    }

    /// Waits until whoever had work to do has cleared it away, which follows the certificate.
    async fn until_tidy(&self) {
        for path in ["acme/issuing/", "acme/challenges/"] {
            eventually(&format!("nothing is left below {path}"), SOON, async || {
                let left = self.scene.below(path).await;
                ensure(left.is_empty(), format!("{left:?}"))
            })
            .await;
        }
    }

    /// A client that broke no rule, and nothing private where it does not belong.
    async fn check(&self, proxies: &[Proxy]) {
        assert_eq!(self.acme.violations(), Vec::<String>::new());
        for (key, value) in self.scene.below("acme/").await {
            let text = String::from_utf8_lossy(&value).into_owned();
            assert!(!text.contains("PRIVATE") && !text.contains("key_pkcs8"), "{key}: {text}");
            let is_sealed = text.starts_with("{\"Encryption\"");
            assert_eq!(is_sealed, key.ends_with("/account") || key.starts_with("acme/certs/"), "{key}: {text}");
        }
        for proxy in proxies {
            let shown = [
                proxy.said(),
                proxy.json("/v2/hosts").await.to_string(),
                proxy.admin_get("/metrics").await.unwrap().text(),
                proxy.json("/v3/problems").await.to_string(),
            ];
            assert!(shown.iter().all(|text| !text.contains("PRIVATE") && !text.contains("secretbox")));
        }
    }
}

#[tokio::test]
async fn a_host_gets_one_certificate_that_all_proxies_serve() {
    let ground = Ground::new("acme-first").await;
    let proxies = ground.proxies(["one", "two", "three"]).await;
    ground.host("a.test", json!({ "Email": "you@example.com" })).await;
    let mut served = Vec::new();
    for proxy in &proxies {
        served.push(ground.until_served(proxy, "a.test", SOON).await);
    }
    assert!(served.windows(2).all(|pair| pair[0] == pair[1]));
    // That no second one follows is looked at for a while.
    always("one order is enough", Duration::from_secs(2), async || {
        ensure(ground.acme.orders_of("a.test") == 1, format!("{} orders", ground.acme.orders_of("a.test")))
    })
    .await;
    assert_eq!((ground.acme.issued("a.test"), ground.acme.validated("http-01")), (1, 1));
    assert_eq!(ground.acme.accounts(), [json!(["mailto:you@example.com"])]);
    ground.until_tidy().await;

    let client = ground.acme.client();
    for proxy in &proxies {
        let answer = client.get(proxy.listener("https").await, "a.test", "/").await.unwrap();
        assert_eq!((answer.status, answer.server()), (200, "a"));
        let shown = &proxy.json("/v2/hosts/a.test").await["Certificate"];
        assert_eq!(shown["Source"], "acme");
        assert!(shown["Issuer"].as_str().unwrap().contains("a small authority"), "{shown}");
        assert_eq!(shown["Acme"]["Directory"], ground.acme.directory);
        assert!(shown["Acme"]["Issued"].is_string() && shown["NotAfter"].is_string(), "{shown}");
        assert!(proxy.problems().await.is_empty());
    }
    eventually("the order is counted", SOON, async || {
        let mut orders = 0.0;
        for proxy in &proxies {
            orders += proxy.metrics().await.sum("etna_acme_orders_total", &[("result", "ok")]).unwrap();
        }
        ensure(orders == 1.0, format!("{orders} orders"))
    })
    .await;

    // Another host: the account is there already. A name that nobody stored gets nothing.
    ground.host("b.test", json!({ "Email": "you@example.com" })).await;
    ground.until_served(&proxies[2], "b.test", SOON).await;
    assert_eq!(ground.acme.accounts().len(), 1);
    assert!(client.connect(proxies[0].listener("https").await, "c.test").await.is_err());
    assert_eq!(ground.acme.orders_of("c.test"), 0);
    ground.check(&proxies).await;
}

#[tokio::test]
async fn a_name_is_proven_over_tls() {
    let ground = Ground::new("acme-tls").await;
    let proxies = ground.proxies(["one", "two"]).await;
    ground.host("a.test", json!({ "Challenge": "tls-alpn-01" })).await;
    for proxy in &proxies {
        ground.until_served(proxy, "a.test", SOON).await;
    }
    assert_eq!((ground.acme.validated("tls-alpn-01"), ground.acme.validated("http-01")), (1, 0));
    // Who speaks only that, and there is no challenge, gets no certificate at all. A proxy may know of the end of one
    // a moment after the store.
    ground.until_tidy().await;
    let revision = ground.scene.put("hosts/marker.test/host", json!({ "Name": "marker.test" })).await;
    proxies[0].until_revision(revision).await;
    let mut config = (*ground.acme.client().config).clone();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let stranger = etna_tests::tls::TlsClient { config: config.into() };
    assert!(stranger.connect(proxies[0].listener("https").await, "a.test").await.is_err());
    ground.check(&proxies).await;
}

#[tokio::test]
async fn a_token_that_is_not_ours_is_the_servers_business() {
    let ground = Ground::new("acme-tokens").await;
    let proxies = ground.proxies(["one"]).await;
    let token = "/.well-known/acme-challenge/tok";
    assert_eq!(proxies[0].get("a.test", token).await.unwrap().server(), "a");
    let posed = json!({ "Host": "a.test", "Kind": "http-01", "Authorization": "tok.thumb" });
    let revision = ground.scene.put("acme/challenges/tok", posed).await;
    proxies[0].until_revision(revision).await;
    let answer = proxies[0].get("A.test:80", token).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str(), answer.server()), (200, "tok.thumb", ""));
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(proxies[0].get("b.test", token).await.unwrap().server(), "a", "it is for another host");
    let post = client::request("POST", "a.test", token).body("x".into()).unwrap();
    assert_eq!(client::send(proxies[0].listen, post).await.unwrap().server(), "a");
    let revision = ground.scene.delete("acme/challenges/tok").await;
    proxies[0].until_revision(revision).await;
    assert_eq!(proxies[0].get("a.test", token).await.unwrap().server(), "a");
}

#[tokio::test]
async fn a_certificate_is_renewed_when_the_authority_wants_it_under_load() {
    let ground = Ground::new("acme-renew").await;
    let proxies = ground.proxies(["one", "two", "three"]).await;
    ground.acme.set(|manner| manner.renewal = Some((-7200, -3600, 3600)));
    ground.host("a.test", json!(true)).await;
    let first = ground.until_served(&proxies[0], "a.test", SOON).await;
    let mut places = Vec::new();
    for proxy in &proxies {
        ground.until_served(proxy, "a.test", SOON).await;
        places.push(proxy.listener("https").await);
    }
    let before = failed(&proxies).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let clients: Vec<_> =
        places.iter().map(|at| tokio::spawn(visit(*at, ground.acme.client(), stop.clone()))).collect();
    eventually("it is renewed", Duration::from_secs(80), async || {
        let served = ground.acme.client().certificate(places[0], "a.test").await?;
        ensure(served != first, format!("asked {} times", ground.acme.asked_when()))
    })
    .await;
    ground.acme.set(|manner| manner.renewal = Some((86_400, 2 * 86_400, 3600)));
    stop.cancel();
    let mut visits = 0;
    for client in clients {
        visits += client.await.unwrap();
    }
    println!("{visits} handshakes while the certificate was renewed");
    assert!(visits >= places.len(), "{visits}");
    assert!(ground.acme.replacing("a.test") >= 1, "the authority is told what is replaced");
    assert_eq!(failed(&proxies).await, before);
    // What is wanted next lies in the future, so that nothing is ordered any more.
    eventually("it is left alone", SOON, async || {
        let record = ground.scene.below("acme/hosts/a.test").await;
        let record: Value = serde_json::from_slice(&record[0].1).unwrap();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        ensure(record["RenewAt"].as_u64().is_some_and(|at| at > now + 3600), record.to_string())
    })
    .await;
    ground.check(&proxies).await;
}

/// Handshakes that came to nothing.
async fn failed(proxies: &[Proxy]) -> Vec<Option<f64>> {
    let mut failed = Vec::new();
    for proxy in proxies {
        failed.push(proxy.metrics().await.sum("etna_tls_handshakes_total", &[("result", "failed")]));
    }
    failed
}

async fn visit(at: SocketAddr, client: etna_tests::tls::TlsClient, stop: tokio_util::sync::CancellationToken) -> usize {
    let mut visits = 0;
    while !stop.is_cancelled() {
        let answer = client.get(at, "a.test", "/").await.unwrap();
        assert_eq!(answer.status, 200);
        visits += 1;
    }
    visits
}

#[tokio::test]
async fn without_a_word_of_the_authority_a_short_life_is_renewed_in_time() {
    let ground = Ground::new("acme-short").await;
    let proxies = ground.proxies(["one", "two"]).await;
    // An hour of it is over when it is issued: of the rest, two thirds of the whole life have passed after 16 seconds.
    ground.acme.set(|manner| manner.life = Duration::from_secs(5424));
    ground.host("a.test", json!(true)).await;
    let first = ground.until_served(&proxies[0], "a.test", SOON).await;
    ground.acme.set(|manner| manner.life = Duration::from_secs(90 * 86_400));
    eventually("it is renewed", Duration::from_secs(80), async || {
        let served = ground.acme.client().certificate(proxies[1].listener("https").await, "a.test").await?;
        ensure(served != first, "not yet")
    })
    .await;
    assert_eq!(ground.acme.issued("a.test"), 2);
    ground.check(&proxies).await;
}

#[tokio::test]
async fn another_proxy_takes_over_from_one_that_dies_at_work() {
    let ground = Ground::new("acme-kill").await;
    let mut proxies = ground.proxies(["one", "two", "three"]).await;
    ground.acme.set(|manner| manner.frozen = true);
    ground.host("a.test", json!(true)).await;
    eventually("the challenge lies in the store", SOON, async || {
        ensure(!ground.scene.below("acme/challenges/").await.is_empty(), "none yet")
    })
    .await;
    let at_work = eventually("one says that it is at work", SOON, async || {
        let orders = |proxy: &Proxy| proxy.said().contains("ordering a certificate");
        proxies.iter().position(orders).ok_or("none does")
    })
    .await;
    proxies.remove(at_work).kill();
    ground.acme.set(|manner| manner.frozen = false);
    let http = proxies.iter().map(|proxy| proxy.listen).collect();
    ground.acme.look_at(http, Vec::new());
    for proxy in &proxies {
        ground.until_served(proxy, "a.test", Duration::from_secs(120)).await;
    }
    assert_eq!((ground.acme.orders_of("a.test"), ground.acme.issued("a.test")), (2, 1));
    ground.check(&proxies).await;
}

#[tokio::test]
async fn an_authority_that_others_wrote_is_satisfied() {
    let scene = Scene::open("acme-pebble").await;
    let seal = Authority::new(scene.folder());
    let mut pebble = Pebble::new(scene.folder());
    scene.put("listeners/https", https_listener(json!({}))).await;
    let flags = [&["--seal-key", seal.seal_key()][..], &pebble.flags()].concat();
    let proxy = scene.proxy_with("etna", &flags).await;
    let other = scene.proxy_with("other", &flags).await;
    // The names lead to one of them: the other one may order all the same.
    pebble.start(proxy.listen, proxy.listener("https").await).await;
    for (name, challenge) in [("a.test", "http-01"), ("b.test", "tls-alpn-01")] {
        let acme = json!({ "Email": "you@example.com", "Challenge": challenge });
        scene.put(&format!("hosts/{name}/host"), json!({ "Settings": { "Acme": acme } })).await;
    }
    for name in ["a.test", "b.test"] {
        for proxy in [&proxy, &other] {
            let at = proxy.listener("https").await;
            eventually(&format!("{name} is served"), 2 * SOON, async || {
                let served = pebble.client().await?.certificate(at, name).await;
                let problems = proxy.problems().await;
                served.map_err(|error| format!("{error}; {problems:?}"))
            })
            .await;
        }
    }
}

/// Until a certificate is ordered, validated, issued and in force, on a machine that does other things, too.
const SOON: Duration = Duration::from_secs(40);
