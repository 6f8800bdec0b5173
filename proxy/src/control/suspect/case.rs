//! What vanished together, and why it is held.

use std::time::Instant;

use bytes::Bytes;
use etna_store::object::Id;

/// What vanished together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What it was.
    pub what: What,
    /// When it vanished.
    pub since: Instant,
    /// When it is believed; `None`: not by time, because the store's history was replaced and nobody deleted anything.
    pub until: Option<Instant>,
    /// Keys that are still held.
    pub keys: usize,
    /// One of them.
    pub example: Bytes,
}

/// Why a case was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Servers of one backend.
    Servers {
        /// The backend.
        backend: Id,
        /// Servers gone within the time that is looked at.
        gone: usize,
        /// Servers there were.
        of: usize,
    },
    /// Objects of every kind.
    Objects {
        /// Frontends, backends, sites, listeners and hosts gone in one step.
        gone: usize,
        /// As many as there were, or more than were needed to decide.
        of: usize,
    },
    /// Held before this process started.
    Earlier,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            What::Servers { backend, gone, of } => write!(f, "{gone} of {of} servers of backend {backend:?} vanished"),
            What::Objects { gone, of } => write!(f, "{gone} of at least {of} objects vanished at once"),
            What::Earlier => f.write_str("vanished before this process started"),
        }
    }
}
