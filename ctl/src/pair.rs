//! Key pairs of files: whether they fit, what the certificate says, and the seal keys to seal and open them with.
//!
//! The proxy checks again; here it is found out before anything is written. Nothing is ever printed of a key,
//! and what is held of one is overwritten when dropped.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use etna_store::seal::{KeyPair, Keyring};
use etna_store::{file, pem};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::failure::Failure;

/// Where the seal keys are.
#[derive(Args, Clone)]
pub(crate) struct SealKeyFile {
    /// File with the seal keys of the proxies, one a line; the first one seals.
    #[arg(long, alias = "sealKey", env = "ETNA_SEAL_KEY_FILE", value_name = "FILE")]
    seal_key: Option<PathBuf>,
}

impl SealKeyFile {
    /// The keys, if a file is named.
    pub(crate) fn ring(&self) -> Result<Option<Keyring>, Failure> {
        let Some(path) = self.seal_key.as_deref().filter(|path| !path.as_os_str().is_empty()) else { return Ok(None) };
        let text = path.to_string_lossy();
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Failure::usage(
                "a seal key on the command line can be seen by every user: write it to a file of mode 0600 and name that",
            ));
        }
        Keyring::read(path).map(Some).map_err(|error| Failure::unread(error.to_string()))
    }

    /// The keys.
    pub(crate) fn needed(&self) -> Result<Keyring, Failure> {
        self.ring()?.ok_or_else(|| {
            Failure::usage("name the file of the seal keys with --seal-key FILE; `etnactl secret new-key` makes one")
        })
    }
}

/// Reads a certificate and its private key, PEM, and refuses them if they are not of each other.
pub(crate) fn read(cert: &Path, key: &Path) -> Result<KeyPair, Failure> {
    let read = |path: &Path| {
        let read = file::read(path, LONGEST);
        read.map_err(|error| Failure::unread(format!("cannot read {}: {error}", path.display())))
    };
    let (mut cert_bytes, mut key_bytes) = (read(cert)?, read(key)?);
    let pair = KeyPair::new(std::mem::take(&mut *cert_bytes), std::mem::take(&mut *key_bytes));
    fits(&pair).map_err(|reason| {
        Failure::refused(format!("{} and {} are no key pair: {reason}", cert.display(), key.display()))
    })?;
    Ok(pair)
}

/// A key pair as settings have it: its envelope in base64.
pub(crate) fn sealed(ring: &Keyring, pair: &KeyPair) -> Result<Value, Failure> {
    let envelope = ring.seal(pair).map_err(|error| Failure::refused(error.to_string()))?;
    Ok(STANDARD.encode(envelope).into())
}

fn fits(pair: &KeyPair) -> Result<(), String> {
    let certificates = certificates(pair)?;
    let key = pem::private_key(pair.key()).ok_or("the key file has no private key, as PEM")?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|_| "the private key is of a kind that is not supported: use ECDSA P-256, Ed25519 or RSA")?;
    match CertifiedKey::new(certificates, key).keys_match() {
        Ok(()) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err("the certificate is of another key".into()),
        Err(_) => Err("the first certificate cannot be read".into()),
    }
}

fn certificates(pair: &KeyPair) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pair.cert()).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err("the certificate file has no certificate, as PEM".into()),
        Err(_) => Err("the certificate file is not PEM".into()),
    }
}

/// What a certificate says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// The names and addresses it is for.
    pub(crate) names: Vec<String>,
    /// Who signed it.
    pub(crate) issuer: String,
    /// The day it ends, as `2027-02-19`.
    pub(crate) until: String,
    /// Whether that is over.
    pub(crate) expired: bool,
}

