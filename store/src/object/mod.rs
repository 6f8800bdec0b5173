//! The stored objects, decoded: one file each, with its validation.
//!
//! vulcand's objects are read as leniently as vulcand reads them (names in any case, unknown fields ignored);
//! our own additions are strict. Every decoded object compares equal to itself, so that an unchanged value is no change.
//!
//! `decode` of each takes the object's name from its key; what the JSON says about `Id` or `Name` is ignored, as
//! vulcand does. It returns the object or the [`Flaw`] that makes it unusable, and notes the
//! settings that are understood and not in force.

use std::sync::Arc;

use crate::json::{Fields, clip};
use crate::problem::Flaw;

mod backend;
mod balancing;
mod frontend;
mod health;
mod host;
mod listener;
mod middleware;
mod server;
mod site;

pub use backend::{Backend, KeepAlive, Sticky, Timeouts};
pub use balancing::{HashOn, Limit, Policy};
pub(crate) use frontend::SITE;
pub use frontend::{Elsewhere, Frontend, FrontendSettings, Limits, OnClientAbort};
pub use health::{CheckKind, Checking, HealthCheck};
pub use host::Host;
pub use listener::{Listener, Network, Protocol};
pub use middleware::Middleware;
pub use server::{Scheme, Server, ServerState};
pub use site::{Ajax, Site};

/// The name of an object, as its key spells it.
pub type Id = Arc<str>;

/// vulcand knows frontends and backends of one type, and wants it said.
fn only_http(fields: &Fields<'_>) -> Result<(), Flaw> {
    let hint = r#"write "Type":"http""#;
    match fields.get("Type") {
        None => Err(fields.flaw("Type is missing", hint)),
        Some(node) => match node.string()?.as_str() {
            "http" => Ok(()),
            other => Err(node.flaw(format!("unsupported type {:?}", clip(other)), hint)),
        },
    }
}

/// Notes a setting that is understood and does nothing, if it is there.
fn not_in_force(fields: &Fields<'_>, name: &str, notes: &mut Vec<Flaw>) {
    if let Some(node) = fields.get(name) {
        notes.push(node.flaw(format!("setting {} is not in force yet", node.name()), "remove it, or live without it"));
    }
}

/// Empty is absent, as everywhere in vulcand.
fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
