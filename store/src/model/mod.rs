//! The stored objects, decoded: mutable, owned by the control loop.
//!
//! A value that cannot be decoded is a problem, and the last good version of its object stays. Several keys may spell
//! one object (vulcand's short forms, the layout of vulcand up to 0.7): the v3 key wins, and the other is a problem.
//! What a batch costs depends on the batch, not on how much the model holds.
//!
//! Not here: rules are not parsed, references are not followed, middlewares are not built. The proxy's table does that.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::engine::{Batch, Revision};
use crate::key::{self, Key};
use crate::object::{Backend, Frontend, Host, Id, Listener, Middleware, Server, Site};
use crate::problem::{Flaw, Problem};

mod decode;
mod legacy;
#[cfg(test)]
mod properties;
mod read;
mod resolve;
mod sites;
#[cfg(test)]
mod tests;

use decode::Good;
pub use decode::check;

/// What a batch may have changed, by name: what has to be compiled again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Frontends whose own value, or one of whose middlewares, came, went or changed; a site's derived ones too.
    pub frontends: BTreeSet<Id>,
    /// Backends whose value, or one of whose servers, came, went or changed.
    pub backends: BTreeSet<Id>,
    /// Listeners.
    pub listeners: BTreeSet<Id>,
    /// Hosts.
    pub hosts: BTreeSet<Id>,
    /// Keys below `acme/` and `tickets/`, which proxies share with each other.
    pub shared: BTreeSet<Id>,
    /// Whether the set of problems changed.
    pub problems: bool,
}

impl Delta {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Delta::default()
    }

    /// Adds what another batch changed.
    pub fn merge(&mut self, other: Delta) {
        if self.is_empty() {
            *self = other;
            return;
        }
        self.frontends.extend(other.frontends);
        self.backends.extend(other.backends);
        self.listeners.extend(other.listeners);
        self.hosts.extend(other.hosts);
        self.shared.extend(other.shared);
        self.problems |= other.problems;
    }
}

/// All objects of the keyspace.
#[derive(Default)]
pub struct Model {
    revision: Revision,
    hasher: RandomState,
    /// Every key that is stored, as it is spelled, but for those that proxies share with each other.
    records: BTreeMap<Box<[u8]>, Record>,
    /// The keys that spell an object otherwise than vulcand's v3 layout: object, then the key.
    aliases: BTreeSet<(Key, Alias)>,

    frontends: BTreeMap<Id, Arc<Frontend>>,
    middlewares: BTreeMap<(Id, Id), Arc<Middleware>>,
    backends: BTreeMap<Id, Arc<Backend>>,
    servers: BTreeMap<(Id, Id), Arc<Server>>,
    listeners: BTreeMap<Id, Arc<Listener>>,
    hosts: BTreeMap<Id, Arc<Host>>,
    sites: BTreeMap<Id, Arc<Site>>,
    /// Values below `acme/` and `tickets/`, by key.
    shared: BTreeMap<Id, Box<[u8]>>,

    /// By backend, the frontends that lead to it in whatever way.
    leading: BTreeMap<Id, BTreeSet<Id>>,
    /// Host name and site, for every site that names the host.
    claims: BTreeSet<(Id, Id)>,
    /// The frontends derived from a site.
    derived: BTreeMap<Id, Vec<Id>>,

    /// What is wrong with a value or a key.
    flaws: BTreeMap<Box<[u8]>, Vec<Problem>>,
    /// What is wrong between keys.
    conflicts: BTreeMap<Box<[u8]>, Vec<Problem>>,
}

/// What is remembered of a stored key.
struct Record {
    /// Of the value last seen, so that the same value is no change.
    hash: u64,
    /// The last version that could be read.
    good: Option<Good>,
}

/// A key that is not vulcand's v3 spelling of its object; short spellings come before the layout of vulcand up to 0.7.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Alias {
    legacy: bool,
    raw: Box<[u8]>,
}

impl Model {
    /// Applies one revision's changes. A revision lower than the one seen is applied all the same: whether to believe
    /// it is not decided here.
    pub fn apply(&mut self, batch: &Batch) -> Delta {
        let mut delta = Delta::default();
        for change in &batch.changes {
            match &change.value {
                Some(value) => self.put(&change.key, value, &mut delta),
                None => self.delete(&change.key, &mut delta),
            }
        }
        self.revision = batch.revision;
        delta
    }

    /// Makes the model equal to a snapshot, and says only what differs.
    pub fn replace(&mut self, snapshot: &Batch) -> Delta {
        if self.records.is_empty() && self.shared.is_empty() {
            return self.apply(snapshot);
        }
        let present: HashSet<&[u8]> =
            snapshot.changes.iter().filter(|change| change.value.is_some()).map(|change| &*change.key).collect();
        let gone: Vec<Box<[u8]>> = self.records.keys().filter(|raw| !present.contains(&***raw)).cloned().collect();
        let gone_shared: Vec<Id> =
            self.shared.keys().filter(|key| !present.contains(key.as_bytes())).cloned().collect();
        let mut delta = self.apply(snapshot);
        for raw in gone {
            self.delete(&raw, &mut delta);
        }
        for key in gone_shared {
            self.share(key, None, &mut delta);
        }
        delta
    }

