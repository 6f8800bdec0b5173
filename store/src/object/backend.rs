//! A backend: a set of servers with common settings and a balancing policy. The servers are keys of their own.

use std::sync::Arc;
use std::time::Duration;

use super::balancing::{self, HashOn, Limit, Policy};
use super::health::Checking;
use super::{BackendTls, Id, ProxyVersion, only_http, word};
use crate::json::{self, Fields, Node, clip};
use crate::problem::Flaw;

/// `backends/<id>/backend`. Exists implicitly, with the defaults, as soon as one of its servers does.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// From the key; what the JSON says is ignored, as vulcand does.
    pub id: Id,
    /// Time limits towards its servers.
    pub timeouts: Timeouts,
    /// How connections to its servers are kept.
    pub keep_alive: KeepAlive,
    /// How a server is chosen (ours: `Policy`, default `wrr`).
    pub policy: Policy,
    /// What the policy `hash` goes by (ours: `HashOn`, default `client`).
    pub hash_on: HashOn,
    /// How long a server that is new, or back, takes to its full share (ours: `SlowStart`, default 10 s; zero: none).
    pub slow_start: Duration,
    /// How long a draining server keeps its sticky clients (ours: `DrainTimeout`, default 5 min).
    pub drain: Duration,
    /// How much its servers are given at once (ours: `Limit`, absent by default: no limit).
    pub limit: Option<Limit>,
    /// Whether and how a client stays on one server (ours: `Sticky`, absent by default).
    pub sticky: Option<Sticky>,
    /// How its servers are checked (ours: `HealthCheck`).
    pub health_check: Checking,
    /// How its https servers are spoken to (vulcand's `Settings.TLS` and our additions, absent by default).
    pub tls: Option<Arc<BackendTls>>,
    /// What its servers speak (ours: `Settings.Protocol`, default `http1`).
    pub protocol: HttpVersion,
    /// What tells its servers the client's address in front of a connection (ours: `Settings.ProxyProtocol`, absent
    /// by default).
    pub proxy_protocol: Option<ProxyVersion>,
}

/// A version of HTTP that is spoken with servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// `http1`: HTTP/1.1.
    #[default]
    Http1,
    /// `h2`: HTTP/2, by ALPN over TLS and with prior knowledge in the clear.
    H2,
}

impl HttpVersion {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            HttpVersion::Http1 => "http1",
            HttpVersion::H2 => "h2",
        }
    }

    fn decode(settings: &Fields<'_>) -> Result<HttpVersion, Flaw> {
        let known = [HttpVersion::Http1, HttpVersion::H2].map(|version| (version.name(), version));
        settings.get("Protocol").map_or(Ok(HttpVersion::default()), |node| word(&node, &known))
    }
}

/// vulcand's `Settings.Timeouts`; absent fields take the defaults, and zero, Go's "no limit", is a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the response header; `None`: as the frontend says, or 60 s.
    pub read: Option<Duration>,
    /// Until the connection stands, default 5 s.
    pub dial: Duration,
    /// Until the TLS handshake is done, default 10 s.
    pub tls_handshake: Duration,
    /// Ours: between two pieces of a response's body, default 5 m.
    pub idle: Duration,
    /// Ours: for the whole response, from the request on; no limit by default.
    pub total: Option<Duration>,
}

/// vulcand's `Settings.KeepAlive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// TCP keep-alive period, default 15 s.
    pub period: Duration,
    /// Idle connections kept per server and worker, default 256 (vulcand: 2). A negative number keeps none, as in Go.
    pub max_idle: usize,
}

/// Stickiness by a cookie of ours. Written `true`, `{}` or `{"Cookie":"name"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sticky {
    /// The cookie's name. Default `etna-` and eight hex digits of the backend's name, so that two backends under one
    /// host do not fight over one cookie.
    pub cookie: Option<String>,
}

impl Backend {
    /// What a backend is whose servers came without it.
    pub fn implicit(id: Id) -> Backend {
        Backend {
            id,
            timeouts: Timeouts::default(),
            keep_alive: KeepAlive::default(),
            policy: Policy::default(),
            hash_on: HashOn::default(),
            slow_start: balancing::DEFAULT_SLOW_START,
            drain: balancing::DEFAULT_DRAIN,
            limit: None,
            sticky: None,
            health_check: Checking::Preset,
            tls: None,
            protocol: HttpVersion::default(),
            proxy_protocol: None,
        }
    }

