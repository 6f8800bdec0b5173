//! Looking whether a name is whose it should be: over HTTP (RFC 8555 section 8.3), over TLS (RFC 8737), at every place.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::client;
use crate::tls::TlsClient;

/// Looks at every place; what is wrong at the first where something is.
pub(super) async fn look(
    kind: &str,
    name: &str,
    token: &str,
    authorization: &str,
    (http, tls): (Vec<SocketAddr>, Vec<SocketAddr>),
) -> Result<(), String> {
    let places = if kind == "http-01" { http } else { tls };
    if places.is_empty() {
        return Err(format!("no address for {name}"));
    }
    for place in places {
        let looked = match kind {
            "http-01" => by_http(place, name, token, authorization).await,
            _ => by_tls(place, name, authorization).await,
        };
        looked.map_err(|what| format!("{place}: {what}"))?;
    }
    Ok(())
}

async fn by_http(place: SocketAddr, name: &str, token: &str, authorization: &str) -> Result<(), String> {
    let answer = client::get(place, name, &format!("/.well-known/acme-challenge/{token}")).await?;
    if answer.status == 200 && answer.text().trim_end() == authorization {
        return Ok(());
    }
    Err(format!("invalid response {}: {}", answer.status, answer.text()))
}

async fn by_tls(place: SocketAddr, name: &str, authorization: &str) -> Result<(), String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.dangerous();
    let mut config = builder.with_custom_certificate_verifier(Arc::new(Anything)).with_no_client_auth();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let stream = TlsClient { config: Arc::new(config) }.connect(place, name).await?;
    let (_, connection) = stream.get_ref();
    if connection.alpn_protocol() != Some(b"acme-tls/1") {
        return Err("acme-tls/1 was not settled on".into());
    }
    let shown = connection.peer_certificates().and_then(|chain| chain.first()).ok_or("no certificate")?;
    let (_, certificate) = X509Certificate::from_der(shown).map_err(|error| error.to_string())?;
    let names = certificate.subject_alternative_name().ok().flatten().ok_or("no names")?;
    if !matches!(names.value.general_names.as_slice(), [GeneralName::DNSName(one)] if *one == name) {
        return Err(format!("a certificate for {:?}", names.value.general_names));
    }
    let wanted = [&[4, 32], &Sha256::digest(authorization)[..]].concat();
    let mut extensions = certificate.extensions().iter().filter(|extension| extension.oid.to_id_string() == IDENTIFIER);
    let right =
        |extension: &x509_parser::extensions::X509Extension<'_>| extension.critical && extension.value == wanted;
    if extensions.next().is_some_and(right) && extensions.next().is_none() {
        return Ok(());
    }
    Err("the certificate does not show the digest".into())
}

/// The name of a certificate in questions about its renewal (RFC 9773 section 4.1).
pub(super) fn renewal_id(chain: &str) -> Option<String> {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&leaf).ok()?;
    let key = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(found) => found.key_identifier.as_ref(),
        _ => None,
    })?;
    let serial = certificate.tbs_certificate.raw_serial();
    Some(format!("{}.{}", URL_SAFE_NO_PAD.encode(key.0), URL_SAFE_NO_PAD.encode(serial)))
}

/// Believes any certificate: what matters is what it shows.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _end: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256]
    }
}

/// id-pe-acmeIdentifier (RFC 8737 section 3).
const IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";
