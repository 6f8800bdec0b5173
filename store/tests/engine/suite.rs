//! What every engine promises, as one list of checks.
//!
//! Each check has a bench of its own: an empty store behind an engine. Time passes only where time is what is checked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etna_store::engine::{LARGEST_TXN, MOST_OPS};
use etna_store::{Batch, Change, Compare, Engine, Error, LeaseId, Op, Revision, Txn};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

/// A store to check an engine on.
#[async_trait]
pub trait Bench: Send + Sync {
    fn engine(&self) -> Arc<dyn Engine>;

    /// Makes the store forget its history up to now.
    async fn compact(&self);

    /// Ends what is behind the engine as a crash would, and starts it again. The engine from before may be dead then.
    /// False if nothing outlives the engine.
    async fn restart(&mut self) -> bool;
}

type Check = for<'a> fn(&'a mut dyn Bench) -> BoxFuture<'a, ()>;

const CHECKS: &[(&str, Check)] = &[
    ("a snapshot is of one revision", |bench| Box::pin(snapshot_is_of_one_revision(bench))),
    ("revisions come whole and in order", |bench| Box::pin(revisions_come_whole_and_in_order(bench))),
    ("a watch resumes after a revision", |bench| Box::pin(a_watch_resumes(bench))),
    ("compaction is reported", |bench| Box::pin(compaction_is_reported(bench))),
    ("a revision never reached is of another history", |bench| Box::pin(another_history_is_reported(bench))),
    ("one creator wins", |bench| Box::pin(one_creator_wins(bench))),
    ("an outdated write is refused", |bench| Box::pin(an_outdated_write_is_refused(bench))),
    ("an item tells its revision and lease", |bench| Box::pin(an_item_tells(bench))),
    ("a lease ends in one revision", |bench| Box::pin(a_lease_ends_in_one_revision(bench))),
    ("a lease that is kept does not end", |bench| Box::pin(a_kept_lease_lives(bench))),
    ("revoking deletes in one revision", |bench| Box::pin(revoking_deletes(bench))),
    ("an unknown lease is lost", |bench| Box::pin(an_unknown_lease_is_lost(bench))),
    ("names that begin alike are different", |bench| Box::pin(names_that_begin_alike(bench))),
    ("an unchanged value is a revision", |bench| Box::pin(an_unchanged_value_is_a_revision(bench))),
    ("deleting nothing is no error and no revision", |bench| Box::pin(deleting_nothing(bench))),
    ("what no store takes is invalid", |bench| Box::pin(what_no_store_takes(bench))),
    ("many watchers see the same", |bench| Box::pin(many_watchers_see_the_same(bench))),
    ("a watch goes on after a restart", |bench| Box::pin(a_watch_goes_on_after_a_restart(bench))),
];

/// Runs every check on a bench that `make` makes.
pub async fn check_all<B: Bench>(make: impl AsyncFn() -> B) {
    for (name, check) in CHECKS {
        println!("check: {name}");
        let mut bench = make().await;
        let checked = check(&mut bench);
        assert!(tokio::time::timeout(LONGEST_CHECK, checked).await.is_ok(), "`{name}` takes too long");
    }
}

async fn snapshot_is_of_one_revision(bench: &mut dyn Bench) {
    let engine = bench.engine();
    assert_eq!(engine.snapshot().await.unwrap().changes, []);
    // More than a page of any engine.
    for group in 0..25 {
        let ops = (0..100).map(|i| Op::Put(format!("k/{:04}", group * 100 + i), "v".into(), None)).collect();
        engine.commit(Txn { compares: Vec::new(), ops }).await.unwrap();
    }
    let pair = |n: u32| Txn {
        compares: Vec::new(),
        ops: ["a", "z"].map(|key| Op::Put(key.into(), n.to_string().into(), None)).to_vec(),
    };
    let first = engine.commit(pair(0)).await.unwrap();
    let writer = {
        let engine = engine.clone();
        tokio::spawn(async move {
            for n in 1..100 {
                engine.commit(pair(n)).await.unwrap();
            }
        })
    };
    let mut last = first;
    while !writer.is_finished() {
        let snapshot = engine.snapshot().await.unwrap();
        assert!(snapshot.revision >= last);
        last = snapshot.revision;
        assert_eq!(snapshot.changes.len(), 2502);
        assert_eq!(value_of(&snapshot, "a"), value_of(&snapshot, "z"));
        let keys: BTreeSet<&[u8]> = snapshot.changes.iter().map(|change| &change.key[..]).collect();
        assert_eq!(keys.len(), 2502, "no key twice");
    }
    writer.await.unwrap();
    assert_eq!(value_of(&engine.snapshot().await.unwrap(), "z").unwrap(), "99");
}

