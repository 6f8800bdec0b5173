//! A server: one address in a backend; what the sidekick registers.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use super::{Id, some};
use crate::json::{self, Fields, Node, clip, nearest};
use crate::problem::Flaw;

/// `backends/<backend>/servers/<id>`.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// From the key.
    pub id: Id,
    /// From the URL.
    pub scheme: Scheme,
    /// Host name or address, without brackets around IPv6.
    pub host: String,
    /// From the URL, or the scheme's own.
    pub port: u16,
    /// Ours: share of the traffic, 0 to 256, default 1; 0 takes no requests at all.
    pub weight: u32,
    /// Ours: tier, lower is preferred, default 1. A higher tier serves only when no lower one can.
    pub priority: u32,
    /// Ours: where it stands, for preferring near ones.
    pub zone: Option<String>,
    /// Ours: `up` (default) or `draining`.
    pub state: ServerState,
    /// Ours: free text about it (container, image, host), shown and never acted on.
    pub meta: BTreeMap<String, String>,
}

/// What we speak to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP in the clear.
    Http,
    /// HTTP over TLS.
    Https,
}

/// Whether a server takes new work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerState {
    /// Takes requests.
    #[default]
    Up,
    /// Takes no new sessions, keeps its sticky ones, finishes what runs.
    Draining,
}

impl Server {
    /// Reads `backends/<backend>/servers/<id>`.
    pub fn decode(id: Id, value: &[u8], notes: &mut Vec<Flaw>) -> Result<Server, Flaw> {
        let text = json::text(value)?;
        let fields = Node::parse(&text)?.fields()?;
        let written = fields.required("URL", r#"an address like "URL":"http://10.0.0.1:5000""#)?;
        let node = fields.get("URL");
        let flaw = |reason: String, hint: &str| match &node {
            Some(node) => node.flaw(reason, hint),
            None => fields.flaw(reason, hint),
        };
        let url =
            Url::parse(&written).map_err(|(what, hint)| flaw(format!("URL {:?} {what}", clip(&written)), hint))?;
        if url.has_more {
            notes.push(flaw(
                format!("the path or query of the URL {:?} is not used", clip(&written)),
                "remove it; only scheme, host and port count, as in vulcand",
            ));
        }
        Ok(Server {
            id,
            scheme: url.scheme,
            host: url.host,
            port: url.port,
            weight: number(&fields, "Weight", 1, 256)?,
            priority: number(&fields, "Priority", 1, 65_535)?,
            zone: some(fields.string("Zone")?),
            state: state(&fields)?,
            meta: meta(&fields)?,
        })
    }

    /// Reads `upstreams/<backend>/endpoints/<id>` of vulcand up to 0.7: the bare URL.
    pub(crate) fn decode_legacy(id: Id, value: &[u8]) -> Result<Server, Flaw> {
        let text = json::text(value)?;
        let written = text.trim();
        let url =
            Url::parse(written).map_err(|(what, hint)| Flaw::new(format!("URL {:?} {what}", clip(written)), hint))?;
        Ok(Server {
            id,
            scheme: url.scheme,
            host: url.host,
            port: url.port,
            weight: 1,
            priority: 1,
            zone: None,
            state: ServerState::Up,
            meta: BTreeMap::new(),
        })
    }
}

struct Url {
    scheme: Scheme,
    host: String,
    port: u16,
    /// Whether there is a path other than `/`, or a query.
    has_more: bool,
}

impl Url {
    fn parse(text: &str) -> Result<Url, (&'static str, &'static str)> {
        const FORM: &str = "write it like http://10.0.0.1:5000 or http://[fd00::1]:5000";
        let (scheme, rest) = text.split_once("://").ok_or(("has no scheme", FORM))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(("has a scheme that is not http or https", FORM)),
        };
        let (authority, more) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(("has a user or password", "remove it; credentials do not belong into the store"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(("has an unclosed [", FORM))?;
                if host.parse::<Ipv6Addr>().is_err() {
                    return Err(("has no IPv6 address between [ and ]", FORM));
                }
                match port.strip_prefix(':') {
                    None if port.is_empty() => (host, ""),
                    None => return Err(("has something other than a port after ]", FORM)),
                    Some(port) => (host, port),
                }
            }
            None => authority.split_once(':').unwrap_or((authority, "")),
        };
        if host.is_empty() {
            return Err(("has no host", FORM));
        }
        let fits = |byte: u8| {
            byte.is_ascii_alphanumeric() || b".-_".contains(&byte) || (byte == b':' && authority.starts_with('['))
        };
        if host.len() > 253 || !host.bytes().all(fits) {
            return Err(("has a host that is neither a name nor an address", FORM));
        }
        let port = match (port, scheme) {
            ("", Scheme::Http) => 80,
            ("", Scheme::Https) => 443,
            (port, _) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().ok().filter(|port| *port > 0).ok_or(("has a port that is not from 1 to 65535", FORM))?
            }
            _ => return Err(("has a port that is not a number", FORM)),
        };
        Ok(Url { scheme, host: host.to_ascii_lowercase(), port, has_more: !matches!(more, "" | "/") })
    }
}

