//! Whether a deletion is believed: what vanishes in a mass is held as suspect and serves on for a while.
//!
//! A mass is more than half of a backend's servers and at least three of them within ten seconds, a whole backend of
//! two or more within two, or more than 30 % of all objects and at least three (or all, and at least two) in one step.
//! Servers that are `draining` had announced that they go; a backend that no frontend leads to harms nobody. Pure: the
//! clock is an argument. Not here: asking servers whether they still answer (`probe.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etna_store::object::{Id, ServerState};
use etna_store::{Batch, Change, Delta, Key, Model};

/// The pairs in force, and which of them the store no longer has.
pub struct Suspects {
    /// How long a suspect serves on; zero believes everything.
    hold: Duration,
    /// What the model shows: what is stored, and what is held.
    pairs: Pairs,
    held: BTreeMap<Bytes, Held>,
    held_servers: BTreeSet<(Id, Id)>,
    cases: BTreeMap<u64, Case>,
    last_case: u64,
    /// How many servers a backend had before its latest losses.
    counts: HashMap<Id, VecDeque<(Instant, usize)>>,
    /// The value of [`RELEASE`] last seen; `None` before the first look.
    release: Option<Option<Bytes>>,
    changed: bool,
    /// Keys ever held.
    total: u64,
}

/// Keys and values as they are stored. Cloning costs nothing.
pub type Pairs = imbl::OrdMap<Bytes, Bytes>;

struct Held {
    case: u64,
    server: Option<(Id, Id)>,
    /// Probes in a row that failed.
    failures: u32,
}

/// What vanished together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What it was.
    pub what: What,
    /// When it vanished.
    pub since: Instant,
    /// When it is believed; `None`: not by time, because the store's history was replaced and nobody deleted anything.
    pub until: Option<Instant>,
    /// Keys that are still held.
    pub keys: usize,
    /// One of them.
    pub example: Bytes,
}

/// Why a case was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Servers of one backend.
    Servers {
        /// The backend.
        backend: Id,
        /// Servers gone within the time that is looked at.
        gone: usize,
        /// Servers there were.
        of: usize,
    },
    /// Objects of every kind.
    Objects {
        /// Frontends, backends, sites, listeners and hosts gone in one step.
        gone: usize,
        /// As many as there were, or more than were needed to decide.
        of: usize,
    },
    /// Held before this process started.
    Earlier,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            What::Servers { backend, gone, of } => write!(f, "{gone} of {of} servers of backend {backend:?} vanished"),
            What::Objects { gone, of } => write!(f, "{gone} of at least {of} objects vanished at once"),
            What::Earlier => f.write_str("vanished before this process started"),
        }
    }
}

impl Suspects {
    /// Nothing stored, nothing held; zero for `hold` believes every deletion at once.
    pub fn new(hold: Duration) -> Suspects {
        Suspects {
            hold,
            pairs: Pairs::new(),
            held: BTreeMap::new(),
            held_servers: BTreeSet::new(),
            cases: BTreeMap::new(),
            last_case: 0,
            counts: HashMap::new(),
            release: None,
            changed: false,
            total: 0,
        }
    }

    /// What the model shows.
    pub fn pairs(&self) -> &Pairs {
        &self.pairs
    }

    /// What is held, the oldest case first.
    pub fn cases(&self) -> impl Iterator<Item = &Case> {
        self.cases.values()
    }

    /// The keys that are held.
    pub fn held(&self) -> impl Iterator<Item = (&Bytes, Option<&Case>)> {
        self.held.iter().map(|(key, held)| (key, self.cases.get(&held.case)))
    }

