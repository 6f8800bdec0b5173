//! A host: a server name and its certificate.

use std::net::Ipv6Addr;

use super::certificate::sealed;
use super::{Acme, Id, Ocsp, not_in_force};
use crate::json::{self, Node, clip};
use crate::problem::Flaw;

/// `hosts/<name>/host`.
#[derive(Clone, PartialEq)]
pub struct Host {
    /// The name, from the key, in lower case: `example.com`, or `*.example.com` for all names one label longer.
    pub name: Id,
    /// Whether its certificate serves names that no other host has.
    pub default: bool,
    /// vulcand's sealed `KeyPair`, still sealed.
    pub key_pair: Option<Vec<u8>>,
    /// How it gets a certificate of its own; a key pair that can be used goes before it, as in vulcand.
    pub acme: Option<Acme>,
    /// Whether proof is stapled that the certificate is not revoked.
    pub ocsp: Ocsp,
}

impl Host {
    /// Reads `hosts/<name>/host`.
    pub fn decode(name: Id, value: &[u8], notes: &mut Vec<Flaw>) -> Result<Host, Flaw> {
        let text = json::text(value)?;
        let settings = Node::parse(&text)?.fields()?.object("Settings")?;
        let name: Id = name.to_lowercase().into();
        if !can_match(&name) {
            let reason = format!("no client asks for the host {:?}", clip(&name));
            let hint = "write a name alone, like example.com, or with a wildcard that is the whole first label, like \
                        *.example.com; international ones as they are sent: xn--…";
            notes.push(Flaw::new(reason, hint));
        }
        let ocsp = Ocsp::decode(&settings, notes)?;
        if ocsp.enabled {
            not_in_force(&settings.object("OCSP")?, "Enabled", notes);
        }
        Ok(Host {
            default: settings.boolean("Default")?,
            key_pair: settings.get("KeyPair").map(sealed).transpose()?.flatten(),
            acme: Acme::decode(&name, &settings, notes)?,
            ocsp,
            name,
        })
    }

