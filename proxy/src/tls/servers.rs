//! TLS towards the servers of a backend: whom we believe, who we are, and how a handshake goes.
//!
//! Made once for a backend, in the control loop, and shared by all workers and by its checks, sessions that go on
//! included. Servers are verified against the authorities of the backend or the system's, for the name that its
//! settings or the server's URL say. Not here: connections (`backend`).

use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};

use etna_store::object::{BackendTls, HttpVersion};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::Certificate;
use super::terms::{HTTP1, HTTP2, provider, versions};

/// How the https servers of a backend are spoken to.
pub struct ServerTls {
    /// What it was made of.
    made_of: Option<Arc<BackendTls>>,
    protocol: HttpVersion,
    /// Offers what the backend's servers are to speak.
    config: Arc<ClientConfig>,
    /// Offers HTTP/1.1 alone.
    http1: Arc<ClientConfig>,
    /// Asked for and verified instead of the host of a server's URL.
    name: Option<ServerName<'static>>,
}

/// Why a backend's TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The authorities that it names.
    #[error("Settings.TLS.CA: {0}")]
    Authorities(String),
    /// It names no authorities, and the system has none.
    #[error("the system has no certificate authorities{0}")]
    NoAuthorities(String),
    /// The name.
    #[error("Settings.TLS.ServerName {0:?} cannot be asked for")]
    Name(String),
    /// The rest of it.
    #[error("Settings.TLS: {0}")]
    Settings(#[from] rustls::Error),
}

impl Unusable {
    /// What helps.
    pub fn hint(&self) -> &'static str {
        match self {
            Unusable::Authorities(_) => {
                "put the PEM certificates of the authorities that sign the servers' certificates"
            }
            Unusable::NoAuthorities(_) => {
                "install the package ca-certificates and restart etna, or give the backend its authority as Settings.TLS.CA"
            }
            Unusable::Name(_) => "write a name like app.example.com, or an IP address",
            Unusable::Settings(_) => "correct Settings.TLS",
        }
    }
}

impl ServerTls {
    /// For a backend that says this of TLS, or nothing, and shows servers this certificate.
    pub fn of(
        tls: Option<&Arc<BackendTls>>,
        protocol: HttpVersion,
        client: Option<&Certificate>,
    ) -> Result<ServerTls, Unusable> {
        let plain = BackendTls::default();
        let BackendTls { settings, ca, server_name, key_pair: _ } = tls.map_or(&plain, |tls| tls);
        let name = server_name.as_deref().map(|name| {
            ServerName::try_from(name).map(|name| name.to_owned()).map_err(|_| Unusable::Name(name.to_owned()))
        });
        let builder = ClientConfig::builder_with_provider(Arc::new(provider(settings)))
            .with_protocol_versions(&versions(settings))?;
        let builder = if settings.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(super::provider())))
        } else {
            builder.with_root_certificates(match ca {
                Some(pem) => Arc::new(authorities(pem)?),
                None => system()?,
            })
        };
        let mut config = match client {
            Some(certificate) => {
                let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(certificate.key.clone()));
                builder.with_client_cert_resolver(resolver)
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = if settings.tickets {
            Resumption::in_memory_sessions(settings.session_cache.unwrap_or(SESSIONS))
        } else {
            Resumption::disabled()
        };
        config.alpn_protocols = vec![HTTP1.to_vec()];
        let http1 = Arc::new(config.clone());
        let config = match protocol {
            HttpVersion::Http1 => http1.clone(),
            HttpVersion::H2 => {
                config.alpn_protocols.insert(0, HTTP2.to_vec());
                Arc::new(config)
            }
        };
        Ok(ServerTls { made_of: tls.cloned(), protocol, config, http1, name: name.transpose()? })
    }

    /// Whether it is what a backend that says this would get.
    pub fn is_made_of(&self, tls: Option<&Arc<BackendTls>>, protocol: HttpVersion) -> bool {
        self.made_of.as_ref() == tls && self.protocol == protocol
    }

    /// The name that is asked for and verified of the server of a URL's host; `None` where that is none.
    pub fn name_of(&self, host: &str) -> Option<ServerName<'static>> {
        self.name.clone().or_else(|| ServerName::try_from(host.to_owned()).ok())
    }

    /// Shakes hands with the server of a URL's host. How long that may take is the caller's business.
    pub async fn connect(&self, host: &str, stream: TcpStream, http1_alone: bool) -> io::Result<TlsStream<TcpStream>> {
        let name = self.name_of(host).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is no name that can be verified"))
        })?;
        let config = if http1_alone { &self.http1 } else { &self.config };
        let connecting = TlsConnector::from(config.clone())
            .connect_with(name, stream, |connection| connection.set_buffer_limit(Some(MOST_BUFFERED)));
        connecting.await
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("made_of", &self.made_of).finish_non_exhaustive()
    }
}