impl Told {
    /// Reads the first certificate of a pair.
    pub(crate) fn of(pair: &KeyPair) -> Result<Told, String> {
        let chain = certificates(pair)?;
        let first = chain.first().ok_or("there is no certificate")?;
        let (_, certificate) = X509Certificate::from_der(first).map_err(|_| "the certificate cannot be read")?;
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let names = alternatives.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let validity = certificate.validity();
        Ok(Told {
            names: names.iter().filter_map(name).collect(),
            issuer: certificate.issuer().to_string(),
            until: validity.not_after.to_datetime().date().to_string(),
            expired: !validity.is_valid() && validity.time_to_expiration().is_none(),
        })
    }

    /// Whether a client that asks for a host gets by with it.
    pub(crate) fn covers(&self, host: &str) -> bool {
        let wildcard = host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        self.names.iter().any(|name| {
            name.eq_ignore_ascii_case(host) || wildcard.as_deref().is_some_and(|any| name.eq_ignore_ascii_case(any))
        })
    }

    /// For people and programs.
    pub(crate) fn json(&self) -> Value {
        let state = if self.expired { " (expired)" } else { "" };
        json!({ "Names": self.names, "Issuer": self.issuer, "Until": format!("{}{state}", self.until) })
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(v4), _) => Some(std::net::Ipv4Addr::from(v4).to_string()),
            (_, Ok(v6)) => Some(std::net::Ipv6Addr::from(v6).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// Bytes of a file; as many as proxies take of one in a directory.
const LONGEST: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate for a name, and its key.
    fn made(name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn pair(cert: &str, key: &str) -> KeyPair {
        KeyPair::new(cert.as_bytes().to_vec(), key.as_bytes().to_vec())
    }

    #[test]
    fn a_pair_is_of_each_other() {
        let ((cert, key), (other_cert, other_key)) = (made("a.test"), made("b.test"));
        assert_eq!(fits(&pair(&cert, &key)), Ok(()));
        assert_eq!(fits(&pair(&format!("{cert}{other_cert}"), &key)), Ok(()));
        for (cert, key, reason) in [
            (&cert, &other_key, "of another key"),
            (&key, &cert, "no certificate"),
            (&cert, &cert, "no private key"),
            (&String::new(), &key, "no certificate"),
            (&"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_owned(), &key, "cannot be read"),
        ] {
            let error = fits(&pair(cert, key)).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        let broken = "-----BEGIN PRIVATE KEY-----\nhunter2*\n-----END PRIVATE KEY-----\n";
        assert!(!fits(&pair(&cert, broken)).unwrap_err().contains("hunter2"));
    }

    #[test]
    fn what_no_proxy_would_take_is_not_read() {
        let dir = std::env::temp_dir().join(format!("etnactl-pair-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let [cert, key] = ["cert", "key"].map(|name| dir.join(name));
        std::fs::write(&cert, vec![b'\n'; LONGEST + 1]).unwrap();
        std::fs::write(&key, made("a.test").1).unwrap();
        let refused = read(&cert, &key).err().unwrap().to_string();
        assert!(refused.contains("cert: it has more than 262144 bytes"), "{refused}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_certificate_tells_whom_it_is_for() {
        let (cert, key) = made("*.A.test");
        let told = Told::of(&pair(&cert, &key)).unwrap();
        assert_eq!(told.names, ["*.A.test"]);
        assert!(!told.expired && told.until.len() == 10, "{told:?}");
        assert!(told.covers("b.a.test") && told.covers("*.a.test"));
        assert!(!told.covers("a.test") && !told.covers("c.b.a.test"));
        assert!(Told::of(&pair(&key, &key)).is_err());
    }

    #[test]
    fn a_key_does_not_stand_on_the_command_line() {
        let file = SealKeyFile { seal_key: Some("0".repeat(64).into()) };
        let refused = file.ring().unwrap_err();
        assert!(matches!(&refused, Failure::Usage(text) if text.contains("mode 0600")), "{refused}");
        assert!(SealKeyFile { seal_key: None }.ring().unwrap().is_none());
        assert!(matches!(SealKeyFile { seal_key: None }.needed(), Err(Failure::Usage(_))));
    }
}
