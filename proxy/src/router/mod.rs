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

/// What a router finds by its rule. It is never cloned there: the router's own derived `Clone` asks for that.
pub trait Ruled: Clone {
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

impl<T: Ruled> Router<T> {
    /// Puts something in, instead of what had its name.
    pub fn insert(&mut self, value: Arc<T>) {
        self.remove(value.id());
        let anchors = Anchors::of(value.rule());
        self.change(&anchors, |paths| paths.insert(&value, &anchors.paths));
        self.all.put(hash(value.id()), value, |_| false);
    }

    /// Takes out what has that name.
    pub fn remove(&mut self, id: &str) {
        let Some(value) = self.all.take(hash(id), |known| **known.id() == *id) else { return };
        let anchors = Anchors::of(value.rule());
        self.change(&anchors, |paths| paths.remove(&value, &anchors.paths));
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

impl<T: Ruled> Place for Bucket<T> {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Ruled> Place for Paths<T> {
    fn is_empty(&self) -> bool {
        match self {
            Paths::Few(bucket) => bucket.is_empty(),
            Paths::Many(index) => index.exact.is_empty() && index.folders.is_empty() && index.rest.is_empty(),
        }
    }
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

impl<T> Default for Paths<T> {
    fn default() -> Paths<T> {
        Paths::Few(Bucket::default())
    }
}

impl<T: Ruled> Paths<T> {
    fn insert(&mut self, value: &Arc<T>, paths: &[PathAnchor]) {
        match self {
            Paths::Few(bucket) if bucket.len() < FEW => bucket.insert(value),
            Paths::Few(bucket) => {
                let mut index = Index::default();
                for known in bucket.iter() {
                    index.insert(known, &Anchors::of(known.rule()).paths);
                }
                index.insert(value, paths);
                *self = Paths::Many(Arc::new(index));
            }
            Paths::Many(index) => Arc::make_mut(index).insert(value, paths),
        }
    }

    fn remove(&mut self, value: &Arc<T>, paths: &[PathAnchor]) {
        match self {
            Paths::Few(bucket) => bucket.remove(value),
            Paths::Many(index) => Arc::make_mut(index).remove(value, paths),
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

impl<T: Ruled> Index<T> {
    fn insert(&mut self, value: &Arc<T>, paths: &[PathAnchor]) {
        for path in paths {
            if let PathAnchor::Folder(name) = path {
                self.deepest = self.deepest.max(name.bytes().filter(|byte| *byte == b'/').count());
            }
            self.change(path, |bucket| bucket.insert(value));
        }
    }

    fn remove(&mut self, value: &Arc<T>, paths: &[PathAnchor]) {
        for path in paths {
            self.change(path, |bucket| bucket.remove(value));
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