async fn revisions_come_whole_and_in_order(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let start = engine.snapshot().await.unwrap().revision;
    let mut watch = engine.watch(start).await.unwrap();
    let writer = {
        let engine = engine.clone();
        tokio::spawn(async move {
            let mut written = Vec::new();
            for n in 0..200 {
                let mut ops: Vec<Op> = (0..3).map(|i| Op::Put(format!("k{i}"), format!("{n}").into(), None)).collect();
                if n > 0 {
                    ops.push(Op::Delete(format!("d{}", n - 1)));
                }
                ops.push(Op::Put(format!("d{n}"), "x".into(), None));
                written.push(engine.commit(Txn { compares: Vec::new(), ops }).await.unwrap());
            }
            written
        })
    };
    let mut seen = Vec::new();
    for n in 0..200 {
        let batch = next(&mut watch).await;
        assert_eq!(batch.changes.len(), if n == 0 { 4 } else { 5 }, "revision {} is whole", batch.revision.0);
        assert_eq!(value_of(&batch, "k2").unwrap(), n.to_string());
        seen.push(batch.revision);
    }
    assert_eq!(seen, writer.await.unwrap());
    assert!(seen.is_sorted_by(|a, b| a < b));
}

async fn a_watch_resumes(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let mut written = Vec::new();
    for n in 0..10 {
        written.push(put(&engine, "k", &n.to_string()).await);
    }
    for (n, after) in written.iter().enumerate() {
        let mut watch = engine.watch(*after).await.unwrap();
        for later in &written[n + 1..] {
            assert_eq!(next(&mut watch).await.revision, *later);
        }
    }
}

async fn compaction_is_reported(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let old = put(&engine, "k", "1").await;
    bench.compact().await;
    let error = first_error(&engine, old).await;
    let Error::Compacted { oldest } = error else { panic!("{error:?}") };
    assert!(oldest > old, "{oldest:?}");
    // What the caller does then.
    let snapshot = engine.snapshot().await.unwrap();
    let mut watch = engine.watch(snapshot.revision).await.unwrap();
    let new = put(&engine, "k", "2").await;
    assert_eq!(next(&mut watch).await.revision, new);
}

async fn another_history_is_reported(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let now = put(&engine, "k", "1").await;
    let error = first_error(&engine, Revision(now.0 + 1000)).await;
    assert!(matches!(error, Error::Compacted { .. }), "{error:?}");
}

async fn one_creator_wins(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let creators = (0..16).map(|n| {
        let engine = engine.clone();
        tokio::spawn(async move {
            let compares = vec![Compare::Absent("k".into())];
            engine.commit(Txn { compares, ..Txn::put("k", n.to_string()) }).await
        })
    });
    let mut winners = 0;
    for creator in creators.collect::<Vec<_>>() {
        match creator.await.unwrap() {
            Ok(_) => winners += 1,
            Err(error) => assert!(matches!(error, Error::Conflict), "{error:?}"),
        }
    }
    assert_eq!(winners, 1);
}

async fn an_outdated_write_is_refused(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let first = put(&engine, "k", "1").await;
    let replace = |at: Revision, value: &str| Txn {
        compares: vec![Compare::Unchanged("k".into(), at)],
        ops: vec![
            Op::Put("k".into(), value.to_owned().into(), None),
            Op::Put("other".into(), value.to_owned().into(), None),
        ],
    };
    let second = engine.commit(replace(first, "2")).await.unwrap();
    assert!(matches!(engine.commit(replace(first, "3")).await, Err(Error::Conflict)));
    assert_eq!(engine.get("other").await.unwrap().unwrap().value, "2", "nothing of it was written");
    engine.commit(replace(second, "4")).await.unwrap();
    let absent = Txn { compares: vec![Compare::Unchanged("none".into(), second)], ..Txn::put("none", "1") };
    assert!(matches!(engine.commit(absent).await, Err(Error::Conflict)));
}

async fn an_item_tells(bench: &mut dyn Bench) {
    let engine = bench.engine();
    assert_eq!(engine.get("k").await.unwrap(), None);
    let lease = engine.grant(Duration::from_secs(60)).await.unwrap();
    let key = "backends/b ü?&#+%/servers/s";
    let revision = put_leased(&engine, key, lease).await;
    let item = engine.get(key).await.unwrap().unwrap();
    assert_eq!((item.revision, item.lease), (revision, Some(lease)));
    let revision = put(&engine, key, "").await;
    let item = engine.get(key).await.unwrap().unwrap();
    assert_eq!((item.revision, item.lease, item.value), (revision, None, Bytes::new()));
    engine.revoke(lease).await.unwrap();
    assert!(engine.get(key).await.unwrap().is_some(), "it no longer hung on the lease");
}

