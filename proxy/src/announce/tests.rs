//! An announcement on a store in memory: what comes back, what is left alone, what is said.

use std::time::Instant;

use etna_store::{Engine, LeaseId, Op, Txn};

use super::*;
use crate::config::AdminAddress;
use crate::control::Control;
use crate::listener::Listeners;

const KEY: &str = "backends/cores/servers/core-01";

struct Rig {
    engine: Arc<dyn Engine>,
    state: Arc<State>,
    config: Config,
    gate: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn new(engine: &Arc<dyn Engine>, url: &str) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let announce = Announce {
            id: "core-01".into(),
            store: None,
            backend: "cores".into(),
            url: Some(url.into()),
            ttl: Duration::from_secs(9),
            weight: None,
        };
        let admin = AdminAddress::Unix("/nowhere".into());
        let config =
            Config { announce: Some(announce), ..Config::bare("memory:".into(), dir.path().to_owned(), admin) };
        let state = Arc::new(State::new(engine.clone()));
        Rig { engine: engine.clone(), state, config, gate: CancellationToken::new(), _dir: dir }
    }

    fn start(&self) -> Announcer {
        Announcer::start(&self.config, &self.state, &self.gate)
    }

    fn ready(&self) {
        let control = Control::new(self.state.clone(), Listeners::new(Vec::new()));
        tokio::spawn(async move { drop(control.run().await) });
        self.gate.cancel();
    }

    async fn said(&self) -> Option<(serde_json::Value, LeaseId)> {
        let item = self.engine.get(KEY).await.unwrap()?;
        Some((serde_json::from_slice(&item.value).unwrap(), item.lease.unwrap()))
    }

    async fn announced(&self) -> (serde_json::Value, LeaseId) {
        eventually("it is announced", async || self.said().await).await
    }
}

async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn it_is_announced_when_ready_drained_and_taken_back() {
    let rig = Rig::new(&etna_store::engine::memory::open(), "http://10.0.0.1:1");
    let announcer = rig.start();
    assert_eq!(rig.state.announced.report(Instant::now())["places"][0]["state"], "absent");
    tokio::task::yield_now().await;
    assert!(rig.said().await.is_none());
    rig.ready();
    let (value, lease) = rig.announced().await;
    assert_eq!(value["URL"], "http://10.0.0.1:1");
    assert_eq!(rig.engine.get("proxies/core-01").await.unwrap().unwrap().lease, Some(lease));
    assert!(rig.engine.get("backends/cores/backend").await.unwrap().unwrap().lease.is_none());
    eventually("it says so", async || {
        (rig.state.announced.report(Instant::now())["places"][0]["state"] == "announced").then_some(())
    })
    .await;

    announcer.drain(Duration::from_secs(20)).await;
    let (value, its) = rig.said().await.unwrap();
    assert_eq!((&value["State"], its), (&"draining".into(), lease));
    announcer.end(Duration::from_secs(20)).await;
    assert!(rig.said().await.is_none() && rig.engine.get("proxies/core-01").await.unwrap().is_none());
    assert!(rig.engine.get("backends/cores/backend").await.unwrap().is_some());
    assert!(rig.state.announced.problems().is_empty());
}

#[tokio::test]
async fn who_replaces_it_goes_on_with_its_lease() {
    let rig = Rig::new(&etna_store::engine::memory::open(), "http://10.0.0.1:1");
    rig.ready();
    let former = rig.start();
    let (_, lease) = rig.announced().await;
    drop(former);
    let announcer = rig.start();
    announcer.drain(Duration::ZERO).await;
    let draining = async || rig.said().await.filter(|(value, _)| value["State"] == "draining");
    assert_eq!(eventually("the next one speaks", draining).await.1, lease);
    announcer.end(Duration::from_secs(20)).await;
    assert!(rig.said().await.is_none());
}

#[tokio::test]
async fn what_was_lost_comes_back_and_what_an_operator_says_stays() {
    let rig = Rig::new(&etna_store::engine::memory::open(), "http://10.0.0.1:1");
    rig.ready();
    let _announcer = rig.start();
    let (_, lease) = rig.announced().await;
    rig.engine.revoke(lease).await.unwrap();
    let (_, second) = eventually("it is back", async || rig.said().await.filter(|(_, its)| *its != lease)).await;
    rig.engine.commit(Txn::delete(KEY)).await.unwrap();
    let (mut value, _) = rig.announced().await;
    value["State"] = "draining".into();
    value["URL"] = "http://10.0.0.9:1".into();
    let put = Op::Put(KEY.into(), value.to_string().into(), Some(second));
    rig.engine.commit(Txn { compares: Vec::new(), ops: vec![put] }).await.unwrap();
    let mended = async || rig.said().await.filter(|(value, _)| value["URL"] == "http://10.0.0.1:1");
    assert_eq!(eventually("its address is right", mended).await.0["State"], "draining");
}

#[tokio::test]
async fn a_name_that_is_taken_is_not_stolen() {
    let engine = etna_store::engine::memory::open();
    let (first, second) = (Rig::new(&engine, "http://10.0.0.1:1"), Rig::new(&engine, "http://10.0.0.2:1"));
    first.ready();
    let announcer = first.start();
    let (_, lease) = first.announced().await;
    second.ready();
    let other = second.start();
    let problem = eventually("the second one says so", async || second.state.problems().iter().next().cloned()).await;
    assert!(problem.reason.contains("10.0.0.1:1") && problem.hint.contains("--announce"), "{problem:?}");
    assert_eq!(first.said().await.unwrap().1, lease);
    // Its end takes nothing away.
    other.end(Duration::from_secs(20)).await;
    assert_eq!(first.said().await.unwrap().1, lease);

    let again = second.start();
    announcer.end(Duration::from_secs(20)).await;
    let (value, _) = second.announced().await;
    assert_eq!(value["URL"], "http://10.0.0.2:1");
    eventually("it is solved", async || second.state.problems().is_empty().then_some(())).await;
    again.end(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn what_cannot_be_announced_says_why_and_what_to_do() {
    let mut rig = Rig::new(&etna_store::engine::memory::open(), "http://10.0.0.1:1");
    if let Some(announce) = &mut rig.config.announce {
        announce.url = None;
        announce.store = Some("http://127.0.0.1:1".into());
    }
    rig.ready();
    let _announcer = rig.start();
    let problems =
        eventually("both stores", async || Some(rig.state.announced.problems()).filter(|all| all.len() == 2)).await;
    assert!(problems[0].reason.contains("http://127.0.0.1:1"), "{problems:?}");
    assert!(problems[1].hint.contains("--announce-url"), "{problems:?}");
    assert!(rig.state.announced.counts().iter().all(|(_, is_there, failures)| !is_there && *failures > 0));
}