    /// Keys ever held.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether what is held changed since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Takes up what an earlier process served: into the model as it is, with the time each suspect still has.
    pub fn restore(
        &mut self,
        model: &mut Model,
        batch: &Batch,
        held: &[(Bytes, Option<Duration>)],
        now: Instant,
    ) -> Delta {
        for change in &batch.changes {
            if let Some(value) = &change.value {
                self.pairs.insert(change.key.clone(), value.clone());
            }
        }
        let delta = model.apply(batch);
        let mut by_time: BTreeMap<Option<Duration>, Vec<Bytes>> = BTreeMap::new();
        for (key, left) in held.iter().filter(|(key, _)| !self.hold.is_zero() && self.pairs.contains_key(key)) {
            by_time.entry(left.map(|left| left.min(self.hold))).or_default().push(key.clone());
        }
        for (left, keys) in by_time {
            self.open(What::Earlier, keys, left.map(|left| now + left), now);
        }
        delta
    }

    /// What has to change so that what is stored is this snapshot. What is held and still missing is no change.
    pub fn diff(&mut self, snapshot: &Batch) -> Batch {
        let mut changes = Vec::new();
        let mut present: HashSet<&[u8]> = HashSet::with_capacity(snapshot.changes.len());
        let first_look = self.release.is_none();
        let release = self.release.get_or_insert(None);
        for change in &snapshot.changes {
            let Some(value) = &change.value else { continue };
            if &*change.key == RELEASE {
                if first_look {
                    *release = Some(value.clone());
                } else if release.as_ref() != Some(value) {
                    changes.push(change.clone());
                }
                continue;
            }
            present.insert(&change.key);
            let known = self.pairs.get(&change.key) == Some(value) && !self.held.contains_key(&change.key);
            if !known && !is_shared(&change.key) {
                changes.push(change.clone());
            }
        }
        let gone = self.pairs.keys().filter(|key| !present.contains(&***key) && !self.held.contains_key(*key));
        changes.extend(gone.map(|key| Change { key: key.clone(), value: None }));
        Batch { revision: snapshot.revision, changes }
    }

    /// Brings one step of the store into the model, but for what is held. `replaced` says that the store's history is
    /// another one than before, so that nobody deleted what is missing.
    pub fn apply(&mut self, model: &mut Model, batch: &Batch, now: Instant, replaced: bool) -> Delta {
        let last: BTreeMap<&Bytes, &Option<Bytes>> =
            batch.changes.iter().map(|change| (&change.key, &change.value)).collect();
        let mut forced = false;
        let mut puts = Batch { revision: batch.revision, changes: Vec::new() };
        let mut gone = Vec::new();
        for (key, value) in last {
            if &**key == RELEASE {
                forced |= value.is_some();
                self.release = Some(value.clone());
            } else if let Some(value) = value {
                if !is_shared(key) {
                    self.forget(key);
                    self.pairs.insert(key.clone(), value.clone());
                    puts.changes.push(Change { key: key.clone(), value: Some(value.clone()) });
                }
            } else if self.pairs.contains_key(key) && !self.held.contains_key(key) {
                gone.push(key.clone());
            }
        }
        let mut delta = model.apply(&puts);
        if forced {
            gone.extend(self.held.keys().cloned());
        } else if !self.hold.is_zero() && !gone.is_empty() {
            gone = self.judge(model, gone, now, replaced, &mut delta);
        }
        delta.merge(self.let_go(model, &gone));
        delta
    }

    /// Believes that these keys are gone.
    pub fn let_go(&mut self, model: &mut Model, keys: &[Bytes]) -> Delta {
        let deletes = keys.iter().map(|key| Change { key: key.clone(), value: None });
        let batch = Batch { revision: model.revision(), changes: deletes.collect() };
        for key in keys {
            self.forget(key);
            self.pairs.remove(key);
        }
        if keys.is_empty() { Delta::default() } else { model.apply(&batch) }
    }

    /// Believes everything.
    pub fn release(&mut self, model: &mut Model) -> Delta {
        let keys: Vec<Bytes> = self.held.keys().cloned().collect();
        self.let_go(model, &keys)
    }

    /// Believes what was held long enough.
    pub fn expire(&mut self, model: &mut Model, now: Instant) -> Delta {
        self.counts.retain(|_, counts| counts.back().is_some_and(|(at, _)| now.duration_since(*at) < WINDOW));
        let over = |case: &Case| case.until.is_some_and(|until| until <= now);
        if !self.cases.values().any(over) {
            return Delta::default();
        }
        let keys = self.held.iter().filter(|(_, held)| self.cases.get(&held.case).is_some_and(over));
        let keys: Vec<Bytes> = keys.map(|(key, _)| key.clone()).collect();
        self.let_go(model, &keys)
    }