async fn a_lease_ends_in_one_revision(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let lease = engine.grant(SHORT).await.unwrap();
    put(&engine, "stays", "1").await;
    let mut last = Revision::default();
    for key in ["a", "b", "c"] {
        last = put_leased(&engine, key, lease).await;
    }
    let mut watch = engine.watch(last).await.unwrap();
    let batch = next(&mut watch).await;
    assert_eq!(deleted(&batch), ["a", "b", "c"]);
    let snapshot = engine.snapshot().await.unwrap();
    assert_eq!((snapshot.revision, snapshot.changes.len()), (batch.revision, 1));
    assert!(matches!(engine.keep(lease).await, Err(Error::LeaseLost)));
}

async fn a_kept_lease_lives(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let lease = engine.grant(SHORT).await.unwrap();
    let start = put_leased(&engine, "k", lease).await;
    let mut watch = engine.watch(start).await.unwrap();
    let mut beat = tokio::time::interval(SHORT / 4);
    for _ in 0..12 {
        beat.tick().await;
        assert!(engine.keep(lease).await.unwrap() >= SHORT);
    }
    assert!(engine.get("k").await.unwrap().is_some());
    assert_eq!(deleted(&next(&mut watch).await), ["k"], "it ends when nobody keeps it");
}

async fn revoking_deletes(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let lease = engine.grant(Duration::from_millis(59_001)).await.unwrap();
    assert_eq!(engine.keep(lease).await.unwrap(), Duration::from_secs(60), "rounded up");
    let other = engine.grant(Duration::from_secs(60)).await.unwrap();
    assert_ne!(lease, other);
    put_leased(&engine, "a", lease).await;
    put_leased(&engine, "b", lease).await;
    let last = put_leased(&engine, "c", other).await;
    let mut watch = engine.watch(last).await.unwrap();
    engine.revoke(lease).await.unwrap();
    assert_eq!(deleted(&next(&mut watch).await), ["a", "b"]);
    engine.revoke(lease).await.unwrap();
    assert!(matches!(engine.keep(lease).await, Err(Error::LeaseLost)));
    assert!(engine.keep(other).await.is_ok());
}

async fn an_unknown_lease_is_lost(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let lease = LeaseId(4711);
    assert!(matches!(engine.keep(lease).await, Err(Error::LeaseLost)));
    let txn = Txn { compares: Vec::new(), ops: vec![Op::Put("k".into(), "1".into(), Some(lease))] };
    assert!(matches!(engine.commit(txn).await, Err(Error::LeaseLost)));
    assert_eq!(engine.get("k").await.unwrap(), None);
    engine.revoke(lease).await.unwrap();
}

async fn names_that_begin_alike(bench: &mut dyn Bench) {
    let engine = bench.engine();
    for key in ["backends/b/servers/srv1", "backends/b/servers/srv10", "backends/b/servers/srv"] {
        put(&engine, key, "1").await;
    }
    let last = engine.snapshot().await.unwrap().revision;
    let mut watch = engine.watch(last).await.unwrap();
    engine.commit(Txn::delete("backends/b/servers/srv1")).await.unwrap();
    assert_eq!(deleted(&next(&mut watch).await), ["backends/b/servers/srv1"]);
    let left: Vec<Bytes> = engine.snapshot().await.unwrap().changes.into_iter().map(|change| change.key).collect();
    assert_eq!(left, ["backends/b/servers/srv", "backends/b/servers/srv10"]);
}

async fn an_unchanged_value_is_a_revision(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let first = put(&engine, "k", "same").await;
    let mut watch = engine.watch(first).await.unwrap();
    let second = put(&engine, "k", "same").await;
    assert!(second > first);
    let change = Change { key: "k".into(), value: Some("same".into()) };
    assert_eq!(next(&mut watch).await, Batch { revision: second, changes: vec![change] });
}

async fn deleting_nothing(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let first = put(&engine, "k", "1").await;
    let mut watch = engine.watch(first).await.unwrap();
    assert_eq!(engine.commit(Txn::delete("none")).await.unwrap(), first);
    let second = put(&engine, "k", "2").await;
    assert_eq!(next(&mut watch).await.revision, second);
}

async fn what_no_store_takes(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let many = (0..=MOST_OPS).map(|n| Op::Delete(n.to_string())).collect();
    let refused = [
        Txn::put("", "1"),
        Txn::put("k", vec![0; LARGEST_TXN]),
        Txn { compares: Vec::new(), ops: many },
        Txn { compares: Vec::new(), ops: vec![Op::Put("k".into(), "1".into(), None), Op::Delete("k".into())] },
    ];
    for txn in refused {
        let error = engine.commit(txn).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    }
    // The largest that is taken.
    let ops = (0..MOST_OPS).map(|n| Op::Put(format!("{n:08}"), vec![b'x'; LARGEST_TXN / MOST_OPS - 8].into(), None));
    let revision = engine.commit(Txn { compares: Vec::new(), ops: ops.collect() }).await.unwrap();
    let mut watch = engine.watch(Revision(revision.0 - 1)).await.unwrap();
    assert_eq!(next(&mut watch).await.changes.len(), MOST_OPS);
}

