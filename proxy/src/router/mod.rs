//! Finding the frontend of a request, in time that does not grow with the number of frontends.
//!
//! A rule is put where a request that could match it will look: under its exact hosts, the last two labels of a host
//! pattern or, without a host, its header value; and there under its exact paths or the folder of its prefix. Those
//! places over-approximate: the whole rule is always asked, best rank first ([`crate::rule::Rank`]). Persistent: a clone
//! is free, and changing one frontend costs what that one costs.
//!
//! Linear in the rules of one place: those of no host or header and no literal folder of the path (`HostRegexp`,
//! unanchored `PathRegexp`, `Query`, …) share one place; those of one host that differ in nothing placed share another.

mod anchor;
mod bucket;
mod map;
mod place;

use std::hash::BuildHasher as _;
use std::sync::Arc;

use etna_store::object::Id;
use http::header::HeaderName;

use crate::rule::{Head, Rank, Rule};
use anchor::OuterAnchor;
use bucket::Bucket;
use map::{Map, Slot};
use place::{Move, Paths, Place as _, change_at};

// Operators choose the keys, so a hash that is quick and the same every time will do.
type Hasher = foldhash::fast::FixedState;

/// What a router finds by its rule. It is never cloned there: the router's own derived `Clone` asks for that.
pub trait Ruled: Clone + 'static {
    /// Its name.
    fn id(&self) -> &Id;

    /// When it is found.
    fn rule(&self) -> &Rule;

    /// Which of those it is that could be found.
    fn rank(&self) -> &Rank;

    /// Best first.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        other.rank().cmp(self.rank()).then_with(|| self.id().cmp(other.id()))
    }
}

/// An index of what has rules.
///
/// Its places are by the hash of what they are named. Two names of one hash share a place, and that is all: rules are asked
/// whole.
#[derive(Clone)]
pub struct Router<T> {
    hosts: Map<Paths<T>>,
    /// Host patterns by their last one or two labels.
    suffixes: Map<Paths<T>>,
    /// By a header and its value.
    headers: imbl::GenericHashMap<HeaderName, Map<Paths<T>>, Hasher, imbl::shared_ptr::DefaultSharedPtr>,
    anywhere: Paths<T>,
    /// By id.
    all: Map<Arc<T>>,
}

/// A rule that leads nowhere, for who only wants to know which one is found.
#[derive(Clone, Debug)]
pub struct Entry {
    id: Id,
    rule: Rule,
    rank: Rank,
}

/// What a request could have found, for explaining.
#[derive(Debug)]
pub struct Candidate<T> {
    /// It.
    pub value: Arc<T>,
    /// Whether its rule matches.
    pub matches: bool,
}

impl<T> Default for Router<T> {
    fn default() -> Router<T> {
        Router {
            hosts: Map::default(),
            suffixes: Map::default(),
            headers: imbl::GenericHashMap::default(),
            anywhere: Paths::default(),
            all: Map::default(),
        }
    }
}

impl<T: Ruled> Router<T> {
    /// Puts something in, instead of what had its name.
    pub fn insert(&mut self, value: Arc<T>) {
        self.change(vec![(value.id().clone(), Some(value))]);
    }

    /// Takes out what has that name.
    pub fn remove(&mut self, id: &str) {
        if self.get(id).is_some() {
            self.change(vec![(id.into(), None)]);
        }
    }

    /// Puts in and takes out what has these names. Many at once cost less than each by itself.
    pub fn change(&mut self, changes: Vec<(Id, Option<Arc<T>>)>) {
        let changes = changes.into_iter().map(|(id, next)| Slot { hash: hash(&id), value: (id, next) });
        let mut moves = Vec::new();
        self.all.change(
            changes.collect(),
            |known, (id, _)| known.id() == id,
            |known, (_, next)| {
                moves.extend(known.map(|value| Move { value, comes: false }));
                moves.extend(next.iter().map(|value| Move { value: value.clone(), comes: true }));
                next
            },
        );
        self.settle(&moves);
    }

