//! Many frontends, written straight into a store before a proxy follows it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use etna_store::engine::MOST_OPS;
use etna_store::{Engine, Op, Txn};
use serde_json::json;
use tokio::task::JoinSet;

/// The host of a frontend.
pub(crate) fn host(number: usize) -> String {
    format!("h{number}.test")
}

/// Writes so many frontends, all leading to the public servers, into the store of a URL.
pub(crate) async fn fill(url: &str, frontends: usize, public: &[SocketAddr]) -> anyhow::Result<()> {
    let engine = etna_store::open(url, &etna_store::engine::Options::default()).await?;
    let put = |key: String, value: serde_json::Value| Op::Put(key, value.to_string().into(), None);
    let servers = public.iter().enumerate().map(|(number, address)| {
        put(
            format!("backends/public/servers/s{number}"),
            json!({"Id": format!("s{number}"), "URL": format!("http://{address}")}),
        )
    });
    let backend = put("backends/public/backend".to_owned(), json!({"Id": "public", "Type": "http"}));
    let frontends = (0..frontends).map(|number| {
        let route = format!("Host(`{}`)", host(number));
        let settings = json!({"PassHostHeader": true});
        let value = json!({"Id": format!("h{number}"), "Type": "http", "BackendId": "public", "Route": route, "Settings": settings});
        put(format!("frontends/h{number}/frontend"), value)
    });
    let ops: Vec<Op> = std::iter::once(backend).chain(servers).chain(frontends).collect();
    let mut under_way = JoinSet::new();
    for ops in ops.chunks(MOST_OPS) {
        if under_way.len() == AT_ONCE {
            under_way.join_next().await.context("nothing is written")???;
        }
        under_way.spawn(commit(engine.clone(), ops.to_vec()));
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    engine.release().await;
    Ok(())
}

async fn commit(engine: Arc<dyn Engine>, ops: Vec<Op>) -> anyhow::Result<()> {
    engine.commit(Txn { compares: Vec::new(), ops }).await?;
    Ok(())
}

/// Copies the files of a directory into a new one.
pub(crate) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

const AT_ONCE: usize = 16;
