//! The control loop on a store that does not keep its promises: it forgets to tell, answers late, refuses.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use etna_proxy::control::{Control, State, StoreStatus};
use etna_proxy::listener::Listeners;
use etna_store::engine::{Options, memory};
use etna_store::{Batch, Engine, Error, Item, LeaseId, Revision, Txn};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::task::JoinHandle;

/// A store with faults that can be switched on.
struct Faulty {
    inner: Arc<dyn Engine>,
    /// Watches do not tell of these keys.
    forgets: &'static str,
    hangs: AtomicBool,
    refuses: AtomicBool,
    /// The next item of a watch is an error.
    breaks: Arc<AtomicBool>,
}

impl Faulty {
    fn on(inner: Arc<dyn Engine>) -> Arc<Faulty> {
        let (hangs, refuses, breaks) = (AtomicBool::new(false), AtomicBool::new(false), Arc::default());
        Arc::new(Faulty { inner, forgets: "sites/", hangs, refuses, breaks })
    }

    fn check(&self) -> Result<(), Error> {
        if self.refuses.load(Relaxed) { Err(Error::Denied { reason: "no permission".into() }) } else { Ok(()) }
    }
}

#[async_trait]
impl Engine for Faulty {
    async fn snapshot(&self) -> Result<Batch, Error> {
        self.check()?;
        let mut pause = tokio::time::interval(Duration::from_millis(10));
        while self.hangs.load(Relaxed) {
            pause.tick().await;
        }
        self.inner.snapshot().await
    }

    async fn watch(&self, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        self.check()?;
        let (forgets, breaks) = (self.forgets, self.breaks.clone());
        let watch = self.inner.watch(after).await?;
        let told = watch.map(move |batch| {
            let mut batch = batch?;
            if breaks.swap(false, Relaxed) {
                return Err(Error::Unavailable { context: "broken".into(), source: None });
            }
            batch.changes.retain(|change| !change.key.starts_with(forgets.as_bytes()));
            Ok(batch)
        });
        Ok(told.boxed())
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, Error> {
        self.inner.get(key).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        self.inner.commit(txn).await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.inner.grant(ttl).await
    }

    async fn keep(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.inner.keep(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.inner.revoke(lease).await
    }

    fn describe(&self) -> String {
        "faulty://a:1/v".into()
    }
}

/// A control loop that runs.
struct Running {
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(engine: Arc<Faulty>, dir: &Path) -> Running {
        let state = Arc::new(State::new(engine));
        let control = Control::new(state.clone(), Listeners::new(Vec::new()));
        let control = control.holding(Duration::from_secs(300)).keeping_in(dir.into());
        Running { state, task: tokio::spawn(async move { control.run().await.1.await.unwrap() }) }
    }

    async fn until(&self, what: impl FnMut(&StoreStatus) -> bool) {
        let mut store = self.state.subscribe_store();
        tokio::time::timeout(LONG, store.wait_for(what)).await.expect("it comes to that").unwrap();
    }

    /// Lets it end as a drain does: what is to be written is written.
    async fn end(self) {
        self.state.draining.cancel();
        self.task.await.unwrap();
    }
}

async fn put(engine: &Arc<Faulty>, key: &str, value: &str) {
    engine.commit(Txn::put(key, value.to_owned())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_watch_forgot_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Faulty::on(memory::open());
    put(&engine, "backends/a/servers/s", SERVER).await;
    let running = Running::start(engine.clone(), dir.path());
    running.until(|store| store.following).await;
    put(&engine, "sites/forgotten", SITE).await;
    // A comparison is due soon after a watch broke.
    engine.breaks.store(true, Relaxed);
    put(&engine, "backends/a/servers/t", SERVER).await;
    running.until(|store| store.differences > 0).await;
    running.until(|store| store.following && store.error.is_none()).await;
    assert!(running.state.model().site("forgotten").is_some());
    assert_eq!((running.state.model().servers("a").count(), running.state.store().differences), (2, 1));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_answers_late_or_refuses_finds_the_last_table_serving() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Faulty::on(memory::open());
    put(&engine, "backends/a/servers/s", SERVER).await;
    let running = Running::start(engine.clone(), dir.path());
    running.until(|store| store.following).await;
    // Written when it ends, if not before.
    running.end().await;

    engine.hangs.store(true, Relaxed);
    let running = Running::start(engine.clone(), dir.path());
    running.until(|store| store.from_disk.is_some() && store.revision.is_some()).await;
    assert!(running.state.is_ready() && running.state.store().is_stale());
    assert_eq!(running.state.model().servers("a").count(), 1);
    put(&engine, "backends/a/servers/t", SERVER).await;
    // The snapshot that was asked for at the start is still the one that is waited for.
    engine.hangs.store(false, Relaxed);
    running.until(|store| store.following && store.from_disk.is_none()).await;
    assert_eq!((running.state.model().servers("a").count(), running.state.store().snapshots), (2, 1));
    running.end().await;

    engine.refuses.store(true, Relaxed);
    let running = Running::start(engine.clone(), dir.path());
    running.until(|store| store.from_disk.is_some() && store.revision.is_some()).await;
    assert!(running.state.store().error.unwrap().contains("refused"));
    assert_eq!(running.state.model().servers("a").count(), 2);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_vanished_while_nobody_looked_is_held_too() {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!(r#"{{"URL":"http://{}"}}"#, listener.local_addr().unwrap());
    let full = Faulty::on(memory::open());
    for key in ["backends/a/servers/s", "backends/a/servers/t"] {
        put(&full, key, &server).await;
    }
    put(&full, "frontends/f/frontend", r#"{"Type":"http","BackendId":"a","Route":"Host(`a.test`)"}"#).await;
    let running = Running::start(full, dir.path());
    running.until(|store| store.following).await;
    running.end().await;

    let empty = Faulty::on(etna_store::open("memory:", &Options::default()).await.unwrap());
    let running = Running::start(empty.clone(), dir.path());
    running.until(|store| store.following).await;
    assert_eq!((running.state.suspects().count, running.state.model().servers("a").count()), (3, 2));
    // The release key, as an operator without `etnactl` puts it.
    put(&empty, "proxies/release", "now").await;
    let mut suspects = running.state.subscribe_suspects();
    tokio::time::timeout(LONG, suspects.wait_for(|suspects| suspects.count == 0)).await.unwrap().unwrap();
    assert_eq!(running.state.model().frontends().count(), 0);
    running.end().await;
}

const SERVER: &str = r#"{"URL":"http://127.0.0.1:9"}"#;
const SITE: &str = r#"{"Preset":"wordpress","Hosts":["a.test"],"Public":"a"}"#;
const LONG: Duration = Duration::from_secs(20);
