//! The stored objects, decoded: one file each, with its validation.
//!
//! vulcand's objects are read as leniently as vulcand reads them (names in any case, unknown fields ignored);
//! our own additions are strict. Every decoded object compares equal to itself, so that an unchanged value is no change.
//!
//! `decode` of each takes the object's name from its key; what the JSON says about `Id` or `Name` is ignored, as
//! vulcand does. It returns the object or the [`Flaw`] that makes it unusable, and notes the
//! settings that are understood and not in force.

use std::sync::Arc;

use crate::json::{Fields, Node, clip, nearest};
use crate::problem::Flaw;

mod acme;
mod backend;
mod balancing;
mod certificate;
mod frontend;
mod health;
mod host;
mod https;
mod listener;
mod middleware;
mod proxy_protocol;
mod server;
mod server_tls;
mod site;
mod suite;
mod tls;

pub use acme::{Acme, Challenge, Ocsp};
pub use backend::{Backend, HttpVersion, KeepAlive, Sticky, Timeouts};
pub use balancing::{HashOn, Limit, Policy};
pub(crate) use frontend::SITE;
pub use frontend::{Elsewhere, Frontend, FrontendSettings, Limits, OnClientAbort};
pub use health::{CheckKind, Checking, HealthCheck};
pub use host::Host;
pub use https::HttpsMode;
pub use listener::{ClientAuth, Listener, Network, Protocol, UnknownHost};
pub use middleware::Middleware;
pub use proxy_protocol::{ProxyProtocol, ProxyVersion, ProxyVersions};
pub use server::{Scheme, Server, ServerState};
pub use server_tls::BackendTls;
pub use site::{Ajax, Site, SiteTimeouts};
pub use suite::CipherSuite;
pub use tls::{TlsPolicy, TlsSettings, TlsVersion};

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

/// One of the known words, in any case.
fn word<T: Copy>(node: &Node<'_>, known: &[(&str, T)]) -> Result<T, Flaw> {
    let written = node.string()?;
    if let Some((_, meant)) = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(&written)) {
        return Ok(*meant);
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let hint = match nearest(&written, &names) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("write {}", names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" or ")),
    };
    Err(node.flaw(format!("{} is {:?}", node.name(), clip(&written)), hint))
}

/// A flaw of a field, or of the object where the field is absent.
fn at(fields: &Fields<'_>, name: &str, reason: String, hint: &str) -> Flaw {
    match fields.get(name) {
        Some(node) => node.flaw(reason, hint),
        None => fields.flaw(reason, hint),
    }
}

/// A host's name in lower case and without the dot at its end; `None` if it is none. There are no wildcards here.
fn host_name(written: &str) -> Option<String> {
    let name = written.strip_suffix('.').unwrap_or(written).to_ascii_lowercase();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (!name.is_empty() && name.len() <= 253 && name.bytes().all(fits)).then_some(name)
}

/// Empty is absent, as everywhere in vulcand.
fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
