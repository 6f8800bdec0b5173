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

use std::hash::BuildHasher as _;
use std::sync::Arc;

use etna_store::object::Id;
use http::header::HeaderName;

use crate::rule::{Head, Rank, Rule};
use anchor::{Anchors, OuterAnchor, PathAnchor};
use bucket::Bucket;
use map::Map;

// Operators choose the keys, so a hash that is quick and the same every time will do.
type Hasher = foldhash::fast::FixedState;

/// An index of rules.
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
    all: Map<Arc<Entry<T>>>,
}

/// A rule and what it leads to.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    id: Id,
    rule: Arc<Rule>,
    rank: Rank,
    value: T,
}

/// A rule that a request could have matched, for explaining.
#[derive(Clone, Debug)]
pub struct Candidate<T> {
    /// The frontend.
    pub id: Id,
    /// Its rule.
    pub rule: Arc<Rule>,
    /// Whether it matches.
    pub matches: bool,
    /// What it leads to.
    pub value: T,
}

/// Rules of one host, by path.
#[derive(Clone)]
enum Paths<T> {
    /// So few that asking all of them is quickest.
    Few(Bucket<T>),
    Many(Arc<Index<T>>),
}

#[derive(Clone)]
struct Index<T> {
    exact: Map<Bucket<T>>,
    /// By a folder: it and everything below it.
    folders: Map<Bucket<T>>,
    /// Slashes of the deepest folder ever put here: no need to look deeper.
    deepest: usize,
    rest: Bucket<T>,
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

impl<T: Clone> Router<T> {
    /// Puts a rule in, instead of the one that had its name.
    pub fn insert(&mut self, id: Id, rule: Arc<Rule>, priority: i64, value: T) {
        self.remove(&id);
        let entry = Arc::new(Entry { id: id.clone(), rank: rule.rank(priority), rule, value });
        let anchors = Anchors::of(&entry.rule);
        self.change(&anchors, |paths| paths.insert(&entry, &anchors.paths));
        self.all.put(hash(&id), entry, |known| known.id == id);
    }

    /// Takes a rule out.
    pub fn remove(&mut self, id: &str) {
        let Some(entry) = self.all.take(hash(id), |known| *known.id == *id) else { return };
        let anchors = Anchors::of(&entry.rule);
        self.change(&anchors, |paths| paths.remove(&entry, &anchors.paths));
    }

    /// What the most specific matching rule leads to.
    pub fn find(&self, head: &Head<'_>) -> Option<&T> {
        let mut best: Option<&Arc<Entry<T>>> = None;
        self.each_bucket(head, |bucket| {
            for entry in bucket.iter() {
                if best.is_some_and(|best| best.before(entry)) {
                    break;
                }
                if entry.rule.matches(head) {
                    best = Some(entry);
                    break;
                }
            }
        });
        best.map(|entry| &entry.value)
    }

    /// Every rule that was worth asking, best rank first.
    pub fn candidates(&self, head: &Head<'_>) -> Vec<Candidate<T>> {
        let mut entries: Vec<&Arc<Entry<T>>> = Vec::new();
        self.each_bucket(head, |bucket| entries.extend(bucket.iter()));
        entries.sort_by(|a, b| a.order(b));
        entries.dedup_by(|a, b| a.id == b.id);
        entries
            .into_iter()
            .map(|entry| Candidate {
                id: entry.id.clone(),
                rule: entry.rule.clone(),
                matches: entry.rule.matches(head),
                value: entry.value.clone(),
            })
            .collect()
    }

    /// What the rule of that name leads to.
    pub fn get(&self, id: &str) -> Option<&T> {
        self.all.get(hash(id), |known| *known.id == *id).map(|entry| &entry.value)
    }

    /// What all rules lead to, in no order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.all.values().map(|entry| &entry.value)
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