    /// Reads `backends/<id>/backend`.
    pub fn decode(id: Id, value: &[u8], notes: &mut Vec<Flaw>) -> Result<Backend, Flaw> {
        let text = json::text(value)?;
        let fields = Node::parse(&text)?.fields()?;
        only_http(&fields)?;
        let settings = fields.object("Settings")?;
        let tls = match settings.get("TLS") {
            Some(node) => Some(Arc::new(BackendTls::decode(&node.fields()?, notes)?)),
            None => None,
        };
        Ok(Backend {
            id,
            timeouts: Timeouts::decode(&settings)?,
            keep_alive: KeepAlive::decode(&settings)?,
            policy: Policy::decode(&fields)?,
            hash_on: HashOn::decode(&fields)?,
            slow_start: balancing::duration(&fields, "SlowStart", balancing::DEFAULT_SLOW_START)?,
            drain: balancing::duration(&fields, "DrainTimeout", balancing::DEFAULT_DRAIN)?,
            limit: Limit::decode(&fields)?,
            sticky: Sticky::decode(&fields)?,
            health_check: Checking::decode(&fields)?,
            tls,
            protocol: HttpVersion::decode(&settings)?,
            proxy_protocol: ProxyVersion::decode(&settings)?,
        })
    }

    /// Reads `upstreams/<id>/options` of vulcand up to 0.7: the settings alone.
    pub(crate) fn decode_legacy(id: Id, value: &[u8]) -> Result<Backend, Flaw> {
        let text = json::text(value)?;
        let settings = Node::parse(&text)?.fields()?;
        Ok(Backend {
            timeouts: Timeouts::decode(&settings)?,
            keep_alive: KeepAlive::decode(&settings)?,
            ..Backend::implicit(id)
        })
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            read: None,
            dial: Duration::from_secs(5),
            tls_handshake: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            total: None,
        }
    }
}

impl Default for KeepAlive {
    fn default() -> KeepAlive {
        KeepAlive { period: Duration::from_secs(15), max_idle: 256 }
    }
}

impl Timeouts {
    /// Until the response header, whichever limit comes first, for a frontend whose servers have so long where their
    /// backend does not say.
    pub fn answer(&self, usual: Option<Duration>) -> Duration {
        let read = self.read.or(usual).unwrap_or(USUAL_READ);
        self.total.map_or(read, |total| read.min(total))
    }

    fn decode(settings: &Fields<'_>) -> Result<Timeouts, Flaw> {
        let fields = settings.object("Timeouts")?;
        let default = Timeouts::default();
        Ok(Timeouts {
            read: limit(&fields, "Read")?,
            dial: limit(&fields, "Dial")?.unwrap_or(default.dial),
            tls_handshake: limit(&fields, "TLSHandshake")?.unwrap_or(default.tls_handshake),
            idle: limit(&fields, "Idle")?.unwrap_or(default.idle),
            total: fields.duration("Total")?.filter(|limit| !limit.is_zero()),
        })
    }
}

impl KeepAlive {
    fn decode(settings: &Fields<'_>) -> Result<KeepAlive, Flaw> {
        let fields = settings.object("KeepAlive")?;
        let default = KeepAlive::default();
        let period = fields.duration("Period")?.filter(|period| !period.is_zero());
        let max_idle = match fields.integer("MaxIdleConnsPerHost")? {
            0 => default.max_idle,
            number => usize::try_from(number.clamp(0, MOST_IDLE)).unwrap_or(default.max_idle),
        };
        Ok(KeepAlive { period: period.unwrap_or(default.period), max_idle })
    }
}