    /// Whose matching rule is the most specific.
    pub fn find(&self, head: &Head<'_>) -> Option<&Arc<T>> {
        let mut best: Option<&Arc<T>> = None;
        self.each_bucket(head, |bucket| {
            for value in bucket.iter() {
                if best.is_some_and(|best| best.order(value).is_lt()) {
                    break;
                }
                if value.rule().matches(head) {
                    best = Some(value);
                    break;
                }
            }
        });
        best
    }

    /// All whose rules were worth asking, best rank first.
    pub fn candidates(&self, head: &Head<'_>) -> Vec<Candidate<T>> {
        let mut values: Vec<&Arc<T>> = Vec::new();
        self.each_bucket(head, |bucket| values.extend(bucket.iter()));
        values.sort_by(|a, b| a.order(b));
        values.dedup_by(|a, b| a.id() == b.id());
        let asked = |value: &Arc<T>| Candidate { value: value.clone(), matches: value.rule().matches(head) };
        values.into_iter().map(asked).collect()
    }

    /// What has that name.
    pub fn get(&self, id: &str) -> Option<&Arc<T>> {
        self.all.get(hash(id), |known| **known.id() == *id)
    }

    /// All there is, in no order.
    pub fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.all.values()
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn each_bucket<'r>(&'r self, head: &Head<'_>, mut look: impl FnMut(&'r Bucket<T>)) {
        if let Some(paths) = at(&self.hosts, head.host) {
            paths.each_bucket(head.path, &mut look);
        }
        if !self.suffixes.is_empty() {
            for suffix in anchor::last_labels(head.host).into_iter().flatten() {
                if let Some(paths) = at(&self.suffixes, suffix) {
                    paths.each_bucket(head.path, &mut look);
                }
            }
        }
        if !self.headers.is_empty() {
            // A request has few headers; how many the rules look at is unknown.
            for field in head.fields.iter() {
                let Ok(name) = HeaderName::from_bytes(field.name()) else { continue };
                let values = self.headers.get(&name);
                if let Some(paths) = values.and_then(|values| at(values, &head.header(&name))) {
                    paths.each_bucket(head.path, &mut look);
                }
            }
        }
        self.anywhere.each_bucket(head.path, &mut look);
    }

    /// Puts what comes into its places, and takes what goes out of them.
    fn settle(&mut self, moves: &[Move<T>]) {
        let (mut hosts, mut suffixes, mut anywhere) = (Vec::new(), Vec::new(), Vec::new());
        for step in moves {
            for outer in step.anchors().outer {
                match &outer {
                    OuterAnchor::Host(name) => hosts.push(step.at(name)),
                    OuterAnchor::Suffix(name) => suffixes.push(step.at(name)),
                    OuterAnchor::Header(name, value) => {
                        let mut values = self.headers.get(name).cloned().unwrap_or_default();
                        change_at(&mut values, vec![step.at(value)]);
                        if values.is_empty() {
                            self.headers.remove(name);
                        } else {
                            self.headers.insert(name.clone(), values);
                        }
                    }
                    OuterAnchor::Any => anywhere.push(step),
                }
            }
        }
        change_at(&mut self.hosts, hosts);
        change_at(&mut self.suffixes, suffixes);
        if !anywhere.is_empty() {
            self.anywhere.change(anywhere.into_iter());
        }
    }
}

fn hash(name: &str) -> u64 {
    Hasher::default().hash_one(name)
}

/// What is in the place of a name.
fn at<'m, V>(map: &'m Map<V>, name: &str) -> Option<&'m V> {
    map.get(hash(name), |_| true)
}

impl Entry {
    /// A rule by name, of that priority.
    pub fn new(id: Id, rule: Rule, priority: i64) -> Entry {
        Entry { id, rank: rule.rank(priority), rule }
    }
}

impl Ruled for Entry {
    fn id(&self) -> &Id {
        &self.id
    }

    fn rule(&self) -> &Rule {
        &self.rule
    }

    fn rank(&self) -> &Rank {
        &self.rank
    }
}

#[cfg(test)]
mod tests;
