//! A frontend: a rule, its middlewares and the backend it leads to. The middlewares are keys of their own.

use std::time::Duration;

use super::https::{hsts, https};
use super::{HttpsMode, Id, Sticky, only_http, some};
use crate::json::{self, Fields, Node};
use crate::problem::Flaw;

/// `frontends/<id>/frontend`, or derived from a site (then its id is `site:<site>:<row>`).
#[derive(Clone, Debug, PartialEq)]
pub struct Frontend {
    /// From the key.
    pub id: Id,
    /// The route expression, as written. Parsed by the proxy.
    pub route: String,
    /// The backend it leads to; may not exist (yet).
    pub backend: Id,
    /// Ours: a second backend, used when the first has no server at all. Only sites set it.
    pub fallback: Option<Id>,
    /// Ours: statuses of the backend's answer that send the request once more, to another backend. Only sites set it; boxed,
    /// as few have it of the many that may be.
    pub elsewhere: Option<Box<Elsewhere>>,
    /// Ours: the status it answers at once, without asking any backend. Only sites set it.
    pub deny: Option<u16>,
    /// Ours: `Priority`; higher wins before specificity is looked at. Default 0.
    pub priority: i64,
    /// Ours: stickiness of this frontend, instead of its backend's.
    pub sticky: Option<Sticky>,
    /// Ours: a cookie of the application's own; requests with one value of it go to one server while that is well. Only
    /// sites set it.
    pub session: Option<&'static str>,
    /// Ours: how long its servers have to begin an answer where their backend's `Timeouts.Read` does not say. Only sites
    /// set it.
    pub answer_within: Option<Duration>,
    /// Ours: what happens upstream when the client leaves before the answer.
    pub on_client_abort: OnClientAbort,
    /// Ours: `Https`, what happens to requests in the clear. Default `off`, as in vulcand; only sites have `admin`.
    pub https: HttpsMode,
    /// Ours: `Hsts`, for how many seconds browsers are told to come by https only; 0: nothing is said.
    pub hsts: u32,
    /// vulcand's `Settings`.
    pub settings: FrontendSettings,
    /// The site it was derived from.
    pub site: Option<Id>,
}

/// "If the first backend answers this, ask that one": a site's uploads that only the admin container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The statuses, e.g. 404.
    pub statuses: Vec<u16>,
    /// The backend asked then; its answer counts.
    pub backend: Id,
}

/// vulcand's `Frontend.Settings`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrontendSettings {
    /// Body limits.
    pub limits: Limits,
    /// vulcand's predicate when to try another server, as written; `None`: our default.
    pub failover_predicate: Option<String>,
    /// Sets `X-Forwarded-Server`.
    pub hostname: Option<String>,
    /// Keep `X-Forwarded-*` of any client.
    pub trust_forward_header: bool,
    /// Forward the client's `Host`; vulcand's default `false` sends the server's own `host:port`.
    pub pass_host_header: bool,
}

/// vulcand's `Settings.Limits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Longest request body in bytes; `None`: unlimited.
    pub max_body_bytes: Option<u64>,
}

/// What happens upstream when the client leaves before the response header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnClientAbort {
    /// `cancel`: the upstream request is dropped.
    #[default]
    Cancel,
    /// `continue`: it is finished all the same (WordPress's cron hangs up at once).
    Continue,
}

impl Frontend {
    /// A frontend that only routes: every setting at its default. For tests and for deriving others.
    pub fn new(id: Id, route: impl Into<String>, backend: Id) -> Frontend {
        Frontend {
            id,
            route: route.into(),
            backend,
            fallback: None,
            elsewhere: None,
            deny: None,
            priority: 0,
            sticky: None,
            session: None,
            answer_within: None,
            on_client_abort: OnClientAbort::default(),
            https: HttpsMode::Off,
            hsts: 0,
            settings: FrontendSettings::default(),
            site: None,
        }
    }

