//! How keys are spelled: the only file that knows.
//!
//! Keys are below the prefix, without a leading slash, and are matched whole: `backends/b/servers/s1` is never found
//! by looking for `backends/b/servers/s`. Two layouts are read: vulcand's v3 one, in which we write, and the one of
//! vulcand up to 0.7. vulcand also takes `frontends/<id>`, `backends/<id>` and `hosts/<name>` for the objects whose
//! keys end in `/frontend`, `/backend` and `/host`; so do we.

use std::fmt;
use std::sync::Arc;

use crate::json::cut;
use crate::object::Id;

/// A key of the keyspace, below the prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `hosts/<name>/host`, read also as `hosts/<name>`
    Host(Id),
    /// `listeners/<id>`
    Listener(Id),
    /// `backends/<id>/backend`, read also as `backends/<id>`
    Backend(Id),
    /// `backends/<backend>/servers/<id>`
    Server(Id, Id),
    /// `frontends/<id>/frontend`, read also as `frontends/<id>`
    Frontend(Id),
    /// `frontends/<frontend>/middlewares/<id>`
    Middleware(Id, Id),
    /// `sites/<id>`
    Site(Id),
    /// `hosts/<host>/locations/<name>/path`, vulcand up to 0.7
    LegacyPath(Id, Id),
    /// `hosts/<host>/locations/<name>/upstream`, vulcand up to 0.7
    LegacyTarget(Id, Id),
    /// `hosts/<host>/locations/<name>/options`, vulcand up to 0.7
    LegacyOptions(Id, Id),
    /// `hosts/<host>/locations/<name>/middlewares/<type>/<id>`, vulcand up to 0.7
    LegacyMiddleware {
        /// The host.
        host: Id,
        /// The location's name.
        name: Id,
        /// The middleware's kind.
        kind: Id,
        /// The middleware's id.
        id: Id,
    },
    /// `hosts/<name>/options`, vulcand up to 0.7
    LegacyHostOptions(Id),
    /// `hosts/<name>/keypair`, vulcand up to 0.7
    LegacyKeyPair(Id),
    /// `hosts/<host>/listeners/<id>`, vulcand up to 0.7
    LegacyListener(Id, Id),
    /// `upstreams/<id>/options`, vulcand up to 0.7
    LegacyBackend(Id),
    /// `upstreams/<backend>/endpoints/<id>`, vulcand up to 0.7
    LegacyServer(Id, Id),
    /// Everything below `acme/`, `bans/`, `purges/`, `proxies/` and `tickets/`, which proxies share with each other,
    /// and vulcand's `autocert_cache/`: no object, and no mistake either.
    Shared(Id),
}

/// Why bytes are not a key of the keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not UTF-8.
    #[error("the key is not UTF-8")]
    NotUtf8,
    /// Longer than [`Key::LONGEST`].
    #[error("the key is longer than {} bytes", Key::LONGEST)]
    TooLong,
    /// A leading, trailing or double slash, or no key at all.
    #[error("the key has an empty segment")]
    EmptySegment,
    /// No layout has such a key.
    #[error("unknown key")]
    Unknown,
}

impl KeyError {
    /// What to do about it.
    pub fn hint(self) -> &'static str {
        match self {
            KeyError::NotUtf8 => "delete it; keys are UTF-8 text",
            KeyError::TooLong => "choose shorter ids",
            KeyError::EmptySegment => "remove the superfluous slash",
            KeyError::Unknown => {
                "objects live at hosts/<name>/host, listeners/<id>, backends/<id>/backend, backends/<id>/servers/<id>, \
                 frontends/<id>/frontend, frontends/<id>/middlewares/<id> and sites/<id>"
            }
        }
    }
}

impl Key {
    /// The longest key that is read, in bytes below the prefix.
    pub const LONGEST: usize = 512;

