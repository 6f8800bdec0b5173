//! What drills of the control plane stand on: an application of three servers beside others, on an etcd of its own,
//! under a load of which no request may fail.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etna_tests::client::{Answer, request};
use etna_tests::etcd::{Etcd, Settings};
use etna_tests::load::{Load, Plan};
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key};
use etna_tests::stand_in::StandIn;
use etna_tests::wait::{ensure, eventually};
use http::Request;
use http_body_util::Full;

use crate::drill::{Length, Outcome};

/// A scene with an application, and a proxy that serves it.
pub(super) struct Ground {
    pub(super) scene: Scene,
    pub(super) servers: Vec<StandIn>,
    pub(super) proxy: Proxy,
}

impl Ground {
    /// On so many members.
    pub(super) async fn open(name: &str, members: usize, settings: Settings) -> Ground {
        let (scene, servers) = bare(name, members, settings).await;
        let proxy = scene.proxy("etna").await;
        Ground { scene, servers, proxy }
    }

    /// Starts the load, and lets it warm up.
    pub(super) async fn traffic(&self, length: Length) -> Traffic {
        Traffic::start(&self.proxy, length).await
    }

    /// How long a new frontend takes from etcd's word that it has it until it is served.
    pub(super) async fn change(&self, id: &str) -> Duration {
        put_to_served(&self.scene, &self.proxy, id).await
    }

    /// Lines that the proxy has logged.
    pub(super) fn lines(&self) -> usize {
        self.proxy.said().lines().count()
    }
}

/// The scene and its application, without a proxy.
pub(super) async fn bare(name: &str, members: usize, settings: Settings) -> (Scene, Vec<StandIn>) {
    let etcd = Arc::new(Etcd::start_with(members, settings).await);
    let scene = Scene::alone_on(name, etcd).await;
    let servers = application(&scene).await;
    (scene, servers)
}

/// `a.test` on three servers, and nine others, so that it is not all there is.
pub(super) async fn application(scene: &Scene) -> Vec<StandIn> {
    let mut servers = Vec::new();
    for id in NAMES {
        servers.push(StandIn::start(id).await);
    }
    let addresses: Vec<(&str, SocketAddr)> =
        NAMES.into_iter().zip(servers.iter().map(|server| server.address)).collect();
    scene.route("a", "a.test", &addresses).await;
    for n in 0..9 {
        scene.route(&format!("other{n}"), &format!("other{n}.test"), &addresses[..2]).await;
    }
    servers
}

/// Puts a frontend until etcd takes it; how long it then takes until it is served.
pub(super) async fn put_to_served(scene: &Scene, proxy: &Proxy, id: &str) -> Duration {
    let (host, value) = (format!("{id}.test"), frontend(&format!("Host(`{id}.test`)"), "a"));
    eventually("etcd takes a put", LONG, async || scene.try_put(&frontend_key(id), value.clone()).await).await;
    let put = Instant::now();
    until_served(proxy, &host).await;
    put.elapsed()
}

/// Waits until a host is answered by a server of the application.
pub(super) async fn until_served(proxy: &Proxy, host: &str) {
    eventually(&format!("{host} is served"), LONG, async || {
        let answer = proxy.get(host, "/").await?;
        ensure(answer.status == 200, format!("{}", answer.status))
    })
    .await;
}

/// Waits until changes arrive, and nothing is stale.
pub(super) async fn until_following(proxy: &Proxy) {
    eventually("the proxy follows its store", LONG, async || {
        let status = proxy.json("/v3/status").await;
        ensure(status["following"] == true && status["stale"] == false, status.to_string())
    })
    .await;
}

/// Waits until the proxy knows that changes do not arrive.
pub(super) async fn until_away(proxy: &Proxy) {
    eventually("the proxy knows that its store is away", LONG, async || {
        let status = proxy.json("/v3/status").await;
        ensure(status["following"] == false, status.to_string())
    })
    .await;
}

