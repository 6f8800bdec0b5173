//! Flags about TLS that listeners and backends have in common: vctl's, and the policy.

use clap::Args;
use serde_json::{Map, Value, json};

use super::{given, text};

/// What TLS is spoken.
#[derive(Args)]
pub(crate) struct TlsFlags {
    /// What is allowed where nothing else is said: modern is TLS 1.3 alone.
    #[arg(long, value_parser = ["modern", "intermediate"])]
    tls_policy: Option<String>,
    /// Oldest version: VersionTLS12 or VersionTLS13.
    #[arg(long = "tlsMinV", alias = "tls-min", value_name = "VERSION")]
    min: Option<String>,
    /// Newest version.
    #[arg(long = "tlsMaxV", alias = "tls-max", value_name = "VERSION")]
    max: Option<String>,
    /// Cipher suite by the name Go gives it; may be given more than once.
    #[arg(long = "tlsCS", alias = "tls-cipher-suite", value_name = "SUITE", value_delimiter = ',')]
    suites: Vec<String>,
    /// Our order of suites counts, not the client's.
    #[arg(long = "tlsPreferServerCS", alias = "tls-prefer-server-suites")]
    prefer: bool,
    /// No session tickets.
    #[arg(long = "tlsSessionTicketsOff", alias = "tls-session-tickets-off")]
    no_tickets: bool,
    /// Kind of session cache; there is one.
    #[arg(long = "tlsSessionCache", hide = true, value_name = "LRU")]
    cache: Option<String>,
    /// Sessions that are remembered towards servers.
    #[arg(long = "tlsSessionCacheCapacity", alias = "tls-session-cache-capacity", value_name = "N")]
    capacity: Option<u32>,
    /// Believe servers without looking at their certificates.
    #[arg(long = "tlsSkipVerify", alias = "tls-skip-verify")]
    skip_verify: bool,
}

impl TlsFlags {
    /// The fields of `Settings.TLS` that were given.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let set = |flag: bool| flag.then_some(Value::Bool(true));
        let cache = (self.cache.is_some() || self.capacity.is_some()).then(|| {
            let kind = self.cache.as_deref().unwrap_or("LRU");
            json!({ "Type": kind, "Settings": { "Capacity": self.capacity.unwrap_or_default() } })
        });
        given([
            ("Policy", text(&self.tls_policy)),
            ("MinVersion", text(&self.min)),
            ("MaxVersion", text(&self.max)),
            ("CipherSuites", (!self.suites.is_empty()).then(|| json!(self.suites))),
            ("PreferServerCipherSuites", set(self.prefer)),
            ("SessionTicketsDisabled", set(self.no_tickets)),
            ("SessionCache", cache),
            ("InsecureSkipVerify", set(self.skip_verify)),
        ])
    }
}
