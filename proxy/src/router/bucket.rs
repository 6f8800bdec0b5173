//! Rules in one place, best rank first; persistent, small when there are few.

use std::sync::Arc;

use super::Entry;

/// Rules in one place.
pub(super) enum Bucket<T> {
    /// A sorted list, copied when it changes.
    Few(Arc<[Arc<Entry<T>>]>),
    /// A sorted tree: changing it costs the logarithm of its size.
    Many(imbl::OrdSet<Ranked<T>>),
}

/// An entry that compares by rank, best first.
pub(super) struct Ranked<T>(Arc<Entry<T>>);

impl<T> Clone for Bucket<T> {
    fn clone(&self) -> Bucket<T> {
        match self {
            Bucket::Few(entries) => Bucket::Few(entries.clone()),
            Bucket::Many(entries) => Bucket::Many(entries.clone()),
        }
    }
}

impl<T> Default for Bucket<T> {
    fn default() -> Bucket<T> {
        Bucket::Few(Arc::from([]))
    }
}

impl<T> Bucket<T> {
    pub(super) fn len(&self) -> usize {
        match self {
            Bucket::Few(entries) => entries.len(),
            Bucket::Many(entries) => entries.len(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Entry<T>>> {
        let (few, many) = match self {
            Bucket::Few(entries) => (Some(entries.iter()), None),
            Bucket::Many(entries) => (None, Some(entries.iter().map(|ranked| &ranked.0))),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }

    pub(super) fn insert(&mut self, entry: &Arc<Entry<T>>) {
        match self {
            Bucket::Few(entries) if entries.len() < FEW => {
                let at = entries.partition_point(|known| known.before(entry));
                let (before, after) = entries.split_at(at);
                *entries = before.iter().chain([entry]).chain(after).cloned().collect();
            }
            Bucket::Few(entries) => {
                *self = Bucket::Many(entries.iter().chain([entry]).map(|entry| Ranked(entry.clone())).collect());
            }
            Bucket::Many(entries) => {
                entries.insert(Ranked(entry.clone()));
            }
        }
    }

    pub(super) fn remove(&mut self, entry: &Arc<Entry<T>>) {
        match self {
            Bucket::Few(entries) => *entries = entries.iter().filter(|known| known.id != entry.id).cloned().collect(),
            Bucket::Many(entries) => {
                entries.remove(&Ranked(entry.clone()));
            }
        }
    }
}

impl<T> Clone for Ranked<T> {
    fn clone(&self) -> Ranked<T> {
        Ranked(self.0.clone())
    }
}

impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Ranked<T>) -> std::cmp::Ordering {
        self.0.order(&other.0)
    }
}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Ranked<T>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Ranked<T>) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Ranked<T> {}

/// Entries of a list that is copied.
const FEW: usize = 32;
