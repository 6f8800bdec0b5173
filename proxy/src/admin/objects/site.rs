//! Sites under `/v3/sites`: read, written and deleted, if wanted only when nobody changed them meanwhile.
//!
//! `ETag` is the revision that wrote a site; `If-Match` and `If-None-Match: *` are conditions of the transaction, so
//! that two operators never overwrite each other unseen.

use axum::extract::Path;
use axum::http::header::{ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use etna_store::{Compare, Key, Op, Revision, Txn};
use serde_json::{Value, json};

use super::super::reply::{self, Refusal};
use super::write::{checked_key, commit, delete_if, touching};
use super::{Answer, Shared, check::check, shape};

/// `GET /v3/sites`.
pub(super) async fn list(state: Shared) -> Response {
    let sites: Vec<Value> = state.model().sites().map(|site| shape::site(site)).collect();
    reply::json(&json!({ "Sites": sites }))
}

/// `GET /v3/sites/{id}`: as it is stored.
pub(super) async fn show(state: Shared, Path(id): Path<String>) -> Answer {
    let key = checked_key(Key::Site(id.into()))?;
    let item = state.engine.get(&key.path()).await.map_err(|error| Refusal::store(&error))?;
    let item = item.ok_or_else(Refusal::not_found)?;
    let Ok(value) = serde_json::from_slice::<Value>(&item.value) else {
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "what is stored is not JSON: see /v3/problems"));
    };
    Ok(tagged(item.revision, reply::json(&value)))
}

/// `PUT /v3/sites/{id}`.
pub(super) async fn put(state: Shared, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let key = checked_key(Key::Site(id.as_str().into()))?;
    let model = check(&key, &body, state.keyring().as_ref())?;
    let compares = conditions(&key, &headers)?;
    let revision = match commit(&state, Txn { compares, ops: vec![Op::Put(key.path(), body, None)] }).await {
        Ok(revision) => revision,
        Err(refusal) => return Ok(touching(&key, refusal.changed_meanwhile().into_response())),
    };
    let shown = model.site(&id).map(|site| shape::site(site)).unwrap_or_default();
    Ok(touching(&key, tagged(revision, reply::json(&shown))))
}

/// `DELETE /v3/sites/{id}`.
pub(super) async fn delete(state: Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let key = checked_key(Key::Site(id.into()))?;
    let compares = conditions(&key, &headers)?;
    delete_if(&state, key, compares, "Site deleted".into()).await.map_err(Refusal::changed_meanwhile)
}

/// What the request's conditions mean in a transaction.
fn conditions(key: &Key, headers: &HeaderMap) -> Result<Vec<Compare>, Refusal> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("").trim());
    match (text(IF_MATCH), text(IF_NONE_MATCH)) {
        (None, None) => Ok(Vec::new()),
        (None, Some("*")) => Ok(vec![Compare::Absent(key.path())]),
        (Some(tag), None) => match tag.trim_matches('"').parse() {
            Ok(revision) => Ok(vec![Compare::Unchanged(key.path(), Revision(revision))]),
            Err(_) => Err(Refusal::bad("If-Match must be one ETag that this API gave")),
        },
        _ => Err(Refusal::bad("send either If-Match with an ETag or `If-None-Match: *`")),
    }
}

fn tagged(revision: Revision, mut response: Response) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", revision.0)) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}
