//! The store of another `etna`, over its admin API.
//!
//! Each request has a connection of its own: they are few, and the other side is near. What is said is stated in
//! [`super::wire`]. A watch that is silent for 5 s is over, since the other side beats every 2 s. Not here: trying
//! again; that is the caller's.

mod http;

use std::time::Duration;

use ::http::Method;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::wire::{self, Commit, Done, Found, Grant, Lease, Line};
use super::{Batch, Change, Engine, Error, Item, LeaseId, Options, Revision, Txn, limits};
use http::{Lines, Peer};
pub use http::{Target, host_field};

/// A connection to another `etna`.
pub struct Remote(Peer);

impl Remote {
    /// The store of the `etna` whose admin API is at `target`; `options` may name a file with its token. Nothing is
    /// asked of it yet.
    pub fn new(target: Target, options: &Options) -> Remote {
        Remote(Peer { target, token_file: options.password_file.clone() })
    }

    async fn post<T: Serialize>(&self, what: &str, body: &T) -> Result<Done, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Invalid { reason: error.to_string() })?;
        let lines = self.0.ask(Method::POST, what, Some(body)).await?;
        decode(&lines.whole().await?)
    }

    fn strange<T>(&self, answer: &Done) -> Result<T, Error> {
        let context = format!("{} answered what was not asked: {answer:?}", self.0.target);
        Err(Error::Unavailable { context, source: None })
    }
}

#[async_trait]
impl Engine for Remote {
    async fn snapshot(&self) -> Result<Batch, Error> {
        let mut lines = self.0.ask(Method::GET, "snapshot", None).await?;
        let mut batch = Batch::default();
        while let Some(line) = lines.next().await? {
            match decode(&line)? {
                Line::Snapshot(revision) => batch.revision = Revision(revision),
                Line::Pair(key, value) => batch.changes.push(Change { key: key.0, value: Some(value.0) }),
                Line::End(pairs) if usize::try_from(pairs) == Ok(batch.changes.len()) => return Ok(batch),
                Line::Failure(failure) => return Err(failure.into()),
                Line::End(_) | Line::Batch(..) | Line::Beat => break,
            }
        }
        Err(Error::Unavailable { context: format!("the snapshot of {} is not whole", self.0.target), source: None })
    }

    async fn watch(&self, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        let lines = self.0.ask(Method::GET, &format!("watch?after={}", after.0), None).await?;
        // A task of its own, for silence is measured also while nobody asks for the next revision.
        let (sender, receiver) = mpsc::channel(LONGEST_QUEUE);
        tokio::spawn(async move {
            let gone = sender.clone();
            tokio::select! {
                () = gone.closed() => {}
                error = follow(lines, &sender) => {
                    let _ = sender.send(Err(error)).await;
                }
            }
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, Error> {
        limits::check_key(key)?;
        let path = format!("key?key={}", utf8_percent_encode(key, NON_ALPHANUMERIC));
        let lines = self.0.ask(Method::GET, &path, None).await?;
        let found: Found = decode(&lines.whole().await?)?;
        Ok(found.item.map(Item::from))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        limits::check(&txn)?;
        match self.post("commit", &Commit::from(txn)).await? {
            Done::Revision(revision) => Ok(Revision(revision)),
            other => self.strange(&other),
        }
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        let ttl_ms = u64::from(limits::seconds(ttl)?) * 1000;
        match self.post("grant", &Grant { ttl_ms }).await? {
            Done::Lease(lease) => Ok(LeaseId(lease)),
            other => self.strange(&other),
        }
    }

    async fn keep(&self, lease: LeaseId) -> Result<Duration, Error> {
        match self.post("keep", &Lease { lease: lease.0 }).await? {
            Done::TtlMs(ttl) => Ok(Duration::from_millis(ttl)),
            other => self.strange(&other),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        match self.post("revoke", &Lease { lease: lease.0 }).await? {
            Done::Revoked => Ok(()),
            other => self.strange(&other),
        }
    }

    fn describe(&self) -> String {
        self.0.target.to_string()
    }
}

/// Passes revisions on until something ends it.
async fn follow(mut lines: Lines, revisions: &mpsc::Sender<Result<Batch, Error>>) -> Error {
    loop {
        let line = match lines.next().await {
            Ok(Some(line)) => decode(&line),
            Ok(None) => Err(Error::Unavailable { context: "the other side ended the watch".into(), source: None }),
            Err(error) => Err(error),
        };
        match line {
            Ok(Line::Beat) => {}
            Ok(Line::Batch(revision, changes)) => {
                if revisions.send(Ok(wire::batch(revision, changes))).await.is_err() {
                    return Error::Unavailable { context: "nobody watches any more".into(), source: None };
                }
            }
            Ok(Line::Failure(failure)) => return failure.into(),
            Ok(line) => {
                let context = format!("a watch has no such line: {line:?}");
                return Error::Unavailable { context, source: None };
            }
            Err(error) => return error,
        }
    }
}

fn decode<T: DeserializeOwned>(json: &Bytes) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| Error::Unavailable {
        context: "the other side answered what this version does not understand".into(),
        source: Some(Box::new(error)),
    })
}

const LONGEST_QUEUE: usize = 64;
