//! Whether a deletion is believed: what vanishes in a mass is held as suspect and serves on for a while.
//!
//! A mass is more than half of a backend's servers and at least three of them within ten seconds, a whole backend of
//! two or more within two, or more than 30 % of all objects and at least three (or all, and at least two) in one step.
//! The first servers of such a storm, believed gone a moment before, come back if they answer.
//! Servers that are `draining` had announced that they go; a backend that no frontend leads to harms nobody. Pure: the
//! clock is an argument. Not here: asking servers whether they still answer (`probe.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etna_store::object::Id;
use etna_store::{Batch, Change, Delta, Key, Model, Server};

mod case;
mod rule;

pub use case::{Case, What};
use rule::{BURST, WINDOW};

/// The pairs in force, and which of them the store no longer has.
pub struct Suspects {
    /// How long a suspect serves on; zero believes everything.
    hold: Duration,
    /// What the model shows: what is stored, and what is held.
    pairs: Pairs,
    /// What proxies share with each other and the model knows.
    passed: BTreeMap<Bytes, Bytes>,
    held: BTreeMap<Bytes, Held>,
    held_servers: BTreeSet<(Id, Id)>,
    cases: BTreeMap<u64, Case>,
    last_case: u64,
    /// How many servers a backend had before its latest losses.
    counts: HashMap<Id, VecDeque<(Instant, usize)>>,
    /// Servers that were believed gone a moment ago, by backend: the first of a storm.
    lost: HashMap<Id, VecDeque<(Instant, Bytes, Lost)>>,
    /// Those of a storm that was then noticed: they are held too, if they answer.
    returning: BTreeMap<Bytes, Lost>,
    /// The value of [`RELEASE`] last seen; `None` before the first look.
    release: Option<Option<Bytes>>,
    changed: bool,
    /// Whether `pairs` changed.
    moved: bool,
    /// Keys ever held.
    total: u64,
}

/// Keys and values as they are stored. Cloning costs nothing.
pub type Pairs = imbl::OrdMap<Bytes, Bytes>;

/// A server that was let go.
struct Lost {
    value: Bytes,
    server: Arc<Server>,
    backend: Id,
    asked: bool,
}

struct Held {
    case: u64,
    server: Option<(Id, Id)>,
    /// Probes in a row that failed.
    failures: u32,
}

impl Suspects {
    /// Nothing stored, nothing held; zero for `hold` believes every deletion at once.
    pub fn new(hold: Duration) -> Suspects {
        Suspects {
            hold,
            pairs: Pairs::new(),
            passed: BTreeMap::new(),
            held: BTreeMap::new(),
            held_servers: BTreeSet::new(),
            cases: BTreeMap::new(),
            last_case: 0,
            counts: HashMap::new(),
            lost: HashMap::new(),
            returning: BTreeMap::new(),
            release: None,
            changed: false,
            moved: false,
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

    /// Whether what the model shows changed since this was last asked.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
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
        // At the beginning all is new, later next to nothing.
        let mut changes = Vec::with_capacity(snapshot.changes.len().saturating_sub(self.pairs.len()));
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
            let known = if is_shared(&change.key) {
                !is_passed(&change.key) || self.passed.get(&change.key) == Some(value)
            } else {
                self.pairs.get(&change.key) == Some(value) && !self.held.contains_key(&change.key)
            };
            if !known {
                changes.push(change.clone());
            }
        }
        let gone = self.pairs.keys().filter(|key| !self.held.contains_key(*key)).chain(self.passed.keys());
        let gone = gone.filter(|key| !present.contains(&***key));
        changes.extend(gone.map(|key| Change { key: key.clone(), value: None }));
        Batch { revision: snapshot.revision, changes }
    }

    /// Brings one step of the store into the model, but for what is held. `replaced` says that the store's history is
    /// another one than before, so that nobody deleted what is missing.
    pub fn apply(&mut self, model: &mut Model, batch: &Batch, now: Instant, replaced: bool) -> Delta {
        let mut forced = false;
        let mut puts = Batch { revision: batch.revision, changes: Vec::with_capacity(batch.changes.len()) };
        let mut gone = Vec::new();
        for Change { key, value } in last_of_each(batch) {
            if &**key == RELEASE {
                forced |= value.is_some();
                self.release = Some(value.clone());
            } else if is_shared(key) {
                if is_passed(key) {
                    match value {
                        Some(value) => self.passed.insert(key.clone(), value.clone()),
                        None => self.passed.remove(key),
                    };
                    puts.changes.push(Change { key: key.clone(), value: value.clone() });
                }
            } else if let Some(value) = value {
                self.forget(key);
                self.returning.remove(key);
                self.pairs.insert(key.clone(), value.clone());
                self.moved = true;
                puts.changes.push(Change { key: key.clone(), value: Some(value.clone()) });
            } else if self.pairs.contains_key(key) && !self.held.contains_key(key) {
                gone.push(key.clone());
            }
        }
        let mut delta = model.apply(&puts);
        if forced {
            self.returning.clear();
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
            self.moved |= self.pairs.remove(key).is_some();
        }
        if keys.is_empty() { Delta::default() } else { model.apply(&batch) }
    }

