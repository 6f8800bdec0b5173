//! TLS towards the servers of a backend: vulcand's settings, and whom to believe and who to be.
//!
//! Whether it is used at all is said by a server's URL (`https`). The client certificate stays sealed here.

use super::certificate::{self, sealed};
use super::tls::{End, TlsSettings};
use super::{host_name, some};
use crate::json::{Fields, clip};
use crate::problem::Flaw;

/// `Settings.TLS` of a backend.
#[derive(Clone, Default, PartialEq)]
pub struct BackendTls {
    /// Versions, suites, and whether servers are verified at all.
    pub settings: TlsSettings,
    /// Ours, `CA`: the only authorities that are believed, PEM, at least one certificate. `None`: the system's.
    pub ca: Option<String>,
    /// Ours, `ServerName`: asked for (SNI) and verified, in lower case, or an IP address. `None`: the URL's host.
    pub server_name: Option<String>,
    /// Ours, `KeyPair`: the client certificate, sealed as a host's is.
    pub key_pair: Option<Vec<u8>>,
}

impl BackendTls {
    /// Reads the fields of `Settings.TLS`.
    pub(super) fn decode(fields: &Fields<'_>, notes: &mut Vec<Flaw>) -> Result<BackendTls, Flaw> {
        let server_name = match fields.get("ServerName") {
            Some(node) => some(node.string()?)
                .map(|written| {
                    let is_ip = written.parse::<std::net::IpAddr>().is_ok();
                    let name = if is_ip { Some(written.clone()) } else { host_name(&written) };
                    name.filter(|name| !name.contains('*')).ok_or_else(|| {
                        let reason = format!("{} {:?} is not the name of a server", node.name(), clip(&written));
                        node.flaw(reason, "write a name like app.example.com, without scheme and port")
                    })
                })
                .transpose()?,
            None => None,
        };
        Ok(BackendTls {
            settings: TlsSettings::decode(fields, End::Client, notes)?,
            ca: fields.get("CA").map(certificate::authorities).transpose()?,
            server_name,
            key_pair: fields.get("KeyPair").map(sealed).transpose()?.flatten(),
        })
    }
}

impl std::fmt::Debug for BackendTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendTls")
            .field("settings", &self.settings)
            .field("ca", &self.ca)
            .field("server_name", &self.server_name)
            .field("key_pair", &self.key_pair.as_ref().map(|_| "(sealed)"))
            .finish()
    }
}
