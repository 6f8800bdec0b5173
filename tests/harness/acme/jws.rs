//! Signed requests (RFC 8555 section 6, RFC 7515), checked.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A public key of an account, P-256.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Key {
    x: String,
    y: String,
}

impl Key {
    /// RFC 7638.
    pub(super) fn thumbprint(&self) -> String {
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, self.x, self.y);
        URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
    }

    fn of(jwk: &Value) -> Option<Key> {
        let is_p256 = jwk["kty"] == "EC" && jwk["crv"] == "P-256";
        let part = |name: &str| jwk[name].as_str().map(str::to_owned);
        is_p256.then_some(Key { x: part("x")?, y: part("y")? })
    }

    fn signed(&self, text: &str, signature: &[u8]) -> bool {
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
        let point = [&[4], &decode(&self.x)[..], &decode(&self.y)].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(text.as_bytes(), signature).is_ok()
    }
}

/// A request whose signature is right.
pub(super) struct Signed {
    pub(super) key: Key,
    /// Whether it is signed with a key that it brings itself.
    pub(super) is_new: bool,
    pub(super) nonce: String,
    /// `None` for an empty one.
    pub(super) payload: Option<Value>,
}

impl Signed {
    /// Reads a request to `url`; the kind of error and what is wrong.
    pub(super) fn read(
        body: &[u8],
        url: &str,
        keys: impl Fn(&str) -> Option<Key>,
    ) -> Result<Signed, (&'static str, String)> {
        let wrong = |what: &str| ("malformed", what.to_owned());
        let body: Value = serde_json::from_slice(body).map_err(|_| wrong("a body that is no JSON"))?;
        let part = |name: &str| body[name].as_str().ok_or_else(|| wrong("a part of the signature is missing"));
        let (protected, payload, signature) = (part("protected")?, part("payload")?, part("signature")?);
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong("a part that is no base64url"));
        let head: Value = serde_json::from_slice(&decode(protected)?).map_err(|_| wrong("a head that is no JSON"))?;
        if head["alg"] != "ES256" {
            return Err(wrong("an algorithm that we do not know"));
        }
        if head["url"] != url {
            return Err(wrong("a signature for another URL"));
        }
        let (key, is_new) = match (head["jwk"].is_object(), head["kid"].as_str()) {
            (true, None) => (Key::of(&head["jwk"]).ok_or_else(|| wrong("a key that is none"))?, true),
            (false, Some(account)) => {
                (keys(account).ok_or(("accountDoesNotExist", "there is no such account".to_owned()))?, false)
            }
            _ => return Err(wrong("either a key or an account signs")),
        };
        if !key.signed(&format!("{protected}.{payload}"), &decode(signature)?) {
            return Err(wrong("a wrong signature"));
        }
        let payload = match payload {
            "" => None,
            text => Some(serde_json::from_slice(&decode(text)?).map_err(|_| wrong("a payload that is no JSON"))?),
        };
        let nonce = head["nonce"].as_str().unwrap_or_default().to_owned();
        Ok(Signed { key, is_new, nonce, payload })
    }
}

/// What nobody guesses.
pub(super) fn token() -> String {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).expect("there is randomness");
    URL_SAFE_NO_PAD.encode(bytes)
}
