//! Rules in one place, best rank first; persistent, small when there are few.

use std::sync::Arc;

use super::Ruled;

/// Rules in one place.
#[derive(Clone, Default)]
pub(super) enum Bucket<T> {
    #[default]
    Empty,
    /// Most places have just one.
    One(Arc<T>),
    /// A sorted list, copied when it changes.
    Few(Arc<[Arc<T>]>),
    /// A sorted tree: changing it costs the logarithm of its size.
    Many(imbl::OrdSet<Ranked<T>>),
}

/// What compares by rank, best first.
#[derive(Clone)]
pub(super) struct Ranked<T>(Arc<T>);

impl<T: Ruled> Bucket<T> {
    /// Of sorted ones.
    fn of(mut entries: Vec<Arc<T>>) -> Bucket<T> {
        match entries.len() {
            0 | 1 => entries.pop().map_or(Bucket::Empty, Bucket::One),
            ..=FEW => Bucket::Few(entries.into()),
            _ => Bucket::Many(entries.into_iter().map(Ranked).collect()),
        }
    }

    /// Those in it, unless they are many.
    fn few(&self) -> &[Arc<T>] {
        match self {
            Bucket::Empty | Bucket::Many(_) => &[],
            Bucket::One(entry) => std::slice::from_ref(entry),
            Bucket::Few(entries) => entries,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Bucket::Many(entries) => entries.len(),
            _ => self.few().len(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        let many = match self {
            Bucket::Many(entries) => Some(entries.iter().map(|ranked| &ranked.0)),
            _ => None,
        };
        self.few().iter().chain(many.into_iter().flatten())
    }

    pub(super) fn insert(&mut self, entry: &Arc<T>) {
        if let Bucket::Many(entries) = self {
            entries.insert(Ranked(entry.clone()));
            return;
        }
        let few = self.few();
        let (before, after) = few.split_at(few.partition_point(|known| known.order(entry).is_lt()));
        *self = Bucket::of(before.iter().chain([entry]).chain(after).cloned().collect());
    }

    pub(super) fn remove(&mut self, entry: &Arc<T>) {
        if let Bucket::Many(entries) = self {
            entries.remove(&Ranked(entry.clone()));
            return;
        }
        *self = Bucket::of(self.few().iter().filter(|known| known.id() != entry.id()).cloned().collect());
    }
}

impl<T: Ruled> Ord for Ranked<T> {
    fn cmp(&self, other: &Ranked<T>) -> std::cmp::Ordering {
        self.0.order(&other.0)
    }
}

impl<T: Ruled> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Ranked<T>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ruled> PartialEq for Ranked<T> {
    fn eq(&self, other: &Ranked<T>) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T: Ruled> Eq for Ranked<T> {}

/// Entries of a list that is copied.
const FEW: usize = 32;
