//! The etcd engine when etcd is frozen, killed, replaced or partly there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etna_store::engine::Options;
use etna_store::{Engine, Error, Revision};
use futures_util::StreamExt as _;

use crate::etcd_process::Etcd;
use crate::suite;

#[tokio::test]
async fn a_frozen_etcd_is_noticed_and_an_idle_one_is_not() {
    let etcd = Etcd::start().await;
    let engine = etcd.engine().await;
    let start = suite::put(&engine, "k", "1").await;
    let mut watch = engine.watch(start).await.unwrap();
    let idle = tokio::time::timeout(Duration::from_secs(12), watch.next()).await;
    assert!(idle.is_err(), "an idle watch goes on: {idle:?}");

    etcd.freeze();
    let end = tokio::time::timeout(LONG, watch.next()).await.expect("noticed").unwrap();
    assert!(matches!(end, Err(Error::Unavailable { .. })), "{end:?}");
    assert!(watch.next().await.is_none());
    let asked = Instant::now();
    assert!(matches!(engine.snapshot().await, Err(Error::Unavailable { .. })));
    assert!(matches!(engine.watch(start).await, Err(Error::Unavailable { .. })));
    assert!(asked.elapsed() < LONG, "each is bounded to five seconds");

    etcd.thaw();
    let mut watch = suite::eventually_watch(&engine, start).await;
    let new = suite::put(&engine, "k", "2").await;
    assert_eq!(suite::next(&mut watch).await.revision, new);
}

#[tokio::test]
async fn an_etcd_that_comes_back_is_found_again() {
    let mut etcd = Etcd::start().await;
    let engine = etcd.engine().await;
    let start = suite::put(&engine, "k", "1").await;
    let mut watch = engine.watch(start).await.unwrap();
    for _ in 0..2 {
        etcd.kill();
        assert!(matches!(engine.snapshot().await, Err(Error::Unavailable { .. })));
        let error = engine.commit(etna_store::Txn::put("k", "2")).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        etcd.run().await;
        eventually_answers(&engine).await;
    }
    assert!(matches!(watch.next().await, Some(Err(Error::Unavailable { .. }))));
    suite::put(&engine, "k", "3").await;
}

#[tokio::test]
async fn a_replaced_history_is_noticed() {
    let mut etcd = Etcd::start().await;
    let engine = etcd.engine().await;
    for n in 0..20 {
        suite::put(&engine, "k", &n.to_string()).await;
    }
    let last = engine.snapshot().await.unwrap().revision;
    etcd.kill();
    etcd.run_empty().await;
    suite::put(&engine, "k", "new").await;
    // etcd itself would be silent until its history is as long as the old one.
    let error = suite::first_error(&engine, last).await;
    assert!(matches!(error, Error::Compacted { .. }), "{error:?}");
    let snapshot = engine.snapshot().await.unwrap();
    assert!(snapshot.revision < last);
    let mut watch = engine.watch(snapshot.revision).await.unwrap();
    let new = suite::put(&engine, "k", "newer").await;
    assert_eq!(suite::next(&mut watch).await.revision, new);
}

#[tokio::test]
async fn a_replaced_history_that_is_longer_is_noticed() {
    let mut etcd = Etcd::start().await;
    let engine = etcd.engine().await;
    // As in every cluster that has lived for a while, there was an election since the backup.
    etcd.kill();
    etcd.run().await;
    suite::put(&engine, "k", "old").await;
    let last = engine.snapshot().await.unwrap().revision;
    etcd.kill();
    etcd.run_empty().await;
    for n in 0..5 {
        suite::put(&engine, "k", &n.to_string()).await;
    }
    let error = suite::first_error(&engine, last).await;
    assert!(matches!(error, Error::Compacted { .. }), "{error:?}");
    let snapshot = engine.snapshot().await.unwrap();
    assert!(snapshot.revision > last);
    let mut watch = engine.watch(snapshot.revision).await.unwrap();
    let new = suite::put(&engine, "k", "newer").await;
    assert_eq!(suite::next(&mut watch).await.revision, new);
}

#[tokio::test]
async fn a_dead_or_frozen_member_is_passed_over() {
    let alive = Etcd::start().await;
    let other = Etcd::start().await;
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("etcd://{unused},127.0.0.1:{},127.0.0.1:{}", other.port, alive.port);
    other.freeze();
    let engine = etna_store::open(&url, &Options::default()).await.unwrap();
    let revision = suite::put(&alive.engine().await, "k", "1").await;
    let snapshot = engine.snapshot().await.unwrap();
    assert_eq!(snapshot.changes.len(), 1);
    // From now on the one that answered is asked first.
    let asked = Instant::now();
    let new = suite::put(&engine, "k", "2").await;
    let mut watch = engine.watch(revision).await.unwrap();
    assert_eq!(suite::next(&mut watch).await.revision, new);
    assert!(asked.elapsed() < Duration::from_secs(4), "the frozen one is given two seconds or more each time");
}

#[tokio::test]
async fn a_stranger_among_the_endpoints_is_not_believed() {
    let mut ours = Etcd::start().await;
    let stranger = Etcd::start().await;
    suite::put(&ours.engine().await, "k", "ours").await;
    for n in 0..20 {
        suite::put(&stranger.engine().await, "k", &n.to_string()).await;
    }
    let url = format!("etcd://127.0.0.1:{},127.0.0.1:{}", ours.port, stranger.port);
    let engine = etna_store::open(&url, &Options::default()).await.unwrap();
    let start = engine.snapshot().await.unwrap();
    assert_eq!(start.changes[0].value.as_deref(), Some(&b"ours"[..]));
    ours.kill();
    for _ in 0..3 {
        match engine.snapshot().await {
            Err(Error::Unavailable { .. }) => {}
            other => panic!("{other:?}"),
        }
        match engine.watch(start.revision).await {
            Ok(mut watch) => assert!(watch.next().await.unwrap().is_err()),
            Err(error) => assert!(matches!(error, Error::Compacted { .. } | Error::Unavailable { .. }), "{error:?}"),
        }
    }
    ours.run().await;
    eventually_answers(&engine).await;
    let again = engine.snapshot().await.unwrap();
    assert_eq!(again.changes, start.changes);
    let mut watch = suite::eventually_watch(&engine, again.revision).await;
    let new = suite::put(&ours.engine().await, "k", "still ours").await;
    assert_eq!(suite::next(&mut watch).await.revision, new);
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let engine = etna_store::open(&format!("etcd://{unused}"), &Options::default()).await.unwrap();
    let Err(Error::Unavailable { context, .. }) = engine.snapshot().await else { panic!("no error") };
    assert!(context.contains(&unused.to_string()) && context.contains("refused"), "{context}");
    assert!(matches!(engine.watch(Revision(1)).await, Err(Error::Unavailable { .. })));
}

async fn eventually_answers(engine: &Arc<dyn Engine>) {
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    let answered = async {
        while engine.snapshot().await.is_err() {
            pause.tick().await;
        }
    };
    tokio::time::timeout(LONG, answered).await.expect("etcd answers");
}

/// Until something is noticed, on a machine that does other things, too.
const LONG: Duration = Duration::from_secs(60);