    /// The servers that are held, by key: who has to answer.
    pub fn servers(&self) -> impl Iterator<Item = (&Bytes, &(Id, Id))> {
        self.held.iter().filter_map(|(key, held)| Some((key, held.server.as_ref()?)))
    }

    /// Notes whether a held server answered, and says whether it has failed to often enough to be believed gone.
    pub fn answered(&mut self, key: &Bytes, answered: bool) -> bool {
        let Some(held) = self.held.get_mut(key) else { return false };
        held.failures = if answered { 0 } else { held.failures + 1 };
        held.failures >= FAILURES
    }

    /// Holds what must not be believed, and gives back the rest.
    fn judge(
        &mut self,
        model: &mut Model,
        gone: Vec<Bytes>,
        now: Instant,
        replaced: bool,
        delta: &mut Delta,
    ) -> Vec<Bytes> {
        let until = (!replaced).then(|| now + self.hold);
        let objects: Vec<(Bytes, Option<Key>)> =
            gone.into_iter().map(|key| (key.clone(), Key::parse(&key).ok().and_then(|key| key.object()))).collect();
        if let Some(what) = self.is_mass(model, &objects) {
            self.open(what, objects.into_iter().map(|(key, _)| key).collect(), until, now);
            return Vec::new();
        }
        let mut believed = Vec::new();
        let mut losing: BTreeMap<Id, Vec<(Bytes, Id)>> = BTreeMap::new();
        for (key, object) in objects {
            match object {
                Some(Key::Server(backend, id)) if is_up(model, &backend, &id) => {
                    losing.entry(backend).or_default().push((key, id));
                }
                _ => believed.push(key),
            }
        }
        // First, because a backend that no frontend leads to any more loses nothing.
        delta.merge(self.let_go(model, &believed));
        believed.clear();
        for (backend, servers) in losing {
            let led_to = model.frontends_of(&backend).next().is_some();
            match self.loss(model, &backend, servers.len(), now).filter(|_| led_to) {
                Some(what) => self.open(what, servers.into_iter().map(|(key, _)| key).collect(), until, now),
                None => believed.extend(servers.into_iter().map(|(key, _)| key)),
            }
        }
        believed
    }

    /// Whether so many servers less is a mass, for this backend.
    fn loss(&mut self, model: &Model, backend: &Id, going: usize, now: Instant) -> Option<What> {
        let present = model
            .servers(backend)
            .filter(|server| server.state == ServerState::Up)
            .filter(|server| {
                self.held_servers.is_empty() || !self.held_servers.contains(&(backend.clone(), server.id.clone()))
            })
            .count();
        let counts = self.counts.entry(backend.clone()).or_default();
        counts.retain(|(at, _)| now.duration_since(*at) < WINDOW);
        // Only what is greater than all that came later can ever be the most.
        while counts.back().is_some_and(|(_, count)| *count <= present) {
            counts.pop_back();
        }
        counts.push_back((now, present));
        let most = |within: Duration| {
            let recent = counts.iter().filter(|(at, _)| now.duration_since(*at) <= within);
            recent.map(|(_, count)| *count).max().unwrap_or(present)
        };
        let (after, of, burst) = (present.saturating_sub(going), most(WINDOW), most(BURST));
        let gone = of.saturating_sub(after);
        let is_mass = (gone >= FEWEST_SERVERS && after * 2 < of) || (after == 0 && burst >= WHOLE_BACKEND);
        is_mass.then(|| What::Servers { backend: backend.clone(), gone, of })
    }

