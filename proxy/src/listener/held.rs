//! The listening sockets of this process, held beside the workers that accept on them, so that the process which
//! replaces this one can be given them.
//!
//! A held socket keeps its port listening: what is closed must be let go of here first, and then by the workers.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::{Mutex, MutexGuard, PoisonError};

use etna_store::object::Id;

/// The sockets of one listener.
#[derive(Debug)]
pub struct Held {
    /// The address that was asked for, as it was written; `None` where the sockets came with the process.
    pub wanted: Option<String>,
    /// Whether it is a listener of the command line.
    pub own: bool,
    /// The sockets; at least one.
    pub sockets: Vec<TcpListener>,
}

impl Held {
    /// Handles of their own on the same sockets.
    pub fn try_clone(&self) -> io::Result<Held> {
        let sockets = self.sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
        Ok(Held { wanted: self.wanted.clone(), own: self.own, sockets })
    }

    /// Whether these are sockets for an address that is asked for now.
    pub fn serves(&self, wanted: &str) -> bool {
        self.wanted.as_ref().is_none_or(|held| held == wanted)
    }
}

/// All that is held, by listener.
#[derive(Debug, Default)]
pub struct Sockets(Mutex<BTreeMap<Id, Held>>);

impl Sockets {
    /// Handles of their own on everything.
    pub fn try_clone(&self) -> io::Result<BTreeMap<Id, Held>> {
        self.lock().iter().map(|(id, held)| Ok((id.clone(), held.try_clone()?))).collect()
    }

    /// Handles on a listener's sockets.
    pub(super) fn of(&self, id: &Id) -> io::Result<Vec<TcpListener>> {
        let held = self.lock().get(id).map(Held::try_clone).transpose()?;
        held.map(|held| held.sockets).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn hold(&self, id: Id, held: Held) {
        self.lock().insert(id, held);
    }

    pub(super) fn release(&self, id: &Id) {
        self.lock().remove(id);
    }

    pub(super) fn release_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Id, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
