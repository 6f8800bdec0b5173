//! The stored objects over HTTP: vulcand's `/v2`, with its paths, envelopes and JSON, and sites under `/v3`.
//!
//! What is read comes from the control loop's model, so it answers while the store is away. What is written is
//! checked before, committed to the store, and answered once it is in force. Different from vulcand on purpose: bad
//! input is 400, keys are deleted exactly, a private key is never shown.

mod check;
mod pair;
mod shape;
mod site;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State as Extract};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use etna_store::object::{Backend, Host, Id};
use etna_store::{Key, Model};
use serde_json::{Value, json};

use super::reply::{self, Refusal};
use crate::control::State;
use crate::table::Table;
pub(super) use shape::url;
pub use write::{Checked, Noun, read};

type Shared = Extract<Arc<State>>;
type Answer = Result<Response, Refusal>;

/// Every path of stored objects.
pub(super) fn router() -> Router<Arc<State>> {
    Router::new()
        .route(
            "/v2/backends",
            get(backends).post(async |s: Shared, b: Bytes| write::upsert(&s, Noun::Backend, "", b).await),
        )
        .route("/v2/backends/{id}", get(backend).delete(delete_backend))
        .route("/v2/backends/{id}/servers", get(servers).post(upsert_server))
        .route("/v2/backends/{id}/servers/{server}", get(server).delete(delete_server))
        .route(
            "/v2/frontends",
            get(frontends).post(async |s: Shared, b: Bytes| write::upsert(&s, Noun::Frontend, "", b).await),
        )
        .route("/v2/frontends/{id}", get(frontend).delete(delete_frontend))
        .route("/v2/frontends/{id}/middlewares", get(middlewares).post(upsert_middleware))
        .route("/v2/frontends/{id}/middlewares/{middleware}", get(middleware).delete(delete_middleware))
        .route("/v2/hosts", get(hosts).post(async |s: Shared, b: Bytes| write::upsert(&s, Noun::Host, "", b).await))
        .route("/v2/hosts/{id}", get(host).delete(delete_host))
        .route(
            "/v2/listeners",
            get(listeners).post(async |s: Shared, b: Bytes| write::upsert(&s, Noun::Listener, "", b).await),
        )
        .route("/v2/listeners/{id}", get(listener).delete(delete_listener))
        .route("/v3/servers", get(counts))
        .route("/v3/sites", get(site::list))
        .route("/v3/sites/{id}", get(site::show).put(site::put).delete(site::delete))
}

async fn backends(state: Shared) -> Response {
    list(&state, "Backends", |model| model.backends().map(|backend| shape::backend(backend)).collect())
}

async fn backend(state: Shared, Path(id): Path<String>) -> Answer {
    one(state.model().backend(&id).map(|backend| shape::backend(backend)))
}

async fn delete_backend(state: Shared, Path(id): Path<String>) -> Answer {
    write::delete(&state, Key::Backend(id.into()), "Backend deleted".into()).await
}

async fn servers(state: Shared, Path(id): Path<String>) -> Response {
    list(&state, "Servers", |model| model.servers(&id).map(|server| shape::server(server)).collect())
}

/// `GET /v3/servers`: how many servers each backend has.
async fn counts(state: Shared) -> Response {
    let model = state.model();
    let count = |backend: &Backend| (backend.id.to_string(), model.servers(&backend.id).count().into());
    let counts: serde_json::Map<String, Value> = model.backends().map(|backend| count(backend)).collect();
    reply::json(&json!({ "Servers": counts }))
}

async fn server(state: Shared, Path((backend, id)): Path<(String, String)>) -> Answer {
    one(state.model().server(&backend, &id).map(|server| shape::server(server)))
}

async fn upsert_server(state: Shared, Path(backend): Path<String>, body: Bytes) -> Answer {
    write::upsert(&state, Noun::Server, &backend, body).await
}

async fn delete_server(state: Shared, Path((backend, id)): Path<(Id, Id)>) -> Answer {
    write::delete(&state, Key::Server(backend, id), "Server deleted".into()).await
}

async fn frontends(state: Shared) -> Response {
    list(&state, "Frontends", |model| model.frontends().map(|frontend| shape::frontend(frontend)).collect())
}

async fn frontend(state: Shared, Path(id): Path<String>) -> Answer {
    one(state.model().frontend(&id).map(|frontend| shape::frontend(frontend)))
}

async fn delete_frontend(state: Shared, Path(id): Path<String>) -> Answer {
    write::delete(&state, Key::Frontend(id.into()), "Frontend deleted".into()).await
}

async fn middlewares(state: Shared, Path(id): Path<String>) -> Response {
    list(&state, "Middlewares", |model| model.middlewares(&id).map(|step| shape::middleware(step)).collect())
}

async fn middleware(state: Shared, Path((frontend, id)): Path<(String, String)>) -> Answer {
    one(state.model().middlewares(&frontend).find(|step| *step.id == *id).map(|step| shape::middleware(step)))
}

async fn upsert_middleware(state: Shared, Path(frontend): Path<String>, body: Bytes) -> Answer {
    write::upsert(&state, Noun::Middleware, &frontend, body).await
}

async fn delete_middleware(state: Shared, Path((frontend, id)): Path<(Id, Id)>) -> Answer {
    write::delete(&state, Key::Middleware(frontend, id), "Middleware deleted".into()).await
}

async fn hosts(state: Shared) -> Response {
    let table = state.live.table();
    list(&state, "Hosts", |model| {
        let of_keys = model.hosts().filter_map(|host| model.served_host(&host.name));
        of_keys.chain(model.hosts_of_sites()).map(|host| with_certificate(&host, &state, &table)).collect()
    })
}

async fn host(state: Shared, Path(name): Path<String>) -> Answer {
    let table = state.live.table();
    one(state.model().served_host(&name.to_lowercase()).map(|host| with_certificate(&host, &state, &table)))
}

/// A host, and the certificate that it has in force.
fn with_certificate(host: &Host, state: &State, table: &Table) -> Value {
    let mut shown = shape::host(host);
    let certificate = table.certificates.of(&host.name);
    let subject = table.acme.get(&host.name);
    if let Some(told) = shape::certificate(certificate, subject.map(|subject| &**subject), &state.acme.settings) {
        shown["Certificate"] = told;
    }
    shown
}

async fn delete_host(state: Shared, Path(name): Path<String>) -> Answer {
    let done = format!("Host '{name}' deleted");
    write::delete(&state, Key::Host(name.to_lowercase().into()), done).await
}

async fn listeners(state: Shared) -> Response {
    list(&state, "Listeners", |model| model.listeners().map(|listener| shape::listener(listener)).collect())
}

async fn listener(state: Shared, Path(id): Path<String>) -> Answer {
    one(state.model().listener(&id).map(|listener| shape::listener(listener)))
}

async fn delete_listener(state: Shared, Path(id): Path<String>) -> Answer {
    write::delete(&state, Key::Listener(id.into()), "Listener deleted".into()).await
}

fn list(state: &State, name: &str, objects: impl FnOnce(&Model) -> Vec<Value>) -> Response {
    let objects = objects(&state.model());
    reply::json(&json!({ name: objects }))
}

fn one(object: Option<Value>) -> Answer {
    object.map(|object| reply::json(&object)).ok_or_else(Refusal::not_found)
}
