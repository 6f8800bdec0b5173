//! What the sidekick writes: keys and values, spelled the same every time, so that equal means unchanged. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use etna_store::Key;
use etna_store::object::{Scheme, ServerState};
use serde::{Deserialize, Serialize};

use crate::wanted::{self, Member, Stage};

/// The machine this sidekick speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The whole id, shown with each server.
    pub id: String,
    /// Its eight letters or digits in the names of servers.
    short: String,
    /// What every server of this machine says about where it stands.
    pub zone: Option<String>,
}

impl Machine {
    /// A machine by its id: the first eight digits of a `/etc/machine-id`, a shorter plain name as it is, and of any
    /// other a hash, so that names with a common beginning stay apart.
    pub fn new(id: &str, zone: Option<String>) -> Machine {
        let id = id.trim();
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric());
        let hex32 = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let short = match id.get(..8) {
            Some(first) if hex32 => first.to_owned(),
            Some(_) if !plain || id.len() > 8 => format!("{:08x}", fnv1a(id)),
            _ if !plain => format!("{:08x}", fnv1a(id)),
            _ => id.to_owned(),
        };
        Machine { id: id.to_owned(), short, zone }
    }

    /// The name of a container's server: the same for as long as the container exists.
    pub fn server_id(&self, container: &str, port: u16) -> String {
        let cid: String = container.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        format!("{}-{cid}-{port}", self.short)
    }

    /// The container (its first twelve letters) if a key is that of a server of this machine.
    pub fn owns(&self, key: &[u8]) -> Option<String> {
        let Ok(Key::Server(_, id)) = Key::parse(key) else { return None };
        let (cid, port) = id.strip_prefix(self.short.as_str())?.strip_prefix('-')?.split_once('-')?;
        let whole = !cid.is_empty() && cid.len() <= 12 && cid.bytes().all(|b| b.is_ascii_alphanumeric());
        (whole && port.parse::<u16>().is_ok()).then(|| cid.to_owned())
    }
}

/// FNV-1a, 32 bits: to tell names apart, not to keep secrets.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// `backends/<backend>/servers/<id>`.
pub fn server_key(backend: &str, id: &str) -> String {
    Key::Server(backend.into(), id.into()).path()
}

/// `backends/<id>/backend`.
pub fn backend_key(id: &str) -> String {
    Key::Backend(id.into()).path()
}

/// `sites/<id>`.
pub fn site_key(id: &str) -> String {
    Key::Site(id.into()).path()
}

/// The value of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Server {
    /// `http://ADDRESS:PORT`.
    #[serde(rename = "URL")]
    pub url: String,
    /// Absent: 1.
    #[serde(skip_serializing_if = "is_one")]
    pub weight: u32,
    /// `draining`; absent: up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// machine, container, image, role, started, note.
    pub meta: BTreeMap<String, String>,
}

impl Server {
    /// The record of a member that has an address.
    pub fn of(member: &Member, machine: &Machine) -> Option<Server> {
        let mut meta = member.meta.clone();
        meta.insert("machine".into(), machine.id.clone());
        meta.insert("role".into(), member.role.name().into());
        Some(Server {
            url: format!("http://{}", member.address?),
            weight: member.weight,
            state: (member.stage == Stage::Draining).then(|| DRAINING.to_owned()),
            zone: machine.zone.clone(),
            meta,
        })
    }

    /// Reads a server, whoever wrote it; `None` for what is none.
    pub fn decode(value: &[u8]) -> Option<Server> {
        let server = etna_store::Server::decode("".into(), value, &mut Vec::new()).ok()?;
        let scheme = match server.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let host = if server.host.contains(':') { format!("[{}]", server.host) } else { server.host };
        Some(Server {
            url: format!("{scheme}://{host}:{}", server.port),
            weight: server.weight,
            state: (server.state == ServerState::Draining).then(|| DRAINING.to_owned()),
            zone: server.zone,
            meta: server.meta,
        })
    }

    /// Whether it says `draining`.
    pub fn drains(&self) -> bool {
        self.state.as_deref() == Some(DRAINING)
    }

    /// The same server, draining.
    pub fn draining(mut self) -> Server {
        self.state = Some(DRAINING.to_owned());
        self
    }

    /// Its value.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }
}

/// `State` of a server that takes no new work.
pub const DRAINING: &str = "draining";

fn is_one(weight: &u32) -> bool {
    *weight == 1
}

/// The value of a backend: vulcand's, with every default.
pub fn backend(id: &str) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Backend<'a> {
        id: &'a str,
        r#type: &'a str,
    }
    encode(&Backend { id, r#type: "http" })
}

/// The most hosts a sidekick gives one site: containers' claims never make a site too large to be read.
const HOSTS_MAX: usize = 100;

/// The value of a site as a sidekick writes it.
///
/// A site is a sidekick's as long as its value is byte for byte what a sidekick writes; who edits one, in however small
/// a way (an option, a line break), makes it his own, and no sidekick touches it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Site {
    hosts: Vec<String>,
    public: String,
    admin: String,
    preset: String,
}

