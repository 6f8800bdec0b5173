//! What drills of the control plane stand on: the bed's application beside nine others, on an etcd of its own that can
//! be cut off, wiped and refused; and what is asked of the proxy meanwhile.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etna_tests::etcd::{Etcd, Settings};
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::wait::{ensure, eventually};
use serde_json::json;

use crate::bed::{BACKEND, Bed, HOST, Rate};
use crate::drill::Length;
use crate::load::Load;
use crate::servers_handle::Echo;

/// A bed whose etcd is run as the drill wants it.
pub(super) struct Ground(Bed);

impl Deref for Ground {
    type Target = Bed;

    fn deref(&self) -> &Bed {
        &self.0
    }
}

impl DerefMut for Ground {
    fn deref_mut(&mut self) -> &mut Bed {
        &mut self.0
    }
}

impl Ground {
    /// On so many members.
    pub(super) async fn open(name: &str, members: usize, settings: Settings, length: Length) -> Ground {
        let (scene, servers) = bare(name, members, settings).await;
        let proxy = scene.proxy("etna").await;
        Ground::around(scene, servers, proxy, length).await
    }

    /// Of its parts.
    pub(super) async fn around(scene: Scene, servers: Vec<Echo>, proxy: Proxy, length: Length) -> Ground {
        Ground(Bed::around(scene, servers, proxy, length).await)
    }

    /// Starts a load; programs that were built without optimisation are asked for less.
    pub(super) async fn load(&self, rate: Rate) -> Load {
        self.0.load(if cfg!(debug_assertions) { Rate::Of(300) } else { rate }).await
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

/// The scene and its applications, without a proxy.
pub(super) async fn bare(name: &str, members: usize, settings: Settings) -> (Scene, Vec<Echo>) {
    let etcd = Arc::new(Etcd::start_with(members, settings).await);
    let scene = Scene::alone_on(name, etcd).await;
    let mut servers = Vec::new();
    for number in 0..3 {
        let echo = Echo::start(&format!("{BACKEND}-{number}"), scene.folder()).await;
        scene.put(&server_key(BACKEND, &echo.id), server_at(echo.address)).await;
        servers.push(echo);
    }
    scene.put(&format!("backends/{BACKEND}/backend"), json!({ "Type": "http" })).await;
    scene.put(&frontend_key(BACKEND), frontend(&format!("Host(`{HOST}`)"), BACKEND)).await;
    // Others, so that it is not all there is.
    for n in 0..9 {
        let name = format!("other{n}");
        let addresses: Vec<_> = servers.iter().take(2).map(|echo| (&*echo.id, echo.address)).collect();
        scene.route(&name, &format!("{name}.test"), &addresses).await;
    }
    (scene, servers)
}

/// Puts a frontend until etcd takes it; how long it then takes until it is served.
pub(super) async fn put_to_served(scene: &Scene, proxy: &Proxy, id: &str) -> Duration {
    let (host, value) = (format!("{id}.test"), frontend(&format!("Host(`{id}.test`)"), BACKEND));
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

/// Where a program's state lies that is started in a scene.
pub(super) fn state_of(scene: &Scene, name: &str) -> PathBuf {
    scene.folder().join(format!("{name}-state"))
}

/// Milliseconds, as they are shown.
pub(super) fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

pub(super) const LONG: Duration = Duration::from_secs(30);
