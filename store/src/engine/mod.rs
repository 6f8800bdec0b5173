//! What a store must do, and the ways to open one.
//!
//! An engine keeps keys and values at revisions, and leases. It is where both walks begin: a change enters through
//! [`Engine::commit`] and leaves through [`Engine::watch`]. It does not know what a key means.

mod causes;
mod core;
pub mod embedded;
pub mod etcd;
mod limits;
mod local;
pub mod memory;
mod open;
pub mod remote;
pub mod wire;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub use causes::with_causes;
pub use limits::{LARGEST_TXN, LONGEST_KEY, MOST_OPS};
pub use open::{check_url, open};

/// A point in a store's history. Grows by one per committed transaction; never goes back while the store lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

/// One key at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key below the prefix, without a leading slash. Bytes, because a store accepts keys that are not UTF-8.
    pub key: Bytes,
    /// The new value; `None` says that the key was deleted or that its lease ended.
    pub value: Option<Bytes>,
}

/// All changes of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The revision at which all of it is true.
    pub revision: Revision,
    /// In a snapshot every pair, each with a value; in a watch what the revision changed.
    pub changes: Vec<Change>,
}

/// A lease a store granted. Keys attached to it are deleted when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// A key as it stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its value.
    pub value: Bytes,
    /// The revision that wrote this value: what [`Compare::Unchanged`] compares with.
    pub revision: Revision,
    /// The lease it lives under.
    pub lease: Option<LeaseId>,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent(String),
    /// The key exists, and this revision wrote its value.
    Unchanged(String, Revision),
}

/// A write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write a key, under a lease or, with `None`, for ever.
    Put(String, Bytes, Option<LeaseId>),
    /// Delete exactly this key; deleting what is not there is no error.
    Delete(String),
}

/// Writes that happen together, at one revision, if all conditions hold. One key is written at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// Applied in order.
    pub ops: Vec<Op>,
}

impl Txn {
    /// A transaction of one put without a lease and without a condition.
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Txn {
        Txn { compares: Vec::new(), ops: vec![Op::Put(key.into(), value.into(), None)] }
    }

    /// A transaction of one delete.
    pub fn delete(key: impl Into<String>) -> Txn {
        Txn { compares: Vec::new(), ops: vec![Op::Delete(key.into())] }
    }
}

/// Why a store did not do what was asked: only what a caller can act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The revision asked for is gone: take a new snapshot.
    #[error("the store has compacted the revisions asked for (oldest kept: {})", .oldest.0)]
    Compacted {
        /// The oldest revision still kept, where the store told.
        oldest: Revision,
    },
    /// A condition of a transaction did not hold; nothing was written.
    #[error("the key was changed by somebody else")]
    Conflict,
    /// The lease has ended or never was: grant a new one and write its keys again.
    #[error("the lease has ended")]
    LeaseLost,
    /// The store refused: credentials, permissions.
    #[error("the store refused: {reason}")]
    Denied {
        /// What the store said.
        reason: String,
    },
    /// The request can never succeed as it is (key or value too large, malformed).
    #[error("not a valid request: {reason}")]
    Invalid {
        /// What is wrong and what to do.
        reason: String,
    },
    /// The store does not answer, or broke: try again later.
    #[error("the store is unavailable: {context}")]
    Unavailable {
        /// What was being done.
        context: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// A key-value store with revisions and leases. Every implementation passes `tests/engine.rs`.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Every pair below the prefix, all read at one revision.
    async fn snapshot(&self) -> Result<Batch, Error>;

    /// Whole revisions after `after`, in order and without gaps, as they happen. The stream ends only with an error
    /// item; after [`Error::Compacted`] take a new snapshot, after [`Error::Unavailable`] watch again from the last
    /// revision seen. Revisions that touched nothing below the prefix are not yielded.
    async fn watch(&self, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error>;

    /// One key as it stands now.
    async fn get(&self, key: &str) -> Result<Option<Item>, Error>;

    /// Writes a transaction; once it returns the revision, the writes are kept whatever happens to the process.
    async fn commit(&self, txn: Txn) -> Result<Revision, Error>;

    /// Grants a lease of (at least) `ttl`, rounded up to whole seconds.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error>;

    /// Renews a lease once and says how long it now lives. The caller repeats this at about a third of the TTL.
    async fn keep(&self, lease: LeaseId) -> Result<Duration, Error>;

    /// Ends a lease now; its keys are deleted in one revision. Ending what has ended is no error.
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error>;

    /// Lets go of what only one process can have (the embedded store's file), for a process that replaces this one.
    /// Until [`Engine::resume`], reading goes on and writing waits. Most engines hold nothing.
    async fn release(&self) {}

    /// Takes back what [`Engine::release`] let go of, as it is now.
    async fn resume(&self) {}

    /// Reads the files that [`Options`] name again, and shows the store from now on what is in them. What was asked for
    /// before, a watch among it, goes on as it is. Most engines read them each time.
    ///
    /// # Errors
    /// What is wrong with them, or that the store does not take them; then the former ones are used on.
    async fn renew(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The engine in words for logs and status, without credentials: `etcd://127.0.0.1:2379/vulcand`.
    fn describe(&self) -> String;
}

/// How to reach a store: what a `--store` URL does not say.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// PEM file of the authority that signed the store's certificate; the system's roots without it.
    pub ca_file: Option<std::path::PathBuf>,
    /// PEM file of our client certificate.
    pub cert_file: Option<std::path::PathBuf>,
    /// PEM file of its key.
    pub key_file: Option<std::path::PathBuf>,
    /// User name for etcd's password authentication.
    pub user: Option<String>,
    /// File holding that user's password, or the token of a remote `etna`'s admin API.
    pub password_file: Option<std::path::PathBuf>,
}
