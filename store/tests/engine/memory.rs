//! The engine in memory.

use std::sync::Arc;

use async_trait::async_trait;
use etna_store::Engine;
use etna_store::engine::memory;

use crate::suite::{self, Bench};

struct Memory(Arc<dyn Engine>);

#[async_trait]
impl Bench for Memory {
    fn engine(&self) -> Arc<dyn Engine> {
        self.0.clone()
    }

    async fn compact(&self) {
        for _ in 0..=KEPT {
            suite::put(&self.0, "filler", "x").await;
        }
    }

    async fn restart(&mut self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_every_promise() {
    suite::check_all(async || Memory(memory::with_history(KEPT))).await;
}

#[tokio::test]
async fn is_opened_by_its_url() {
    let engine = etna_store::open("memory:", &Default::default()).await.unwrap();
    assert_eq!(engine.describe(), "memory:");
    suite::put(&engine, "k", "1").await;
}

const KEPT: usize = 1000;