impl Sticky {
    /// Reads the field `Sticky`, strictly: it is ours.
    pub(crate) fn decode(fields: &Fields<'_>) -> Result<Option<Sticky>, Flaw> {
        let Some(node) = fields.get("Sticky") else { return Ok(None) };
        if node.text().starts_with(['t', 'f']) {
            return Ok(node.boolean()?.then(Sticky::default));
        }
        if !node.text().starts_with('{') {
            return Err(node.wrong(r#"true or an object like {"Cookie":"name"}"#));
        }
        let fields = node.fields()?.ours();
        fields.only(&["Cookie"])?;
        Sticky::of_fields(&fields).map(Some)
    }

    pub(super) fn of_fields(fields: &Fields<'_>) -> Result<Sticky, Flaw> {
        let Some(node) = fields.get("Cookie") else { return Ok(Sticky::default()) };
        let name = node.string()?;
        // The token of RFC 9110, section 5.6.2, which RFC 6265 wants of a cookie's name.
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || name.len() > LONGEST_COOKIE || !name.bytes().all(token) {
            let reason = format!("{:?} cannot be the name of a cookie", clip(&name));
            return Err(node.flaw(reason, format!("use 1 to {LONGEST_COOKIE} letters, digits, - and _")));
        }
        Ok(Sticky { cookie: Some(name) })
    }
}

/// A time limit, where one is given; zero, Go's "no limit", is a day.
pub(super) fn limit(fields: &Fields<'_>, name: &str) -> Result<Option<Duration>, Flaw> {
    fields.duration(name).map(|given| given.map(|limit| if limit.is_zero() { NO_LIMIT } else { limit }))
}

/// How long servers have to begin an answer where nobody says.
pub(super) const USUAL_READ: Duration = Duration::from_secs(60);
// Every step has a limit; who wants none gets one that does not matter.
const NO_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
const MOST_IDLE: i64 = 65_536;
const LONGEST_COOKIE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Result<Backend, Flaw> {
        Backend::decode("b".into(), json.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn vulcands_shortest_backend_has_the_defaults() {
        assert_eq!(decode(r#"{"Type":"http"}"#).unwrap(), Backend::implicit("b".into()));
    }

    #[test]
    fn vulcands_full_backend() {
        let mut notes = Vec::new();
        let json = r#"{"Id":"other","Type":"http","Settings":{"Timeouts":{"Read":"5s","Dial":"300ms","TLSHandshake":""},
            "KeepAlive":{"Period":"1m0s","MaxIdleConnsPerHost":12},"TLS":{"InsecureSkipVerify":true}},"Stats":7}"#;
        let backend = Backend::decode("b".into(), json.as_bytes(), &mut notes).unwrap();
        assert_eq!(&*backend.id, "b");
        assert_eq!(backend.timeouts.read, Some(Duration::from_secs(5)));
        assert_eq!(backend.timeouts.dial, Duration::from_millis(300));
        assert_eq!(backend.timeouts.tls_handshake, Duration::from_secs(10));
        assert_eq!(backend.keep_alive, KeepAlive { period: Duration::from_secs(60), max_idle: 12 });
        assert_eq!(notes.len(), 1);
        assert!(notes[0].reason.contains("not verified"), "{notes:?}");
        assert_eq!(notes[0].line, Some(2));
        assert!(backend.tls.unwrap().settings.insecure_skip_verify);
    }

    #[test]
    fn towards_servers() {
        let json = r#"{"Type":"http","Settings":{"Protocol":"H2","ProxyProtocol":"proxy_v2","TLS":{
            "CA":"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n","ServerName":"App.Test.","KeyPair":"e30="}}}"#;
        let backend = decode(json).unwrap();
        assert_eq!((backend.protocol, backend.proxy_protocol), (HttpVersion::H2, Some(ProxyVersion::V2)));
        let tls = backend.tls.unwrap();
        assert_eq!((tls.server_name.as_deref(), tls.key_pair.as_deref()), (Some("app.test"), Some(&b"{}"[..])));
        assert!(tls.ca.is_some() && format!("{tls:?}").contains("(sealed)"));
        for (settings, reason) in [
            (r#"{"Protocol":"h3"}"#, "Settings.Protocol is \"h3\""),
            (r#"{"ProxyProtocol":"PROXY"}"#, "Settings.ProxyProtocol is \"PROXY\""),
            (r#"{"TLS":{"CA":""}}"#, "Settings.TLS.CA has no certificate"),
            (
                r#"{"TLS":{"CA":"-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----"}}"#,
                "Settings.TLS.CA is not PEM",
            ),
            (
                r#"{"TLS":{"CA":"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----"}}"#,
                "Settings.TLS.CA holds a private",
            ),
            (r#"{"TLS":{"ServerName":"a:443"}}"#, "Settings.TLS.ServerName \"a:443\" is not"),
            (r#"{"TLS":{"KeyPair":{"Key":"k"}}}"#, "Settings.TLS.KeyPair is not sealed"),
            (r#"{"TLS":{"MaxVersion":"VersionTLS10"}}"#, "Settings.TLS.MaxVersion allows only"),
        ] {
            let flaw = decode(&format!(r#"{{"Type":"http","Settings":{settings}}}"#)).unwrap_err();
            assert!(flaw.reason.starts_with(reason), "{settings}: {}", flaw.reason);
            assert!(flaw.line.is_some() && !flaw.hint.is_empty());
        }
        let none = decode(r#"{"Type":"http","Settings":{"ProxyProtocol":"NONE","TLS":null}}"#).unwrap();
        assert_eq!(none, Backend::implicit("b".into()));
    }

    #[test]
    fn names_match_in_any_case_and_null_is_absent() {
        let json = r#"{"type":"http","SETTINGS":{"timeouts":{"tlshandshake":"1s","READ":null},"KeepAlive":null}}"#;
        let backend = decode(json).unwrap();
        assert_eq!(backend.timeouts.tls_handshake, Duration::from_secs(1));
        assert_eq!(backend.timeouts.answer(None), Duration::from_secs(60));
    }

    #[test]
    fn zero_and_negative_numbers_mean_what_they_mean_in_go() {
        let json = r#"{"Type":"http","Settings":{"Timeouts":{"Read":"0"},"KeepAlive":{"MaxIdleConnsPerHost":-1}}}"#;
        let backend = decode(json).unwrap();
        assert_eq!(backend.timeouts.read, Some(NO_LIMIT));
        assert_eq!(backend.keep_alive.max_idle, 0);
    }

    #[test]
    fn what_a_backend_says_of_its_time_wins() {
        let seconds = Duration::from_secs;
        let of = |timeouts: &str| {
            let json = format!(r#"{{"Type":"http","Settings":{{"Timeouts":{timeouts}}}}}"#);
            let timeouts = decode(&json).unwrap().timeouts;
            [None, Some(seconds(300))].map(|usual| timeouts.answer(usual).as_secs())
        };
        assert_eq!(of("{}"), [60, 300]);
        assert_eq!(of(r#"{"Read":"60s"}"#), [60, 60]);
        assert_eq!(of(r#"{"Read":"10m"}"#), [600, 600]);
        assert_eq!(of(r#"{"Total":"90s"}"#), [60, 90]);
    }

    #[test]
    fn our_additions() {
        let backend = decode(r#"{"Type":"http","Policy":"p2c","Sticky":{"Cookie":"srv"}}"#).unwrap();
        assert_eq!(backend.policy, Policy::PowerOfTwoChoices);
        assert_eq!(backend.sticky, Some(Sticky { cookie: Some("srv".into()) }));
        for (written, sticky) in [("true", Some(Sticky::default())), ("{}", Some(Sticky::default())), ("false", None)] {
            assert_eq!(decode(&format!(r#"{{"Type":"http","Sticky":{written}}}"#)).unwrap().sticky, sticky);
        }
    }

    #[test]
    fn flaws_name_place_and_remedy() {
        for (json, reason, hint, column) in [
            ("{}", "Type is missing", r#"write "Type":"http""#, 1),
            (r#"{"Type":"tcp"}"#, r#"unsupported type "tcp""#, r#"write "Type":"http""#, 9),
            (r#"{"Type":"http","Policy":"p2x"}"#, r#"unknown policy "p2x""#, r#"did you mean "p2c"?"#, 25),
            (
                r#"{"Type":"http","Sticky":{"Cooky":"a"}}"#,
                r#"unknown field "Sticky.Cooky""#,
                "did you mean \"Cookie\"?",
                26,
            ),
            (
                r#"{"Type":"http","Sticky":{"Cookie":"a b"}}"#,
                r#""a b" cannot be the name of a cookie"#,
                "use 1 to 64",
                35,
            ),
            (
                r#"{"Type":"http","Settings":{"Timeouts":{"Read":"1d"}}}"#,
                r#"Settings.Timeouts.Read is a duration with an unknown unit: "1d""#,
                "write it like",
                47,
            ),
            (r#"{"Type":"http","Settings":{"Timeouts":{"Dial":"-1s"}}}"#, "Settings.Timeouts.Dial is negative", "", 47),
            (
                r#"{"Type":"http","Settings":{"Timeouts":{"Dial":5}}}"#,
                "Settings.Timeouts.Dial must be a string",
                "",
                47,
            ),
            ("[]", "the value must be an object, not an array", "", 1),
        ] {
            let flaw = decode(json).unwrap_err();
            assert!(flaw.reason.starts_with(reason), "{json}: {}", flaw.reason);
            assert!(flaw.hint.starts_with(hint), "{json}: {}", flaw.hint);
            assert_eq!(flaw.column, Some(column), "{json}");
        }
    }
}
