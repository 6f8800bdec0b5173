//! What should be registered from this host: the whole set, by container.
//!
//! It stands between the sources (Docker, and whatever stands beside it later) and the registrar, which makes the
//! store equal to it. It says nothing of keys, leases or how a container was found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Which of a site's two backends a container serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The public pages only; its admin is disabled.
    Public,
    /// The admin.
    Admin,
    /// Both: its server is registered in both backends.
    Both,
}

impl Role {
    /// As labels and `Meta` spell it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Public => "public",
            Role::Admin => "admin",
            Role::Both => "both",
        }
    }

    /// Reads a label's value, in any case.
    pub fn parse(text: &str) -> Option<Role> {
        [Role::Public, Role::Admin, Role::Both].into_iter().find(|role| role.name().eq_ignore_ascii_case(text.trim()))
    }

    /// The names of the backends of `site` that this role serves.
    pub fn backends(self, site: &str) -> Vec<String> {
        match self {
            Role::Public => vec![public_backend(site)],
            Role::Admin => vec![admin_backend(site)],
            Role::Both => vec![public_backend(site), admin_backend(site)],
        }
    }
}

/// The name of a site's public backend.
pub fn public_backend(site: &str) -> String {
    format!("{site}-public")
}

/// The name of a site's admin backend.
pub fn admin_backend(site: &str) -> String {
    format!("{site}-admin")
}

/// What the registrar is to do with a member's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not known to answer yet: not registered, but a registration with the same URL stays as it is.
    Pending,
    /// Registered.
    Up,
    /// Registered as `draining`: it was told to stop.
    Draining,
}

/// One container that belongs to a site.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The site's id.
    pub site: String,
    /// The host names this container claims for its site, the first one first; never empty.
    pub hosts: Vec<String>,
    /// Which backends it serves.
    pub role: Role,
    /// Where proxies reach it; `None` while that is unknown (its site is registered all the same).
    pub address: Option<SocketAddr>,
    /// The port inside the container: part of the server's name, so that a restart keeps the name.
    pub port: u16,
    /// Share of the traffic, 0 to 256.
    pub weight: u32,
    /// What to do with its server.
    pub stage: Stage,
    /// Shown with the server and never acted on: container, image, role, started, note.
    pub meta: BTreeMap<String, String>,
}

/// Everything that should be registered from this host, by container id (at least 12 letters or digits).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// The members.
    pub members: BTreeMap<String, Member>,
    /// Containers that run but could not be looked at: what is registered of them stays.
    pub unread: BTreeSet<String>,
}
