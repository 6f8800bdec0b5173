//! What one process tells the next about a server. Who carries it, and for which server it is, is said in `handover`.

use std::sync::atomic::Ordering::{Relaxed, Release};

use serde::{Deserialize, Serialize};

use super::checked::{Checked, State};
use super::reason::Reason;
use super::{EJECTED, Health, ejection};

/// A server's health as it is told.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    state: State,
    reason: Reason,
    proved: bool,
    /// Milliseconds until it is probed, while it is ejected.
    ejected: Option<u64>,
    row: u32,
    ejected_for: Reason,
}

impl Health {
    /// What a process that replaces this one should know; `None` if there is nothing to know.
    pub fn export(&self) -> Option<serde_json::Value> {
        let now = self.now();
        let ejected = self.word.load(Relaxed) & EJECTED != 0;
        let checked = self.lock();
        if !ejected && checked.state() == State::Unchecked {
            return None;
        }
        let (row, ejected_for, _) = self.ejection.history();
        let saved = Saved {
            state: checked.state(),
            reason: checked.finding().reason,
            proved: checked.is_proved(),
            ejected: ejected.then(|| self.ejection.left(now)),
            row,
            ejected_for,
        };
        serde_json::to_value(saved).ok()
    }

    /// Goes on from what [`Health::export`] said in another process, perhaps of another version. Whether it was taken.
    pub fn import(&self, state: &serde_json::Value) -> bool {
        let Ok(saved) = Saved::deserialize(state) else { return false };
        let mut checked = self.lock();
        // Whether it is checked at all says this process's table.
        if checked.state() != State::Unchecked && saved.state != State::Unchecked {
            *checked = Checked::resumed(saved.state, saved.reason, saved.proved);
            self.show(saved.state);
        }
        if let Some(left) = saved.ejected {
            self.ejection.resume(self.now(), left.min(ejection::LONGEST), saved.row.min(MOST_ROW), saved.ejected_for);
            self.word.fetch_or(EJECTED, Release);
        }
        true
    }
}

/// Ejections in a row that are believed of another process.
const MOST_ROW: u32 = 30;
