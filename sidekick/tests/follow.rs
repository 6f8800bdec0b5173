//! The whole sidekick but for its command line: a Docker engine and a store that are fakes, real sockets between.

#![allow(clippy::unwrap_used, reason = "a test ends where its setting fails")]

#[allow(dead_code, unreachable_pub)]
mod daemon;
#[path = "../src/register/fake.rs"]
#[allow(dead_code)]
mod fake;

use std::sync::Arc;
use std::time::Duration;

use daemon::{Daemon, container};
use etna_sidekick::classify::{Addressing, HostIp, Policy};
use etna_sidekick::docker::Docker;
use etna_sidekick::follow::{Follower, Tracker};
use etna_sidekick::notify::{Beat, Board};
use etna_sidekick::register::{Keeper, Machine, Notebook, Registrar};
use fake::Fake;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

const CID: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const KEY: &str = "backends/wordpress.local-public/servers/m1-fedcba987654-80";

/// A running sidekick.
struct Rig {
    daemon: Daemon,
    store: Arc<Fake>,
    _tasks: [AbortOnDropHandle<()>; 3],
}

fn rig() -> Rig {
    let (daemon, store) = (Daemon::start(), Arc::new(Fake::default()));
    let tasks = sidekick(&daemon, &store);
    Rig { daemon, store, _tasks: tasks }
}

fn sidekick(daemon: &Daemon, store: &Arc<Fake>) -> [AbortOnDropHandle<()>; 3] {
    let loopback = "127.0.0.1".parse().unwrap();
    let policy = Policy {
        default_host: "wordpress.local".into(),
        allow_hosts: Vec::new(),
        allow_sites: Vec::new(),
        addressing: Addressing { host_ip: Some(loopback), ..Addressing::default() },
    };
    let notebook = Notebook::new(daemon.dir().join("lease"), "fake:", "m1");
    let (keeper, lease) = Keeper::new(store.clone(), Duration::from_secs(15), notebook);
    let docker = Docker::new(&daemon.host()).unwrap();
    let tracker = Tracker::new(policy, None, true);
    let (follower, wanted) = Follower::new(docker, HostIp::Fixed(loopback), tracker, Board::default());
    let registrar = Registrar::new(store.clone(), Machine::new("m1", None), lease, Board::default(), None);
    let stop = CancellationToken::new();
    [
        AbortOnDropHandle::new(tokio::spawn(keeper.run())),
        AbortOnDropHandle::new(tokio::spawn(follower.run(stop.clone(), Beat::default()))),
        AbortOnDropHandle::new(tokio::spawn(registrar.run(wanted, stop, Beat::default()))),
    ]
}

impl Rig {
    fn server(&self) -> Option<String> {
        self.store.dump().remove(KEY)
    }

    /// The server's value satisfies `condition` soon.
    async fn becomes(&self, what: &str, condition: impl Fn(Option<&str>) -> bool) {
        eventually(what, || condition(self.server().as_deref())).await;
    }

