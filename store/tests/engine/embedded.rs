//! The embedded engine: its file, its lock, its damage.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etna_store::engine::embedded;
use etna_store::{Engine, Error, Op, Txn};
use futures_util::stream::{self, StreamExt as _};
use tempfile::TempDir;

use crate::suite::{self, Bench};

struct Embedded {
    dir: TempDir,
    engine: Option<Arc<dyn Engine>>,
}

#[async_trait]
impl Bench for Embedded {
    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone().unwrap()
    }

    async fn compact(&self) {
        let engine = self.engine();
        // Concurrent ones share their sync.
        let puts = (0..=10_000).map(|_| suite::put(&engine, "filler", "x"));
        stream::iter(puts).buffer_unordered(256).for_each(async |_| {}).await;
    }

    async fn restart(&mut self) -> bool {
        self.engine = None;
        self.engine = Some(embedded::open(self.dir.path()).await.unwrap());
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_every_promise() {
    suite::check_all(async || {
        let dir = tempfile::tempdir().unwrap();
        let engine = Some(embedded::open(dir.path()).await.unwrap());
        Embedded { dir, engine }
    })
    .await;
}

#[tokio::test]
async fn only_its_owner_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}", dir.path().join("a/b").display());
    let engine = etna_store::open(&url, &Default::default()).await.unwrap();
    assert_eq!(engine.describe(), url);
    let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("a/b"), mode("a/b/etna.redb")), (0o700, 0o600));
}

#[tokio::test]
async fn only_one_can_open_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = embedded::open(dir.path()).await.unwrap();
    let Err(Error::Unavailable { context, .. }) = embedded::open(dir.path()).await else { panic!("opened twice") };
    assert!(context.contains("open in another process") && context.contains("stop it"), "{context}");
    suite::put(&first, "k", "1").await;
    drop(first);
    embedded::open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn history_that_was_forgotten_stays_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let engine = embedded::open(dir.path()).await.unwrap();
    let mut bench = Embedded { dir, engine: Some(engine.clone()) };
    let old = suite::put(&engine, "k", "1").await;
    drop(engine);
    bench.compact().await;
    bench.restart().await;
    assert!(matches!(suite::first_error(&bench.engine(), old).await, Error::Compacted { .. }));
    let snapshot = bench.engine().snapshot().await.unwrap();
    assert_eq!(snapshot.changes.len(), 2);
}

#[tokio::test]
async fn a_lease_has_its_whole_time_again_and_then_ends() {
    let dir = tempfile::tempdir().unwrap();
    let engine = embedded::open(dir.path()).await.unwrap();
    let lease = engine.grant(Duration::from_secs(3)).await.unwrap();
    let op = Op::Put("k".into(), "1".into(), Some(lease));
    let last = engine.commit(Txn { compares: Vec::new(), ops: vec![op] }).await.unwrap();
    drop(engine);
    let engine = embedded::open(dir.path()).await.unwrap();
    let opened = std::time::Instant::now();
    let mut watch = engine.watch(last).await.unwrap();
    assert_eq!(suite::next(&mut watch).await.changes[0].value, None);
    assert!(opened.elapsed() > Duration::from_millis(2900));
    assert!(engine.keep(lease).await.is_err());
    drop((engine, watch));
    let engine = embedded::open(dir.path()).await.unwrap();
    assert!(matches!(engine.keep(lease).await, Err(Error::LeaseLost)), "its end was written down too");
}

#[tokio::test]
async fn what_is_no_store_is_said_to_be_damaged() {
    for content in [&b"garbage"[..], &[0xff; 100_000], b"redb\x1a\x0a\xa9\x0d\x0a and then nothing"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("etna.redb"), content).unwrap();
        let Err(error) = embedded::open(dir.path()).await else { panic!("opened") };
        let Error::Invalid { reason } = error else { panic!("{error:?}") };
        assert!(reason.contains("etna.redb is damaged") && reason.contains("move it away"), "{reason}");
        assert_eq!(fs::read(dir.path().join("etna.redb")).unwrap(), content, "it is left as it was");
    }
}

#[tokio::test]
async fn damage_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let engine = embedded::open(dir.path()).await.unwrap();
    for n in 0..50 {
        suite::put(&engine, &format!("k{n}"), &"v".repeat(500)).await;
    }
    drop(engine);
    drop(embedded::open(dir.path()).await.unwrap());
    let whole = read_closed(dir.path()).await;
    let mut refused = 0;
    for n in 0..40 {
        let other = tempfile::tempdir().unwrap();
        let mut content = whole.clone();
        if n % 4 == 0 {
            content.truncate(content.len() * n / 41 + 1);
        } else {
            let at = content.len() * n / 41;
            let end = content.len().min(at + 600);
            content[at..end].fill(0x5a);
        }
        fs::write(other.path().join("etna.redb"), content).unwrap();
        // Damage to what is not in use goes unnoticed, and does no harm.
        match embedded::open(other.path()).await {
            Ok(engine) => _ = engine.snapshot().await.unwrap(),
            Err(error) => {
                refused += 1;
                assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
            }
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_place_that_cannot_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let Err(error) = embedded::open(&dir.path().join("file")).await else { panic!("opened") };
    assert!(matches!(&error, Error::Invalid { reason } if reason.contains("file")), "{error:?}");
}

/// The file once its owner has closed it.
async fn read_closed(dir: &Path) -> Vec<u8> {
    drop(embedded::open(dir).await.unwrap());
    fs::read(dir.join("etna.redb")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_lent_to_another_and_comes_back_with_what_that_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let engine = embedded::open(dir.path()).await.unwrap();
    let before = suite::put(&engine, "one", "1").await;
    let mut changes = engine.watch(before).await.unwrap();
    engine.release().await;

    // Reading goes on; writing waits.
    assert_eq!(engine.snapshot().await.unwrap().changes.len(), 1);
    let writer = engine.clone();
    let waiting = tokio::spawn(async move { suite::put(&writer, "three", "3").await });
    let other = embedded::open(dir.path()).await.unwrap();
    suite::put(&other, "two", "2").await;
    assert!(!waiting.is_finished());
    drop(other);

    engine.resume().await;
    waiting.await.unwrap();
    let (two, three) = (changes.next().await.unwrap().unwrap(), changes.next().await.unwrap().unwrap());
    assert_eq!((&two.changes[0].key[..], &three.changes[0].key[..]), (&b"two"[..], &b"three"[..]));
    assert_eq!(engine.snapshot().await.unwrap().changes.len(), 3);
    assert!(embedded::open(dir.path()).await.is_err(), "it is held again");
}
