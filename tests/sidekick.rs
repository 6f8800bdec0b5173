//! The sidekick on real containers: what runs is registered, what stops is drained before it dies, what is gone goes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use etna_tests::binaries::binary;
use etna_tests::docker::Docker;
use etna_tests::scene::Scene;
use etna_tests::wait::{always, ensure, eventually};
use serde_json::Value;

/// Containers of one test: removed when dropped, whatever happened.
struct Containers {
    docker: Arc<Docker>,
    site: String,
    names: Vec<String>,
}

impl Containers {
    fn new(docker: &Arc<Docker>, site: &str) -> Containers {
        // Another run on the same engine has other names.
        let site = format!("{site}-{}", std::process::id());
        Containers { docker: docker.clone(), site, names: Vec::new() }
    }

    /// Runs a container that answers with its name, on a port of Docker's choice.
    fn run(&mut self, name: &str, role: &str, more: &[&str]) -> String {
        let name = format!("{}-{name}", self.site);
        let program = format!("{}:/etna:ro", binary("etna").display());
        let (host, site) = (format!("etna.host={}.test", self.site), format!("etna.site={}", self.site));
        let (kind, owner) = (format!("etna.role={role}"), format!("etna.testbed={}", std::process::id()));
        let mut args = vec!["run", "--detach", "--name", &name, "--hostname", &name, "--volume", &program];
        args.extend(["--label", &host, "--label", &site, "--label", &kind, "--label", &owner]);
        args.extend(["--publish", "127.0.0.1::80"]);
        args.extend(more);
        args.extend([&*self.docker.base, "/etna", "stand-in", "--listen", "0.0.0.0:80", "--role", role]);
        // It is there to be removed even when starting it failed.
        self.names.push(name.clone());
        self.docker.run(&args);
        name
    }

    /// The servers of a role that stand in the store, by container name.
    async fn servers(&self, scene: &Scene, role: &str) -> Vec<Value> {
        let pairs = scene.below(&format!("backends/{}-{role}/servers/", self.site)).await;
        pairs.iter().map(|(_, value)| serde_json::from_slice(value).expect("a server is JSON")).collect()
    }

