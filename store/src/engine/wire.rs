//! What two processes of etna say to each other about a store: JSON over HTTP below `/v3/store`, known to both sides.
//!
//! | request | answer |
//! |---|---|
//! | `GET snapshot`, `GET watch?after=REVISION` | one [`Line`] per line |
//! | `GET key?key=KEY` | [`Found`] |
//! | `POST commit` [`Commit`], `POST grant` [`Grant`], `POST keep` [`Lease`], `POST revoke` [`Lease`] | [`Done`] |
//!
//! Any other status than 200 has a [`Failure`]. Bytes are base64, for a store may hold what is not UTF-8.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Batch, Change, Compare, Error, Item, LeaseId, Op, Revision, Txn};

/// A line of an answer that has many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A snapshot begins; it is of this revision.
    Snapshot(i64),
    /// A pair of it.
    Pair(Blob, Blob),
    /// It is whole.
    End(u64),
    /// A revision of a watch: each key with its value, or without one if it was deleted.
    Batch(i64, Vec<(Blob, Option<Blob>)>),
    /// All is well, and nothing happened.
    Beat,
    /// The last line of a watch.
    Failure(Failure),
}

/// How often a watch has a line at least.
pub const BEAT: Duration = Duration::from_secs(2);
/// After how long without a line the other side is gone.
pub const SILENCE: Duration = Duration::from_secs(5);
/// The longest body of a request, in bytes: more than the largest transaction.
pub const LONGEST_BODY: usize = 2 << 20;
/// The longest line, in bytes: more than the largest revision.
pub const LONGEST_LINE: usize = 64 << 20;

/// Bytes, as base64 in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob(pub Bytes);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(|bytes| Blob(bytes.into())).map_err(serde::de::Error::custom)
    }
}

/// A transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// Its conditions.
    #[serde(default)]
    pub compares: Vec<Condition>,
    /// Its writes.
    pub ops: Vec<Write>,
}

/// A condition.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// [`Compare::Absent`]
    Absent(String),
    /// [`Compare::Unchanged`]
    Unchanged(String, i64),
}

/// A write.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Write {
    /// [`Op::Put`]
    Put(String, Blob, Option<i64>),
    /// [`Op::Delete`]
    Delete(String),
}

/// A wish for a lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Its time in milliseconds.
    pub ttl_ms: u64,
}

/// A lease to renew or to end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Its id.
    pub lease: i64,
}

/// What a request came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// A commit's revision.
    Revision(i64),
    /// The lease granted.
    Lease(i64),
    /// The renewed lease's time in milliseconds.
    TtlMs(u64),
    /// Ended.
    Revoked,
}

/// A key as it stands now, or `null`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// The item.
    pub item: Option<Value>,
}

/// An [`Item`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Value {
    /// Its bytes.
    pub value: Blob,
    /// The revision that wrote it.
    pub revision: i64,
    /// The lease it lives under.
    pub lease: Option<i64>,
}

/// An [`Error`], without loss but for the source, whose text is in the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which one.
    pub error: Kind,
    /// What happened, for people.
    pub message: String,
    /// The oldest revision kept, with [`Kind::Compacted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<i64>,
}

/// Which error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// [`Error::Compacted`]
    Compacted,
    /// [`Error::Conflict`]
    Conflict,
    /// [`Error::LeaseLost`]
    LeaseLost,
    /// [`Error::Denied`]
    Denied,
    /// [`Error::Invalid`]
    Invalid,
    /// [`Error::Unavailable`]
    Unavailable,
}