    /// Reads a key below the prefix. A short form is too long where the long one would be: every key that is read can
    /// be written.
    pub fn parse(raw: &[u8]) -> Result<Key, KeyError> {
        if raw.len() > Key::LONGEST {
            return Err(KeyError::TooLong);
        }
        let path = std::str::from_utf8(raw).map_err(|_| KeyError::NotUtf8)?;
        if path.split('/').any(str::is_empty) {
            return Err(KeyError::EmptySegment);
        }
        let mut segments = [""; MOST_SEGMENTS];
        let mut count = 0;
        for (place, segment) in segments.iter_mut().zip(path.split('/')) {
            *place = segment;
            count += 1;
        }
        let segments = &segments[..count];
        let id = |segment: &str| -> Id { Arc::from(segment) };
        let key = match segments {
            ["hosts", name] | ["hosts", name, "host"] => Key::Host(id(name)),
            ["listeners", listener] => Key::Listener(id(listener)),
            ["backends", backend] | ["backends", backend, "backend"] => Key::Backend(id(backend)),
            ["backends", backend, "servers", server] => Key::Server(id(backend), id(server)),
            ["frontends", frontend] | ["frontends", frontend, "frontend"] => Key::Frontend(id(frontend)),
            ["frontends", frontend, "middlewares", middleware] => Key::Middleware(id(frontend), id(middleware)),
            ["sites", site] => Key::Site(id(site)),
            ["hosts", host, "locations", name, "path"] => Key::LegacyPath(id(host), id(name)),
            ["hosts", host, "locations", name, "upstream"] => Key::LegacyTarget(id(host), id(name)),
            ["hosts", host, "locations", name, "options"] => Key::LegacyOptions(id(host), id(name)),
            ["hosts", host, "locations", name, "middlewares", kind, middleware] => {
                Key::LegacyMiddleware { host: id(host), name: id(name), kind: id(kind), id: id(middleware) }
            }
            ["hosts", host, "options"] => Key::LegacyHostOptions(id(host)),
            ["hosts", host, "keypair"] => Key::LegacyKeyPair(id(host)),
            ["hosts", host, "listeners", listener] => Key::LegacyListener(id(host), id(listener)),
            ["upstreams", backend, "options"] => Key::LegacyBackend(id(backend)),
            ["upstreams", backend, "endpoints", server] => Key::LegacyServer(id(backend), id(server)),
            ["acme" | "bans" | "purges" | "proxies" | "tickets" | "autocert_cache", _, ..] => Key::Shared(id(path)),
            _ => return Err(KeyError::Unknown),
        };
        let ending = match &key {
            Key::Host(_) => "/host",
            Key::Backend(_) => "/backend",
            Key::Frontend(_) => "/frontend",
            _ => "",
        };
        if segments.len() == 2 && raw.len() + ending.len() > Key::LONGEST {
            return Err(KeyError::TooLong);
        }
        Ok(key)
    }

    /// The key as it is written: what [`Key::parse`] reads. Of two spellings the one vulcand writes.
    pub fn path(&self) -> String {
        self.to_string()
    }

    /// What a proxy says of itself to those that follow the same store: `proxies/<id>`.
    pub fn proxy(id: &str) -> Key {
        Key::Shared(format!("{PROXIES}{id}").into())
    }

    /// The id of a proxy that says something of itself under this key. `proxies/release` is no proxy's: it is put to
    /// release suspects.
    pub fn as_proxy(&self) -> Option<&str> {
        let Key::Shared(path) = self else { return None };
        path.strip_prefix(PROXIES).filter(|id| !id.contains('/') && *id != RELEASE)
    }

    /// The other spelling under which this key is read.
    pub fn short_path(&self) -> Option<String> {
        match self {
            Key::Host(name) => Some(format!("hosts/{name}")),
            Key::Backend(id) => Some(format!("backends/{id}")),
            Key::Frontend(id) => Some(format!("frontends/{id}")),
            _ => None,
        }
    }

    /// The object this key says something about, by the key that object has in the v3 layout; `None` for what is no
    /// object. A location `l` of host `h` is the frontend `h.l`; a host's name is in lower case.
    pub fn object(&self) -> Option<Key> {
        Some(match self {
            Key::Listener(_) | Key::Backend(_) | Key::Server(..) => self.clone(),
            Key::Frontend(_) | Key::Middleware(..) | Key::Site(_) => self.clone(),
            Key::Host(name) | Key::LegacyHostOptions(name) | Key::LegacyKeyPair(name) => {
                Key::Host(name.to_lowercase().into())
            }
            Key::LegacyPath(host, name) | Key::LegacyTarget(host, name) | Key::LegacyOptions(host, name) => {
                Key::Frontend(legacy_frontend(host, name))
            }
            Key::LegacyMiddleware { host, name, id, .. } => Key::Middleware(legacy_frontend(host, name), id.clone()),
            Key::LegacyListener(_, id) => Key::Listener(id.clone()),
            Key::LegacyBackend(id) => Key::Backend(id.clone()),
            Key::LegacyServer(backend, id) => Key::Server(backend.clone(), id.clone()),
            Key::Shared(_) => return None,
        })
    }

