//! rustls asks which certificate a client gets; the table in force answers. So a change is live for the next handshake
//! and touches no connection.

use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::terms::ACME;
use crate::table::LiveTable;

/// The certificates of the table in force.
pub(super) struct Resolver {
    pub(super) live: Arc<LiveTable>,
    /// Whether clients that ask for a name no host has, or for none, are refused instead of getting the default host's.
    pub(super) refuses_unknown: bool,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.live.table();
        if is_authority(&hello) {
            // Without a challenge for that name, there is nothing to show (RFC 8737 section 3).
            let name = hello.server_name()?.trim_end_matches('.').to_ascii_lowercase();
            return table.challenges.certificate(&name).cloned();
        }
        let certificates = &table.certificates;
        // rustls has read the name as a DNS name; it compares without regard to case and a dot at the end.
        let name = hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let found = name.and_then(|name| certificates.find(&name));
        let chosen = found.or_else(|| certificates.fallback().filter(|_| !self.refuses_unknown))?;
        Some(chosen.key.clone())
    }
}

/// Whether an authority asks: it speaks this protocol and no other.
fn is_authority(hello: &ClientHello<'_>) -> bool {
    let mut spoken = hello.alpn().into_iter().flatten();
    spoken.next() == Some(ACME) && spoken.next().is_none()
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("refuses_unknown", &self.refuses_unknown).finish_non_exhaustive()
    }
}
