//! How a backend's servers are checked. Ours, so strict: an unknown name or a value without meaning is a flaw.
//!
//! What a check does is the proxy's business (`proxy/src/health`); what it means to a WordPress site is said in
//! `wordpress.rs`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::json::{Fields, Node, clip, nearest};
use crate::problem::Flaw;

/// A backend's field `HealthCheck`: `true`, `false` or an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Checking {
    /// Absent: as the site says that the backend serves; without a site its servers are not checked.
    #[default]
    Preset,
    /// `false`: not checked, whatever a site says.
    Off,
    /// As written; `true` is an object without fields.
    Own(Arc<HealthCheck>),
}

/// How a server is asked whether it is well.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// What is asked, and how the answer is read.
    pub kind: CheckKind,
    /// `GET` (default), `HEAD` or `OPTIONS`.
    pub method: String,
    /// Path and query, default `/`.
    pub path: String,
    /// `Host`; default the server's own address.
    pub host: Option<String>,
    /// Statuses that are well, default 200 to 399.
    pub expect: Vec<RangeInclusive<u16>>,
    /// What the first 64 KiB of the body must hold.
    pub body: Option<String>,
    /// What they must not hold.
    pub not_body: Option<String>,
    /// From one check to the next, 100 ms to 1 h, default 5 s (WordPress: 10 s); a tenth more or less by chance.
    pub interval: Duration,
    /// Until the whole answer, 10 ms to 1 min, default 2 s (WordPress: 5 s).
    pub timeout: Duration,
    /// Good answers in a row that bring an ill server back, 1 to 100, default 2.
    pub rise: u32,
    /// Bad answers in a row that take it out, 1 to 100, default 3.
    pub fall: u32,
    /// Another port than the one that serves.
    pub port: Option<u16>,
}

/// What is asked of a server, and how its answer is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckKind {
    /// `http`: a request, whose answer is compared.
    #[default]
    Http,
    /// `tcp`: a connection.
    Tcp,
    /// `wordpress`: a request, whose answer is read as WordPress means it.
    WordPress,
}

impl Default for HealthCheck {
    fn default() -> HealthCheck {
        HealthCheck::of(CheckKind::Http)
    }
}

impl HealthCheck {
    /// A check with the defaults of its kind.
    pub fn of(kind: CheckKind) -> HealthCheck {
        let (interval, timeout) = match kind {
            CheckKind::Http | CheckKind::Tcp => (Duration::from_secs(5), Duration::from_secs(2)),
            // A page is costly, and a cold PHP is slow.
            CheckKind::WordPress => (Duration::from_secs(10), Duration::from_secs(5)),
        };
        HealthCheck {
            kind,
            method: "GET".into(),
            path: "/".into(),
            host: None,
            expect: vec![200..=399],
            body: None,
            not_body: None,
            interval,
            timeout,
            rise: 2,
            fall: 3,
            port: None,
        }
    }

    fn decode(fields: &Fields<'_>) -> Result<HealthCheck, Flaw> {
        fields.only(FIELDS)?;
        let kind = kind(fields)?;
        meaningless(fields, kind)?;
        let default = HealthCheck::of(kind);
        let method = method(fields)?;
        let body = text(fields, "Body")?;
        let not_body = text(fields, "NotBody")?;
        if let Some(node) = fields.get("Body").or_else(|| fields.get("NotBody"))
            && method != "GET"
        {
            return Err(node.flaw(format!("the answer to {method} has no body to look at"), "remove Method or this"));
        }
        Ok(HealthCheck {
            kind,
            method,
            path: path(fields)?.unwrap_or(default.path),
            host: host(fields)?,
            expect: expect(fields)?.unwrap_or(default.expect),
            body,
            not_body,
            interval: limit(fields, "Interval", SHORTEST_INTERVAL..=LONGEST_INTERVAL)?.unwrap_or(default.interval),
            timeout: limit(fields, "Timeout", SHORTEST_TIMEOUT..=LONGEST_TIMEOUT)?.unwrap_or(default.timeout),
            rise: count(fields, "Rise")?.unwrap_or(default.rise),
            fall: count(fields, "Fall")?.unwrap_or(default.fall),
            port: match fields.get("Port") {
                Some(node) => u16::try_from(node.integer_within(1, 65_535)?).ok(),
                None => None,
            },
        })
    }
}