    /// Whether only vulcand up to 0.7 writes it.
    pub fn is_legacy(&self) -> bool {
        match self {
            Key::Host(_) | Key::Listener(_) | Key::Backend(_) | Key::Server(..) => false,
            Key::Frontend(_) | Key::Middleware(..) | Key::Site(_) | Key::Shared(_) => false,
            Key::LegacyPath(..) | Key::LegacyTarget(..) | Key::LegacyOptions(..) => true,
            Key::LegacyMiddleware { .. } | Key::LegacyHostOptions(_) | Key::LegacyKeyPair(_) => true,
            Key::LegacyListener(..) | Key::LegacyBackend(_) | Key::LegacyServer(..) => true,
        }
    }

    /// Where the v3 keys of an object that has others below it live, with the slash: `backends/<id>/`.
    pub(crate) fn folder(&self) -> Option<String> {
        match self {
            Key::Backend(id) => Some(format!("backends/{id}/")),
            Key::Frontend(id) => Some(format!("frontends/{id}/")),
            _ => None,
        }
    }

    /// The same for the layout of vulcand up to 0.7.
    pub(crate) fn legacy_folder(&self) -> Option<String> {
        match self {
            Key::Backend(id) => Some(format!("upstreams/{id}/")),
            Key::LegacyPath(host, name) | Key::LegacyTarget(host, name) | Key::LegacyOptions(host, name) => {
                Some(format!("hosts/{host}/locations/{name}/"))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Host(name) => write!(f, "hosts/{name}/host"),
            Key::Listener(id) => write!(f, "listeners/{id}"),
            Key::Backend(id) => write!(f, "backends/{id}/backend"),
            Key::Server(backend, id) => write!(f, "backends/{backend}/servers/{id}"),
            Key::Frontend(id) => write!(f, "frontends/{id}/frontend"),
            Key::Middleware(frontend, id) => write!(f, "frontends/{frontend}/middlewares/{id}"),
            Key::Site(id) => write!(f, "sites/{id}"),
            Key::LegacyPath(host, name) => write!(f, "hosts/{host}/locations/{name}/path"),
            Key::LegacyTarget(host, name) => write!(f, "hosts/{host}/locations/{name}/upstream"),
            Key::LegacyOptions(host, name) => write!(f, "hosts/{host}/locations/{name}/options"),
            Key::LegacyMiddleware { host, name, kind, id } => {
                write!(f, "hosts/{host}/locations/{name}/middlewares/{kind}/{id}")
            }
            Key::LegacyHostOptions(name) => write!(f, "hosts/{name}/options"),
            Key::LegacyKeyPair(name) => write!(f, "hosts/{name}/keypair"),
            Key::LegacyListener(host, id) => write!(f, "hosts/{host}/listeners/{id}"),
            Key::LegacyBackend(id) => write!(f, "upstreams/{id}/options"),
            Key::LegacyServer(backend, id) => write!(f, "upstreams/{backend}/endpoints/{id}"),
            Key::Shared(path) => f.write_str(path),
        }
    }
}

/// The bytes of any key for people: what is not UTF-8 or not printable as `\xNN`, at most about 600 characters.
pub fn show(raw: &[u8]) -> String {
    let mut shown = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    shown.push_str(&format!("\\x{byte:02x}"));
                }
            } else {
                shown.push(character);
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
        if shown.len() > LONGEST_SHOWN {
            let end = cut(&shown, LONGEST_SHOWN).len();
            shown.truncate(end);
            shown.push('…');
            break;
        }
    }
    shown
}

fn legacy_frontend(host: &str, name: &str) -> Id {
    format!("{host}.{name}").into()
}