impl Site {
    /// The site `id` with these hosts.
    pub fn new(id: &str, mut hosts: Vec<String>) -> Site {
        hosts.truncate(HOSTS_MAX);
        let (public, admin) = (wanted::public_backend(id), wanted::admin_backend(id));
        Site { hosts, public, admin, preset: "wordpress".into() }
    }

    /// Reads a value that a sidekick wrote; `None` if anybody else did.
    pub fn ours(id: &str, value: &[u8]) -> Option<Site> {
        let site: Site = serde_json::from_slice(value).ok()?;
        (site == Site::new(id, site.hosts.clone()) && site.encode() == value).then_some(site)
    }

    /// The same site with more hosts, the new ones last, as far as there is room; `None` if that changes nothing.
    pub fn with_hosts(&self, hosts: &[String]) -> Option<Site> {
        let mut site = self.clone();
        for host in hosts {
            if site.hosts.len() < HOSTS_MAX && !site.hosts.contains(host) {
                site.hosts.push(host.clone());
            }
        }
        (site != *self).then_some(site)
    }

    /// Its value.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }
}

fn encode(value: &impl Serialize) -> Bytes {
    // Strings, numbers and maps of strings always serialise.
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_servers() {
        let machine = Machine::new("0123456789abcdef0123456789abcdef\n", None);
        let cid = "fedcba9876543210fedcba9876543210";
        assert_eq!(machine.server_id(cid, 80), "01234567-fedcba987654-80");
        let key = server_key("blog-public", &machine.server_id(cid, 80));
        assert_eq!(key, "backends/blog-public/servers/01234567-fedcba987654-80");
        assert_eq!(machine.owns(key.as_bytes()).as_deref(), Some("fedcba987654"));
        for foreign in [
            "backends/b/servers/01234568-fedcba987654-80",
            "backends/b/servers/01234567-fedcba987654",
            "backends/b/servers/01234567-a-b-80",
            "backends/b/servers/01234567-fedcba987654-x",
            "backends/b/backend",
            "sites/01234567-fedcba987654-80",
        ] {
            assert_eq!(machine.owns(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn machines_with_a_common_beginning_stay_apart() {
        let (a, b) = (Machine::new("wordpress-host-1", None), Machine::new("wordpress-host-2", None));
        assert_ne!(a.server_id("abc", 80), b.server_id("abc", 80));
        assert_eq!(Machine::new("m1", None).server_id("abc", 80), "m1-abc-80");
        assert_eq!(b.owns(server_key("x", &a.server_id("abc", 80)).as_bytes()), None);
        let (short, long) = (Machine::new("core", None), Machine::new("core-1", None));
        assert_eq!(short.owns(server_key("x", &long.server_id("abc", 80)).as_bytes()), None);
    }

    #[test]
    fn a_site_is_a_sidekicks_until_somebody_edits_it() {
        let site = Site::new("blog", vec!["a.b".into()]);
        let text = r#"{"Hosts":["a.b"],"Public":"blog-public","Admin":"blog-admin","Preset":"wordpress"}"#;
        assert_eq!(site.encode(), text.as_bytes());
        assert_eq!(Site::ours("blog", text.as_bytes()), Some(site.clone()));
        for edited in [
            text.replace(':', ": "),
            text.replace("blog-admin", "other"),
            text.replace("\"Preset\"", "\"Ajax\":\"auto\",\"Preset\""),
            "{}".into(),
            String::new(),
        ] {
            assert_eq!(Site::ours("blog", edited.as_bytes()), None, "{edited}");
        }
        let more = site.with_hosts(&["c.d".into(), "a.b".into()]).unwrap();
        assert_eq!(more.hosts, ["a.b", "c.d"]);
        assert_eq!(more.with_hosts(&["c.d".into()]), None);
    }

    #[test]
    fn the_store_reads_what_is_written() {
        let mut notes = Vec::new();
        let site = Site::new("blog", (0..200).map(|i| format!("h{i}.b")).collect());
        let read = etna_store::Site::decode("blog".into(), &site.encode(), &mut notes).unwrap();
        assert_eq!(
            (read.hosts.len(), &*read.public, read.admin.as_deref()),
            (HOSTS_MAX, "blog-public", Some("blog-admin"))
        );
        assert_eq!(site.with_hosts(&["one.more".into()]), None);
        etna_store::Backend::decode("blog-public".into(), &backend("blog-public"), &mut notes).unwrap();
        for url in ["http://10.0.0.5:80", "http://[fd00::5]:8080"] {
            for state in [None, Some(DRAINING.to_owned())] {
                let meta = BTreeMap::from([("container".to_owned(), "wordpress-1".to_owned())]);
                let server = Server { url: url.into(), weight: 0, state, zone: Some("a".into()), meta };
                etna_store::Server::decode("s".into(), &server.encode(), &mut notes).unwrap();
                assert_eq!(Server::decode(&server.encode()), Some(server));
            }
        }
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!(Server::decode(b"{}"), None);
    }
}
