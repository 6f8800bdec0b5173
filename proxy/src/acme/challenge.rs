//! What an authority wants to see before it believes that a name is ours: tokens over HTTP (RFC 8555 section 8.3), and
//! a certificate over TLS (RFC 8737). In every proxy's table, out of the store: whichever is asked answers.
//!
//! Nothing of it is secret, so the certificate is not stored: each proxy makes its own of what is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use etna_store::object::{Challenge, Id};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A challenge as it lies in the store, its token in the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Posed {
    /// The host it is for.
    pub host: String,
    /// `http-01` or `tls-alpn-01`.
    pub kind: String,
    /// The key authorization (RFC 8555 section 8.1).
    pub authorization: String,
}

/// All challenges that authorities pose now.
#[derive(Default)]
pub struct Challenges {
    http: HashMap<Box<str>, (Id, Box<str>)>,
    tls: BTreeMap<Id, (Box<str>, Arc<CertifiedKey>)>,
}

impl Challenges {
    /// Of keys' tokens and their values; what cannot be read is left out. Certificates already made are taken over.
    pub fn of<'v>(stored: impl Iterator<Item = (&'v str, &'v [u8])>, former: &Challenges) -> Challenges {
        let mut challenges = Challenges::default();
        for (token, value) in stored.take(MOST) {
            let Ok(posed) = serde_json::from_slice::<Posed>(value) else { continue };
            if !is_token(token) || !is_authorization(&posed.authorization, token) {
                continue;
            }
            let host = Id::from(posed.host);
            if posed.kind == Challenge::Http01.name() {
                challenges.http.insert(token.into(), (host, posed.authorization.into()));
            } else if posed.kind == Challenge::TlsAlpn01.name() {
                let known = former.tls.get(&host).filter(|(known, _)| **known == *posed.authorization);
                let made = known.cloned().or_else(|| {
                    let key = certificate(&host, &posed.authorization)?;
                    Some((posed.authorization.into(), Arc::new(key)))
                });
                challenges.tls.extend(made.map(|made| (host, made)));
            }
        }
        challenges
    }

    /// What a request for a path is answered, if it is for a token of its host.
    pub fn answer(&self, host: &str, path: &str) -> Option<&str> {
        let (owner, authorization) = self.http.get(path.strip_prefix(PATH)?)?;
        (**owner == *host).then_some(authorization)
    }

    /// The certificate for an authority that asks for a name.
    pub fn certificate(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.tls.get(name).map(|(_, key)| key)
    }

    /// Whether there is one of that token.
    pub fn has(&self, token: &str, host: &str) -> bool {
        self.http.contains_key(token)
            || self.tls.get(host).is_some_and(|(posed, _)| posed.split('.').next() == Some(token))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.http.len() + self.tls.len()
    }
}

/// Whether an authority's token is one (RFC 8555 section 8.3): it becomes part of a key and of a path.
pub fn is_token(token: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=LONGEST_TOKEN).contains(&token.len()) && token.bytes().all(is_base64url)
}

fn is_authorization(text: &str, token: &str) -> bool {
    text.strip_prefix(token).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_token)
}

/// A certificate that shows the digest of a key authorization (RFC 8737 section 3).
fn certificate(host: &str, authorization: &str) -> Option<CertifiedKey> {
    let mut params = CertificateParams::new([host.to_owned()]).ok()?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions.push(CustomExtension::new_acme_identifier(&Sha256::digest(authorization)));
    let key = KeyPair::generate().ok()?;
    let certificate = params.self_signed(&key).ok()?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Not compared with the certificate, whose extension our library does not know.
    let key = crate::tls::provider().key_provider.load_private_key(key).ok()?;
    Some(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// Where authorities look for tokens (RFC 8555 section 8.3).
pub const PATH: &str = "/.well-known/acme-challenge/";
const LONGEST_TOKEN: usize = 128;
/// Challenges at once.
const MOST: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    fn posed(host: &str, kind: &str, authorization: &str) -> Vec<u8> {
        let posed = Posed { host: host.into(), kind: kind.into(), authorization: authorization.into() };
        serde_json::to_vec(&posed).unwrap()
    }

    fn of(stored: &[(&str, Vec<u8>)], former: &Challenges) -> Challenges {
        Challenges::of(stored.iter().map(|(token, value)| (*token, &**value)), former)
    }

    #[test]
    fn a_token_is_answered_for_its_host_alone() {
        let stored =
            [("tok", posed("a.test", "http-01", "tok.thumb")), ("t2", posed("b.test", "tls-alpn-01", "t2.thumb"))];
        let all = of(&stored, &Challenges::default());
        assert_eq!(all.answer("a.test", "/.well-known/acme-challenge/tok"), Some("tok.thumb"));
        for (host, path) in [
            ("b.test", "/.well-known/acme-challenge/tok"),
            ("a.test", "/.well-known/acme-challenge/t2"),
            ("a.test", "/.well-known/acme-challenge/tok/"),
            ("a.test", "/.well-known/acme-challenge/"),
            ("a.test", "/tok"),
        ] {
            assert_eq!(all.answer(host, path), None, "{host}{path}");
        }
        assert!(all.certificate("a.test").is_none() && all.has("t2", "b.test") && all.has("tok", "a.test"));
        let again = of(&stored, &all);
        assert!(Arc::ptr_eq(all.certificate("b.test").unwrap(), again.certificate("b.test").unwrap()));
    }

    #[test]
    fn the_certificate_shows_the_digest() {
        let all = of(&[("t", posed("a.test", "tls-alpn-01", "t.thumb"))], &Challenges::default());
        let key = all.certificate("a.test").unwrap();
        let (_, certificate) = X509Certificate::from_der(&key.cert[0]).unwrap();
        let extension = certificate.extensions().iter().find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31").unwrap();
        assert!(extension.critical);
        assert_eq!(extension.value, [&[4, 32], &Sha256::digest("t.thumb")[..]].concat());
    }

    #[test]
    fn what_is_no_challenge_is_left_out() {
        let all = of(
            &[
                ("a", posed("a.test", "http-01", "b.thumb")),
                ("b", posed("a.test", "dns-01", "b.thumb")),
                ("c", posed("a.test", "http-01", "c.th umb")),
                ("d", b"{}".to_vec()),
                ("e/f", posed("a.test", "http-01", "e/f.thumb")),
                ("g", posed("not a name", "tls-alpn-01", "g.thumb")),
            ],
            &Challenges::default(),
        );
        assert_eq!(all.http.len(), 0);
        assert!(!is_token("") && !is_token("a.b") && !is_token(&"x".repeat(129)) && is_token("aZ09-_"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(token in ".{0,20}", value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let all = Challenges::of(std::iter::once((&*token, &*value)), &Challenges::default());
            prop_assert_eq!(all.count(), 0);
        }
    }
}
