//! Certificates in values: authorities as PEM, key pairs in their sealed envelope. Nothing is opened or verified here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::json::Node;
use crate::problem::Flaw;

/// Authorities as PEM: at least one certificate, and no private key.
pub(super) fn authorities(node: Node<'_>) -> Result<String, Flaw> {
    const HINT: &str = r#"write the authority's certificate: "-----BEGIN CERTIFICATE-----\n…""#;
    let pem = node.string()?;
    if pem.contains("PRIVATE KEY-----") {
        let reason = format!("{} holds a private key", node.name());
        return Err(node.flaw(reason, "remove it and consider it known; only certificates belong here"));
    }
    let mut certificates = 0;
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        // The error may quote what stands there; the place is enough.
        if certificate.is_err() {
            return Err(node.flaw(format!("{} is not PEM", node.name()), HINT));
        }
        certificates += 1;
    }
    match certificates {
        0 => Err(node.flaw(format!("{} has no certificate", node.name()), HINT)),
        1..=MOST_AUTHORITIES => Ok(pem),
        _ => {
            let reason = format!("{} has {certificates} certificates", node.name());
            Err(node.flaw(reason, format!("give at most {MOST_AUTHORITIES}")))
        }
    }
}

/// The envelope of a key pair; `None` if the text is empty.
pub(super) fn sealed(node: Node<'_>) -> Result<Option<Vec<u8>>, Flaw> {
    if node.text().starts_with('{') {
        let reason = format!("{} is not sealed", node.name());
        return Err(node.flaw(reason, "seal it first; a private key must not lie open in the store"));
    }
    // Go's decoder passes over line ends.
    let text: String = node.string()?.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let envelope = STANDARD.decode(text).map_err(|error| {
        let reason = format!("{} is not base64: {error}", node.name());
        node.flaw(reason, "store the sealed envelope in standard base64")
    })?;
    Ok(Some(envelope).filter(|envelope| !envelope.is_empty()))
}

const MOST_AUTHORITIES: usize = 1_000;
