//! What TLS is spoken, with clients and with servers: vulcand's `TLSSettings`, and a policy by name.
//!
//! What vulcand allowed and is unsafe today is refused, or left out where something safe remains; either is said.
//! What is decoded can be used as it is. Not here: certificates, and any code that speaks TLS.

use super::suite::CipherSuite;
use super::{at, word};
use crate::json::{Fields, Node};
use crate::problem::Flaw;

/// `Settings.TLS` of a listener or a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Ours, `Policy`: what is allowed where the other fields say nothing.
    pub policy: TlsPolicy,
    /// The oldest version spoken.
    pub min: TlsVersion,
    /// The newest version spoken; not older than `min`.
    pub max: TlsVersion,
    /// The suites that may be used, the preferred one first, at least one of `max` and of each version from `min` on.
    /// `None`: all there are. As in Go, a list without suites of TLS 1.3 leaves those alone.
    pub suites: Option<Vec<CipherSuite>>,
    /// Whether our order of suites counts, not the client's.
    pub prefer_server_suites: bool,
    /// Whether a client may resume with a ticket (vulcand: not `SessionTicketsDisabled`).
    pub tickets: bool,
    /// How many sessions a client remembers, from 1; means nothing to a listener, as in vulcand.
    pub session_cache: Option<usize>,
    /// Whether a server's certificate is believed unseen; never set for a listener.
    pub insecure_skip_verify: bool,
}

/// A set of choices by its name, as Mozilla's guidelines have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsPolicy {
    /// `intermediate`: TLS 1.2 and 1.3.
    #[default]
    Intermediate,
    /// `modern`: TLS 1.3 alone.
    Modern,
}

/// A version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246
    Tls12,
    /// RFC 8446
    Tls13,
}

/// At which end of a handshake the settings stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A listener.
    Server,
    /// A backend.
    Client,
}

impl Default for TlsSettings {
    fn default() -> TlsSettings {
        TlsSettings {
            policy: TlsPolicy::Intermediate,
            min: TlsVersion::Tls12,
            max: TlsVersion::Tls13,
            suites: None,
            prefer_server_suites: false,
            tickets: true,
            session_cache: None,
            insecure_skip_verify: false,
        }
    }
}

impl TlsPolicy {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            TlsPolicy::Intermediate => "intermediate",
            TlsPolicy::Modern => "modern",
        }
    }

    /// The oldest version it allows.
    pub fn min(self) -> TlsVersion {
        match self {
            TlsPolicy::Intermediate => TlsVersion::Tls12,
            TlsPolicy::Modern => TlsVersion::Tls13,
        }
    }
}

impl TlsVersion {
    /// As Go names it.
    pub fn name(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "VersionTLS12",
            TlsVersion::Tls13 => "VersionTLS13",
        }
    }
}

impl TlsSettings {
    /// Reads the fields of `Settings.TLS`.
    pub(super) fn decode(fields: &Fields<'_>, end: End, notes: &mut Vec<Flaw>) -> Result<TlsSettings, Flaw> {
        let policy = match fields.get("Policy") {
            Some(node) => word(&node, &[("intermediate", TlsPolicy::Intermediate), ("modern", TlsPolicy::Modern)])?,
            None => TlsPolicy::default(),
        };
        let (min, max) = versions(fields, policy, notes)?;
        let (min, suites) = suites(fields, min, max, notes)?;
        Ok(TlsSettings {
            policy,
            min,
            max,
            suites,
            prefer_server_suites: fields.boolean("PreferServerCipherSuites")?,
            tickets: !fields.boolean("SessionTicketsDisabled")?,
            session_cache: session_cache(fields)?,
            insecure_skip_verify: insecure(fields, end, notes)?,
        })
    }
}