const PROXIES: &str = "proxies/";
const RELEASE: &str = "release";
/// One more than any key of objects has.
const MOST_SEGMENTS: usize = 8;
const LONGEST_SHOWN: usize = 600;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = Id> {
        "[^/]{1,12}".prop_map(Id::from)
    }

    fn key() -> impl Strategy<Value = Key> {
        prop_oneof![
            id().prop_map(Key::Host),
            id().prop_map(Key::Listener),
            id().prop_map(Key::Backend),
            (id(), id()).prop_map(|(a, b)| Key::Server(a, b)),
            id().prop_map(Key::Frontend),
            (id(), id()).prop_map(|(a, b)| Key::Middleware(a, b)),
            id().prop_map(Key::Site),
            (id(), id()).prop_map(|(a, b)| Key::LegacyPath(a, b)),
            (id(), id()).prop_map(|(a, b)| Key::LegacyTarget(a, b)),
            (id(), id()).prop_map(|(a, b)| Key::LegacyOptions(a, b)),
            (id(), id(), id(), id()).prop_map(|(host, name, kind, id)| Key::LegacyMiddleware { host, name, kind, id }),
            id().prop_map(Key::LegacyHostOptions),
            id().prop_map(Key::LegacyKeyPair),
            (id(), id()).prop_map(|(a, b)| Key::LegacyListener(a, b)),
            id().prop_map(Key::LegacyBackend),
            (id(), id()).prop_map(|(a, b)| Key::LegacyServer(a, b)),
            id().prop_map(|rest| Key::Shared(format!("acme/{rest}").into())),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(key in key()) {
            prop_assert_eq!(Key::parse(key.path().as_bytes()), Ok(key));
        }

        #[test]
        fn any_bytes_are_a_key_or_an_error(raw in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Key::parse(&raw);
            prop_assert!(!show(&raw).chars().any(char::is_control));
        }
    }

    #[test]
    fn short_spellings_mean_the_same_object() {
        assert_eq!(Key::parse(b"frontends/f"), Ok(Key::Frontend("f".into())));
        assert_eq!(Key::parse(b"backends/b"), Ok(Key::Backend("b".into())));
        assert_eq!(Key::parse(b"hosts/h"), Ok(Key::Host("h".into())));
        for (folder, ending) in [("hosts/", "/host"), ("backends/", "/backend"), ("frontends/", "/frontend")] {
            let longest = format!("{folder}{}", "x".repeat(Key::LONGEST - folder.len() - ending.len()));
            assert!(Key::parse(longest.as_bytes()).is_ok());
            assert_eq!(Key::parse(format!("{longest}x").as_bytes()), Err(KeyError::TooLong));
        }
    }

    #[test]
    fn other_spellings_and_proxies_are_read_as_written() {
        for key in [Key::Host("h".into()), Key::Backend("b".into()), Key::Frontend("f".into())] {
            let short = key.short_path().unwrap();
            assert_eq!((Key::parse(short.as_bytes()), short != key.path()), (Ok(key), true));
        }
        let proxy = Key::proxy("core-01");
        assert_eq!((proxy.path().as_str(), proxy.as_proxy()), ("proxies/core-01", Some("core-01")));
        assert_eq!(Key::parse(proxy.path().as_bytes()), Ok(proxy));
        for other in ["proxies/a/b", "proxies/release", "acme/a"] {
            assert_eq!(Key::parse(other.as_bytes()).unwrap().as_proxy(), None, "{other}");
        }
    }

    #[test]
    fn keys_are_matched_whole() {
        for raw in ["sites", "sites/a/b", "listeners/l/x", "backends/b/servers", "frontends/f/middlewares/m/x", "acme"]
        {
            assert_eq!(Key::parse(raw.as_bytes()), Err(KeyError::Unknown), "{raw}");
        }
        for raw in ["", "/sites/a", "sites/", "sites//a", "acme/"] {
            assert_eq!(Key::parse(raw.as_bytes()), Err(KeyError::EmptySegment), "{raw}");
        }
        assert_eq!(Key::parse(b"sites/\xff"), Err(KeyError::NotUtf8));
        assert_eq!(Key::parse(&[b'a'; 513]), Err(KeyError::TooLong));
    }

    #[test]
    fn strange_bytes_are_shown() {
        assert_eq!(show(b"sites/\xff\n"), "sites/\\xff\\x0a");
        assert!(show(&vec![b'a'; 100_000]).len() < 100_100);
    }
}