fn authorities(pem: &str) -> Result<RootCertStore, Unusable> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| Unusable::Authorities(error.to_string()))?;
        roots.add(certificate).map_err(|error| Unusable::Authorities(error.to_string()))?;
    }
    Ok(roots)
}

/// The authorities that the system believes, read once. Reading blocks: in the control loop only.
fn system() -> Result<Arc<RootCertStore>, Unusable> {
    static SYSTEM: LazyLock<(Arc<RootCertStore>, String)> = LazyLock::new(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // Systems have some that nobody can read; the others count.
        let (added, ignored) = roots.add_parsable_certificates(found.certs);
        tracing::debug!(added, ignored, errors = ?found.errors, "read the system's certificate authorities");
        (Arc::new(roots), found.errors.first().map(|error| format!(": {error}")).unwrap_or_default())
    });
    let (roots, why) = &*SYSTEM;
    if roots.is_empty() { Err(Unusable::NoAuthorities(why.clone())) } else { Ok(roots.clone()) }
}

/// Believes that anybody is who he says, but not that he has a key that he has not.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Sessions remembered that may go on, by name, where the settings do not say.
const SESSIONS: usize = 256;
/// Bytes that wait to be sent because the server does not read.
const MOST_BUFFERED: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::super::testing::pair;
    use super::*;

    fn tls(json: &str) -> Arc<BackendTls> {
        let value = format!(r#"{{"Type":"http","Settings":{{"TLS":{json}}}}}"#);
        let backend = etna_store::Backend::decode("b".into(), value.as_bytes(), &mut Vec::new()).unwrap();
        backend.tls.unwrap()
    }

    fn pem() -> String {
        serde_json::to_string(std::str::from_utf8(pair(&["a.test"]).cert()).unwrap()).unwrap()
    }

    #[test]
    fn settings_become_a_configuration() {
        let written = tls(&format!(
            r#"{{"CA":{},"ServerName":"127.0.0.9","MinVersion":"VersionTLS13","SessionTicketsDisabled":true}}"#,
            pem()
        ));
        let made = ServerTls::of(Some(&written), HttpVersion::H2, None).unwrap();
        assert_eq!(made.config.alpn_protocols, [HTTP2.to_vec(), HTTP1.to_vec()]);
        assert_eq!(made.http1.alpn_protocols, [HTTP1.to_vec()]);
        assert!(matches!(made.name, Some(ServerName::IpAddress(_))));
        assert!(made.is_made_of(Some(&written), HttpVersion::H2));
        assert!(!made.is_made_of(Some(&written), HttpVersion::Http1) && !made.is_made_of(None, HttpVersion::H2));
    }

    #[test]
    fn authorities_that_are_none_are_refused() {
        let written = tls(r#"{"CA":"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"}"#);
        let refused = ServerTls::of(Some(&written), HttpVersion::Http1, None).unwrap_err();
        assert!(matches!(refused, Unusable::Authorities(_)), "{refused}");
        assert!(refused.hint().starts_with("put the PEM"));
    }
}