impl Kind {
    /// The HTTP status.
    pub fn status(self) -> http::StatusCode {
        match self {
            Kind::Compacted | Kind::LeaseLost => http::StatusCode::GONE,
            Kind::Conflict => http::StatusCode::CONFLICT,
            Kind::Denied => http::StatusCode::FORBIDDEN,
            Kind::Invalid => http::StatusCode::BAD_REQUEST,
            Kind::Unavailable => http::StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        let (kind, message, oldest) = match error {
            Error::Compacted { oldest } => (Kind::Compacted, error.to_string(), Some(oldest.0)),
            Error::Conflict => (Kind::Conflict, error.to_string(), None),
            Error::LeaseLost => (Kind::LeaseLost, error.to_string(), None),
            Error::Denied { reason } => (Kind::Denied, reason.clone(), None),
            Error::Invalid { reason } => (Kind::Invalid, reason.clone(), None),
            Error::Unavailable { context, source: None } => (Kind::Unavailable, context.clone(), None),
            Error::Unavailable { context, source: Some(source) } => {
                (Kind::Unavailable, format!("{context}: {source}"), None)
            }
        };
        Failure { error: kind, message, oldest }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure.error {
            Kind::Compacted => Error::Compacted { oldest: Revision(failure.oldest.unwrap_or_default()) },
            Kind::Conflict => Error::Conflict,
            Kind::LeaseLost => Error::LeaseLost,
            Kind::Denied => Error::Denied { reason: failure.message },
            Kind::Invalid => Error::Invalid { reason: failure.message },
            Kind::Unavailable => Error::Unavailable { context: failure.message, source: None },
        }
    }
}

impl From<&Batch> for Line {
    fn from(batch: &Batch) -> Line {
        let changes = batch.changes.iter().map(|change| (Blob(change.key.clone()), change.value.clone().map(Blob)));
        Line::Batch(batch.revision.0, changes.collect())
    }
}

/// A watch's batch out of its line.
pub fn batch(revision: i64, changes: Vec<(Blob, Option<Blob>)>) -> Batch {
    let changes = changes.into_iter().map(|(key, value)| Change { key: key.0, value: value.map(|value| value.0) });
    Batch { revision: Revision(revision), changes: changes.collect() }
}

impl From<Txn> for Commit {
    fn from(txn: Txn) -> Commit {
        let compares = txn.compares.into_iter().map(|compare| match compare {
            Compare::Absent(key) => Condition::Absent(key),
            Compare::Unchanged(key, at) => Condition::Unchanged(key, at.0),
        });
        let ops = txn.ops.into_iter().map(|op| match op {
            Op::Put(key, value, lease) => Write::Put(key, Blob(value), lease.map(|lease| lease.0)),
            Op::Delete(key) => Write::Delete(key),
        });
        Commit { compares: compares.collect(), ops: ops.collect() }
    }
}

impl From<Commit> for Txn {
    fn from(commit: Commit) -> Txn {
        let compares = commit.compares.into_iter().map(|condition| match condition {
            Condition::Absent(key) => Compare::Absent(key),
            Condition::Unchanged(key, at) => Compare::Unchanged(key, Revision(at)),
        });
        let ops = commit.ops.into_iter().map(|write| match write {
            Write::Put(key, value, lease) => Op::Put(key, value.0, lease.map(LeaseId)),
            Write::Delete(key) => Op::Delete(key),
        });
        Txn { compares: compares.collect(), ops: ops.collect() }
    }
}

impl From<Item> for Value {
    fn from(item: Item) -> Value {
        Value { value: Blob(item.value), revision: item.revision.0, lease: item.lease.map(|lease| lease.0) }
    }
}

impl From<Value> for Item {
    fn from(value: Value) -> Item {
        Item { value: value.value.0, revision: Revision(value.revision), lease: value.lease.map(LeaseId) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_journey() {
        let errors = [
            Error::Compacted { oldest: Revision(7) },
            Error::Conflict,
            Error::LeaseLost,
            Error::Denied { reason: "no".into() },
            Error::Invalid { reason: "bad".into() },
            Error::Unavailable { context: "gone".into(), source: None },
        ];
        for error in errors {
            let json = serde_json::to_string(&Failure::from(&error)).unwrap();
            let back = Error::from(serde_json::from_str::<Failure>(&json).unwrap());
            assert_eq!(format!("{error:?}"), format!("{back:?}"));
        }
    }

    #[test]
    fn a_line_is_what_is_documented() {
        let batch = Batch {
            revision: Revision(3),
            changes: vec![
                Change { key: Bytes::from_static(b"a"), value: Some(Bytes::from_static(b"\xff")) },
                Change { key: Bytes::from_static(b"b"), value: None },
            ],
        };
        let json = serde_json::to_string(&Line::from(&batch)).unwrap();
        assert_eq!(json, r#"{"batch":[3,[["YQ==","/w=="],["Yg==",null]]]}"#);
        assert_eq!(serde_json::to_string(&Line::Beat).unwrap(), r#""beat""#);
        let Line::Batch(revision, changes) = serde_json::from_str(&json).unwrap() else { panic!("{json}") };
        assert_eq!(super::batch(revision, changes), batch);
    }
}
