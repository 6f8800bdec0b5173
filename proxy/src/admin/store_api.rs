//! The store itself, for others: the sidekick, `etnactl`, another `etna`.
//!
//! Mounted under `/v3/store`. What is said is stated in [`etna_store::engine::wire`]. Snapshots and watches are streamed
//! by the line; a watch that has nothing to tell beats, so that a dead connection is noticed on both sides. Not here:
//! who may ask; that is checked before.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Json, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use etna_store::engine::wire::{self, Blob, Commit, Done, Failure, Found, Grant, Kind, Lease, Line};
use etna_store::{Batch, Engine, Error, LeaseId, Revision};
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// The endpoints over an engine. State is inside, so the router can be nested into any other.
pub fn router(engine: Arc<dyn Engine>) -> Router {
    Router::new()
        .route("/v3/store/snapshot", get(snapshot))
        .route("/v3/store/watch", get(watch))
        .route("/v3/store/key", get(key))
        .route("/v3/store/commit", post(commit))
        .route("/v3/store/grant", post(grant))
        .route("/v3/store/keep", post(keep))
        .route("/v3/store/revoke", post(revoke))
        .layer(DefaultBodyLimit::max(wire::LONGEST_BODY))
        .with_state(engine)
}

type Store = State<Arc<dyn Engine>>;

#[derive(Deserialize)]
struct WatchQuery {
    after: i64,
}

#[derive(Deserialize)]
struct KeyQuery {
    key: String,
}

async fn snapshot(State(engine): Store) -> Result<Response, Refused> {
    let batch = engine.snapshot().await?;
    let pairs = u64::try_from(batch.changes.len()).unwrap_or(u64::MAX);
    let first = stream::iter([Line::Snapshot(batch.revision.0)]);
    let middle = batch.changes.into_iter().filter_map(|change| Some(Line::Pair(Blob(change.key), Blob(change.value?))));
    let last = stream::iter([Line::End(pairs)]);
    // Many lines at once: a chunk for each would cost more than the lines.
    let chunks = first.chain(stream::iter(middle)).chain(last).chunks(LINES_PER_CHUNK);
    Ok(lines(chunks.map(|lines| lines.iter().flat_map(encode).collect::<Vec<u8>>())))
}

async fn watch(State(engine): Store, query: Result<Query<WatchQuery>, QueryRejection>) -> Result<Response, Refused> {
    let Query(query) = query?;
    let batches = engine.watch(Revision(query.after)).await?;
    let mut beats = interval_at(Instant::now(), wire::BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watching = Watching { batches, beats };
    Ok(lines(stream::unfold(Some(watching), |watching| async move {
        let mut watching = watching?;
        let line = watching.next().await;
        let rest = (!matches!(line, Line::Failure(_))).then_some(watching);
        Some((encode(&line), rest))
    })))
}

struct Watching {
    batches: BoxStream<'static, Result<Batch, Error>>,
    beats: tokio::time::Interval,
}

impl Watching {
    async fn next(&mut self) -> Line {
        tokio::select! {
            // Beats are never crowded out by batches.
            biased;
            _ = self.beats.tick() => Line::Beat,
            batch = self.batches.next() => match batch {
                Some(Ok(batch)) => Line::from(&batch),
                Some(Err(error)) => Line::Failure(Failure::from(&error)),
                None => Line::Failure(failure(Kind::Unavailable, "the watch ended")),
            },
        }
    }
}

async fn key(State(engine): Store, query: Result<Query<KeyQuery>, QueryRejection>) -> Result<Response, Refused> {
    let Query(query) = query?;
    let item = engine.get(&query.key).await?;
    Ok(json(StatusCode::OK, &Found { item: item.map(Into::into) }))
}

async fn commit(State(engine): Store, body: Result<Json<Commit>, JsonRejection>) -> Result<Response, Refused> {
    let Json(commit) = body?;
    let revision = engine.commit(commit.into()).await?;
    Ok(json(StatusCode::OK, &Done::Revision(revision.0)))
}

async fn grant(State(engine): Store, body: Result<Json<Grant>, JsonRejection>) -> Result<Response, Refused> {
    let Json(grant) = body?;
    let lease = engine.grant(Duration::from_millis(grant.ttl_ms)).await?;
    Ok(json(StatusCode::OK, &Done::Lease(lease.0)))
}

async fn keep(State(engine): Store, body: Result<Json<Lease>, JsonRejection>) -> Result<Response, Refused> {
    let Json(lease) = body?;
    let ttl = engine.keep(LeaseId(lease.lease)).await?;
    Ok(json(StatusCode::OK, &Done::TtlMs(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))))
}

async fn revoke(State(engine): Store, body: Result<Json<Lease>, JsonRejection>) -> Result<Response, Refused> {
    let Json(lease) = body?;
    engine.revoke(LeaseId(lease.lease)).await?;
    Ok(json(StatusCode::OK, &Done::Revoked))
}

/// A request that is not answered as asked.
struct Refused(StatusCode, Failure);

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        let failure = Failure::from(&error);
        Refused(failure.error.status(), failure)
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Refused {
        let status = match rejection.status() {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        };
        Refused(status, failure(Kind::Invalid, &rejection.body_text()))
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Refused {
        Refused(rejection.status(), failure(Kind::Invalid, &rejection.body_text()))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        json(self.0, &self.1)
    }
}

fn failure(error: Kind, message: &str) -> Failure {
    Failure { error, message: message.to_owned(), oldest: None }
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(value)).into_response()
}

fn lines(chunks: impl Stream<Item = Vec<u8>> + Send + 'static) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/jsonl"), (header::CACHE_CONTROL, "no-store")];
    let body = Body::from_stream(chunks.map(|chunk| Ok::<_, std::convert::Infallible>(Bytes::from(chunk))));
    (headers, body).into_response()
}

/// With its end. Lines consist of numbers and text alone, which always encode.
fn encode(line: &Line) -> Vec<u8> {
    let mut json = serde_json::to_vec(line).unwrap_or_default();
    json.push(b'\n');
    json
}

const LINES_PER_CHUNK: usize = 256;
