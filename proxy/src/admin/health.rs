//! `GET /v3/health`: how servers are, as checks and requests show, and in numbers for `/v3/status` and `/metrics`.
//!
//! `?backend=ID` shows all servers of one backend, else every backend that is checked or has a server that is not well.

use std::sync::Arc;

use axum::extract::{Query, State as Extract};
use axum::response::Response;
use etna_store::object::{CheckKind, HealthCheck};
use serde::Deserialize;
use serde_json::{Value, json};

use super::exposition::{Kind, family, sample};
use super::objects::url;
use super::reply::{self, Refusal};
use crate::backend::{Backend, Server};
use crate::control::State;
use crate::table::Table;

/// What may be asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    backend: Option<String>,
}

/// The endpoint.
pub(super) async fn health(
    Extract(state): Extract<Arc<State>>,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    let table = state.live.table();
    let backends: Vec<&Arc<Backend>> = match &asked.backend {
        Some(id) => {
            let backend = table.backends.iter().flatten().find(|backend| *backend.id == **id);
            vec![backend.ok_or_else(Refusal::not_found)?]
        }
        None => {
            table.backends.iter().flatten().filter(|backend| is_worth_telling(backend)).take(MOST_BACKENDS).collect()
        }
    };
    let mut room = MOST_SERVERS;
    let mut backends: Vec<Value> = backends
        .into_iter()
        .map(|backend| {
            let shown = show(backend, room);
            room = room.saturating_sub(backend.servers.len());
            shown
        })
        .collect();
    backends.sort_by_key(|backend| backend["id"].as_str().unwrap_or_default().to_owned());
    Ok(reply::json(&json!({ "backends": backends })))
}

fn is_worth_telling(backend: &Backend) -> bool {
    let is_telling = |server: &Server| server.live.health.is_known() || server.live.handshake_error.get().is_some();
    backend.check.is_some() || backend.servers.iter().any(is_telling)
}

fn show(backend: &Backend, at_most: usize) -> Value {
    let tally = backend.tally();
    json!({
        "id": &*backend.id,
        "check": backend.check.as_deref().map(check),
        "servers_in_rotation": tally.all,
        "serving": tally.serving,
        "panic": tally.is_panic(),
        "servers": backend.servers.iter().take(at_most).map(server).collect::<Vec<_>>(),
    })
}

fn server(server: &Server) -> Value {
    let health = server.live.health.standing();
    json!({
        "id": &*server.spec.id,
        "url": url(&server.spec),
        "serving": health.serving,
        "health": health.word,
        "reason": health.reason.word(),
        "detail": health.detail,
        "handshake_error": server.live.handshake_error.get(),
        "since_seconds": health.since.map(|since| since.as_secs_f64()),
        "checked_seconds_ago": health.checked.map(|checked| checked.as_secs_f64()),
        "ejections": health.ejections,
    })
}

fn check(check: &HealthCheck) -> Value {
    let shown = etna_store::duration::format;
    let (interval, timeout) = (shown(check.interval), shown(check.timeout));
    let kind = match check.kind {
        CheckKind::Http => "http",
        CheckKind::Tcp => "tcp",
        CheckKind::WordPress => "wordpress",
    };
    let mut value =
        json!({ "type": kind, "interval": interval, "timeout": timeout, "rise": check.rise, "fall": check.fall });
    if check.kind != CheckKind::Tcp {
        value["path"] = check.path.as_str().into();
        value["host"] = check.host.as_deref().into();
    }
    value
}

/// In numbers, for `/v3/status`.
pub(super) fn summary(state: &State, table: &Table) -> Value {
    let (mut checked, mut ill, mut ejections) = (0, 0, 0);
    let mut panicking: Vec<&str> = Vec::new();
    for backend in table.backends.iter().flatten() {
        let tally = backend.tally();
        checked += if backend.check.is_some() { backend.servers.len() } else { 0 };
        ill += tally.ill;
        ejections += backend.servers.iter().map(|server| server.live.health.ejections()).sum::<u64>();
        if tally.is_panic() && panicking.len() < MOST_NAMED {
            panicking.push(&backend.id);
        }
    }
    panicking.sort_unstable();
    json!({
        "checked": checked,
        "not_well": ill,
        "ejections": ejections,
        "panic": panicking,
        "checks": state.health.found().map(|(_, count)| count).sum::<u64>(),
        "checks_not_made": state.health.not_made.get(),
    })
}

/// What concerns the process as a whole, and backends that panic, for `/metrics`.
pub(super) fn metrics(state: &State, table: &Table) -> String {
    let mut out = String::new();
    let found: Vec<_> = state.health.found().filter(|(_, count)| *count > 0).collect();
    if !found.is_empty() {
        family(&mut out, "etna_health_checks_total", "Health checks, by what they found.", Kind::Counter);
        for (reason, count) in found {
            sample(&mut out, "etna_health_checks_total", &[("result", reason.word())], count);
        }
    }
    for (name, help, count) in [
        (
            "etna_health_checks_not_made_total",
            "Health checks that could not be made for want of files, ports or memory.",
            state.health.not_made.get(),
        ),
        ("etna_health_restarts_total", "Times that checking broke and was started again.", state.health.restarts.get()),
    ] {
        family(&mut out, name, help, Kind::Counter);
        sample(&mut out, name, &[], count);
    }
    let mut worth: Vec<&Arc<Backend>> =
        table.backends.iter().flatten().filter(|backend| is_worth_telling(backend)).collect();
    worth.sort_by(|a, b| a.id.cmp(&b.id));
    if !worth.is_empty() {
        let help = "Whether no server of the backend is well, so that all are asked.";
        family(&mut out, "etna_backend_panic", help, Kind::Gauge);
        for backend in worth {
            sample(&mut out, "etna_backend_panic", &[("backend", &backend.id)], u8::from(backend.tally().is_panic()));
        }
    }
    out
}

const MOST_BACKENDS: usize = 1_000;
const MOST_SERVERS: usize = 10_000;
const MOST_NAMED: usize = 20;
