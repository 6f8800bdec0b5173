//! Bugs of ours outside of requests: what broke starts again, what serves goes on serving.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use etna_proxy::config::{AdminAddress, Config};
use etna_store::engine::memory;
use etna_store::{Batch, Engine, Error, Item, LeaseId, Revision, Txn};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A store with a bug that shows once, when it is switched on.
struct Buggy {
    inner: Arc<dyn Engine>,
    in_watch: Arc<AtomicBool>,
    in_commit: AtomicBool,
}

#[async_trait]
impl Engine for Buggy {
    async fn snapshot(&self) -> Result<Batch, Error> {
        self.inner.snapshot().await
    }

    async fn watch(&self, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        let bug = self.in_watch.clone();
        let watch = self.inner.watch(after).await?;
        Ok(watch.inspect(move |_| assert!(!bug.swap(false, Relaxed), "a bug in a watch, for a test")).boxed())
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, Error> {
        self.inner.get(key).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        assert!(!self.in_commit.swap(false, Relaxed), "a bug in a commit, for a test");
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
        "memory:".into()
    }
}

/// A whole proxy in this process.
struct Etna {
    engine: Arc<Buggy>,
    listen: SocketAddr,
    admin: SocketAddr,
    task: JoinHandle<anyhow::Result<()>>,
    _dir: TempDir,
}

impl Drop for Etna {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Etna {
    async fn start() -> Etna {
        let dir = tempfile::tempdir().unwrap();
        let engine =
            Arc::new(Buggy { inner: memory::open(), in_watch: Arc::default(), in_commit: AtomicBool::new(false) });
        put(&engine, "backends/b/servers/s", &format!(r#"{{"URL":"http://{}"}}"#, server().await)).await;
        let task = tokio::spawn(etna_proxy::serve(config(dir.path()), engine.clone()));
        let said = until("it says its addresses", async || {
            let text = std::fs::read_to_string(dir.path().join("addresses.json")).ok()?;
            serde_json::from_str::<serde_json::Value>(&text).ok()
        })
        .await;
        let address = |name: &str| said[name].as_str().unwrap().parse().unwrap();
        let etna = Etna { engine, listen: address("listen"), admin: address("admin"), task, _dir: dir };
        etna.route("first").await;
        etna.until_served("first").await;
        etna
    }

    async fn route(&self, id: &str) {
        let route = format!(r#"{{"Type":"http","BackendId":"b","Route":"Host(`{id}.test`)"}}"#);
        put(&self.engine, &format!("frontends/{id}/frontend"), &route).await;
    }

    async fn until_served(&self, id: &str) {
        until(id, async || (get(self.listen, &format!("{id}.test"), "/").await? == 200).then_some(())).await;
    }
}

fn config(dir: &Path) -> Config {
    let any = "127.0.0.1:0".parse().unwrap();
    Config { listen: vec![any], ..Config::bare("memory:".into(), dir.into(), AdminAddress::Tcp(any)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_the_watch_is_survived_and_following_goes_on() {
    let etna = Etna::start().await;
    etna.engine.in_watch.store(true, Relaxed);
    etna.route("second").await;
    // From here on the watch is broken; what is in force stays in force.
    until("the bug shows", async || (!etna.engine.in_watch.load(Relaxed)).then_some(())).await;
    let broke = Instant::now();
    for _ in 0..50 {
        assert_eq!(get(etna.listen, "first.test", "/").await, Some(200), "after {:?}", broke.elapsed());
    }
    etna.until_served("second").await;
    etna.route("third").await;
    etna.until_served("third").await;
    // What was there before is there again, too.
    assert_eq!(get(etna.listen, "first.test", "/").await, Some(200));
    assert!(!etna.task.is_finished());
    let metrics = page(etna.admin, &etna.admin.to_string(), "/metrics").await.unwrap();
    let panics = metrics.lines().find_map(|line| line.strip_prefix("etna_panics_total "));
    assert!(panics.is_some_and(|count| count != "0"), "{panics:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_the_admin_api_ends_that_request_alone() {
    let etna = Etna::start().await;
    etna.engine.in_commit.store(true, Relaxed);
    let body = r#"{"Backend":{"Id":"new","Type":"http"}}"#;
    let head = format!(
        "POST /v2/backends HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        etna.admin,
        body.len()
    );
    let answer = exchange(etna.admin, &head).await.unwrap_or_default();
    assert!(!etna.engine.in_commit.load(Relaxed), "it was not asked: {answer}");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert_eq!(get(etna.admin, &etna.admin.to_string(), "/healthz").await, Some(200));
    assert_eq!(get(etna.listen, "first.test", "/").await, Some(200));
    assert!(exchange(etna.admin, &head).await.unwrap().starts_with("HTTP/1.1 2"));
}

async fn put(engine: &Arc<Buggy>, key: &str, value: &str) {
    engine.commit(Txn::put(key, value.to_owned())).await.unwrap();
}

/// A server that answers everything 200.
async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while let Ok(1..) = stream.read(&mut request).await {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    address
}

async fn get(to: SocketAddr, host: &str, path: &str) -> Option<u16> {
    page(to, host, path).await?.get(9..12)?.parse().ok()
}

async fn page(to: SocketAddr, host: &str, path: &str) -> Option<String> {
    exchange(to, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
}

/// What came until the other side closed, or said nothing more for a second.
async fn exchange(to: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(to).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 * 1024];
    let mut patience = Duration::from_secs(20);
    while let Ok(Ok(n @ 1..)) = tokio::time::timeout(patience, stream.read(&mut piece)).await {
        answer.extend_from_slice(&piece[..n]);
        patience = Duration::from_secs(1);
    }
    Some(String::from_utf8_lossy(&answer).into_owned())
}

async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{what}: not within thirty seconds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
