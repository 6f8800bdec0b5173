//! Sidekicks and containers that die, on a real Docker engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etna_tests::binaries::binary;
use etna_tests::client::request;
use etna_tests::docker::Docker;
use etna_tests::load::{Load, Plan};
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, server_key};
use etna_tests::sidekick::Sidekick;
use etna_tests::wait::{always, ensure, eventually};
use http_body_util::Full;

use crate::drill::{Length, Outcome};

/// C18. One machine's two containers and two sidekicks that both claim them; a container restarts within the lease; a
/// container is replaced; the engine restarts, if it is ours to restart; sidekicks are killed.
pub(super) async fn die(length: Length) -> Outcome {
    let Some(docker) = Docker::shared().await else { return Outcome::fail("no Docker engine runs here") };
    let scene = Scene::alone_with_etcd("c18").await;
    let mut containers = Containers { docker: docker.clone(), names: Vec::new() };
    for n in 0..3 {
        containers.run(&format!("c18-{n}"));
    }
    // What the engine publishes is gone while it restarts, the containers' own addresses are not.
    let flags = ["--docker", &docker.url(), "--ttl", "5s", "--address-mode", "container"];
    let mut first = scene.sidekick("core-01", &flags).await;
    let proxy = scene.proxy("etna").await;
    registered(&scene, 3).await;
    proxy.until_status(HOST, "/", 200).await;
    let rate = length.pick(200, 50);
    let load = Load::start(Plan {
        to: vec![proxy.listen],
        rate,
        connections: 16,
        request: |host, n| request("GET", host, &format!("/{n}")).body(Full::default()).expect("a valid request"),
        host: HOST.into(),
        check: |_, answer| ensure(answer.status == 200 && !answer.server().is_empty(), answer.text()),
    });
    let pause = Duration::from_secs(length.pick(8, 2));

    // The second claims the same ids; whoever it is that writes, each server stands there once and serves.
    let other = scene.folder().join("other");
    std::fs::create_dir(&other).expect("a folder can be made");
    let mut second = Sidekick::start("core-01", &scene.store(), &flags, &other).await;
    tokio::time::sleep(pause).await;
    registered(&scene, 3).await;
    first.kill();
    // Longer than a lease: what the second registered stays all the time.
    always("three servers stand in the store", Duration::from_secs(7), async || all_stand(&scene, 3).await).await;

    let began = Instant::now();
    let (engine, name) = (docker.clone(), containers.names[0].clone());
    let restart = tokio::task::spawn_blocking(move || engine.try_run(&["restart", "--time", "2", &name]));
    restart.await.expect("docker runs").expect("a container restarts");
    registered(&scene, 3).await;
    let restarted = began.elapsed();

    let engine = docker.clone();
    let restart = tokio::task::spawn_blocking(move || engine.restart());
    // What the sidekick cannot see it leaves alone, for longer than a lease.
    always("three servers stand in the store", Duration::from_secs(7), async || all_stand(&scene, 3).await).await;
    let engine_restarted = restart.await.expect("the engine restarts");
    // It hears from the engine again.
    let (engine, name) = (docker.clone(), containers.names[1].clone());
    let stop = tokio::task::spawn_blocking(move || engine.try_run(&["stop", "--time", "2", &name]));
    stop.await.expect("docker runs").expect("a container stops");
    registered(&scene, 2).await;
    let report = load.stop().await;

    // Nobody is left to keep the lease.
    second.kill();
    let killed = Instant::now();
    eventually("the entries end with their lease", Duration::from_secs(20), async || {
        let left = scene.below(&server_key(BACKEND, "")).await.len();
        ensure(left == 0, format!("{left} left"))
    })
    .await;
    let stale = killed.elapsed();
    let served = still_served(&proxy).await;
    let pass = stale <= Duration::from_secs(6) && served;
    let figure = format!(
        "two sidekicks, one killed: all servers stay; a container restarted within {restarted:.1?}; entries \
         of a killed sidekick gone after {stale:.1?} (<= TTL 5 s + 1 s), held by the proxy and served: {served}; {}",
        if engine_restarted { "the engine restarted" } else { "the engine was not restarted: it is the machine's own" }
    );
    Outcome::of(&format!("{rate}/s, 16 connections, GET"), &report, figure, pass)
}

/// What vanished at once is held, as the containers still answer.
async fn still_served(proxy: &Proxy) -> bool {
    proxy.get(HOST, "/").await.is_ok_and(|answer| answer.status == 200)
}

async fn registered(scene: &Scene, count: usize) {
    let what = format!("{count} servers stand in the store");
    eventually(&what, Duration::from_secs(30), async || all_stand(scene, count).await).await;
}

async fn all_stand(scene: &Scene, count: usize) -> Result<(), String> {
    let servers = scene.below(&server_key(BACKEND, "")).await.len();
    ensure(servers == count, format!("{servers} do"))
}

/// Removed when dropped.
struct Containers {
    docker: Arc<Docker>,
    names: Vec<String>,
}

impl Containers {
    fn run(&mut self, name: &str) {
        let name = format!("etna-{}-{name}", std::process::id());
        let program = format!("{}:/etna:ro", binary("etna").display());
        let owner = format!("etna.testbed={}", std::process::id());
        let (host, site) = (format!("etna.host={HOST}"), format!("etna.site={SITE}"));
        let mut args = vec!["run", "--detach", "--name", &name, "--hostname", &name, "--volume", &program];
        args.extend(["--label", &host, "--label", &site, "--label", "etna.role=public", "--label", &owner]);
        args.extend([&*self.docker.base, "/etna", "stand-in", "--listen", "0.0.0.0:80", "--role", "public"]);
        self.names.push(name.clone());
        self.docker.run(&args);
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = self.docker.try_run(&["rm", "--force", "--volumes", name]);
        }
    }
}

const SITE: &str = "c18";
const HOST: &str = "c18.test";
const BACKEND: &str = "c18-public";
