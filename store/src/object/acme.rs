//! How a host comes by its certificate and by proof that it is not revoked, when nobody stores them: ACME and OCSP.
//!
//! vulcand's `AutoCert` and our `Acme` become one thing. Accounts and their keys are not objects: proxies share them
//! sealed, below `acme/`.

use std::time::Duration;

use super::{some, word};
use crate::json::{Fields, Node, clip};
use crate::problem::Flaw;

/// `Settings.Acme` of a host, or vulcand's `Settings.AutoCert`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acme {
    /// Whom the authority may write to.
    pub email: Option<String>,
    /// The authority's directory (RFC 8555, section 7.1.1): an https URL, or an http one of this machine. `None`: as
    /// the command line says.
    pub directory: Option<String>,
    /// How it is shown that the name is ours.
    pub challenge: Challenge,
    /// How long before its end a certificate is renewed at the latest. `None`: when the authority says, or at two
    /// thirds of its life.
    pub renew_before: Option<Duration>,
}

/// How it is shown that a name is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Challenge {
    /// `any`: what the authority offers and our listeners can answer.
    #[default]
    Any,
    /// `http-01`: RFC 8555, section 8.3; port 80.
    Http01,
    /// `tls-alpn-01`: RFC 8737; port 443.
    TlsAlpn01,
}

/// vulcand's `Settings.OCSP` of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ocsp {
    /// Whether proof is fetched and stapled.
    pub enabled: bool,
    /// How often it is fetched, default 1 h.
    pub period: Duration,
    /// Who is asked instead of whom the certificate names.
    pub responders: Vec<String>,
    /// Whether the proof is believed unseen.
    pub skip_signature_check: bool,
}

impl Default for Ocsp {
    fn default() -> Ocsp {
        let period = Duration::from_secs(60 * 60);
        Ocsp { enabled: false, period, responders: Vec::new(), skip_signature_check: false }
    }
}

impl Challenge {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Challenge::Any => "any",
            Challenge::Http01 => "http-01",
            Challenge::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

impl Acme {
    /// Reads what a host's settings say, ours before vulcand's. A wildcard name has none: only records in the DNS,
    /// which we do not write, prove such a name.
    pub(super) fn decode(host: &str, settings: &Fields<'_>, notes: &mut Vec<Flaw>) -> Result<Option<Acme>, Flaw> {
        let (node, acme) = match (settings.get("Acme"), settings.get("AutoCert")) {
            (None, None) => return Ok(None),
            (None, Some(node)) => {
                let acme = Acme::of_vulcand(&node, notes)?;
                (node, Some(acme))
            }
            (Some(node), vulcands) => {
                if let Some(vulcands) = vulcands {
                    notes.push(vulcands.flaw("Settings.Acme says it already", "remove AutoCert"));
                }
                let acme = Acme::ours(&node)?;
                (node, acme)
            }
        };
        if acme.is_some() && host.contains('*') {
            let reason = format!("{} cannot get a certificate for a wildcard name", node.name());
            notes.push(node.flaw(reason, "give it a KeyPair, or make a host for each name"));
            return Ok(None);
        }
        Ok(acme)
    }

    /// Whether text may be the URL of an authority's directory.
    pub fn is_directory(url: &str) -> bool {
        let fits = url.len() <= LONGEST && url.bytes().all(|byte| byte.is_ascii_graphic());
        let parsed = url.parse::<http::Uri>().ok().filter(|_| fits);
        parsed.is_some_and(|uri| match (uri.scheme_str(), uri.host()) {
            (Some("https"), Some(host)) => !host.is_empty(),
            (Some("http"), Some("localhost" | "127.0.0.1" | "[::1]")) => true,
            _ => false,
        })
    }

    pub(super) fn ours(node: &Node<'_>) -> Result<Option<Acme>, Flaw> {
        if node.text().starts_with(['t', 'f']) {
            return Ok(node.boolean()?.then(Acme::default));
        }
        if !node.text().starts_with('{') {
            return Err(node.wrong(r#"true or an object like {"Email":"you@example.com"}"#));
        }
        let fields = node.fields()?.ours();
        fields.only(&["Email", "Directory", "Challenge", "RenewBefore"])?;
        let known = [Challenge::Any, Challenge::Http01, Challenge::TlsAlpn01].map(|kind| (kind.name(), kind));
        Ok(Some(Acme {
            email: email(&fields)?,
            directory: directory(&fields, "Directory")?,
            challenge: fields.get("Challenge").map_or(Ok(Challenge::default()), |node| word(&node, &known))?,
            renew_before: fields.duration("RenewBefore")?.filter(|before| !before.is_zero()),
        }))
    }

    fn of_vulcand(node: &Node<'_>, notes: &mut Vec<Flaw>) -> Result<Acme, Flaw> {
        let fields = node.fields()?;
        if let Some(key) = fields.get("Key").filter(|key| key.text() != r#""""#) {
            let hint = "remove it and consider it known; proxies make an account of their own and keep it sealed";
            notes.push(key.flaw(format!("{} is a private key in the clear", key.name()), hint));
        }
        let renew_before = match fields.get("RenewBefore") {
            // Go writes a Duration as nanoseconds.
            Some(node) => u64::try_from(node.integer_within(0, i64::MAX)?).unwrap_or_default(),
            None => 0,
        };
        Ok(Acme {
            email: email(&fields)?,
            directory: directory(&fields, "DirectoryURL")?,
            challenge: Challenge::Any,
            renew_before: (renew_before > 0).then(|| Duration::from_nanos(renew_before)),
        })
    }
}

fn email(fields: &Fields<'_>) -> Result<Option<String>, Flaw> {
    let Some(node) = fields.get("Email") else { return Ok(None) };
    let Some(email) = some(node.string()?) else { return Ok(None) };
    let is_one = email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
    if is_one && email.len() <= LONGEST && email.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
        return Ok(Some(email));
    }
    Err(node.flaw(format!("{:?} is not a mail address", clip(&email)), "write one address, like you@example.com"))
}

fn directory(fields: &Fields<'_>, name: &str) -> Result<Option<String>, Flaw> {
    let Some(node) = fields.get(name) else { return Ok(None) };
    let Some(url) = some(node.string()?) else { return Ok(None) };
    if Acme::is_directory(&url) {
        return Ok(Some(url));
    }
    let hint = r#"write an https URL, like "https://acme-v02.api.letsencrypt.org/directory""#;
    Err(node.flaw(format!("{} {:?} is not the directory of an authority", node.name(), clip(&url)), hint))
}

impl Ocsp {
    /// Reads a host's `Settings.OCSP` as leniently as vulcand: a period that is none keeps no host from serving.
    pub(super) fn decode(settings: &Fields<'_>, notes: &mut Vec<Flaw>) -> Result<Ocsp, Flaw> {
        let fields = settings.object("OCSP")?;
        let default = Ocsp::default();
        let period = fields.duration("Period").unwrap_or_else(|flaw| {
            notes.push(flaw);
            None
        });
        let responders = match fields.get("Responders") {
            Some(node) => node.items()?.iter().map(Node::string).collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        Ok(Ocsp {
            enabled: fields.boolean("Enabled")?,
            period: period.filter(|period| !period.is_zero()).unwrap_or(default.period),
            responders,
            skip_signature_check: fields.boolean("SkipSignatureCheck")?,
        })
    }
}

const LONGEST: usize = 1_024;
