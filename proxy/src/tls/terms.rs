//! What a listener asks of clients: versions, suites, protocols, client certificates. Read once, when the table is
//! compiled; every worker makes its configuration of it.

use std::sync::Arc;

use etna_store::object::{CipherSuite, ClientAuth, Listener, TlsSettings, TlsVersion, UnknownHost};
use rustls::crypto::{CryptoProvider, aws_lc_rs::cipher_suite};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::resolve::Resolver;
use super::tickets::Tickets;
use crate::table::LiveTable;

/// A listener's terms.
#[derive(Debug)]
pub struct Terms {
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    prefers_ours: bool,
    has_tickets: bool,
    has_http2: bool,
    /// Whether clients that ask for a name no host has, or for none, are refused.
    pub refuses_unknown: bool,
    /// Whether servers are told of a client's certificate.
    pub tells_servers: bool,
}

/// Why there are no terms.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The authorities of client certificates.
    #[error("ClientAuth.CA: {0}")]
    Authorities(String),
    /// The rest of it.
    #[error("TLS settings: {0}")]
    Settings(#[from] rustls::Error),
}

impl Terms {
    /// A listener's.
    pub fn of(listener: &Listener) -> Result<Terms, Unusable> {
        let settings = listener.tls.clone().unwrap_or_default();
        let clients = listener.client_auth.as_deref().map(verifier).transpose()?;
        let terms = Terms {
            clients,
            has_http2: listener.http2,
            refuses_unknown: listener.unknown_host == UnknownHost::Refuse,
            tells_servers: listener.client_auth.as_ref().is_some_and(|auth| auth.headers),
            ..Terms::with(&settings)
        };
        // What rustls would not take is found now, not by the first client.
        terms.builder()?;
        Ok(terms)
    }

    /// Those of a listener that says nothing.
    pub fn usual() -> Terms {
        Terms::with(&TlsSettings::default())
    }

    fn with(settings: &TlsSettings) -> Terms {
        Terms {
            provider: Arc::new(provider(settings)),
            versions: versions(settings),
            clients: None,
            prefers_ours: settings.prefer_server_suites,
            has_tickets: settings.tickets,
            has_http2: true,
            refuses_unknown: false,
            tells_servers: false,
        }
    }

    /// What rustls works with: certificates out of the table in force, tickets as all workers have them.
    pub fn config(&self, live: Arc<LiveTable>, tickets: Arc<Tickets>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let resolver = Arc::new(Resolver { live, refuses_unknown: self.refuses_unknown });
        let mut config = self.builder()?.with_cert_resolver(resolver);
        config.ignore_client_order = self.prefers_ours;
        // Sessions are in tickets, so that any worker and any proxy can go on with them; nothing is kept here.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if self.has_tickets {
            config.ticketer = tickets;
        } else {
            config.send_tls13_tickets = 0;
        }
        let spoken = [HTTP2, HTTP1, ACME];
        config.alpn_protocols =
            spoken.iter().filter(|name| self.has_http2 || **name != HTTP2).map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    fn builder(&self) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>, rustls::Error> {
        let builder =
            ServerConfig::builder_with_provider(self.provider.clone()).with_protocol_versions(&self.versions)?;
        Ok(match &self.clients {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        })
    }
}

pub(super) fn versions(settings: &TlsSettings) -> Vec<&'static SupportedProtocolVersion> {
    let known = [(TlsVersion::Tls13, &rustls::version::TLS13), (TlsVersion::Tls12, &rustls::version::TLS12)];
    known.into_iter().filter(|(version, _)| (settings.min..=settings.max).contains(version)).map(|(_, v)| v).collect()
}

pub(super) fn provider(settings: &TlsSettings) -> CryptoProvider {
    let all = (*super::provider()).clone();
    match &settings.suites {
        None => all,
        Some(suites) => {
            CryptoProvider { cipher_suites: suites.iter().map(|suite| rustls_suite(*suite)).collect(), ..all }
        }
    }
}

/// The suite as rustls has it.
pub fn rustls_suite(suite: CipherSuite) -> SupportedCipherSuite {
    match suite {
        CipherSuite::Aes256GcmSha384 => cipher_suite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::Aes128GcmSha256 => cipher_suite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::ChaCha20Poly1305Sha256 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdheEcdsaAes256GcmSha384 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheEcdsaAes128GcmSha256 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheEcdsaChaCha20Poly1305Sha256 => cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdheRsaAes256GcmSha384 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheRsaAes128GcmSha256 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheRsaChaCha20Poly1305Sha256 => cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn verifier(auth: &ClientAuth) -> Result<Arc<dyn ClientCertVerifier>, Unusable> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(auth.ca.as_bytes()) {
        let certificate = certificate.map_err(|error| Unusable::Authorities(error.to_string()))?;
        roots.add(certificate).map_err(|error| Unusable::Authorities(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), super::provider());
    let builder = if auth.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| Unusable::Authorities(error.to_string()))
}

/// HTTP/2, as ALPN names it (RFC 9113 section 3.2).
pub(super) const HTTP2: &[u8] = b"h2";
/// HTTP/1.1 (RFC 7301 section 6).
pub(super) const HTTP1: &[u8] = b"http/1.1";
/// An authority looks whether a name is ours (RFC 8737 section 6.2).
pub(super) const ACME: &[u8] = b"acme-tls/1";
