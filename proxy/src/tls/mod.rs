//! TLS towards clients: which certificate a name gets, on which terms a listener speaks, how a handshake goes.
//!
//! Read in this order: `certificate` (one, read and judged), `certificates` (all of a table, by name), `files` (some from a directory), `terms` (what a
//! listener asks of clients), `resolve` (rustls asks for a certificate), `handshake` (a connection becomes encrypted), `client` (whose
//! certificate servers are told of),
//! `tickets` (sessions that go on later, on another proxy too). Keys are opened in the control loop, never on a worker.
//! What is not here: where keys come from (`store`'s seal, `acme`), and HTTP.

pub mod certificate;
pub mod certificates;
mod client;
pub mod files;
pub mod handshake;
pub mod resolve;
pub mod terms;
#[cfg(test)]
pub(crate) mod testing;
pub mod tickets;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The one source of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    PROVIDER.clone()
}