impl Checking {
    /// Reads the field `HealthCheck`.
    pub(super) fn decode(fields: &Fields<'_>) -> Result<Checking, Flaw> {
        let Some(node) = fields.get("HealthCheck") else { return Ok(Checking::Preset) };
        if node.text().starts_with(['t', 'f']) {
            return Ok(if node.boolean()? { Checking::Own(Arc::default()) } else { Checking::Off });
        }
        if !node.text().starts_with('{') {
            return Err(node.wrong(r#"true, false or an object like {"Path":"/healthz"}"#));
        }
        Ok(Checking::Own(Arc::new(HealthCheck::decode(&node.fields()?.ours())?)))
    }
}

fn kind(fields: &Fields<'_>) -> Result<CheckKind, Flaw> {
    let Some(node) = fields.get("Type") else { return Ok(CheckKind::default()) };
    match node.string()?.to_ascii_lowercase().as_str() {
        "" | "http" => Ok(CheckKind::Http),
        "tcp" => Ok(CheckKind::Tcp),
        "wordpress" => Ok(CheckKind::WordPress),
        other => {
            let hint = match nearest(other, &["http", "tcp", "wordpress"]) {
                Some(near) => format!("did you mean {near:?}?"),
                None => r#"write "http", "tcp" or "wordpress""#.into(),
            };
            Err(node.flaw(format!("unknown type {:?} of a health check", clip(other)), hint))
        }
    }
}

/// Refuses what the kind of check does not look at.
fn meaningless(fields: &Fields<'_>, kind: CheckKind) -> Result<(), Flaw> {
    let (name, without): (&str, &[&str]) = match kind {
        CheckKind::Http => return Ok(()),
        CheckKind::Tcp => ("tcp", &["Path", "Host", "Method", "Expect", "Body", "NotBody"]),
        CheckKind::WordPress => ("wordpress", &["Method", "Expect"]),
    };
    match without.iter().find_map(|field| fields.get(field)) {
        Some(node) => {
            let hint = format!(r#"remove it, or write "Type":"http" instead of "{name}""#);
            Err(node.flaw(format!("{} means nothing to a check of type {name}", node.name()), hint))
        }
        None => Ok(()),
    }
}

fn method(fields: &Fields<'_>) -> Result<String, Flaw> {
    let Some(node) = fields.get("Method") else { return Ok("GET".into()) };
    let method = node.string()?.to_ascii_uppercase();
    if matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS") {
        return Ok(method);
    }
    Err(node.flaw(format!("{:?} is no method for a check", clip(&method)), r#"write "GET", "HEAD" or "OPTIONS""#))
}

fn path(fields: &Fields<'_>) -> Result<Option<String>, Flaw> {
    let Some(node) = fields.get("Path") else { return Ok(None) };
    let path = node.string()?;
    let fits = path.starts_with('/') && path.len() <= LONGEST_TEXT && path.bytes().all(|byte| byte.is_ascii_graphic());
    if fits && !path.contains('#') {
        return Ok(Some(path));
    }
    let hint = r#"write it like "/healthz" or "/status?short", other characters percent-encoded"#;
    Err(node.flaw(format!("{:?} is no path", clip(&path)), hint))
}

fn host(fields: &Fields<'_>) -> Result<Option<String>, Flaw> {
    let Some(node) = fields.get("Host") else { return Ok(None) };
    let host = node.string()?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if host.is_empty() || host.len() > 253 || !host.bytes().all(fits) {
        return Err(node.flaw(format!("{:?} is no host", clip(&host)), "write the name as a client would send it"));
    }
    Ok(Some(host))
}

/// `200`, `"200-399"`, `"200,301-302"`, or a list of such.
fn expect(fields: &Fields<'_>) -> Result<Option<Vec<RangeInclusive<u16>>>, Flaw> {
    let Some(node) = fields.get("Expect") else { return Ok(None) };
    let mut ranges = Vec::new();
    if node.text().starts_with('[') {
        for item in node.items()? {
            statuses(&item, &mut ranges)?;
        }
    } else {
        statuses(&node, &mut ranges)?;
    }
    if ranges.is_empty() || ranges.len() > MOST_RANGES {
        return Err(node.flaw(format!("Expect has {} elements, not 1 to {MOST_RANGES}", ranges.len()), EXPECT_HINT));
    }
    Ok(Some(ranges))
}

fn statuses(node: &Node<'_>, ranges: &mut Vec<RangeInclusive<u16>>) -> Result<(), Flaw> {
    let text = if node.text().starts_with('"') { node.string()? } else { node.integer()?.to_string() };
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
        match (status(from), status(to)) {
            (Some(from), Some(to)) if from <= to => ranges.push(from..=to),
            _ => return Err(node.flaw(format!("{:?} is no status and no range of them", clip(part)), EXPECT_HINT)),
        }
    }
    Ok(())
}

fn text(fields: &Fields<'_>, name: &str) -> Result<Option<String>, Flaw> {
    let Some(node) = fields.get(name) else { return Ok(None) };
    let text = node.string()?;
    if text.is_empty() || text.len() > LONGEST_TEXT {
        let reason = format!("{} has {} bytes, not 1 to {LONGEST_TEXT}", node.name(), text.len());
        return Err(node.flaw(reason, "write a short piece of text that tells a good page from a bad one"));
    }
    Ok(Some(text))
}

fn limit(fields: &Fields<'_>, name: &str, within: RangeInclusive<Duration>) -> Result<Option<Duration>, Flaw> {
    let Some(node) = fields.get(name) else { return Ok(None) };
    let Some(duration) = node.duration()? else { return Ok(None) };
    if within.contains(&duration) {
        return Ok(Some(duration));
    }
    let shown = crate::duration::format;
    let hint = format!("choose a duration from {} to {}", shown(*within.start()), shown(*within.end()));
    Err(node.flaw(format!("{} is {}", node.name(), shown(duration)), hint))
}

fn count(fields: &Fields<'_>, name: &str) -> Result<Option<u32>, Flaw> {
    let Some(node) = fields.get(name) else { return Ok(None) };
    Ok(u32::try_from(node.integer_within(1, 100)?).ok())
}

const FIELDS: &[&str] =
    &["Type", "Path", "Host", "Method", "Expect", "Body", "NotBody", "Interval", "Timeout", "Rise", "Fall", "Port"];
const EXPECT_HINT: &str = r#"write it like "200-399", 200 or [200,"301-302"]"#;
const LONGEST_TEXT: usize = 1024;
const MOST_RANGES: usize = 32;
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(10);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Result<Checking, Flaw> {
        let whole = format!(r#"{{"HealthCheck":{json}}}"#);
        Checking::decode(&Node::parse(&whole).unwrap().fields().unwrap())
    }

    fn own(json: &str) -> HealthCheck {
        match decode(json).unwrap() {
            Checking::Own(check) => (*check).clone(),
            other => panic!("{json}: {other:?}"),
        }
    }

    #[test]
    fn short_forms() {
        assert_eq!(decode("null").unwrap(), Checking::Preset);
        assert_eq!(decode("false").unwrap(), Checking::Off);
        assert_eq!(own("true"), HealthCheck::default());
        assert_eq!(own("{}"), HealthCheck::default());
        assert_eq!(own(r#"{"Type":"wordpress"}"#), HealthCheck::of(CheckKind::WordPress));
    }

    #[test]
    fn every_field_in_any_case() {
        let json = r#"{"type":"http","PATH":"/h?x=1","host":"a.test:81","Method":"get","expect":[200,"301-302,404"],
            "body":"ok","NOT_BODY":"error","Interval":"300ms","timeout":"1s","RISE":1,"fall":9,"port":8081}"#;
        let check = own(json);
        assert_eq!((check.path.as_str(), check.host.as_deref()), ("/h?x=1", Some("a.test:81")));
        assert_eq!(check.expect, [200..=200, 301..=302, 404..=404]);
        assert_eq!((check.body.as_deref(), check.not_body.as_deref()), (Some("ok"), Some("error")));
        assert_eq!((check.interval, check.timeout), (Duration::from_millis(300), Duration::from_secs(1)));
        assert_eq!((check.rise, check.fall, check.port), (1, 9, Some(8081)));
    }

    #[test]
    fn flaws_name_place_and_remedy() {
        for (json, reason, hint) in [
            ("1", "HealthCheck must be true, false or an object", "write true, false"),
            (r#"{"Pfad":"/"}"#, "unknown field \"HealthCheck.Pfad\"", ""),
            (r#"{"Type":"tcpp"}"#, "unknown type \"tcpp\"", "did you mean \"tcp\"?"),
            (r#"{"Type":"tcp","Path":"/"}"#, "HealthCheck.Path means nothing to a check of type tcp", "remove it"),
            (r#"{"Type":"wordpress","Expect":200}"#, "HealthCheck.Expect means nothing", "remove it"),
            (r#"{"Path":"healthz"}"#, "\"healthz\" is no path", "write it like"),
            (r#"{"Path":"/a b"}"#, "\"/a b\" is no path", "write it like"),
            (r#"{"Host":"a b"}"#, "\"a b\" is no host", "write the name"),
            (r#"{"Method":"POST"}"#, "\"POST\" is no method for a check", "write"),
            (r#"{"Method":"HEAD","Body":"x"}"#, "the answer to HEAD has no body", "remove"),
            (r#"{"Expect":"399-200"}"#, "\"399-200\" is no status", "write it like"),
            (r#"{"Expect":[]}"#, "Expect has 0 elements", "write it like"),
            (r#"{"Expect":700}"#, "\"700\" is no status", "write it like"),
            (r#"{"Interval":"1ms"}"#, "HealthCheck.Interval is 1ms", "choose a duration from 100ms to 1h0m0s"),
            (r#"{"Timeout":"2m"}"#, "HealthCheck.Timeout is 2m0s", "choose a duration from 10ms to 1m0s"),
            (r#"{"Rise":0}"#, "HealthCheck.Rise is 0", "choose a number from 1 to 100"),
            (r#"{"Port":65536}"#, "HealthCheck.Port is 65536", "choose"),
            (r#"{"Body":""}"#, "HealthCheck.Body has 0 bytes", "write a short piece"),
        ] {
            let flaw = decode(json).unwrap_err();
            assert!(flaw.reason.starts_with(reason), "{json}: {}", flaw.reason);
            assert!(flaw.hint.starts_with(hint), "{json}: {}", flaw.hint);
            assert!(flaw.line == Some(1) && flaw.column.is_some_and(|column| column > 10), "{json}");
        }
    }
}