    /// A host without settings.
    pub(crate) fn plain(name: Id) -> Host {
        Host { name, default: false, key_pair: None, acme: None, ocsp: Ocsp::default() }
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

/// A name or an address as a client asks for it, without a port. A wildcard stands for the first label alone (RFC 6125,
/// section 6.4.3).
fn can_match(name: &str) -> bool {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_named = !rest.is_empty() && rest.len() <= LONGEST_NAME && rest.bytes().all(is_name);
    is_named || name.parse::<Ipv6Addr>().is_ok()
}

/// RFC 1035 section 3.1, as text without the last dot.
const LONGEST_NAME: usize = 253;

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key_pair = self.key_pair.as_ref().map(|_| "(sealed)");
        f.debug_struct("Host")
            .field("name", &self.name)
            .field("default", &self.default)
            .field("key_pair", &key_pair)
            .field("acme", &self.acme)
            .field("ocsp", &self.ocsp)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Challenge;
    use super::*;

    fn decode(json: &str) -> Result<Host, Flaw> {
        Host::decode("A.test".into(), json.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn vulcands_host() {
        let json = r#"{"Name":"x","Settings":{"Default":true,"KeyPair":"e30=",
            "OCSP":{"Enabled":false,"Period":"","Responders":null,"SkipSignatureCheck":false}}}"#;
        let host = decode(json).unwrap();
        assert_eq!(host, Host { default: true, key_pair: Some(b"{}".to_vec()), ..Host::plain("a.test".into()) });
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
        let json = br#"{"Settings":{"OCSP":{"Enabled":true,"Period":"2h","Responders":["http://r"],"SkipSignatureCheck":true}}}"#;
        let host = Host::decode("h".into(), json, &mut notes).unwrap();
        let reasons: Vec<&str> = notes.iter().map(|note| note.reason.as_str()).collect();
        assert_eq!(reasons, ["setting Settings.OCSP.Enabled is not in force yet"]);
        assert_eq!((host.ocsp.period, host.ocsp.responders.len()), (Duration::from_secs(7_200), 1));
        let json = br#"{"Settings":{"OCSP":{"Period":"often"}}}"#;
        assert_eq!(Host::decode("h".into(), json, &mut notes).unwrap().ocsp, Ocsp::default());
        assert!(notes[1].reason.starts_with("Settings.OCSP.Period is not a duration"), "{notes:?}");
    }

    #[test]
    fn certificates_by_acme() {
        let acme = |json: &str| decode(&format!(r#"{{"Settings":{json}}}"#)).map(|host| host.acme);
        let ours = r#"{"Acme":{"Email":"a@b.test","Directory":"https://ca.test/dir","challenge":"TLS-ALPN-01","renew_before":"720h"}}"#;
        let month = Some(Duration::from_secs(30 * 86_400));
        let full = Acme {
            email: Some("a@b.test".into()),
            directory: Some("https://ca.test/dir".into()),
            challenge: Challenge::TlsAlpn01,
            renew_before: month,
        };
        assert_eq!(acme(ours).unwrap(), Some(full.clone()));
        let vulcands = r#"{"AutoCert":{"Email":"a@b.test","RenewBefore":2592000000000000,
            "DirectoryURL":"https://ca.test/dir","Key":""}}"#;
        assert_eq!(acme(vulcands).unwrap(), Some(Acme { challenge: Challenge::Any, ..full }));
        for (json, is) in [
            ("{\"Acme\":true}", true),
            ("{\"Acme\":{}}", true),
            ("{\"AutoCert\":{}}", true),
            ("{\"Acme\":false}", false),
        ] {
            assert_eq!(acme(json).unwrap(), is.then(Acme::default), "{json}");
        }
        for (json, reason) in [
            (r#"{"Acme":{"Mail":"a@b"}}"#, "unknown field \"Settings.Acme.Mail\""),
            (r#"{"Acme":{"Email":"nobody"}}"#, "\"nobody\" is not a mail address"),
            (r#"{"Acme":{"Email":"a@b, c@d"}}"#, "\"a@b, c@d\" is not a mail address"),
            (r#"{"Acme":{"Challenge":"dns-01"}}"#, "Settings.Acme.Challenge is \"dns-01\""),
            (r#"{"Acme":{"Directory":"http://ca.test/"}}"#, "Settings.Acme.Directory \"http://ca.test/\" is not"),
            (r#"{"Acme":{"RenewBefore":"30d"}}"#, "Settings.Acme.RenewBefore is a duration with an unknown unit"),
            (r#"{"Acme":7}"#, "Settings.Acme must be true or an object"),
            (r#"{"AutoCert":{"RenewBefore":"720h"}}"#, "Settings.AutoCert.RenewBefore must be a whole number"),
        ] {
            let flaw = acme(json).unwrap_err();
            assert!(flaw.reason.starts_with(reason), "{json}: {}", flaw.reason);
            assert!(flaw.line.is_some() && !flaw.hint.is_empty());
        }
        assert!(acme(r#"{"Acme":{"Directory":"http://127.0.0.1:14000/dir"}}"#).unwrap().is_some());
    }

    #[test]
    fn notes_of_certificates_by_acme() {
        let mut notes = Vec::new();
        let json = br#"{"Settings":{"AutoCert":{"Key":"-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE"}}}"#;
        let host = Host::decode("h".into(), json, &mut notes).unwrap();
        assert!(host.acme.is_some() && notes[0].reason.contains("a private key in the clear"));
        assert!(!format!("{host:?} {notes:?}").contains("MHcCAQEE"));
        notes.clear();
        let host = Host::decode("*.a.test".into(), br#"{"Settings":{"Acme":{}}}"#, &mut notes).unwrap();
        assert!(host.acme.is_none() && notes[0].reason.contains("wildcard name"), "{notes:?}");
        notes.clear();
        Host::decode("h".into(), br#"{"Settings":{"Acme":false,"AutoCert":{}}}"#, &mut notes).unwrap();
        assert_eq!(notes[0].reason, "Settings.Acme says it already");
    }

    #[test]
    fn a_name_is_one_that_clients_ask_for() {
        let long = "a.".repeat(127);
        for (name, notes) in [
            ("*.example.com", 0),
            ("example.com", 0),
            ("my_host", 0),
            ("10.0.0.1", 0),
            ("fe80::1", 0),
            ("a.*.com", 1),
            ("*", 1),
            ("w*.a", 1),
            ("*.*.a", 1),
            ("example.com:443", 1),
            ("two words", 1),
            ("ä.example.com", 1),
            (long.as_str(), 1),
        ] {
            let mut said = Vec::new();
            assert_eq!(&*Host::decode(name.into(), b"{}", &mut said).unwrap().name, name);
            assert_eq!(said.len(), notes, "{name}");
        }
    }
}