    fn change(&mut self, anchors: &Anchors, change: impl Fn(&mut Paths<T>)) {
        for outer in &anchors.outer {
            match outer {
                OuterAnchor::Host(name) => change_at(&mut self.hosts, name, &change),
                OuterAnchor::Suffix(name) => change_at(&mut self.suffixes, name, &change),
                OuterAnchor::Header(name, value) => {
                    let mut values = self.headers.get(name).cloned().unwrap_or_default();
                    change_at(&mut values, value, &change);
                    if values.is_empty() {
                        self.headers.remove(name);
                    } else {
                        self.headers.insert(name.clone(), values);
                    }
                }
                OuterAnchor::Any => change(&mut self.anywhere),
            }
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

/// Changes what is in one place; a place where nothing is left goes.
fn change_at<V: Clone + Default + Place>(map: &mut Map<V>, name: &str, change: impl Fn(&mut V)) {
    let mut there = at(map, name).cloned().unwrap_or_default();
    change(&mut there);
    if there.is_empty() {
        map.take(hash(name), |_| true);
    } else {
        map.put(hash(name), there, |_| true);
    }
}

/// What can be in a place.
trait Place {
    fn is_empty(&self) -> bool;
}

impl<T> Place for Bucket<T> {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Place for Paths<T> {
    fn is_empty(&self) -> bool {
        match self {
            Paths::Few(bucket) => bucket.is_empty(),
            Paths::Many(index) => index.exact.is_empty() && index.folders.is_empty() && index.rest.is_empty(),
        }
    }
}

impl<T> Entry<T> {
    /// Best first.
    fn order(&self, other: &Entry<T>) -> std::cmp::Ordering {
        other.rank.cmp(&self.rank).then_with(|| self.id.cmp(&other.id))
    }

    fn before(&self, other: &Entry<T>) -> bool {
        self.order(other).is_lt()
    }
}

impl<T> Default for Paths<T> {
    fn default() -> Paths<T> {
        Paths::Few(Bucket::default())
    }
}

impl<T: Clone> Paths<T> {
    fn insert(&mut self, entry: &Arc<Entry<T>>, paths: &[PathAnchor]) {
        match self {
            Paths::Few(bucket) if bucket.len() < FEW => bucket.insert(entry),
            Paths::Few(bucket) => {
                let mut index = Index::default();
                for known in bucket.iter() {
                    index.insert(known, &Anchors::of(&known.rule).paths);
                }
                index.insert(entry, paths);
                *self = Paths::Many(Arc::new(index));
            }
            Paths::Many(index) => Arc::make_mut(index).insert(entry, paths),
        }
    }

    fn remove(&mut self, entry: &Arc<Entry<T>>, paths: &[PathAnchor]) {
        match self {
            Paths::Few(bucket) => bucket.remove(entry),
            Paths::Many(index) => Arc::make_mut(index).remove(entry, paths),
        }
    }

    fn each_bucket<'r>(&'r self, path: &str, look: &mut impl FnMut(&'r Bucket<T>)) {
        let index = match self {
            Paths::Few(bucket) => return look(bucket),
            Paths::Many(index) => index,
        };
        if let Some(bucket) = at(&index.exact, path) {
            look(bucket);
        }
        if !index.folders.is_empty() {
            let slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
            for end in slashes.chain([path.len()]).take(index.deepest + 1) {
                if let Some(bucket) = at(&index.folders, &path[..end]) {
                    look(bucket);
                }
            }
        }
        look(&index.rest);
    }
}

impl<T> Default for Index<T> {
    fn default() -> Index<T> {
        Index { exact: Map::default(), folders: Map::default(), deepest: 0, rest: Bucket::default() }
    }
}

impl<T: Clone> Index<T> {
    fn insert(&mut self, entry: &Arc<Entry<T>>, paths: &[PathAnchor]) {
        for path in paths {
            if let PathAnchor::Folder(name) = path {
                self.deepest = self.deepest.max(name.bytes().filter(|byte| *byte == b'/').count());
            }
            self.change(path, |bucket| bucket.insert(entry));
        }
    }

    fn remove(&mut self, entry: &Arc<Entry<T>>, paths: &[PathAnchor]) {
        for path in paths {
            self.change(path, |bucket| bucket.remove(entry));
        }
    }

    fn change(&mut self, path: &PathAnchor, change: impl Fn(&mut Bucket<T>)) {
        match path {
            PathAnchor::Exact(name) => change_at(&mut self.exact, name, change),
            PathAnchor::Folder(name) => change_at(&mut self.folders, name, change),
            PathAnchor::Any => change(&mut self.rest),
        }
    }
}

/// Rules of one host that are simply asked one after the other.
const FEW: usize = 16;

#[cfg(test)]
mod tests;
