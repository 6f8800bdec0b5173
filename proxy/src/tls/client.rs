//! A client's certificate, as servers are told of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Header fields, as they are written: `Client-Cert` (RFC 9440), and, for servers that would not read that, the subject
/// (RFC 4514) and the SHA-256. They are for a certificate that was verified.
pub(super) fn fields(certificate: &CertificateDer<'_>) -> String {
    let mut fields = String::new();
    let mut field = |name: &str, value: &str| fields.extend([name, ": ", value, "\r\n"]);
    if certificate.len() <= LONGEST {
        field("client-cert", &format!(":{}:", STANDARD.encode(certificate)));
    }
    if let Ok((_, read)) = X509Certificate::from_der(certificate) {
        field("client-cert-subject", &visible(&read.subject().to_string()));
    }
    let digest: String = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect();
    field("client-cert-fingerprint", &digest);
    fields
}

/// What a field's value may hold: whoever had the certificate signed chose its names.
fn visible(text: &str) -> String {
    let kept = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().take(MOST_SUBJECT).map(kept).collect()
}

/// Bytes of a certificate that is passed on whole.
const LONGEST: usize = 8 * 1024;
const MOST_SUBJECT: usize = 1024;

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::super::testing::pair;
    use super::*;

    #[test]
    fn a_certificate_becomes_three_fields() {
        let certificate = CertificateDer::from_pem_slice(pair(&["client.test"]).cert()).unwrap();
        let fields = fields(&certificate);
        let lines: Vec<&str> = fields.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("client-cert: :MII") && lines[0].ends_with(':'));
        assert_eq!(lines[1], "client-cert-subject: CN=rcgen self signed cert");
        assert_eq!(lines[2].len(), "client-cert-fingerprint: ".len() + 64);
    }

    #[test]
    fn a_subject_cannot_end_its_field() {
        assert_eq!(visible("CN=a\r\nX: y\u{e4}"), "CN=a??X: y?");
        assert_eq!(visible(&"x".repeat(5000)).len(), MOST_SUBJECT);
    }
}