    /// The sidekick has an event stream open.
    async fn follows(&self) {
        eventually("an event stream", || self.daemon.streams() == 1).await;
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "not within 20 s: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Answers HTTP on a port of loopback.
async fn web() -> (u16, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    (port, AbortOnDropHandle::new(serving))
}

#[tokio::test(flavor = "multi_thread")]
async fn from_start_to_stop() {
    let rig = rig();
    rig.follows().await;
    let (port, _web) = web().await;
    rig.daemon.put(container(CID, "wordpress-1", port));
    rig.daemon.event(CID, "start", json!({"name": "wordpress-1"}));
    rig.becomes("registered", |value| value.is_some_and(|value| value.contains(&format!("http://127.0.0.1:{port}\""))))
        .await;
    let sites = rig.store.dump();
    assert_eq!(
        sites["sites/wordpress.local"],
        r#"{"Hosts":["wordpress.local"],"Public":"wordpress.local-public","Admin":"wordpress.local-admin","Preset":"wordpress"}"#
    );
    assert!(rig.store.item(KEY).unwrap().lease.is_some());

    // Garbage and the future do no harm.
    rig.daemon.raw("}{ not json\n\n[1,2]\n{\"Type\":\"daemon\",\"Action\":\"reload\"}\n");
    rig.daemon.set(CID, "/State/Health", json!({"Status": "unhealthy"}));
    rig.daemon.event(CID, "health_status: unhealthy", json!({}));
    rig.becomes("weight 0", |value| value.is_some_and(|value| value.contains("\"Weight\":0"))).await;
    rig.daemon.set(CID, "/State/Health", json!({"Status": "healthy"}));
    rig.daemon.event(CID, "health_status: healthy", json!({}));
    rig.becomes("weight 1", |value| value.is_some_and(|value| !value.contains("Weight"))).await;

    rig.daemon.event(CID, "kill", json!({"signal": "28"}));
    rig.becomes("draining", |value| value.is_some_and(|value| value.contains("\"State\":\"draining\""))).await;
    rig.daemon.take(CID);
    rig.daemon.event(CID, "die", json!({"exitCode": "0"}));
    rig.becomes("gone", |value| value.is_none()).await;
    assert!(rig.store.dump().contains_key("sites/wordpress.local"), "the site outlives its containers");

    let requests = rig.daemon.requests();
    assert!(requests.iter().all(|request| request.starts_with("GET /")), "{requests:?}");
    assert!(!requests.iter().any(|request| request.contains("/v1.")), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_registered_before_it_answers() {
    let rig = rig();
    rig.follows().await;
    // Accepts and says nothing, as Docker's port proxy does for a container in which nobody listens yet.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = mute.local_addr().unwrap().port();
    rig.daemon.put(container(CID, "wordpress-1", port));
    rig.daemon.event(CID, "start", json!({}));
    eventually("the site", || rig.store.dump().contains_key("sites/wordpress.local")).await;
    for _ in 0..3 {
        drop(mute.accept().await.unwrap());
        assert_eq!(rig.server(), None);
    }
    let (mut stream, _) = mute.accept().await.unwrap();
    let mut request = [0; 512];
    let length = stream.read(&mut request).await.unwrap();
    let request = String::from_utf8_lossy(&request[..length]).into_owned();
    assert!(request.starts_with("HEAD / HTTP/1.1\r\nHost: wordpress.local\r\n"), "{request}");
    stream.write_all(b"HTTP/1.1 500 Internal Server Error\r\n\r\n").await.unwrap();
    rig.becomes("registered", |value| value.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_unwell_changes_nothing() {
    let (daemon, store) = (Daemon::start(), Arc::new(Fake::default()));
    let (port, _web) = web().await;
    daemon.put(container(CID, "wordpress-1", port));
    let tasks = sidekick(&daemon, &store);
    let rig = Rig { daemon, store, _tasks: tasks };
    rig.becomes("registered", |value| value.is_some()).await;
    let revision = rig.store.revision();

    let lists = || rig.daemon.requests().iter().filter(|request| *request == "GET /containers/json").count();
    rig.daemon.list_fails(true);
    rig.daemon.end_streams();
    let before = lists();
    eventually("lists that fail", || lists() >= before + 3).await;
    assert_eq!(rig.store.revision(), revision);

    // The engine is back and has not found its containers yet.
    let kept = rig.daemon.take(CID);
    rig.daemon.list_fails(false);
    let before = lists();
    eventually("lists that are empty", || lists() >= before + 2).await;
    assert_eq!(rig.store.revision(), revision);
    rig.daemon.put(kept);
    let before = lists();
    eventually("a list that is believed", || lists() > before).await;
    rig.follows().await;
    assert_eq!(rig.store.revision(), revision);

    // And it is still followed, even if it dies while it is being looked at.
    rig.daemon.take(CID);
    rig.daemon.event(CID, "die", json!({"exitCode": "137"}));
    rig.becomes("gone", |value| value.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_sidekick_takes_over_without_a_gap() {
    let mut rig = rig();
    let (port, _web) = web().await;
    rig.follows().await;
    rig.daemon.put(container(CID, "wordpress-1", port));
    rig.daemon.event(CID, "start", json!({}));
    rig.becomes("registered", |value| value.is_some()).await;
    let (revision, lease) = (rig.store.revision(), rig.store.item(KEY).unwrap().lease);
    rig._tasks.iter().for_each(|task| task.abort());
    eventually("the end of the first", || {
        rig.daemon.streams() == 0 || rig._tasks.iter().all(|task| task.is_finished())
    })
    .await;
    let gone = "backends/wordpress.local-public/servers/m1-aaaaaaaaaaaa-80";
    let stale = etna_store::Op::Put(gone.into(), "{}".into(), lease);
    let txn = etna_store::Txn { compares: Vec::new(), ops: vec![stale] };
    etna_store::Engine::commit(rig.store.as_ref(), txn).await.unwrap();

    rig._tasks = sidekick(&rig.daemon, &rig.store);
    eventually("the stale server's end", || rig.store.item(gone).is_none()).await;
    assert_eq!(rig.store.item(KEY).unwrap().lease, lease);
    assert_eq!(rig.store.revision(), revision + 2, "the stale put above, and its delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_idle_containers_write_nothing() {
    let (daemon, store) = (Daemon::start(), Arc::new(Fake::default()));
    let (port, _web) = web().await;
    for i in 0..200 {
        daemon.put(container(&format!("{i:012x}{}", "0".repeat(52)), &format!("wordpress-{i}"), port));
    }
    let tasks = sidekick(&daemon, &store);
    let rig = Rig { daemon, store, _tasks: tasks };
    eventually("all of them", || rig.store.dump().len() == 203).await;
    let revision = rig.store.revision();
    let inspections = || rig.daemon.requests().len();
    for action in ["exec_create: check", "exec_start: check", "update", "rename"] {
        for i in 0..200 {
            rig.daemon.event(&format!("{i:012x}{}", "0".repeat(52)), action, json!({}));
        }
    }
    let before = inspections();
    eventually("200 looks", || inspections() >= before + 200).await;
    assert_eq!(rig.store.revision(), revision);
}
