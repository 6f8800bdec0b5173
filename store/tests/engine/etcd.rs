//! The etcd engine: its promises, and what only etcd has: prefixes, pages, keys that are not text.

use std::net::TcpListener;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::PutOptions;
use etna_store::engine::Options;
use etna_store::{Change, Engine, Error, Op, Txn};

use crate::etcd_process::Etcd;
use crate::suite::{self, Bench};

struct Single {
    etcd: Etcd,
    engine: Arc<dyn Engine>,
}

#[async_trait]
impl Bench for Single {
    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    async fn compact(&self) {
        suite::put(&self.engine, "filler", "x").await;
        let last = suite::put(&self.engine, "filler", "x").await;
        self.etcd.client().await.compact(last.0, None).await.unwrap();
    }

    async fn restart(&mut self) -> bool {
        self.etcd.kill();
        self.etcd.run().await;
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_every_promise() {
    suite::check_all(async || {
        let etcd = Etcd::start().await;
        let engine = etcd.engine().await;
        Single { etcd, engine }
    })
    .await;
}

#[tokio::test]
async fn a_prefix_is_matched_whole() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let engine = etcd.engine().await;
    let start = suite::put(&engine, "k", "ours").await;
    let mut watch = engine.watch(start).await.unwrap();
    for key in ["/vulcandtest/k", "/vulcand", "/vulcan", "/vulcand0", "vulcand/k", "/other/k", "k"] {
        client.put(key, "theirs", None).await.unwrap();
    }
    client.put("/vulcand/deep/er", "ours", None).await.unwrap();
    let batch = suite::next(&mut watch).await;
    assert_eq!(batch.changes, [Change { key: "deep/er".into(), value: Some("ours".into()) }]);
    let keys: Vec<Bytes> = engine.snapshot().await.unwrap().changes.into_iter().map(|change| change.key).collect();
    assert_eq!(keys, ["deep/er", "k"]);
    assert_eq!(engine.describe(), format!("{}/vulcand", etcd.url()));

    let bare = etna_store::open(&format!("{}?prefix=vulcand", etcd.url()), &Options::default()).await.unwrap();
    let found = bare.snapshot().await.unwrap().changes;
    assert_eq!(found, [Change { key: "k".into(), value: Some("theirs".into()) }]);
    suite::put(&bare, "new", "1").await;
    assert_eq!(client.get("vulcand/new", None).await.unwrap().count(), 1);
}

#[tokio::test]
async fn keys_that_are_not_text_are_bytes() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let engine = etcd.engine().await;
    let start = suite::put(&engine, "k", "1").await;
    let mut watch = engine.watch(start).await.unwrap();
    let key = b"/vulcand/\xff\xfe\x00x".to_vec();
    client.put(key.clone(), vec![0, 0xff], None).await.unwrap();
    let change = Change { key: Bytes::from_static(b"\xff\xfe\x00x"), value: Some(Bytes::from_static(b"\x00\xff")) };
    assert_eq!(suite::next(&mut watch).await.changes, std::slice::from_ref(&change));
    assert!(engine.snapshot().await.unwrap().changes.contains(&change));
    client.delete(key, None).await.unwrap();
    assert_eq!(suite::next(&mut watch).await.changes, [Change { value: None, ..change }]);
}

#[tokio::test]
async fn large_values_are_read_in_smaller_pages() {
    let etcd = Etcd::start().await;
    let engine = etcd.engine().await;
    let start = suite::put(&engine, "first", "1").await;
    for group in 0..50 {
        let ops = (0..20).map(|i| Op::Put(format!("k/{group}/{i}"), vec![b'v'; 45_000].into(), None)).collect();
        engine.commit(Txn { compares: Vec::new(), ops }).await.unwrap();
    }
    let snapshot = engine.snapshot().await.unwrap();
    assert_eq!(snapshot.changes.len(), 1001);
    // What a watcher missed is as long, and comes in one answer.
    let mut watch = engine.watch(start).await.unwrap();
    for n in 1..=50 {
        let batch = suite::next(&mut watch).await;
        assert_eq!((batch.revision.0, batch.changes.len()), (start.0 + n, 20));
    }
}

#[tokio::test]
async fn a_lease_of_others_is_told() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let engine = etcd.engine().await;
    let lease = client.lease_grant(60, None).await.unwrap().id();
    client.put("/vulcand/k", "1", Some(PutOptions::new().with_lease(lease))).await.unwrap();
    assert_eq!(engine.get("k").await.unwrap().unwrap().lease.unwrap().0, lease);
}

#[tokio::test]
async fn an_address_may_be_of_version_6() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { return };
    let address = listener.local_addr().unwrap();
    drop(listener);
    let etcd = Etcd::start_also_at(&format!("http://{address}")).await;
    let engine = etna_store::open(&format!("etcd://{address}"), &Options::default()).await.unwrap();
    suite::put(&engine, "k", "1").await;
    assert_eq!(etcd.engine().await.snapshot().await.unwrap().changes.len(), 1);
}

#[tokio::test]
async fn a_full_store_says_so() {
    let etcd = Etcd::start_with("http", &["--quota-backend-bytes", "4194304"]).await;
    let engine = etcd.engine().await;
    for n in 0..20 {
        match engine.commit(Txn::put(format!("k{n}"), vec![b'v'; 800_000])).await {
            Ok(_) => {}
            Err(Error::Unavailable { context, .. }) => {
                assert!(context.contains("quota") && context.contains("alarm disarm"), "{context}");
                assert!(!engine.snapshot().await.unwrap().changes.is_empty(), "reading goes on");
                return;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("etcd took all of it");
}
