//! How a backend chooses among its servers: policy, what is hashed, limit and queue. Ours, so read strictly.

use std::time::Duration;

use crate::json::{Fields, Node, clip, nearest};
use crate::problem::Flaw;

/// How a backend chooses among its servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// `wrr`: weighted round robin, interleaved.
    #[default]
    WeightedRoundRobin,
    /// `p2c`: of two servers drawn at random by weight, the one with fewer requests in flight per weight.
    PowerOfTwoChoices,
    /// `ewma`: of two drawn at random by weight, the one with the lesser product of recent peak latency and requests
    /// in flight, per weight.
    PeakEwma,
    /// `hash`: the same server for the same key, by rendezvous hashing; see [`HashOn`].
    Hash,
}

/// What the policy `hash` goes by (`HashOn`). A request that has no such thing takes its turn as with `wrr`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashOn {
    /// `client` (default): the client's address, as trusted proxies tell it.
    #[default]
    Client,
    /// `path`: the path as written, without the query.
    Path,
    /// `header:NAME`: the first value of a header field; in lower case.
    Header(String),
    /// `cookie:NAME`: the first value of a cookie.
    Cookie(String),
}

/// How much a backend gives its servers at once (`Limit`). Written `150` or
/// `{"Requests":150,"Queue":100,"Wait":"1s"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Requests that one proxy has at one server at the same time, tunnels included; from 1.
    pub requests: u32,
    /// Requests of the backend that wait for a server in one proxy; default 100, 0: none waits.
    pub queue: u32,
    /// How long one waits before it is answered 503; default 1 s.
    pub wait: Duration,
}

impl Policy {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Policy::WeightedRoundRobin => "wrr",
            Policy::PowerOfTwoChoices => "p2c",
            Policy::PeakEwma => "ewma",
            Policy::Hash => "hash",
        }
    }

    pub(super) fn decode(fields: &Fields<'_>) -> Result<Policy, Flaw> {
        let Some(node) = fields.get("Policy") else { return Ok(Policy::default()) };
        match node.string()?.as_str() {
            "" | "wrr" => Ok(Policy::WeightedRoundRobin),
            "p2c" => Ok(Policy::PowerOfTwoChoices),
            "ewma" => Ok(Policy::PeakEwma),
            "hash" => Ok(Policy::Hash),
            other => {
                let hint = match nearest(other, &["wrr", "p2c", "ewma", "hash"]) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => concat!(
                        r#"write "wrr" (weighted round robin), "p2c" (power of two choices), "#,
                        r#""ewma" (least latency) or "hash" (same key, same server)"#
                    )
                    .into(),
                };
                Err(node.flaw(format!("unknown policy {:?}", clip(other)), hint))
            }
        }
    }
}

impl HashOn {
    /// As it is written.
    pub fn text(&self) -> String {
        match self {
            HashOn::Client => "client".into(),
            HashOn::Path => "path".into(),
            HashOn::Header(name) => format!("header:{name}"),
            HashOn::Cookie(name) => format!("cookie:{name}"),
        }
    }

    pub(super) fn decode(fields: &Fields<'_>) -> Result<HashOn, Flaw> {
        const HINT: &str = r#"write "client", "path", "header:X-Tenant" or "cookie:name""#;
        let Some(node) = fields.get("HashOn") else { return Ok(HashOn::default()) };
        let text = node.string()?;
        let name = |name: &str| {
            if is_token(name) {
                return Ok(name.to_owned());
            }
            Err(node.flaw(format!("HashOn {:?} names no header or cookie", clip(&text)), HINT))
        };
        match text.split_once(':') {
            None if text.is_empty() || text == "client" => Ok(HashOn::Client),
            None if text == "path" => Ok(HashOn::Path),
            Some(("header", header)) => Ok(HashOn::Header(name(header)?.to_ascii_lowercase())),
            Some(("cookie", cookie)) => Ok(HashOn::Cookie(name(cookie)?)),
            _ => Err(node.flaw(format!("HashOn {:?} is not known", clip(&text)), HINT)),
        }
    }
}

