//! Replacing the running binary, and starting on sockets that somebody else has bound.
//!
//! The process that runs starts the new one ([`give`]), hands it the listening sockets and what it knows of its
//! servers' health over a unix socket (`channel`, the child's standard input), lets go of the embedded store when
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

use etna_store::object::Id;

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
