//! The remote engine: whatever the other side answers, each call ends with a value or an error.

use std::time::Duration;

use etna_store::engine::Options;
use etna_store::engine::remote::{Remote, Target};
use etna_store::{Engine, LeaseId, Revision, Txn};
use futures_util::StreamExt as _;

use super::super::socket;

/// A letter for the call, then the answer as it comes over the connection.
pub fn check(data: &[u8]) {
    let Some((call, answer)) = data.split_first() else { return };
    socket::answer(answer, async |path| {
        let engine = Remote::new(Target::Unix(path), &Options::default());
        match call {
            b's' => drop(engine.snapshot().await),
            b'g' => drop(engine.get("sites/a").await),
            b'c' => drop(engine.commit(Txn::put("sites/a", "{}")).await),
            b'k' => drop(engine.keep(LeaseId(7)).await),
            b'r' => drop(engine.revoke(LeaseId(7)).await),
            b'l' => drop(engine.grant(Duration::from_secs(7)).await),
            _ => {
                let Ok(mut batches) = engine.watch(Revision(1)).await else { return };
                // Every batch, and the error that ends them.
                while let Some(Ok(_)) = batches.next().await {}
            }
        }
    });
}
