//! What is written of a proxy, and what of it may be written over what is there. Pure.
//!
//! Ours are the fields that say where the proxy is and who it is; what an operator has put beside them (a weight, a
//! state) stays. A key under another lease is another proxy's, one without a lease an operator's.

use std::collections::BTreeMap;

use bytes::Bytes;
use etna_store::{Compare, Item, Key, LeaseId, Op};
use serde_json::{Map, Value, json};

use super::settings::Announce;

/// A key that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The proxy as a server of a backend.
    Server(Key),
    /// The proxy as one of those that follow a store.
    Member(Key),
}

impl Entry {
    /// How the key is spelled.
    pub(super) fn path(&self) -> String {
        match self {
            Entry::Server(key) | Entry::Member(key) => key.path(),
        }
    }
}

/// The proxy that is announced.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    zone: Option<String>,
    weight: Option<u32>,
    pid: String,
    started: u64,
}

/// What to do about a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It says what it should.
    Leave,
    /// Write it, if nobody else does first.
    Write(Compare, Op),
    /// It is not ours to write; why.
    Taken(String),
}

impl Proxy {
    /// This process.
    pub(super) fn new(announce: &Announce, zone: Option<String>) -> Proxy {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Proxy {
            zone,
            weight: announce.weight,
            pid: std::process::id().to_string(),
            started: since.map_or(0, |since| since.as_secs()),
        }
    }

    /// What becomes of a key that stands as `now`. `known`: this process has written it before, so that whatever else
    /// stands there was written by somebody else.
    pub(super) fn decide(
        &self,
        entry: &Entry,
        url: &str,
        draining: bool,
        now: Option<&Item>,
        lease: LeaseId,
        known: bool,
    ) -> Decision {
        let path = entry.path();
        let Some(item) = now else {
            if draining {
                return Decision::Leave;
            }
            let value = self.value(entry, url, draining, None);
            return Decision::Write(Compare::Absent(path.clone()), Op::Put(path, value, Some(lease)));
        };
        let before = object(&item.value);
        match item.lease {
            None => return Decision::Taken("the key was put by hand, without a lease".into()),
            Some(its) if its != lease || (known && self.is_foreign(entry, url, before.as_ref())) => {
                let who = before.as_ref().map_or_else(String::new, who);
                return Decision::Taken(format!("another proxy announces itself by that name{who}"));
            }
            Some(_) => {}
        }
        let value = self.value(entry, url, draining, before);
        if value == item.value {
            return Decision::Leave;
        }
        Decision::Write(Compare::Unchanged(path.clone(), item.revision), Op::Put(path, value, Some(lease)))
    }

    /// Whether a value names another process at another place.
    fn is_foreign(&self, entry: &Entry, url: &str, before: Option<&Fields>) -> bool {
        let Some(before) = before else { return false };
        let pid = match entry {
            Entry::Server(_) => before.get("meta").map(|(_, meta)| &meta["pid"]),
            Entry::Member(_) => before.get("pid").map(|(_, pid)| pid),
        };
        let other_pid = pid.and_then(Value::as_str).is_some_and(|pid| pid != self.pid);
        other_pid && before.get("url").is_some_and(|(_, there)| there != url)
    }

    fn value(&self, entry: &Entry, url: &str, draining: bool, before: Option<Fields>) -> Bytes {
        let mut fields = before.unwrap_or_default();
        // A state that an operator has set stays; one that this process or a former one has set when it was told to
        // stop does not.
        let ours = fields.get("meta").is_some_and(|(_, meta)| meta["leaving"] == "true");
        if draining || ours || matches!(entry, Entry::Member(_)) {
            fields.remove("state");
        }
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_lowercase(), (name.to_owned(), value));
            }
        };
        set("URL", Some(url.into()));
        set("Zone", self.zone.clone().map(Value::from));
        set("State", draining.then(|| "draining".into()));
        match entry {
            Entry::Server(_) => {
                let mut meta = json!({ "proxy": "etna", "version": VERSION, "pid": self.pid });
                if draining {
                    meta["leaving"] = "true".into();
                }
                set("Weight", self.weight.map(Value::from));
                set("Meta", Some(meta));
            }
            Entry::Member(_) => {
                set("Version", Some(VERSION.into()));
                set("Pid", Some(self.pid.as_str().into()));
                set("Started", Some(self.started.into()));
            }
        }
        let object: Map<String, Value> = fields.into_values().collect();
        Bytes::from(Value::Object(object).to_string())
    }
}

/// The fields of an object by their names in lower case, which is how they are read.
type Fields = BTreeMap<String, (String, Value)>;

fn object(value: &[u8]) -> Option<Fields> {
    let object: Map<String, Value> = serde_json::from_slice(value).ok()?;
    Some(object.into_iter().map(|(name, value)| (name.to_lowercase(), (name, value))).collect())
}

/// Who wrote a value, as far as it says.
fn who(fields: &Fields) -> String {
    let url = fields.get("url").and_then(|(_, url)| url.as_str()).unwrap_or_default();
    let meta = fields.get("meta").map(|(_, meta)| meta["pid"].clone());
    let pid = meta.or_else(|| fields.get("pid").map(|(_, pid)| pid.clone())).unwrap_or_default();
    let shown: String = url.chars().filter(|c| !c.is_control()).take(100).collect();
    let pid: String = pid.as_str().unwrap_or_default().chars().filter(char::is_ascii_digit).take(10).collect();
    match (shown.is_empty(), pid.is_empty()) {
        (true, _) => String::new(),
        (false, true) => format!(": {shown}"),
        (false, false) => format!(": {shown}, process {pid}"),
    }
}

