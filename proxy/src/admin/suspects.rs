//! What vanished in a mass and is held: shown, and released.
//!
//! Releasing works while the store is away, at this proxy; other proxies are told by a key, if the store takes it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use etna_store::{Txn, key};
use serde_json::{Value, json};

use super::audit::Touched;
use super::reply::{self, Refusal};
use crate::control::State;
use crate::control::suspect::RELEASE;

/// `GET /v3/suspects`.
pub(super) async fn list(Extract(state): Extract<Arc<State>>) -> Response {
    let keys: Vec<String> = state.suspects().keys.iter().map(|raw| key::show(raw)).collect();
    reply::json(&json!({ "suspects": cases(&state, Instant::now()), "count": state.suspects().count, "keys": keys }))
}

/// `POST /v3/suspects/release`: believe that it is gone, here and at every other proxy of the store.
pub(super) async fn release(Extract(state): Extract<Arc<State>>) -> Response {
    let held = state.suspects().count;
    let mut suspects = state.subscribe_suspects();
    state.release_suspects();
    let released = tokio::time::timeout(LONGEST, suspects.wait_for(|suspects| suspects.count == 0)).await.is_ok();
    if !released {
        let message = "the control loop did not release them in time: see the log, then try again";
        return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis().to_string();
    let tell = state.engine.commit(Txn::put(String::from_utf8_lossy(RELEASE), now));
    let told = matches!(tokio::time::timeout(LONGEST, tell).await, Ok(Ok(_)));
    let mut response = reply::json(&json!({ "released": held, "others_told": told }));
    response.extensions_mut().insert(Touched(String::from_utf8_lossy(RELEASE).into_owned()));
    response
}

/// What vanished together, why it is held, since when and for how long.
pub(super) fn cases(state: &State, now: Instant) -> Value {
    let suspects = state.suspects();
    let cases = suspects.cases.iter().map(|case| {
        json!({
            "why": case.what.to_string(),
            "keys": case.keys,
            "example": key::show(&case.example),
            "since_seconds": now.saturating_duration_since(case.since).as_secs_f64(),
            "left_seconds": case.until.map(|until| until.saturating_duration_since(now).as_secs_f64()),
        })
    });
    cases.collect()
}

const LONGEST: Duration = Duration::from_secs(5);
