//! A host: a server name and its certificate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Id, not_in_force};
use crate::json::{self, Node};
use crate::problem::Flaw;

/// `hosts/<name>/host`.
#[derive(Clone, PartialEq)]
pub struct Host {
    /// The name, from the key, in lower case.
    pub name: Id,
    /// Whether its certificate serves names that no other host has.
    pub default: bool,
    /// vulcand's sealed `KeyPair`, still sealed.
    pub key_pair: Option<Vec<u8>>,
}

impl Host {
    /// Reads `hosts/<name>/host`.
    pub fn decode(name: Id, value: &[u8], notes: &mut Vec<Flaw>) -> Result<Host, Flaw> {
        let text = json::text(value)?;
        let settings = Node::parse(&text)?.fields()?.object("Settings")?;
        not_in_force(&settings, "AutoCert", notes);
        let ocsp = settings.object("OCSP")?;
        if ocsp.boolean("Enabled")? {
            not_in_force(&ocsp, "Enabled", notes);
        }
        let key_pair = settings.get("KeyPair").map(key_pair).transpose()?.filter(|sealed| !sealed.is_empty());
        Ok(Host { name: name.to_lowercase().into(), default: settings.boolean("Default")?, key_pair })
    }

    /// Reads `hosts/<name>/options` of vulcand up to 0.7: whether it is the default.
    pub(crate) fn decode_legacy_options(value: &[u8]) -> Result<bool, Flaw> {
        let text = json::text(value)?;
        Node::parse(&text)?.fields()?.boolean("Default")
    }

    /// Reads `hosts/<name>/keypair` of vulcand up to 0.7: the sealed envelope as it is.
    pub(crate) fn decode_legacy_key_pair(value: &[u8]) -> Result<Vec<u8>, Flaw> {
        let text = json::text(value)?;
        Node::parse(&text)?.fields()?;
        Ok(value.to_vec())
    }
}

fn key_pair(node: Node<'_>) -> Result<Vec<u8>, Flaw> {
    if node.text().starts_with('{') {
        let reason = "Settings.KeyPair is not sealed";
        return Err(node.flaw(reason, "seal it first; a private key must not lie open in the store"));
    }
    // Go's decoder passes over line ends.
    let text: String = node.string()?.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    STANDARD.decode(text).map_err(|error| {
        node.flaw(format!("Settings.KeyPair is not base64: {error}"), "store the sealed envelope in standard base64")
    })
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key_pair = self.key_pair.as_ref().map(|_| "(sealed)");
        f.debug_struct("Host")
            .field("name", &self.name)
            .field("default", &self.default)
            .field("key_pair", &key_pair)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Result<Host, Flaw> {
        Host::decode("A.test".into(), json.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn vulcands_host() {
        let json = r#"{"Name":"x","Settings":{"Default":true,"KeyPair":"e30=",
            "OCSP":{"Enabled":false,"Period":"","Responders":null,"SkipSignatureCheck":false}}}"#;
        let host = decode(json).unwrap();
        assert_eq!(host, Host { name: "a.test".into(), default: true, key_pair: Some(b"{}".to_vec()) });
        assert!(format!("{host:?}").contains("(sealed)"));
        assert_eq!(decode("{}").unwrap().key_pair, None);
        assert_eq!(decode(r#"{"Settings":{"KeyPair":null}}"#).unwrap().key_pair, None);
    }

    #[test]
    fn an_open_or_broken_key_pair_is_refused() {
        assert!(
            decode(r#"{"Settings":{"KeyPair":{"Key":"a","Cert":"b"}}}"#).unwrap_err().reason.contains("not sealed")
        );
        assert!(decode(r#"{"Settings":{"KeyPair":"*"}}"#).unwrap_err().reason.contains("not base64"));
    }

    #[test]
    fn what_is_not_in_force_is_said() {
        let mut notes = Vec::new();
        let json = br#"{"Settings":{"AutoCert":{"Email":"a@b"},"OCSP":{"Enabled":true}}}"#;
        Host::decode("h".into(), json, &mut notes).unwrap();
        let reasons: Vec<&str> = notes.iter().map(|note| note.reason.as_str()).collect();
        assert_eq!(
            reasons,
            ["setting Settings.AutoCert is not in force yet", "setting Settings.OCSP.Enabled is not in force yet"]
        );
    }
}
