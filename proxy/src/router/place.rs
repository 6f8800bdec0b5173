//! What is in one place: rules by their paths; and how many of them change at once.

use std::sync::Arc;

use super::anchor::{Anchors, PathAnchor};
use super::bucket::Bucket;
use super::map::{Map, Slot};
use super::{Ruled, at, hash};

/// Rules of one host, by path.
#[derive(Clone)]
pub(super) enum Paths<T> {
    /// So few that asking all of them is quickest.
    Few(Bucket<T>),
    Many(Arc<Index<T>>),
}

#[derive(Clone)]
pub(super) struct Index<T> {
    exact: Map<Bucket<T>>,
    /// By a folder: it and everything below it.
    folders: Map<Bucket<T>>,
    /// Slashes of the deepest folder ever put here: no need to look deeper.
    deepest: usize,
    rest: Bucket<T>,
}

/// What comes to its places, or goes from there. Which they are is not kept: there may be very many of these.
pub(super) struct Move<T> {
    pub(super) value: Arc<T>,
    pub(super) comes: bool,
}

impl<T: Ruled> Move<T> {
    pub(super) fn anchors(&self) -> Anchors {
        Anchors::of(self.value.rule())
    }

    /// To the place of a name.
    pub(super) fn at(&self, name: &str) -> Slot<&Move<T>> {
        Slot { hash: hash(name), value: self }
    }
}

/// What can be in a place.
pub(super) trait Place<T: Ruled>: Clone + Default {
    fn is_empty(&self) -> bool;

    fn change<'m>(&mut self, moves: impl Iterator<Item = &'m Move<T>>);
}

/// Changes what is in places, by their hashes; a place where nothing is left goes.
pub(super) fn change_at<T: Ruled, V: Place<T>>(map: &mut Map<V>, mut moves: Vec<Slot<&Move<T>>>) {
    // It keeps the order of those in one place: what is replaced goes before the other comes.
    moves.sort_by_key(|step| step.hash);
    let places = moves.chunk_by(|a, b| a.hash == b.hash);
    map.change(
        places.map(|steps| Slot { hash: steps[0].hash, value: steps }).collect(),
        |_, _| true,
        |there, steps| {
            let mut there = there.unwrap_or_default();
            there.change(steps.iter().map(|step| step.value));
            (!there.is_empty()).then_some(there)
        },
    );
}

impl<T: Ruled> Place<T> for Bucket<T> {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn change<'m>(&mut self, moves: impl Iterator<Item = &'m Move<T>>) {
        for step in moves {
            if step.comes {
                self.insert(&step.value);
            } else {
                self.remove(&step.value);
            }
        }
    }
}

impl<T: Ruled> Place<T> for Paths<T> {
    fn is_empty(&self) -> bool {
        match self {
            Paths::Few(bucket) => bucket.is_empty(),
            Paths::Many(index) => index.exact.is_empty() && index.folders.is_empty() && index.rest.is_empty(),
        }
    }

    fn change<'m>(&mut self, mut moves: impl Iterator<Item = &'m Move<T>>) {
        if let Paths::Few(bucket) = self {
            while bucket.len() <= FEW {
                let Some(step) = moves.next() else { return };
                bucket.change(std::iter::once(step));
            }
            let known: Vec<Move<T>> = bucket.iter().map(|known| Move { value: known.clone(), comes: true }).collect();
            let mut index = Index::default();
            index.change(known.iter());
            *self = Paths::Many(Arc::new(index));
        }
        if let Paths::Many(index) = self {
            Arc::make_mut(index).change(moves);
        }
    }
}

impl<T> Default for Paths<T> {
    fn default() -> Paths<T> {
        Paths::Few(Bucket::default())
    }
}

impl<T: Ruled> Paths<T> {
    pub(super) fn each_bucket<'r>(&'r self, path: &str, look: &mut impl FnMut(&'r Bucket<T>)) {
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
    fn change<'m>(&mut self, moves: impl Iterator<Item = &'m Move<T>>) {
        let (mut exact, mut folders, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for step in moves {
            for path in step.anchors().paths {
                match &path {
                    PathAnchor::Exact(name) => exact.push(step.at(name)),
                    PathAnchor::Folder(name) => {
                        self.deepest = self.deepest.max(name.bytes().filter(|byte| *byte == b'/').count());
                        folders.push(step.at(name));
                    }
                    PathAnchor::Any => rest.push(step),
                }
            }
        }
        change_at(&mut self.exact, exact);
        change_at(&mut self.folders, folders);
        self.rest.change(rest.into_iter());
    }
}

/// Rules of one host that are simply asked one after the other.
const FEW: usize = 16;