    /// Believes everything.
    pub fn release(&mut self, model: &mut Model) -> Delta {
        self.returning.clear();
        self.lost.clear();
        let keys: Vec<Bytes> = self.held.keys().cloned().collect();
        self.let_go(model, &keys)
    }

    /// Believes what was held long enough.
    pub fn expire(&mut self, model: &mut Model, now: Instant) -> Delta {
        self.counts.retain(|_, counts| counts.back().is_some_and(|(at, _)| now.duration_since(*at) < WINDOW));
        self.lost.retain(|_, lost| lost.back().is_some_and(|(at, ..)| now.duration_since(*at) < BURST));
        if self.held_servers.is_empty() {
            self.returning.clear();
        }
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

    /// How many those are.
    pub fn server_count(&self) -> usize {
        self.held_servers.len()
    }

    /// Notes whether a held server answered, and says whether it has failed to often enough to be believed gone.
    pub fn answered(&mut self, key: &Bytes, answered: bool) -> bool {
        let Some(held) = self.held.get_mut(key) else { return false };
        held.failures = if answered { 0 } else { held.failures + 1 };
        held.failures >= FAILURES
    }

    /// The servers that went first in a storm and were not asked for yet: they come back if they answer.
    pub fn ask_returning(&mut self) -> Vec<(Bytes, Arc<Server>)> {
        let new = self.returning.iter_mut().filter(|(_, lost)| !lost.asked);
        new.map(|(key, lost)| {
            lost.asked = true;
            (key.clone(), lost.server.clone())
        })
        .collect()
    }

    /// Takes the answer of one of them.
    pub fn returned(&mut self, model: &mut Model, key: &Bytes, answered: bool) -> Delta {
        let Some(lost) = self.returning.remove(key) else { return Delta::default() };
        let of = |case: &Case| matches!(&case.what, What::Servers { backend, .. } if *backend == lost.backend);
        let case = self.cases.iter_mut().rev().find(|(_, case)| of(case));
        let Some((number, case)) = case.filter(|_| answered && !self.pairs.contains_key(key)) else {
            return Delta::default();
        };
        case.keys += 1;
        self.total += 1;
        self.changed = true;
        let server = (lost.backend, lost.server.id.clone());
        self.held_servers.insert(server.clone());
        self.held.insert(key.clone(), Held { case: *number, server: Some(server), failures: 0 });
        self.pairs.insert(key.clone(), lost.value.clone());
        self.moved = true;
        let change = Change { key: key.clone(), value: Some(lost.value) };
        model.apply(&Batch { revision: model.revision(), changes: vec![change] })
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

/// The last change of every key, by key. A snapshot, the largest of batches, comes in that order.
fn last_of_each(batch: &Batch) -> impl Iterator<Item = &Change> {
    let mut changes: Vec<&Change> = batch.changes.iter().collect();
    changes.sort_by(|one, other| one.key.cmp(&other.key));
    let mut changes = changes.into_iter().peekable();
    std::iter::from_fn(move || {
        loop {
            let change = changes.next()?;
            if changes.peek().is_none_or(|next| next.key != change.key) {
                return Some(change);
            }
        }
    })
}

/// What proxies share with each other is neither held nor kept.
fn is_shared(key: &[u8]) -> bool {
    // Parsing takes memory, and there are many objects.
    !OBJECTS.iter().any(|folder| key.starts_with(folder.as_bytes())) && matches!(Key::parse(key), Ok(Key::Shared(_)))
}

/// Whether the model is told of it all the same.
fn is_passed(key: &[u8]) -> bool {
    key.starts_with(b"acme/") || key.starts_with(b"tickets/")
}

/// A put of any value here makes every proxy believe what it holds, and what the same transaction deletes.
pub const RELEASE: &[u8] = b"proxies/release";
/// Where nothing is shared, but objects are.
const OBJECTS: [&str; 6] = ["frontends/", "backends/", "upstreams/", "sites/", "hosts/", "listeners/"];
/// Probes in a row that must fail.
const FAILURES: u32 = 2;

#[cfg(test)]
mod tests;
