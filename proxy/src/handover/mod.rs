//! Replacing the running binary, and starting on sockets that somebody else has bound.
//!
//! The process that runs starts the new one ([`give`]), hands it the listening sockets and what it knows of its
//! servers' health over a unix socket ([`channel`], the child's standard input), lets go of the embedded store when
//! asked, and waits to hear that the new one is ready ([`take`]); only then does it stop accepting, and finishes what
//! runs. Whatever goes wrong before that changes nothing. Sockets from systemd are in [`activation`].
//!
//! Not here: how a drain goes (`listener::worker`), and connections that are open: those stay with their process.

pub mod activation;
mod channel;
pub mod give;
pub mod health;
pub mod program;
pub mod take;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use etna_store::object::Id;
use serde::{Deserialize, Serialize};

use crate::listener::held::Held;

/// What came with the process.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Listening sockets by listener.
    pub sockets: BTreeMap<Id, Held>,
    /// The admin API's socket.
    pub admin: Option<AdminSocket>,
    /// The process that this one replaces.
    pub predecessor: Option<take::Predecessor>,
}

/// The admin API's socket, listening.
#[derive(Debug)]
pub struct AdminSocket {
    /// The address that was asked for; `None` where the service manager has chosen it.
    pub wanted: Option<String>,
    /// The socket.
    pub socket: OwnedFd,
}

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

    fn fail(&self, reason: String) {
        let mut upgraded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        upgraded.failed += 1;
        upgraded.last = Some(Last { ok: false, at: seconds(), from: std::process::id(), reason: Some(reason) });
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
