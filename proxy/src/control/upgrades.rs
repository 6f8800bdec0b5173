//! How replacing the running binary went: shown by the admin side, passed on from process to process.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// How replacing this process's binary went so far, its predecessors' included.
#[derive(Debug, Default)]
pub struct Upgrades(Mutex<Upgraded>);

/// The same at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Upgraded {
    /// Those that worked.
    pub ok: u64,
    /// Those that changed nothing.
    pub failed: u64,
    /// The last one.
    pub last: Option<Last>,
}

/// The last attempt to replace the binary.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Last {
    /// Whether it worked.
    pub ok: bool,
    /// When it ended, in seconds since 1970.
    pub at: u64,
    /// The process that was replaced, or was to be.
    pub from: u32,
    /// Why nothing changed.
    pub reason: Option<String>,
}

impl Upgrades {
    /// How it stands.
    pub fn now(&self) -> Upgraded {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes on from what a predecessor said: this process has replaced it.
    pub(crate) fn succeed(&self, predecessor: u32, before: Upgraded) {
        let last = Last { ok: true, at: seconds(), from: predecessor, reason: None };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Upgraded { ok: before.ok + 1, failed: before.failed, last: Some(last) };
    }

    pub(crate) fn fail(&self, reason: String) {
        let mut upgraded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        upgraded.failed += 1;
        upgraded.last = Some(Last { ok: false, at: seconds(), from: std::process::id(), reason: Some(reason) });
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