    fn put(&mut self, raw: &[u8], value: &[u8], delta: &mut Delta) {
        let key = Key::parse(raw);
        let object = match &key {
            Ok(Key::Shared(path)) => return self.share(path.clone(), Some(value), delta),
            Ok(key) => key.object(),
            Err(_) => None,
        };
        let hash = self.hasher.hash_one(value);
        let is_new = match self.records.get_mut(raw) {
            Some(record) if record.hash == hash => return,
            Some(record) => {
                record.hash = hash;
                false
            }
            None => true,
        };
        let (key, object) = match (key, object) {
            (Ok(key), Some(object)) => (key, object),
            (unknown, _) => {
                if is_new {
                    self.records.insert(raw.into(), Record { hash, good: None });
                }
                if let Err(error) = unknown {
                    let problem = Flaw::new(error.to_string(), error.hint()).into_problem(key::show(raw), IGNORED);
                    self.tell_flaws(raw, vec![problem], delta);
                }
                return;
            }
        };
        let mut notes = Vec::new();
        let good = decode::decode(&self.known(key.clone()), value, &mut notes).map(|good| self.naming_known(good));
        let (good, flaw) = match good {
            Ok(good) => (Some(good), None),
            Err(flaw) => (None, Some(flaw)),
        };
        let had_good = if is_new {
            self.records.insert(raw.into(), Record { hash, good });
            false
        } else {
            let record = self.records.get_mut(raw);
            record.is_some_and(|record| {
                let had_good = record.good.is_some();
                record.good = good.or(record.good.take());
                had_good
            })
        };
        let problems = match flaw {
            None => notes.into_iter().map(|note| note.into_problem(key::show(raw), IGNORED)).collect(),
            Some(flaw) => {
                let effect = match &object {
                    _ if had_good => "last good version serves",
                    Key::Middleware(..) => "its frontend answers 503",
                    _ => IGNORED,
                };
                vec![flaw.into_problem(key::show(raw), effect)]
            }
        };
        self.tell_flaws(raw, problems, delta);
        if object.path().as_bytes() != raw {
            self.aliases.insert((object.clone(), Alias { legacy: key.is_legacy(), raw: raw.into() }));
        }
        self.resolve(&object, delta);
    }

    fn delete(&mut self, raw: &[u8], delta: &mut Delta) {
        if self.records.remove(raw).is_none() {
            if let Ok(Key::Shared(path)) = Key::parse(raw) {
                self.share(path, None, delta);
            }
            return;
        }
        self.tell_flaws(raw, Vec::new(), delta);
        self.tell_conflicts(raw, Vec::new(), delta);
        let Ok(key) = Key::parse(raw) else { return };
        let Some(object) = key.object() else { return };
        let alias = (object, Alias { legacy: key.is_legacy(), raw: raw.into() });
        self.aliases.remove(&alias);
        self.resolve(&alias.0, delta);
    }

    fn share(&mut self, key: Id, value: Option<&[u8]>, delta: &mut Delta) {
        if !(key.starts_with("acme/") || key.starts_with("tickets/")) {
            return;
        }
        let value = value.filter(|value| value.len() <= LARGEST_SHARED);
        let changed = match value {
            Some(value) => self.shared.insert(key.clone(), value.into()).as_deref() != Some(value),
            None => self.shared.remove(&key).is_some(),
        };
        if changed {
            delta.shared.insert(key);
        }
    }

    /// The key with the ids the model already holds, so that each is in memory once.
    fn known(&self, key: Key) -> Key {
        match key {
            Key::Frontend(id) => Key::Frontend(shared(&self.frontends, id)),
            Key::Backend(id) => Key::Backend(shared(&self.backends, id)),
            Key::Server(backend, id) => Key::Server(shared(&self.backends, backend), id),
            key => key,
        }
    }

    /// The same for the backend that a frontend names.
    fn naming_known(&self, mut good: Good) -> Good {
        if let Good::Frontend(frontend) = &mut good
            && let Some(frontend) = Arc::get_mut(frontend)
        {
            frontend.backend = shared(&self.backends, frontend.backend.clone());
        }
        good
    }

    fn tell_flaws(&mut self, raw: &[u8], problems: Vec<Problem>, delta: &mut Delta) {
        delta.problems |= tell(&mut self.flaws, raw, problems);
    }

    fn tell_conflicts(&mut self, raw: &[u8], problems: Vec<Problem>, delta: &mut Delta) {
        delta.problems |= tell(&mut self.conflicts, raw, problems);
    }
}

fn shared<V>(map: &BTreeMap<Id, V>, id: Id) -> Id {
    map.get_key_value(&*id).map_or(id, |(known, _)| known.clone())
}

/// Notes the problems of a key, and says whether that is news.
fn tell(map: &mut BTreeMap<Box<[u8]>, Vec<Problem>>, raw: &[u8], problems: Vec<Problem>) -> bool {
    if problems.is_empty() {
        return !map.is_empty() && map.remove(raw).is_some();
    }
    match map.get(raw) {
        Some(known) if *known == problems => false,
        _ => {
            map.insert(raw.into(), problems);
            true
        }
    }
}

const IGNORED: &str = "ignored";
/// Bytes of a value below `acme/` or `tickets/`; larger ones are none.
const LARGEST_SHARED: usize = 256 * 1024;
