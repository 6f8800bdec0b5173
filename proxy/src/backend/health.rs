//! Whether a server should be given requests, as its checks and its answers say.

use http::StatusCode;

use super::Backend;

/// A server's health, shared by all workers.
#[derive(Debug, Default)]
pub struct Health {}

/// What became of one request at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Answered(StatusCode),
    /// No connection could be made.
    Unreachable,
    /// The connection broke, or the answer was no HTTP.
    Broken,
    /// It did not answer in time.
    Late,
}

impl Health {
    /// Whether it takes requests as long as others do.
    pub fn is_serving(&self) -> bool {
        true
    }

    /// What a process that replaces this one should know; `None` if there is nothing to know.
    pub fn export(&self) -> Option<serde_json::Value> {
        None
    }

    /// Goes on from what [`Health::export`] said in another process, perhaps of another version. Whether it was taken.
    pub fn import(&self, _state: &serde_json::Value) -> bool {
        false
    }
}

impl Backend {
    /// Tells what became of one request at the server in this place.
    pub fn observe(&self, _at: u16, _outcome: Outcome) {}
}