async fn many_watchers_see_the_same(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let start = put(&engine, "k", "0").await;
    let mut watches = Vec::new();
    for _ in 0..20 {
        watches.push(engine.watch(start).await.unwrap());
    }
    // Those who leave do not disturb those who stay.
    watches.truncate(10);
    let mut written = Vec::new();
    for n in 1..=20 {
        written.push(put(&engine, "k", &n.to_string()).await);
    }
    for watch in &mut watches {
        for revision in &written {
            assert_eq!(next(watch).await.revision, *revision);
        }
    }
}

async fn a_watch_goes_on_after_a_restart(bench: &mut dyn Bench) {
    let engine = bench.engine();
    let lease = engine.grant(Duration::from_secs(60)).await.unwrap();
    let seen = put_leased(&engine, "a", lease).await;
    let mut watch = engine.watch(seen).await.unwrap();
    let unseen = put(&engine, "b", "1").await;
    assert_eq!(next(&mut watch).await.revision, unseen);
    drop(engine);
    if !bench.restart().await {
        return;
    }
    // It ends with an error that says: try again from the last revision seen.
    if let Some(end) = tokio::time::timeout(LONGEST_WAIT, watch.next()).await.expect("the old watch ends") {
        assert!(matches!(end, Err(Error::Unavailable { .. })), "{end:?}");
    }
    let engine = bench.engine();
    let mut watch = eventually_watch(&engine, seen).await;
    assert_eq!(next(&mut watch).await.revision, unseen, "what was missed comes first");
    let item = engine.get("a").await.unwrap().unwrap();
    assert_eq!((item.revision, item.lease), (seen, Some(lease)));
    assert_eq!(engine.keep(lease).await.unwrap(), Duration::from_secs(60));
    let new = put(&engine, "c", "1").await;
    assert_eq!(next(&mut watch).await.revision, new);
    engine.revoke(lease).await.unwrap();
    assert_eq!(deleted(&next(&mut watch).await), ["a"]);
}

/// The next batch of a watch that has one.
pub async fn next(watch: &mut BoxStream<'static, Result<Batch, Error>>) -> Batch {
    let next = tokio::time::timeout(LONGEST_WAIT, watch.next()).await.expect("a revision comes");
    next.expect("a watch ends only with an error").expect("the watch goes on")
}

/// Puts a value without a lease.
pub async fn put(engine: &Arc<dyn Engine>, key: &str, value: &str) -> Revision {
    engine.commit(Txn::put(key, value.to_owned())).await.unwrap()
}

/// Watches as soon as that is possible.
pub async fn eventually_watch(engine: &Arc<dyn Engine>, after: Revision) -> BoxStream<'static, Result<Batch, Error>> {
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    let watching = async {
        loop {
            pause.tick().await;
            match engine.watch(after).await {
                Ok(watch) => break watch,
                Err(error) => assert!(matches!(error, Error::Unavailable { .. }), "{error:?}"),
            }
        }
    };
    tokio::time::timeout(LONGEST_WAIT, watching).await.expect("the store comes back")
}

/// The error that a watch begins or ends with.
pub async fn first_error(engine: &Arc<dyn Engine>, after: Revision) -> Error {
    match engine.watch(after).await {
        Err(error) => error,
        Ok(mut watch) => {
            let first = tokio::time::timeout(LONGEST_WAIT, watch.next()).await.expect("an error comes");
            let error = first.expect("an item").expect_err("an error");
            assert!(watch.next().await.is_none(), "nothing comes after an error");
            error
        }
    }
}

async fn put_leased(engine: &Arc<dyn Engine>, key: &str, lease: LeaseId) -> Revision {
    let txn = Txn { compares: Vec::new(), ops: vec![Op::Put(key.into(), "1".into(), Some(lease))] };
    engine.commit(txn).await.unwrap()
}

fn value_of(batch: &Batch, key: &str) -> Option<Bytes> {
    batch.changes.iter().find(|change| change.key == key).and_then(|change| change.value.clone())
}

fn deleted(batch: &Batch) -> Vec<Bytes> {
    assert!(batch.changes.iter().all(|change| change.value.is_none()), "{batch:?}");
    let mut keys: Vec<Bytes> = batch.changes.iter().map(|change| change.key.clone()).collect();
    keys.sort();
    keys
}

/// More than the shortest that every engine grants exactly, etcd's least being more than one second: a busy machine may
/// stand still for some seconds.
const SHORT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const LONGEST_CHECK: Duration = Duration::from_secs(180);
