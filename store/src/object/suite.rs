//! Cipher suites by the names that Go gives them: those that may be used, and those that are known to be unsafe.

use super::TlsVersion;
use crate::json::{Node, clip, nearest};
use crate::problem::Flaw;

/// A cipher suite that may be used: authenticated encryption with an ephemeral key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CipherSuite {
    /// TLS 1.3.
    Aes256GcmSha384,
    /// TLS 1.3.
    Aes128GcmSha256,
    /// TLS 1.3.
    ChaCha20Poly1305Sha256,
    /// TLS 1.2, for ECDSA and Ed25519 certificates.
    EcdheEcdsaAes256GcmSha384,
    /// TLS 1.2, for ECDSA and Ed25519 certificates.
    EcdheEcdsaAes128GcmSha256,
    /// TLS 1.2, for ECDSA and Ed25519 certificates.
    EcdheEcdsaChaCha20Poly1305Sha256,
    /// TLS 1.2, for RSA certificates.
    EcdheRsaAes256GcmSha384,
    /// TLS 1.2, for RSA certificates.
    EcdheRsaAes128GcmSha256,
    /// TLS 1.2, for RSA certificates.
    EcdheRsaChaCha20Poly1305Sha256,
}

impl CipherSuite {
    /// All of them, the strongest first, TLS 1.3 before 1.2.
    pub const ALL: [CipherSuite; 9] = [
        CipherSuite::Aes256GcmSha384,
        CipherSuite::Aes128GcmSha256,
        CipherSuite::ChaCha20Poly1305Sha256,
        CipherSuite::EcdheEcdsaAes256GcmSha384,
        CipherSuite::EcdheEcdsaAes128GcmSha256,
        CipherSuite::EcdheEcdsaChaCha20Poly1305Sha256,
        CipherSuite::EcdheRsaAes256GcmSha384,
        CipherSuite::EcdheRsaAes128GcmSha256,
        CipherSuite::EcdheRsaChaCha20Poly1305Sha256,
    ];

    /// As Go and IANA name it.
    pub fn name(self) -> &'static str {
        match self {
            CipherSuite::Aes256GcmSha384 => "TLS_AES_256_GCM_SHA384",
            CipherSuite::Aes128GcmSha256 => "TLS_AES_128_GCM_SHA256",
            CipherSuite::ChaCha20Poly1305Sha256 => "TLS_CHACHA20_POLY1305_SHA256",
            CipherSuite::EcdheEcdsaAes256GcmSha384 => "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            CipherSuite::EcdheEcdsaAes128GcmSha256 => "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            CipherSuite::EcdheEcdsaChaCha20Poly1305Sha256 => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            CipherSuite::EcdheRsaAes256GcmSha384 => "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            CipherSuite::EcdheRsaAes128GcmSha256 => "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            CipherSuite::EcdheRsaChaCha20Poly1305Sha256 => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        }
    }

    /// The version of TLS that has it.
    pub fn version(self) -> TlsVersion {
        match self {
            CipherSuite::Aes256GcmSha384 | CipherSuite::Aes128GcmSha256 | CipherSuite::ChaCha20Poly1305Sha256 => {
                TlsVersion::Tls13
            }
            CipherSuite::EcdheEcdsaAes256GcmSha384
            | CipherSuite::EcdheEcdsaAes128GcmSha256
            | CipherSuite::EcdheEcdsaChaCha20Poly1305Sha256
            | CipherSuite::EcdheRsaAes256GcmSha384
            | CipherSuite::EcdheRsaAes128GcmSha256
            | CipherSuite::EcdheRsaChaCha20Poly1305Sha256 => TlsVersion::Tls12,
        }
    }

    /// Reads a list, in its order and each once. `None`: it is absent or empty. Unsafe suites are left out with a
    /// note; a list of nothing else is a flaw.
    pub(super) fn list(node: Option<Node<'_>>, notes: &mut Vec<Flaw>) -> Result<Option<Vec<CipherSuite>>, Flaw> {
        let Some(node) = node else { return Ok(None) };
        let (mut safe, mut unsafe_ones) = (Vec::new(), Vec::new());
        for item in node.items()? {
            let name = item.string()?.to_ascii_uppercase();
            if let Some(suite) = CipherSuite::named(&name) {
                if !safe.contains(&suite) {
                    safe.push(suite);
                }
            } else if let Some(known) = UNSAFE.iter().find(|known| **known == name) {
                if !unsafe_ones.contains(known) {
                    unsafe_ones.push(*known);
                }
            } else {
                let hint = match nearest(&name, &CipherSuite::ALL.map(CipherSuite::name)) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => instead(),
                };
                return Err(item.flaw(format!("unsupported cipher suite {:?}", clip(&name)), hint));
            }
        }
        if unsafe_ones.is_empty() {
            return Ok((!safe.is_empty()).then_some(safe));
        }
        if safe.is_empty() {
            return Err(node.flaw(format!("{} has no suite that is safe", node.name()), instead()));
        }
        let reason = format!("cipher suites that are not safe: {}", unsafe_ones.join(", "));
        notes.push(node.flaw(reason, "remove them; the others are used"));
        Ok(Some(safe))
    }

    fn named(name: &str) -> Option<CipherSuite> {
        // Go's older names of these two leave the hash out.
        let name = match name {
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            other => other,
        };
        CipherSuite::ALL.into_iter().find(|suite| suite.name() == name)
    }
}

fn instead() -> String {
    let names: Vec<&str> = CipherSuite::ALL.into_iter().map(CipherSuite::name).collect();
    format!("remove it, or name some of {}", names.join(", "))
}

/// Go's other suites: RC4, 3DES, CBC, and a key exchange whose past can be read once the key is known.
const UNSAFE: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];