    /// Whether so many objects as a whole go in this one step.
    fn is_mass(&self, model: &Model, gone: &[(Bytes, Option<Key>)]) -> Option<What> {
        let mut whole: HashSet<Key> = HashSet::new();
        let mut losing: HashMap<&Id, HashSet<&Id>> = HashMap::new();
        for (_, object) in gone {
            match object {
                Some(object @ (Key::Frontend(_) | Key::Site(_) | Key::Host(_) | Key::Listener(_))) => {
                    whole.insert(object.clone());
                }
                Some(Key::Server(backend, id)) => {
                    losing.entry(backend).or_default().insert(id);
                }
                Some(Key::Backend(backend)) => {
                    losing.entry(backend).or_default();
                }
                _ => {}
            }
        }
        for (backend, servers) in losing {
            if model.servers(backend).all(|server| servers.contains(&server.id)) {
                whole.insert(Key::Backend(backend.clone()));
            }
        }
        let gone = whole.len();
        if gone < FEWEST_ALL {
            return None;
        }
        // Counted no further than it matters.
        let enough = gone * 4 + 1;
        let frontends = model.frontends().filter(|frontend| frontend.site.is_none()).map(drop);
        let others = model.backends().map(drop).chain(model.sites().map(drop)).chain(model.hosts().map(drop));
        let of = frontends.chain(others).chain(model.listeners().map(drop)).take(enough).count();
        let is_mass = (gone >= FEWEST_OBJECTS && gone * 10 > of * 3) || gone >= of;
        is_mass.then_some(What::Objects { gone, of })
    }

    /// Holds keys, together with what vanished for the same reason just before.
    fn open(&mut self, what: What, keys: Vec<Bytes>, until: Option<Instant>, now: Instant) {
        let Some(example) = keys.first().cloned() else { return };
        let same = |case: &Case| match (&case.what, &what) {
            (What::Servers { backend: known, .. }, What::Servers { backend, .. }) => {
                known == backend && now.duration_since(case.since) < WINDOW && case.until.is_some() == until.is_some()
            }
            _ => false,
        };
        let number = self.cases.iter().rev().find(|(_, case)| same(case)).map(|(number, _)| *number);
        let number = number.unwrap_or_else(|| {
            self.last_case += 1;
            self.last_case
        });
        let case = self.cases.entry(number).or_insert(Case { what: what.clone(), since: now, until, keys: 0, example });
        case.what = what;
        case.keys += keys.len();
        self.total += keys.len() as u64;
        self.changed = true;
        for key in keys {
            let server = match Key::parse(&key).ok().and_then(|key| key.object()) {
                Some(Key::Server(backend, id)) => Some((backend, id)),
                _ => None,
            };
            self.held_servers.extend(server.clone());
            self.held.insert(key, Held { case: number, server, failures: 0 });
        }
    }

    /// No longer holds a key.
    fn forget(&mut self, key: &Bytes) {
        let Some(held) = self.held.remove(key) else { return };
        self.changed = true;
        if let Some(server) = &held.server {
            self.held_servers.remove(server);
        }
        if let Some(case) = self.cases.get_mut(&held.case) {
            case.keys -= 1;
            if case.keys == 0 {
                self.cases.remove(&held.case);
            }
        }
    }
}

/// Whether a server is there and has not announced that it goes.
fn is_up(model: &Model, backend: &str, id: &str) -> bool {
    model.server(backend, id).is_some_and(|server| server.state == ServerState::Up)
}

/// What proxies share with each other is neither served nor kept.
fn is_shared(key: &[u8]) -> bool {
    matches!(Key::parse(key), Ok(Key::Shared(_)))
}

/// A put of any value here makes every proxy believe what it holds, and what the same transaction deletes.
pub const RELEASE: &[u8] = b"proxies/release";
/// Within this time losses of one backend count together.
const WINDOW: Duration = Duration::from_secs(10);
/// The same where a backend loses all it has.
const BURST: Duration = Duration::from_secs(2);
const FEWEST_SERVERS: usize = 3;
const WHOLE_BACKEND: usize = 2;
const FEWEST_OBJECTS: usize = 3;
const FEWEST_ALL: usize = 2;
/// Probes in a row that must fail.
const FAILURES: u32 = 2;

#[cfg(test)]
mod tests;
