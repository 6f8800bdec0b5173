//! Certificates that look after themselves, by ACME (RFC 8555): for hosts that the store names and that ask for it.
//!
//! Read in this order: `names` (what proxies share in the store), `challenge` (what every proxy answers), `due` (when
//! something is to be done), then what does it, on the control runtime: `keeper` (the one that sets about it), `claim`
//! (one proxy at a time), `work` (what is due for a host), `order`, `account` and `http` (the authority); `sweep` removes
//! what hosts leave behind.
//! The table shows what is known (`table/acme.rs`). Not here: names that no stored host has, and DNS.

mod account;
pub mod challenge;
mod claim;
pub mod due;
mod http;
mod keeper;
pub mod names;
mod order;
mod sweep;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use etna_store::object::{Acme, Id};
use etna_store::{Key, Problem};
use tokio_util::task::AbortOnDropHandle;

use crate::control::State;
use crate::stats::Counter;
use crate::tls::certificate::Certificate;
use keeper::Keeper;
use names::Record;

/// What the command line says about ACME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The directory of hosts that name none.
    pub directory: String,
    /// PEM file of the authorities that sign the certificates of directories themselves; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { directory: DIRECTORY.into(), ca_file: None }
    }
}

impl Settings {
    /// Where a host's certificates come from.
    pub fn directory<'s>(&'s self, acme: &'s Acme) -> &'s str {
        acme.directory.as_deref().unwrap_or(&self.directory)
    }
}

/// A host that wants certificates by ACME, as the table shows it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its name.
    pub host: Id,
    /// What it wants.
    pub acme: Acme,
    /// Until when a key pair of its own goes first.
    pub key_pair_until: Option<SystemTime>,
    /// The certificate it got by ACME, if it has one.
    pub certificate: Option<Arc<Certificate>>,
    /// What is known of it.
    pub record: Record,
    /// Whether a proxy works for it now.
    pub is_claimed: bool,
}

impl Subject {
    /// One of which nothing is known yet.
    pub fn new(host: Id, acme: Acme) -> Subject {
        let record = Record::default();
        Subject { host, acme, key_pair_until: None, certificate: None, record, is_claimed: false }
    }
}

/// What this proxy did for certificates.
#[derive(Debug, Default)]
pub struct Status {
    /// The command line's word.
    pub settings: Settings,
    /// Certificates that it got.
    pub issued: Counter,
    /// Attempts that failed.
    pub failed: Counter,
    /// Of these, those that an authority refused for being too many.
    pub limited: Counter,
    /// Attempts that another proxy may have to take over: the lease ended, or the store did not answer.
    pub lost: Counter,
    /// Times the keeper broke and was started again.
    pub restarts: Counter,
    troubles: Mutex<BTreeMap<Id, Problem>>,
    changed: AtomicBool,
}

impl Status {
    /// With the command line's word.
    pub fn new(settings: Settings) -> Status {
        Status { settings, ..Status::default() }
    }

    /// What keeps this proxy from working for hosts, besides what the store remembers of them.
    pub fn problems(&self) -> Vec<Problem> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether that changed since this was last asked.
    pub fn take_changed(&self) -> bool {
        self.changed.swap(false, Relaxed)
    }

    /// Says, or no longer says, what keeps it from working for a host.
    fn tell(&self, host: &Id, reason: Option<String>) {
        let problem = reason.map(|reason| Problem {
            key: Key::Host(host.clone()).to_string(),
            reason,
            hint: "other proxies may; this one has to read and write below acme/, with their seal keys".into(),
            line: None,
            column: None,
            effect: "this proxy gets no certificate for it".into(),
        });
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match problem {
            None => troubles.remove(host).is_some(),
            Some(problem) => troubles.insert(host.clone(), problem.clone()).is_none_or(|old| old != problem),
        };
        self.changed.fetch_or(changed, Relaxed);
    }

    /// Forgets what it said of hosts that do not ask for it any more.
    fn retain(&self, is_known: impl Fn(&Id) -> bool) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let before = troubles.len();
        troubles.retain(|host, _| is_known(host));
        self.changed.fetch_or(troubles.len() != before, Relaxed);
    }
}

/// Looks after certificates until the process drains.
pub async fn run(state: Arc<State>) {
    let _sweep = AbortOnDropHandle::new(tokio::spawn(sweep::run(state.clone(), format!("{:016x}", fastrand::u64(..)))));
    loop {
        let keeper = AbortOnDropHandle::new(tokio::spawn(Keeper::new(state.clone()).run()));
        match keeper.await {
            Err(error) if error.is_panic() => {
                state.acme.restarts.add(1);
                tracing::error!(%error, "looking after certificates broke and is started again");
                tokio::time::sleep(PAUSE).await;
            }
            _ => return,
        }
    }
}

/// Let's Encrypt.
pub const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
const PAUSE: Duration = Duration::from_secs(5);
