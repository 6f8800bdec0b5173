//! One certificate with its key: read from PEM, judged, ready to sign.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use etna_store::object::Id;
use etna_store::pem;
use etna_store::seal::KeyPair;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The host's own key pair.
    KeyPair,
    /// An authority, by ACME.
    Acme,
}

impl Source {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Source::KeyPair => "key pair",
            Source::Acme => "acme",
        }
    }
}

/// A host's certificate.
pub struct Certificate {
    /// The host it belongs to.
    pub host: Id,
    /// Chain and key, as rustls takes them.
    pub key: Arc<CertifiedKey>,
    /// The names it is for, in lower case; `*.` before those with any first label.
    pub names: Vec<Box<str>>,
    /// From when it holds.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// Who signed it, in text.
    pub issuer: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// Where it comes from.
    pub source: Source,
}

/// Why a key pair cannot be served.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unusable {
    /// No certificate in the PEM text.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// No key in the PEM text.
    #[error("there is no private key in it")]
    NoKey,
    /// The certificate cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    /// The key is of no kind that can sign, or not of this certificate.
    #[error("the key cannot be used: {0}")]
    Key(String),
}

impl Certificate {
    /// Reads a key pair: the leaf first, then what signed it.
    pub fn read(host: Id, pair: &KeyPair) -> Result<Certificate, Unusable> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pair.cert())
            .collect::<Result<_, _>>()
            .map_err(|error| Unusable::Certificate(error.to_string()))?;
        if chain.len() > MOST_IN_CHAIN {
            return Err(Unusable::Certificate(format!("more than {MOST_IN_CHAIN} in the chain")));
        }
        let key = pem::private_key(pair.key()).ok_or(Unusable::NoKey)?;
        Certificate::of(host, chain, key.clone_key())
    }

    /// A chain and its key.
    pub fn of(
        host: Id,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Certificate, Unusable> {
        let leaf = chain.first().ok_or(Unusable::NoCertificate)?.clone();
        if leaf.len() > LONGEST {
            // What reads it afterwards would say so in other words.
            return Err(Unusable::Certificate(format!("it has more than {LONGEST} bytes, which clients do not take")));
        }
        let (_, read) = X509Certificate::from_der(&leaf).map_err(|error| Unusable::Certificate(error.to_string()))?;
        let names = names(&read);
        if names.len() > MOST_NAMES {
            return Err(Unusable::Certificate(format!(
                "it is for more than {MOST_NAMES} names: spread them over several"
            )));
        }
        let at = |seconds: i64| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default().min(FAR))
        };
        let validity = read.validity();
        let (not_before, not_after) = (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()));
        let issuer = read.issuer().to_string();
        let key =
            CertifiedKey::from_der(chain, key, &super::provider()).map_err(|error| Unusable::Key(error.to_string()))?;
        let fingerprint = Sha256::digest(&leaf).iter().map(|byte| format!("{byte:02x}")).collect();
        let source = Source::KeyPair;
        Ok(Certificate { host, key: Arc::new(key), names, not_before, not_after, issuer, fingerprint, source })
    }

    /// The same, from an authority.
    pub fn by_acme(self) -> Certificate {
        Certificate { source: Source::Acme, ..self }
    }

    /// Whether it holds at that time.
    pub fn holds(&self, at: SystemTime) -> bool {
        self.not_before <= at && at < self.not_after
    }

    /// Whether it is for a name in lower case (RFC 6125 section 6.4: the star stands for one whole label).
    pub fn is_for(&self, name: &str) -> bool {
        let wild = name.split_once('.').map(|(_, rest)| rest);
        self.names.iter().any(|own| **own == *name || own.strip_prefix("*.").is_some_and(|rest| Some(rest) == wild))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("host", &self.host).field("fingerprint", &self.fingerprint).finish()
    }
}

/// The DNS names of a certificate. Its common name counts for nothing, as nowhere any more.
fn names(certificate: &X509Certificate<'_>) -> Vec<Box<str>> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase().into_boxed_str()),
        _ => None,
    });
    dns.collect()
}

/// As much as the TLS libraries of clients read of one.
const LONGEST: usize = 0xffff;
const MOST_IN_CHAIN: usize = 10;
const MOST_NAMES: usize = 1000;
/// The year 9999, in seconds: whatever lies beyond means for ever.
const FAR: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::super::testing::pair;
    use super::*;

    #[test]
    fn a_pair_is_read_with_its_names_and_times() {
        let certificate = Certificate::read("a.test".into(), &pair(&["A.test", "*.b.test"])).unwrap();
        assert_eq!(certificate.names, ["a.test".into(), "*.b.test".into()]);
        assert!(certificate.holds(SystemTime::now()));
        assert!(!certificate.holds(SystemTime::UNIX_EPOCH));
        for (name, is) in [("a.test", true), ("x.b.test", true), ("b.test", false), ("x.y.b.test", false)] {
            assert_eq!(certificate.is_for(name), is, "{name}");
        }
        assert_eq!(certificate.fingerprint.len(), 64);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (one, other) = (pair(&["a.test"]), pair(&["a.test"]));
        let read = |certificate: &[u8], key: &[u8]| {
            Certificate::read("h".into(), &KeyPair::new(certificate.to_vec(), key.to_vec())).unwrap_err()
        };
        assert!(matches!(read(one.cert(), other.key()), Unusable::Key(_)));
        assert_eq!(read(one.cert(), b""), Unusable::NoKey);
        assert_eq!(read(b"", one.key()), Unusable::NoCertificate);
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(read(broken, one.key()), Unusable::Certificate(_)));
        let names: Vec<String> = (0..4000).map(|n| format!("n{n}.many.test")).collect();
        for (many, why) in [(4000, "more than 65535 bytes"), (1001, "more than 1000 names")] {
            let many = pair(&names[..many].iter().map(String::as_str).collect::<Vec<_>>());
            let refused = read(many.cert(), many.key()).to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