fn number(fields: &Fields<'_>, name: &str, default: u32, most: i64) -> Result<u32, Flaw> {
    let Some(node) = fields.get(name) else { return Ok(default) };
    Ok(u32::try_from(node.integer_within(0, most)?).unwrap_or(default))
}

fn state(fields: &Fields<'_>) -> Result<ServerState, Flaw> {
    let Some(node) = fields.get("State") else { return Ok(ServerState::Up) };
    match node.string()?.as_str() {
        "" | "up" => Ok(ServerState::Up),
        "draining" => Ok(ServerState::Draining),
        other => {
            let hint = match nearest(other, &["up", "draining"]) {
                Some(near) => format!("did you mean {near:?}?"),
                None => r#"write "up" or "draining""#.into(),
            };
            Err(node.flaw(format!("unknown state {:?}", clip(other)), hint))
        }
    }
}

fn meta(fields: &Fields<'_>) -> Result<BTreeMap<String, String>, Flaw> {
    let fields = fields.object("Meta")?;
    let mut meta = BTreeMap::new();
    for (name, node) in fields.all().filter(|(_, node)| !node.is_null()) {
        meta.insert(name.to_owned(), node.string()?);
        if meta.len() > MOST_META {
            return Err(node.flaw(format!("Meta has more than {MOST_META} fields"), "keep what people look at"));
        }
    }
    Ok(meta)
}

const MOST_META: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Result<Server, Flaw> {
        Server::decode("srv1".into(), json.as_bytes(), &mut Vec::new())
    }

    fn url(url: &str) -> Result<(Scheme, String, u16), String> {
        let server = decode(&format!(r#"{{"URL":"{url}"}}"#)).map_err(|flaw| flaw.reason)?;
        Ok((server.scheme, server.host, server.port))
    }

    #[test]
    fn vulcands_server() {
        let server = decode("{\"Id\":\"srv1\",\"URL\":\"http://10.0.0.1:5000\"}\n").unwrap();
        assert_eq!((server.host.as_str(), server.port), ("10.0.0.1", 5000));
        assert_eq!((server.weight, server.priority, server.state), (1, 1, ServerState::Up));
    }

    #[test]
    fn urls() {
        assert_eq!(url("HTTP://A.example").unwrap(), (Scheme::Http, "a.example".into(), 80));
        assert_eq!(url("https://a_b/").unwrap(), (Scheme::Https, "a_b".into(), 443));
        assert_eq!(url("http://[fd00::1]:81").unwrap(), (Scheme::Http, "fd00::1".into(), 81));
        assert_eq!(url("http://[::1]").unwrap(), (Scheme::Http, "::1".into(), 80));
        assert_eq!(url("http://a:/").unwrap().2, 80);
        for bad in [
            "",
            "/x",
            "a:80",
            "ftp://a",
            "http://",
            "http:///x",
            "http://:80",
            "http://u:p@a",
            "http://a b",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://a:http",
            "http://[::1",
            "http://[::1]x",
            "http://[a]",
            "http://::1",
            "http://a%20b",
            "http://é",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_is_not_used_and_said_so() {
        let mut notes = Vec::new();
        Server::decode("s".into(), br#"{"URL":"http://a:1/app?x"}"#, &mut notes).unwrap();
        assert_eq!(notes.len(), 1);
        assert_eq!(notes[0].column, Some(8));
    }

    #[test]
    fn our_additions() {
        let server = decode(
            r#"{"URL":"http://a","Weight":0,"priority":2,"Zone":"z","State":"draining","Meta":{"Image":"wp:6","n":null}}"#,
        )
        .unwrap();
        assert_eq!((server.weight, server.priority, server.state), (0, 2, ServerState::Draining));
        assert_eq!(server.zone.as_deref(), Some("z"));
        assert_eq!(server.meta, BTreeMap::from([("Image".into(), "wp:6".into())]));
    }

    #[test]
    fn flaws_name_place_and_remedy() {
        for (json, reason, hint) in [
            ("{}", "URL is missing", "write an address like"),
            (r#"{"URL":"http://a","Weight":257}"#, "Weight is 257", "choose a number from 0 to 256"),
            (r#"{"URL":"http://a","Weight":-1}"#, "Weight is -1", "choose"),
            (r#"{"URL":"http://a","State":"drainin"}"#, "unknown state", "did you mean \"draining\"?"),
            (r#"{"URL":"http://a","State":"gone"}"#, "unknown state", "write"),
            (r#"{"URL":"http://a","Meta":{"a":1}}"#, "Meta.a must be a string", ""),
            (r#"{"URL":"http://u@a"}"#, "URL \"http://u@a\" has a user or password", "remove it"),
        ] {
            let flaw = decode(json).unwrap_err();
            assert!(flaw.reason.starts_with(reason), "{json}: {}", flaw.reason);
            assert!(flaw.hint.starts_with(hint), "{json}: {}", flaw.hint);
        }
    }

    #[test]
    fn legacy_servers_are_bare_urls() {
        let server = Server::decode_legacy("e".into(), b"http://10.0.0.1:49153\n").unwrap();
        assert_eq!((server.host.as_str(), server.port), ("10.0.0.1", 49153));
        assert!(Server::decode_legacy("e".into(), b"10.0.0.1:49153").is_err());
    }
}
