//! Private keys out of PEM (RFC 7468), with nothing of them left in memory.
//!
//! The readers that others use keep what they have read in buffers that nobody overwrites. Certificates are no secret:
//! those are read with theirs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

/// The first private key of a PEM text, whatever else is in it; overwritten when dropped.
pub fn private_key(pem: &[u8]) -> Option<Zeroizing<PrivateKeyDer<'static>>> {
    let mut lines = std::str::from_utf8(pem).ok()?.lines().map(str::trim);
    let (label, kind) =
        lines.by_ref().find_map(|line| KEY_LABELS.into_iter().find(|(label, _)| begins(line, label)))?;
    let mut text = Zeroizing::new(String::with_capacity(pem.len()));
    for line in lines.by_ref() {
        if line.starts_with("-----") {
            let der = STANDARD.decode(text.as_bytes()).ok().filter(|_| line.contains(label))?;
            return Some(Zeroizing::new(kind(der)));
        }
        text.push_str(line);
    }
    None
}

fn begins(line: &str, label: &str) -> bool {
    let inner = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
    inner == Some(label)
}

/// A key of its DER.
type KeyOf = fn(Vec<u8>) -> PrivateKeyDer<'static>;

/// What keys are called (RFC 7468 section 10, RFC 5915 section 4, PKCS #1), and what they are.
const KEY_LABELS: [(&str, KeyOf); 3] = [
    ("PRIVATE KEY", |der| PrivateKeyDer::Pkcs8(der.into())),
    ("EC PRIVATE KEY", |der| PrivateKeyDer::Sec1(der.into())),
    ("RSA PRIVATE KEY", |der| PrivateKeyDer::Pkcs1(der.into())),
];

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn keys_are_read_as_others_read_them() {
        for (label, kind) in KEY_LABELS {
            let der: Vec<u8> = (0..=255).collect();
            let encoded = STANDARD.encode(&der);
            let lines: Vec<&str> =
                (0..encoded.len()).step_by(64).map(|at| &encoded[at..encoded.len().min(at + 64)]).collect();
            let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"));
            let expected = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
            assert_eq!(expected, kind(der));
            let after = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
            for text in [
                pem.clone(),
                pem.replace('\n', "\r\n"),
                format!("a note\n  {}\n", pem.replace('\n', "\n  ")),
                format!("{after}{pem}"),
            ] {
                assert_eq!(*private_key(text.as_bytes()).unwrap(), expected, "{text}");
            }
        }
        for bad in [
            "",
            "AQID",
            "-----BEGIN PRIVATE KEY-----\nAQID\n",
            "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----",
            "-----BEGIN PRIVATE KEY-----\nA:ID\n-----END PRIVATE KEY-----",
        ] {
            assert!(private_key(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(private_key(b"\xff").is_none());
    }
}