/// How many keys are held as suspect.
pub(super) async fn held(proxy: &Proxy) -> u64 {
    proxy.json("/v3/suspects").await["count"].as_u64().unwrap_or_default()
}

/// Waits until some keys are held as suspect, and a problem says so; how many.
pub(super) async fn until_held(proxy: &Proxy) -> u64 {
    eventually("keys are held, and a problem says so", LONG, async || {
        let (count, problems) = (held(proxy).await, proxy.problems().await);
        let said = problems.iter().any(|problem| problem.to_string().contains("is held"));
        if count > 0 && said { Ok(count) } else { Err(format!("{count} held, {problems:?}")) }
    })
    .await
}

/// Waits until the last table was written so many times.
pub(super) async fn until_kept(proxy: &Proxy, times: f64) {
    eventually("the last table is on disk", LONG, async || {
        let written = proxy.metrics().await.sum("etna_last_table_writes_total", &[]);
        ensure(written >= Some(times), format!("{written:?}"))
    })
    .await;
}

/// A load on the application.
pub(super) struct Traffic {
    load: Load,
    said: String,
}

impl Traffic {
    pub(super) async fn start(proxy: &Proxy, length: Length) -> Traffic {
        // Programs that were built without optimisation cannot be asked for more.
        let rate = if cfg!(debug_assertions) { 300 } else { length.pick(2000, 500) };
        let connections = 64;
        let plan =
            Plan { to: vec![proxy.listen], rate, connections, request: asked, host: "a.test".into(), check: right };
        let traffic = Traffic { load: Load::start(plan), said: format!("{rate}/s, {connections} connections") };
        traffic.load.more(rate / 2).await;
        traffic
    }

    /// The fault goes on for a while.
    pub(super) async fn during(&self, time: Duration) {
        let before = self.load.answered();
        tokio::time::sleep(time).await;
        assert!(self.load.answered() > before, "no request was answered");
    }

    /// Ends it; the latency in milliseconds that this share of the answers kept.
    pub(super) async fn stop_with_latency(self, share: f64) -> (Outcome, f64) {
        let report = self.load.stop().await;
        (Outcome::of(&self.said, &report, "", true), report.latency_ms(share))
    }

    /// Ends it.
    pub(super) async fn stop(self, figure: impl Into<String>, pass: bool) -> Outcome {
        let report = self.load.stop().await;
        let figure = format!("{}; p99 {:.1} ms", figure.into(), report.latency_ms(0.99));
        Outcome::of(&self.said, &report, figure, pass)
    }
}

/// Of twenty requests sixteen are GET, three PUT, one POST; these have 1 to 8 KiB of body.
fn asked(host: &str, n: u64) -> Request<Full<Bytes>> {
    let method = match n % 20 {
        0..16 => "GET",
        16..19 => "PUT",
        _ => "POST",
    };
    let body = if method == "GET" { Bytes::new() } else { Bytes::from(vec![b'x'; size(n)]) };
    request(method, host, &format!("/{n}")).header("x-test-id", n).body(Full::new(body)).expect("a valid request")
}

fn right(n: u64, answer: &Answer) -> Result<(), String> {
    let size = if n % 20 < 16 { 0 } else { size(n) };
    let whole = answer.text().contains(&format!("\"body_bytes\":{size},"));
    let is_right = answer.status == 200
        && answer.header("x-test-id") == n.to_string()
        && NAMES.contains(&answer.server())
        && whole;
    if is_right { Ok(()) } else { Err(format!("{} from {:?}: {}", answer.status, answer.server(), answer.text())) }
}

fn size(n: u64) -> usize {
    1024 * (1 + usize::try_from(n % 8).unwrap_or_default())
}

/// Where a program's state lies that is started in a scene.
pub(super) fn state_of(scene: &Scene, name: &str) -> PathBuf {
    scene.folder().join(format!("{name}-state"))
}

/// Milliseconds, as they are shown.
pub(super) fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

/// The application's servers.
pub(super) const NAMES: [&str; 3] = ["s0", "s1", "s2"];
pub(super) const LONG: Duration = Duration::from_secs(30);
