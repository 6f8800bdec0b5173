//! How the process is: alive, ready, what it serves, what is wrong with what is stored.
//!
//! Readiness says whether requests can be served, not whether the store answers: the last table serves for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::{reply, suspects};
use crate::control::State;

/// `GET /healthz`: the process runs.
pub(super) async fn live() -> Response {
    reply::json(&json!({ "live": true }))
}

/// `GET /readyz`: 200 once a table is in force and until the process drains.
pub(super) async fn ready(Extract(state): Extract<Arc<State>>) -> Response {
    match not_ready(&state) {
        None => reply::json(&json!({ "ready": true })),
        Some(reason) => {
            reply::with_status(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "reason": reason }))
        }
    }
}

/// `GET /v3/problems`: why stored objects are not served as written.
pub(super) async fn problems(Extract(state): Extract<Arc<State>>) -> Response {
    let problems = state.problems();
    reply::json(&json!({ "problems": *problems }))
}

/// `GET /v2/status`, as vulcand answers it.
pub(super) async fn vulcand() -> Response {
    reply::json(&json!({ "Status": "ok" }))
}

/// `GET /v3/status`.
pub(super) async fn status(Extract(state): Extract<Arc<State>>) -> Response {
    reply::json(&report(&state, Instant::now()))
}

fn report(state: &State, now: Instant) -> Value {
    let store = state.store();
    let table = state.live.table();
    let addresses: BTreeMap<String, String> =
        state.addresses().iter().map(|(id, address)| (id.to_string(), address.to_string())).collect();
    let servers: usize = table.backends.iter().flatten().map(|backend| backend.servers.len()).sum();
    let (sites, without_server, hosts) = {
        let model = state.model();
        let has_none = |id: &str| model.servers(id).next().is_none();
        (model.sites().count(), model.sites().filter(|site| has_none(&site.public)).count(), model.hosts().count())
    };
    let upgraded = state.upgrades.now();
    json!({
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": now.saturating_duration_since(state.started).as_secs(),
        "ready": state.is_ready(),
        "draining": state.draining.is_cancelled(),
        "store": state.engine.describe(),
        "following": store.following,
        "error": store.error,
        "revision": store.revision.map(|revision| revision.0),
        "age_seconds": store.age(now).map(|age| age.as_secs_f64()),
        "stale": store.is_stale(),
        "from_disk": store.from_disk.is_some(),
        "suspect": suspects::cases(state, now),
        "snapshots": store.snapshots,
        "resyncs": store.resyncs,
        "differences": store.differences,
        "publishes": store.publishes,
        "counts": {
            "frontends": table.router.len(),
            "backends": table.backends.iter().flatten().count(),
            "servers": servers,
            "listeners": addresses.len(),
            "hosts": hosts,
            "sites": sites,
            "sites_without_server": without_server,
        },
        "listeners": addresses,
        "problems": state.problems().len(),
        "health": super::health::summary(state, &table),
        "connections": state.process.connections.get(),
        "tunnels": state.process.tunnels.get(),
        "upgrades": { "ok": upgraded.ok, "failed": upgraded.failed },
        "last_upgrade": upgraded.last,
        "announcement": state.announced.report(now),
    })
}

fn not_ready(state: &State) -> Option<String> {
    if state.draining.is_cancelled() {
        return Some("draining: the process was told to stop".into());
    }
    let store = state.store();
    if store.revision.is_some() {
        return None;
    }
    // No more than that: who asks for it shows no token.
    Some("starting: nothing was read yet from the store; `etnactl status` says why".into())
}