/// The backend of proxies, where there is none: a connection tells whether one is there. More is not asked of it, since
/// whatever is asked may be a site's to answer; and one that accepts and does nothing loses its lease.
pub(super) fn backend(id: &str) -> Bytes {
    let value = json!({
        "Id": id,
        "Type": "http",
        // The tier behind knows how long its servers may take.
        "Settings": { "Timeouts": { "Read": "1h", "Dial": "2s" } },
        "HealthCheck": { "Type": "tcp", "Interval": "2s", "Timeout": "1s", "Rise": 2, "Fall": 2 },
    });
    Bytes::from(value.to_string())
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use etna_store::Revision;

    use super::*;

    const LEASE: LeaseId = LeaseId(7);
    const URL: &str = "http://10.0.0.1:8888";

    fn proxy() -> Proxy {
        let announce = Announce {
            id: "core-01".into(),
            store: None,
            backend: "cores".into(),
            url: None,
            ttl: Duration::from_secs(15),
            weight: None,
        };
        Proxy { pid: "42".into(), ..Proxy::new(&announce, Some("z".into())) }
    }

    fn server() -> Entry {
        Entry::Server(Key::Server("cores".into(), "core-01".into()))
    }

    fn item(value: &str, lease: Option<i64>) -> Item {
        Item { value: value.to_owned().into(), revision: Revision(3), lease: lease.map(LeaseId) }
    }

    fn written(decision: Decision) -> Value {
        let Decision::Write(_, Op::Put(_, value, Some(LEASE))) = decision else { panic!("{decision:?}") };
        let decoded = etna_store::Server::decode("s".into(), &value, &mut Vec::new());
        assert!(decoded.is_ok(), "{decoded:?}");
        serde_json::from_slice(&value).unwrap()
    }

    #[test]
    fn it_is_written_once_and_then_left() {
        for entry in [server(), Entry::Member(Key::proxy("core-01"))] {
            let decision = proxy().decide(&entry, URL, false, None, LEASE, false);
            let Decision::Write(Compare::Absent(path), Op::Put(key, value, Some(LEASE))) = decision else { panic!() };
            assert_eq!((&path, &key), (&entry.path(), &entry.path()));
            let there = item(std::str::from_utf8(&value).unwrap(), Some(7));
            assert_eq!(proxy().decide(&entry, URL, false, Some(&there), LEASE, true), Decision::Leave);
            let draining = written(proxy().decide(&entry, URL, true, Some(&there), LEASE, true));
            assert_eq!(draining["State"], "draining");
        }
    }

    #[test]
    fn who_goes_is_not_announced_anew() {
        assert_eq!(proxy().decide(&server(), URL, true, None, LEASE, false), Decision::Leave);
    }

    #[test]
    fn what_an_operator_says_stays_and_what_a_former_process_said_does_not() {
        let former = r#"{"url":"http://10.0.0.1:1","Weight":4,"State":"draining","Meta":{"pid":"41"}}"#;
        let now = written(proxy().decide(&server(), URL, false, Some(&item(former, Some(7))), LEASE, false));
        assert_eq!((&now["URL"], &now["url"]), (&json!(URL), &Value::Null));
        assert_eq!((&now["Weight"], &now["State"], &now["Zone"]), (&json!(4), &json!("draining"), &json!("z")));

        let leaving = r#"{"URL":"http://10.0.0.1:1","state":"draining","Meta":{"pid":"41","leaving":"true"}}"#;
        let now = written(proxy().decide(&server(), URL, false, Some(&item(leaving, Some(7))), LEASE, false));
        assert_eq!((&now["State"], &now["state"]), (&Value::Null, &Value::Null));
        assert_eq!(now["Meta"]["pid"], "42");
    }

    #[test]
    fn what_is_somebody_elses_is_not_touched() {
        let other = r#"{"URL":"http://10.0.0.2:1","Meta":{"pid":"43"}}"#;
        let taken = |item: &Item, known: bool| match proxy().decide(&server(), URL, false, Some(item), LEASE, known) {
            Decision::Taken(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(taken(&item(other, Some(8)), false).ends_with(": http://10.0.0.2:1, process 43"));
        assert!(taken(&item("\u{1b}no JSON", Some(8)), false).ends_with("that name"));
        assert!(taken(&item(other, None), false).contains("without a lease"));
        // Two processes on one lease: only one of them may go on.
        assert!(taken(&item(other, Some(7)), true).contains("process 43"));
        written(proxy().decide(&server(), URL, false, Some(&item(other, Some(7))), LEASE, false));
    }

    #[test]
    fn the_backend_is_served_as_written() {
        let mut flaws = Vec::new();
        let backend = etna_store::Backend::decode("cores".into(), &backend("cores"), &mut flaws).unwrap();
        assert!(flaws.is_empty());
        assert_eq!(backend.timeouts.read, Some(Duration::from_secs(3600)));
    }
}