    async fn until(&self, scene: &Scene, role: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} {role} servers"), LONG, async || {
            let servers = self.servers(scene, role).await;
            let shown = format!("{servers:?}");
            if servers.len() == count { Ok(servers) } else { Err(shown) }
        })
        .await
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        let names = std::mem::take(&mut self.names);
        for name in names {
            let _ = self.docker.try_run(&["rm", "--force", "--volumes", &name]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_served_and_what_is_gone_is_not() {
    let Some(docker) = Docker::shared().await else { return };
    let scene = Scene::open("sidekick").await;
    let mut containers = Containers::new(&docker, "follow");
    let one = containers.run("1", "public", &[]);
    let sidekick = scene.sidekick("core-01", &["--docker", &docker.url()]).await;
    let proxy = scene.proxy("etna").await;
    let host = format!("{}.test", containers.site);
    containers.until(&scene, "public", 1).await;
    assert_eq!(proxy.until_status(&host, "/", 200).await.server(), one);

    // One that is started later, and an admin.
    let two = containers.run("2", "public", &["--label", "etna.weight=3"]);
    let admin = containers.run("admin", "admin", &[]);
    let servers = containers.until(&scene, "public", 2).await;
    assert!(servers.iter().any(|server| server["Weight"] == 3), "{servers:?}");
    containers.until(&scene, "admin", 1).await;
    eventually("the admin serves its pages", LONG, async || {
        let answer = proxy.get(&host, "/wp-admin/").await?;
        ensure(answer.server() == admin, format!("{} {}", answer.status, answer.server()))
    })
    .await;

    // A restart changes the port: the server moves with it, and never twice.
    docker.run(&["restart", "--time", "1", &one]);
    eventually("both serve again", LONG, async || {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..8 {
            let answer = proxy.get(&host, "/").await?;
            ensure(answer.status == 200, format!("{}", answer.status))?;
            seen.insert(answer.server().to_owned());
        }
        ensure(seen.contains(&one) && seen.contains(&two), format!("{seen:?}"))
    })
    .await;
    assert_eq!(containers.servers(&scene, "public").await.len(), 2);

    docker.run(&["kill", &two]);
    containers.until(&scene, "public", 1).await;
    docker.run(&["rm", "--force", &one]);
    containers.until(&scene, "public", 0).await;
    assert_eq!(proxy.until_status(&host, "/wp-admin/", 200).await.server(), admin);
    drop(sidekick);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_container_is_drained_before_it_dies() {
    let Some(docker) = Docker::shared().await else { return };
    let scene = Scene::open("drains").await;
    let mut containers = Containers::new(&docker, "drain");
    // It does not hear its stop signal, so it lives until Docker loses patience.
    let deaf = containers.run("deaf", "public", &["--stop-signal", "SIGWINCH"]);
    let _other = containers.run("other", "public", &[]);
    let _sidekick = scene.sidekick("core-01", &["--docker", &docker.url()]).await;
    containers.until(&scene, "public", 2).await;
    let (stopper, name) = (docker.clone(), deaf.clone());
    let stop = tokio::task::spawn_blocking(move || stopper.run(&["stop", "--time", "10", &name]));
    eventually("it is draining", LONG, async || {
        let servers = containers.servers(&scene, "public").await;
        let draining = servers.iter().filter(|server| server["State"] == "draining").count();
        ensure(draining == 1 && servers.len() == 2, format!("{servers:?}"))
    })
    .await;
    assert!(!stop.is_finished(), "it was still alive when it was drained");
    stop.await.unwrap();
    containers.until(&scene, "public", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_go_with_their_lease_when_the_whole_host_does() {
    let Some(docker) = Docker::shared().await else { return };
    let scene = Scene::open("lease").await;
    let mut containers = Containers::new(&docker, "lease");
    containers.run("1", "public", &[]);
    let flags = ["--docker", &docker.url(), "--ttl", "8s"];
    let mut sidekick = scene.sidekick("core-01", &flags).await;
    let before = containers.until(&scene, "public", 1).await;
    sidekick.kill();
    // As long as its lease lives, another one takes over without a gap.
    let mut second = scene.sidekick("core-01", &flags).await;
    always("the server stays", Duration::from_secs(12), async || {
        let servers = containers.servers(&scene, "public").await;
        ensure(servers == before, format!("{servers:?}"))
    })
    .await;
    second.kill();
    containers.until(&scene, "public", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_while_etcd_is_gone_is_made_up_for() {
    let Some(docker) = Docker::shared().await else { return };
    let scene = Scene::with_etcd("etcdgone", 1).await;
    let mut containers = Containers::new(&docker, "gone");
    let stays = containers.run("stays", "public", &[]);
    let goes = containers.run("goes", "public", &[]);
    let _sidekick = scene.sidekick("core-01", &["--docker", &docker.url()]).await;
    let proxy = scene.proxy("etna").await;
    let host = format!("{}.test", containers.site);
    containers.until(&scene, "public", 2).await;
    proxy.until_status(&host, "/", 200).await;
    scene.etcd.kill(0);
    docker.run(&["rm", "--force", &goes]);
    let comes = containers.run("comes", "public", &[]);
    // What the last table still names and is gone is passed over.
    for _ in 0..4 {
        assert_eq!(proxy.get(&host, "/").await.unwrap().server(), stays);
    }
    scene.etcd.resume(0);
    scene.etcd.ready(0).await;
    eventually("the store says what runs", LONG, async || {
        let servers = containers.servers(&scene, "public").await;
        let text = format!("{servers:?}");
        ensure(servers.len() == 2 && !text.contains(&goes) && text.contains(&comes), text)
    })
    .await;
    eventually("the new one serves", LONG, async || {
        let answer = proxy.get(&host, "/").await?;
        ensure(answer.server() == comes, answer.server().to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_says_what_it_would_do_and_why() {
    let Some(docker) = Docker::shared().await else { return };
    let scene = Scene::open("explains").await;
    let mut containers = Containers::new(&docker, "explain");
    let ours = containers.run("1", "public", &["--env", "WORDPRESS_ADMIN_ENABLED=true"]);
    let explain = |name: &str, folder: &Path| {
        let url = docker.url();
        let mut command = etna_tests::sidekick::command("core-01", &scene.store(), &["--docker", &url], folder);
        command.args(["explain", name]).output().expect("the sidekick runs")
    };
    let output = explain(&ours, scene.folder());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for word in ["etna.role", "public", &containers.site, "127.0.0.1"] {
        assert!(text.contains(word), "{word:?} is not said:\n{text}");
    }
    let output = explain("no-such-container", scene.folder());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-container"));
}

const LONG: Duration = Duration::from_secs(60);
