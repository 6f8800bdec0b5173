//! The access log: one line of JSON for every request that was answered, on a stream of its own.
//!
//! A request's line is put together while it runs (`record`) in a buffer that its worker uses again; whole lines gather
//! at the worker (`lines`) and go in chunks, at latest every second, through a queue with a bound to one thread that
//! writes them (`writer`, `output`). No worker ever waits for it: what finds the queue full, or cannot be written, is
//! lost and counted (`status`). Not here: who calls it (`traffic`), and connections that were turned away unread.

mod clock;
mod json;
mod lines;
mod output;
pub mod record;
mod status;
mod writer;

use std::path::PathBuf;

pub use json::Query;
pub use lines::{Access, Lines};
pub use status::Status;
pub use writer::{Writer, start};

/// How the access log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where to.
    pub target: Target,
    /// What is shown of queries.
    pub query: Query,
}

/// Where it is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The process's standard output.
    Stdout,
    /// A file, a pipe or a device.
    File(PathBuf),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Stdout => f.write_str("-"),
            Target::File(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
