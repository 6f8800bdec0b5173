//! Where in the store lies what proxies share about ACME, and what is in it. All names below `acme/`.
//!
//! Certificates and accounts are sealed. Challenges and records are not: what they say, an authority or the API tells
//! anybody who asks.

use std::time::{Duration, SystemTime};

use etna_store::object::{Acme, Id};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The key of a host's certificate: a sealed key pair.
pub fn certificate(host: &str) -> String {
    format!("{CERTIFICATES}{host}")
}

/// The key of what is known of a host: a [`Record`].
pub fn record(host: &str) -> String {
    format!("{RECORDS}{host}")
}

/// The key of whoever works for a host; it lives under a lease.
pub fn claim(host: &str) -> String {
    format!("{CLAIMS}{host}")
}

/// The key of a challenge.
pub fn challenge(token: &str) -> String {
    format!("{CHALLENGES}{token}")
}

/// The key of an account: one per directory and mail address.
pub fn account(directory: &str, email: Option<&str>) -> String {
    let digest = Sha256::new().chain_update(directory).chain_update("\n").chain_update(email.unwrap_or_default());
    let digest: String = digest.finalize().iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    format!("acme/{digest}/account")
}

/// The host that a key says something about, if it does.
pub fn host_of(key: &str) -> Option<Id> {
    [CERTIFICATES, RECORDS, CLAIMS].iter().find_map(|folder| key.strip_prefix(folder)).map(Id::from)
}

/// What proxies remember of a host together, so that a restart or another proxy goes on where one left off.
/// Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Record {
    /// The directory that the certificate is from.
    pub directory: String,
    /// When it was issued.
    pub issued: u64,
    /// Which certificate this is about: its fingerprint.
    pub certificate: String,
    /// When the authority wants it renewed, if it said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<u64>,
    /// When to ask the authority again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask_at: Option<u64>,
    /// Attempts that failed since.
    pub failures: u32,
    /// Why the last one did.
    pub reason: String,
    /// Not before then is another one made.
    pub retry_at: u64,
    /// The settings that these attempts were made with: with others, they say nothing.
    pub settings: String,
    /// Since when no host of that name is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed_since: Option<u64>,
}

impl Record {
    /// Reads one; what is none counts as nothing known.
    pub fn read(value: &[u8]) -> Record {
        serde_json::from_slice(value).unwrap_or_default()
    }

    /// As it is stored.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Attempts that failed with the present settings.
    pub fn failures_with(&self, acme: &Acme, directory: &str) -> u32 {
        if self.settings == settings(acme, directory) { self.failures } else { 0 }
    }
}

/// What the settings are, for comparing.
pub fn settings(acme: &Acme, directory: &str) -> String {
    format!("{directory} {} {}", acme.email.as_deref().unwrap_or("-"), acme.challenge.name())
}

/// Seconds since 1970.
pub fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The time so many seconds after 1970 began; what lies beyond the year 9999 is the year 9999.
pub fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(FAR))
}

/// Below it lie certificates, by host.
pub const CERTIFICATES: &str = "acme/certs/";
pub(super) const RECORDS: &str = "acme/hosts/";
const CLAIMS: &str = "acme/issuing/";
/// Below it lie challenges, by token.
pub const CHALLENGES: &str = "acme/challenges/";
const FAR: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_their_hosts() {
        for key in [certificate("a.test"), record("a.test"), claim("a.test")] {
            assert_eq!(host_of(&key).as_deref(), Some("a.test"));
        }
        for key in [challenge("t"), account("d", None), "tickets/1".into()] {
            assert_eq!(host_of(&key), None);
        }
        assert_eq!(account("d", Some("m")), account("d", Some("m")));
        assert_ne!(account("d", Some("m")), account("d", None));
    }

    #[test]
    fn a_record_is_read_as_written_and_anything_else_is_none() {
        let acme = Acme::default();
        let record = Record { failures: 3, reason: "no".into(), settings: settings(&acme, "d"), ..Record::default() };
        assert_eq!(Record::read(&record.write()), record);
        assert_eq!(record.failures_with(&acme, "d"), 3);
        assert_eq!(record.failures_with(&acme, "other"), 0);
        for junk in [&b""[..], b"7", b"{\"Failures\":-1}", b"\xff", b"[[[["] {
            assert_eq!(Record::read(junk), Record::default());
        }
        assert!(time(u64::MAX) > time(0));
    }
}