    /// Reads `frontends/<id>/frontend`. The route is not parsed here.
    pub fn decode(id: Id, value: &[u8], _notes: &mut Vec<Flaw>) -> Result<Frontend, Flaw> {
        if id.starts_with(SITE) {
            return Err(Flaw::new(
                format!("ids beginning with {SITE:?} belong to the frontends of sites"),
                "choose another id",
            ));
        }
        let text = json::text(value)?;
        let fields = Node::parse(&text)?.fields()?;
        only_http(&fields)?;
        let route = fields.required("Route", r#"a rule like "Route":"Host(\"example.com\")""#)?;
        let backend = fields.required("BackendId", r#"the backend's id like "BackendId":"b1""#)?;
        Ok(Frontend {
            priority: fields.integer("Priority")?,
            sticky: Sticky::decode(&fields)?,
            https: https(&fields, &[HttpsMode::Off, HttpsMode::Auto, HttpsMode::Always])?.unwrap_or(HttpsMode::Off),
            hsts: hsts(&fields)?,
            settings: FrontendSettings::decode(&fields.object("Settings")?)?,
            ..Frontend::new(id, route, backend.into())
        })
    }
}

impl FrontendSettings {
    fn decode(fields: &Fields<'_>) -> Result<FrontendSettings, Flaw> {
        let limits = fields.object("Limits")?;
        let max_body_bytes = match limits.get("MaxBodyBytes") {
            None => 0,
            Some(node) => node.integer_within(0, i64::MAX)?,
        };
        Ok(FrontendSettings {
            limits: Limits { max_body_bytes: u64::try_from(max_body_bytes).ok().filter(|bytes| *bytes > 0) },
            failover_predicate: some(fields.string("FailoverPredicate")?),
            hostname: some(fields.string("Hostname")?),
            trust_forward_header: fields.boolean("TrustForwardHeader")?,
            pass_host_header: fields.boolean("PassHostHeader")?,
        })
    }

    /// What a location of vulcand up to 0.7 is without options: there the client's `Host` was always passed on.
    pub(crate) fn legacy() -> FrontendSettings {
        FrontendSettings { pass_host_header: true, ..FrontendSettings::default() }
    }

    /// Reads `hosts/<h>/locations/<l>/options` of vulcand up to 0.7.
    pub(crate) fn decode_legacy(value: &[u8], notes: &mut Vec<Flaw>) -> Result<FrontendSettings, Flaw> {
        let text = json::text(value)?;
        let fields = Node::parse(&text)?.fields()?;
        for name in ["Timeouts", "KeepAlive"] {
            if let Some(node) = fields.get(name) {
                let hint = "put it into the options of the location's upstream";
                notes.push(node.flaw(format!("{name} of a location is not read"), hint));
            }
        }
        Ok(FrontendSettings { pass_host_header: true, ..FrontendSettings::decode(&fields)? })
    }
}

/// What the ids of frontends derived from sites begin with.
pub(crate) const SITE: &str = "site:";

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Result<Frontend, Flaw> {
        Frontend::decode("f".into(), json.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn vulcands_shortest_frontend() {
        let frontend = decode(r#"{"Type":"http","BackendId":"b1","Route":"Path(\"/\")"}"#).unwrap();
        assert_eq!(frontend, Frontend::new("f".into(), r#"Path("/")"#, "b1".into()));
    }

    #[test]
    fn vulcands_full_frontend() {
        let frontend = decode(
            r#"{"Id":"x","Route":"Path(`/`)","Type":"http","BackendId":"b1","Settings":{
            "Limits":{"MaxMemBodyBytes":1024,"MaxBodyBytes":2048},"FailoverPredicate":"Attempts() < 2",
            "Hostname":"edge","TrustForwardHeader":true,"PassHostHeader":true,"Stream":true,
            "StreamFlushIntervalNanoSecs":1},"Stats":null}
            "#,
        )
        .unwrap();
        let settings = FrontendSettings {
            limits: Limits { max_body_bytes: Some(2048) },
            failover_predicate: Some("Attempts() < 2".into()),
            hostname: Some("edge".into()),
            trust_forward_header: true,
            pass_host_header: true,
        };
        assert_eq!(frontend, Frontend { settings, ..Frontend::new("f".into(), "Path(`/`)", "b1".into()) });
    }

    #[test]
    fn our_additions() {
        let json = r#"{"Type":"http","BackendId":"b","Route":"r","Priority":-7,"Sticky":{},"Https":"auto","Hsts":60}"#;
        let frontend = decode(json).unwrap();
        assert_eq!((frontend.priority, frontend.sticky), (-7, Some(Sticky::default())));
        assert_eq!((frontend.https, frontend.hsts), (HttpsMode::Auto, 60));
    }

    #[test]
    fn flaws_name_the_field() {
        for (json, reason) in [
            (r#"{"Type":"http","Route":"r"}"#, "BackendId is missing"),
            (r#"{"Type":"http","BackendId":"b"}"#, "Route is missing"),
            (r#"{"Type":"http","BackendId":"b","Route":""}"#, "Route is empty"),
            (r#"{"Type":"http","BackendId":1,"Route":"r"}"#, "BackendId must be a string, not a number"),
            (r#"{"Type":"http","BackendId":"b","Route":"r","Https":"admin"}"#, "Https is \"admin\""),
            (r#"{"Type":"http","BackendId":"b","Route":"r","Priority":"1"}"#, "Priority must be a whole number"),
            (
                r#"{"Type":"http","BackendId":"b","Route":"r","Settings":{"Limits":{"MaxBodyBytes":-1}}}"#,
                "Settings.Limits.MaxBodyBytes is -1",
            ),
            (
                r#"{"Type":"http","BackendId":"b","Route":"r","Settings":{"PassHostHeader":"yes"}}"#,
                "Settings.PassHostHeader must be true or false",
            ),
        ] {
            let flaw = decode(json).unwrap_err();
            assert!(flaw.reason.starts_with(reason), "{json}: {}", flaw.reason);
        }
        let json = br#"{"Type":"http","BackendId":"b","Route":"r"}"#;
        assert!(Frontend::decode("site:a:admin".into(), json, &mut Vec::new()).is_err());
    }
}