impl Limit {
    pub(super) fn decode(fields: &Fields<'_>) -> Result<Option<Limit>, Flaw> {
        let Some(node) = fields.get("Limit") else { return Ok(None) };
        if !node.text().starts_with('{') {
            let limit = Limit { requests: number(&node, 1)?, queue: DEFAULT_QUEUE, wait: DEFAULT_WAIT };
            return Ok(Some(limit));
        }
        let fields = node.fields()?.ours();
        fields.only(&["Requests", "Queue", "Wait"])?;
        let Some(requests) = fields.get("Requests") else {
            return Err(node.flaw("Limit.Requests is missing", r#"write {"Requests":150}"#));
        };
        Ok(Some(Limit {
            requests: number(&requests, 1)?,
            queue: fields.get("Queue").map_or(Ok(DEFAULT_QUEUE), |queue| number(&queue, 0))?,
            wait: fields.duration("Wait")?.unwrap_or(DEFAULT_WAIT),
        }))
    }
}

/// A duration of ours with its default.
pub(super) fn duration(fields: &Fields<'_>, name: &str, default: Duration) -> Result<Duration, Flaw> {
    Ok(fields.duration(name)?.unwrap_or(default))
}

fn number(node: &Node<'_>, least: i64) -> Result<u32, Flaw> {
    Ok(u32::try_from(node.integer_within(least, MOST)?).unwrap_or(1))
}

/// The token of RFC 9110, section 5.6.2, as long as a name sensibly is.
fn is_token(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(fits)
}

/// How long a server that is new to a backend takes to its full share, where nothing is said.
pub(super) const DEFAULT_SLOW_START: Duration = Duration::from_secs(10);
/// How long a draining server keeps its sticky clients, where nothing is said.
pub(super) const DEFAULT_DRAIN: Duration = Duration::from_secs(5 * 60);
const DEFAULT_QUEUE: u32 = 100;
const DEFAULT_WAIT: Duration = Duration::from_secs(1);
const MOST: i64 = 1_000_000;
const LONGEST_NAME: usize = 128;

#[cfg(test)]
mod tests {
    use crate::object::{Backend, HashOn, Limit, Policy};
    use crate::problem::Flaw;
    use std::time::Duration;

    fn decode(more: &str) -> Result<Backend, Flaw> {
        Backend::decode("b".into(), format!(r#"{{"Type":"http",{more}}}"#).as_bytes(), &mut Vec::new())
    }

    #[test]
    fn policies_and_what_they_hash() {
        for (written, policy, on) in [
            (r#""Policy":"ewma""#, Policy::PeakEwma, HashOn::Client),
            (r#""Policy":"hash""#, Policy::Hash, HashOn::Client),
            (r#""Policy":"hash","HashOn":"path""#, Policy::Hash, HashOn::Path),
            (r#""Policy":"hash","HashOn":"header:X-Tenant""#, Policy::Hash, HashOn::Header("x-tenant".into())),
            (r#""Policy":"hash","HashOn":"cookie:Sid""#, Policy::Hash, HashOn::Cookie("Sid".into())),
        ] {
            let backend = decode(written).unwrap();
            assert_eq!((backend.policy, backend.hash_on.clone()), (policy, on), "{written}");
            assert!(written.contains(policy.name()));
        }
    }

    #[test]
    fn limits_have_a_queue() {
        let limit = |requests, queue, ms| Some(Limit { requests, queue, wait: Duration::from_millis(ms) });
        assert_eq!(decode(r#""Limit":150"#).unwrap().limit, limit(150, 100, 1000));
        assert_eq!(decode(r#""Limit":{"Requests":1,"queue":0,"Wait":"50ms"}"#).unwrap().limit, limit(1, 0, 50));
        assert_eq!(decode(r#""Limit":null"#).unwrap().limit, None);
    }

    #[test]
    fn times_of_servers_that_come_and_go() {
        let backend = decode(r#""SlowStart":"0s","DrainTimeout":"1m""#).unwrap();
        assert_eq!((backend.slow_start, backend.drain), (Duration::ZERO, Duration::from_secs(60)));
        let backend = decode(r#""Policy":"wrr""#).unwrap();
        assert_eq!((backend.slow_start, backend.drain), (Duration::from_secs(10), Duration::from_secs(300)));
    }

    #[test]
    fn flaws_name_place_and_remedy() {
        for (written, reason, hint) in [
            (r#""Policy":"hahs""#, r#"unknown policy "hahs""#, r#"did you mean "hash"?"#),
            (r#""HashOn":"ip""#, r#"HashOn "ip" is not known"#, "write"),
            (r#""HashOn":"header:""#, r#"HashOn "header:" names no header"#, "write"),
            (r#""HashOn":"cookie:a b""#, r#"HashOn "cookie:a b" names no header"#, "write"),
            (r#""Limit":0"#, "Limit is 0", "choose a number from 1"),
            (r#""Limit":{"Queue":1}"#, "Limit.Requests is missing", "write"),
            (r#""Limit":{"Requests":1,"Length":1}"#, r#"unknown field "Limit.Length""#, "known are"),
            (r#""SlowStart":"10""#, "SlowStart is a number without a unit", "write"),
        ] {
            let flaw = decode(written).unwrap_err();
            assert!(flaw.reason.starts_with(reason), "{written}: {}", flaw.reason);
            assert!(flaw.hint.starts_with(hint), "{written}: {}", flaw.hint);
        }
    }
}