fn versions(fields: &Fields<'_>, policy: TlsPolicy, notes: &mut Vec<Flaw>) -> Result<(TlsVersion, TlsVersion), Flaw> {
    let max = match written(fields, "MaxVersion")? {
        None => TlsVersion::Tls13,
        Some((_, Some(version))) => version,
        Some((node, None)) => {
            let hint = r#"remove it, or write "VersionTLS13"; clients that know only TLS 1.1 are not served"#;
            return Err(node.flaw(format!("{} allows only versions that are not safe", node.name()), hint));
        }
    };
    let min = match written(fields, "MinVersion")? {
        None => policy.min(),
        Some((_, Some(version))) => version,
        Some((node, None)) => {
            let reason = format!("{} is a version that is not safe; the oldest spoken is TLS 1.2", node.name());
            notes.push(node.flaw(reason, r#"write "VersionTLS12", or remove it"#));
            policy.min()
        }
    };
    if min < policy.min() || max < policy.min() {
        let reason = format!("Policy {:?} is TLS 1.3 alone, and another field allows TLS 1.2", policy.name());
        return Err(at(fields, "Policy", reason, "remove MinVersion and MaxVersion, or Policy"));
    }
    if min > max {
        let reason = format!("MinVersion {} is newer than MaxVersion {}", min.name(), max.name());
        return Err(at(fields, "MinVersion", reason, "remove one of them"));
    }
    Ok((min, max))
}

/// A version as written; `None` inside for one that is too old to be spoken.
fn written<'a>(fields: &Fields<'a>, name: &str) -> Result<Option<(Node<'a>, Option<TlsVersion>)>, Flaw> {
    let Some(node) = fields.get(name) else { return Ok(None) };
    let text = node.string()?;
    let version = if text.is_empty() {
        return Ok(None);
    } else if ["VersionTLS10", "VersionTLS11"].iter().any(|old| text.eq_ignore_ascii_case(old)) {
        None
    } else {
        let known = [("VersionTLS12", TlsVersion::Tls12), ("VersionTLS13", TlsVersion::Tls13)];
        Some(word(&node, &known)?)
    };
    Ok(Some((node, version)))
}

/// The suites, and the oldest version that they and the other fields leave.
fn suites(
    fields: &Fields<'_>,
    min: TlsVersion,
    max: TlsVersion,
    notes: &mut Vec<Flaw>,
) -> Result<(TlsVersion, Option<Vec<CipherSuite>>), Flaw> {
    let Some(mut suites) = CipherSuite::list(fields.get("CipherSuites"), notes)? else { return Ok((min, None)) };
    let has = |suites: &[CipherSuite], version| suites.iter().any(|suite| suite.version() == version);
    if max == TlsVersion::Tls13 && !has(&suites, TlsVersion::Tls13) {
        let newest = CipherSuite::ALL.into_iter().filter(|suite| suite.version() == TlsVersion::Tls13);
        suites = newest.chain(suites).collect();
    }
    suites.retain(|suite| (min..=max).contains(&suite.version()));
    if suites.is_empty() {
        let reason = format!("CipherSuites has no suite of {}, the only version allowed", max.name());
        return Err(at(fields, "CipherSuites", reason, "remove CipherSuites, or MaxVersion"));
    }
    // Suites of TLS 1.3 alone leave nothing that TLS 1.2 could use.
    let min = if has(&suites, min) { min } else { max };
    Ok((min, Some(suites)))
}

fn session_cache(fields: &Fields<'_>) -> Result<Option<usize>, Flaw> {
    let Some(node) = fields.get("SessionCache") else { return Ok(None) };
    let cache = node.fields()?;
    if let Some(node) = cache.get("Type").filter(|node| node.text() != r#""""#) {
        word(&node, &[("LRU", ())])?;
    }
    let capacity = match cache.object("Settings")?.get("Capacity") {
        Some(node) => node.integer_within(0, i64::from(u32::MAX))?,
        None => 0,
    };
    let capacity = usize::try_from(capacity).unwrap_or(MOST_SESSIONS).min(MOST_SESSIONS);
    Ok(Some(if capacity == 0 { DEFAULT_SESSIONS } else { capacity }))
}

fn insecure(fields: &Fields<'_>, end: End, notes: &mut Vec<Flaw>) -> Result<bool, Flaw> {
    let Some(node) = fields.get("InsecureSkipVerify") else { return Ok(false) };
    if !node.boolean()? {
        return Ok(false);
    }
    match end {
        End::Server => {
            let reason = format!("{} means nothing to a listener", node.name());
            notes.push(node.flaw(reason, "remove it; whether clients need certificates is Settings.ClientAuth"));
            Ok(false)
        }
        End::Client => {
            let reason = "the certificates of the servers are not verified: whoever is on the way can pose as them";
            let hint = "give their authority as Settings.TLS.CA, and remove InsecureSkipVerify";
            notes.push(node.flaw(reason, hint).meanwhile("in force"));
            Ok(true)
        }
    }
}

const DEFAULT_SESSIONS: usize = 1_024;
const MOST_SESSIONS: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, end: End) -> (Result<TlsSettings, Flaw>, Vec<Flaw>) {
        let mut notes = Vec::new();
        (TlsSettings::decode(&Node::parse(json).unwrap().fields().unwrap(), end, &mut notes), notes)
    }

    fn good(json: &str) -> TlsSettings {
        let (settings, notes) = read(json, End::Server);
        assert_eq!(notes, [], "{json}");
        settings.unwrap()
    }

    #[test]
    fn nothing_said_is_intermediate() {
        assert_eq!(good("{}"), TlsSettings::default());
        let zero = r#"{"PreferServerCipherSuites":false,"InsecureSkipVerify":false,"SessionTicketsDisabled":false,
            "SessionCache":null,"CipherSuites":null,"MinVersion":"","MaxVersion":""}"#;
        assert_eq!(good(zero), TlsSettings::default());
        assert_eq!(good(r#"{"CipherSuites":[]}"#).suites, None);
    }

    #[test]
    fn vulcands_full_settings() {
        let json = r#"{"minversion":"VersionTLS12","MAXVERSION":"versiontls12","PreferServerCipherSuites":true,
            "SessionTicketsDisabled":true,"SessionCache":{"Type":"LRU","Settings":{"Capacity":20}},
            "CipherSuites":["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256","tls_ecdhe_ecdsa_with_aes_128_gcm_sha256"]}"#;
        let settings = TlsSettings {
            policy: TlsPolicy::Intermediate,
            min: TlsVersion::Tls12,
            max: TlsVersion::Tls12,
            suites: Some(vec![CipherSuite::EcdheRsaAes128GcmSha256, CipherSuite::EcdheEcdsaAes128GcmSha256]),
            prefer_server_suites: true,
            tickets: false,
            session_cache: Some(20),
            insecure_skip_verify: false,
        };
        assert_eq!(good(json), settings);
        for (written, capacity) in [("{}", 1_024), (r#"{"Type":"lru","Settings":{"Capacity":9999999}}"#, 65_536)] {
            assert_eq!(good(&format!(r#"{{"SessionCache":{written}}}"#)).session_cache, Some(capacity));
        }
    }

    #[test]
    fn policies() {
        let modern = good(r#"{"Policy":"modern"}"#);
        assert_eq!((modern.min, modern.max), (TlsVersion::Tls13, TlsVersion::Tls13));
        assert_eq!(good(r#"{"Policy":"Intermediate"}"#), TlsSettings::default());
        let newest = good(r#"{"MinVersion":"VersionTLS13"}"#);
        assert_eq!((newest.policy, newest.min), (TlsPolicy::Intermediate, TlsVersion::Tls13));
        // What only vulcand could mean by it does not lower what was asked for.
        let (settings, notes) = read(r#"{"Policy":"modern","MinVersion":"VersionTLS10"}"#, End::Server);
        assert_eq!((settings.unwrap().min, notes.len()), (TlsVersion::Tls13, 1));
    }

    #[test]
    fn suites_leave_what_they_do_not_speak_of() {
        let suites = |json: &str| good(json).suites.unwrap();
        let with_newest = suites(r#"{"CipherSuites":["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]}"#);
        assert_eq!(with_newest[..3], CipherSuite::ALL[..3]);
        assert_eq!(with_newest[3..], [CipherSuite::EcdheRsaChaCha20Poly1305Sha256]);
        let one = good(r#"{"CipherSuites":["TLS_AES_128_GCM_SHA256"]}"#);
        assert_eq!((one.min, one.suites), (TlsVersion::Tls13, Some(vec![CipherSuite::Aes128GcmSha256])));
        let newest = r#"{"Policy":"modern","CipherSuites":["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]}"#;
        assert_eq!(suites(newest), CipherSuite::ALL[..3]);
    }

    #[test]
    fn what_is_unsafe_is_left_out_and_said() {
        let json = r#"{"MinVersion":"VersionTLS10","MaxVersion":"VersionTLS12","CipherSuites":["TLS_RSA_WITH_RC4_128_SHA",
            "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA","TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]}"#;
        let (settings, notes) = read(json, End::Server);
        let settings = settings.unwrap();
        assert_eq!((settings.min, settings.max), (TlsVersion::Tls12, TlsVersion::Tls12));
        assert_eq!(settings.suites, Some(vec![CipherSuite::EcdheRsaAes128GcmSha256]));
        assert!(notes[0].reason.starts_with("MinVersion is a version that is not safe"), "{notes:?}");
        let unsafe_ones =
            "cipher suites that are not safe: TLS_RSA_WITH_RC4_128_SHA, TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA";
        assert_eq!((notes[1].reason.as_str(), notes[1].column), (unsafe_ones, Some(73)));
    }

    #[test]
    fn not_verifying_is_dangerous_towards_servers_and_means_nothing_to_listeners() {
        let (settings, notes) = read(r#"{"InsecureSkipVerify":true}"#, End::Client);
        assert!(settings.unwrap().insecure_skip_verify && notes[0].reason.contains("not verified"));
        assert_eq!(notes[0].clone().into_problem("k", "ignored").effect, "in force");
        let (settings, notes) = read(r#"{"InsecureSkipVerify":true}"#, End::Server);
        assert!(!settings.unwrap().insecure_skip_verify && notes[0].reason.contains("means nothing"));
    }

    #[test]
    fn flaws_name_place_and_remedy() {
        for (json, reason, hint) in [
            (
                r#"{"MaxVersion":"VersionTLS11"}"#,
                "MaxVersion allows only versions",
                r#"remove it, or write "VersionTLS13""#,
            ),
            (r#"{"MinVersion":"VersionSSL30"}"#, r#"MinVersion is "VersionSSL30""#, r#"write "VersionTLS12""#),
            (r#"{"MinVersion":"1.2"}"#, r#"MinVersion is "1.2""#, r#"write "VersionTLS12""#),
            (r#"{"MinVersion":"VersionTLS13","MaxVersion":"VersionTLS12"}"#, "MinVersion VersionTLS13 is newer", ""),
            (r#"{"Policy":"modern","MinVersion":"VersionTLS12"}"#, r#"Policy "modern" is TLS 1.3 alone"#, "remove"),
            (r#"{"Policy":"modern","MaxVersion":"VersionTLS12"}"#, r#"Policy "modern" is TLS 1.3 alone"#, "remove"),
            (r#"{"Policy":"moderne"}"#, r#"Policy is "moderne""#, r#"did you mean "modern"?"#),
            (
                r#"{"CipherSuites":["TLS_RSA_WITH_AES_128_CBC_SHA"]}"#,
                "CipherSuites has no suite that is safe",
                "remove",
            ),
            (r#"{"CipherSuites":["TLS_AES_128_GCM_SHA257"]}"#, "unsupported cipher suite", "did you mean"),
            (r#"{"CipherSuites":["x"]}"#, "unsupported cipher suite", "remove it, or name some of"),
            (r#"{"CipherSuites":"x"}"#, "CipherSuites must be an array", ""),
            (
                r#"{"MaxVersion":"VersionTLS12","CipherSuites":["TLS_AES_128_GCM_SHA256"]}"#,
                "CipherSuites has no suite of VersionTLS12",
                "remove",
            ),
            (r#"{"SessionCache":{"Type":"MRU"}}"#, r#"SessionCache.Type is "MRU""#, r#"did you mean "LRU"?"#),
            (r#"{"SessionCache":{"Settings":{"Capacity":-1}}}"#, "SessionCache.Settings.Capacity is -1", "choose"),
        ] {
            let flaw = read(json, End::Server).0.unwrap_err();
            assert!(flaw.reason.starts_with(reason), "{json}: {}", flaw.reason);
            assert!(flaw.hint.starts_with(hint), "{json}: {}", flaw.hint);
            assert_eq!(flaw.line, Some(1), "{json}");
        }
    }

    #[test]
    fn every_suite_has_the_name_it_is_read_by() {
        let names = CipherSuite::ALL.map(|suite| format!("{:?}", suite.name())).join(",");
        let settings = good(&format!(r#"{{"CipherSuites":[{names},"TLS_AES_128_GCM_SHA256"]}}"#));
        assert_eq!(settings.suites.as_deref(), Some(&CipherSuite::ALL[..]));
    }
}
