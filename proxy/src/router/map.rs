//! A persistent map by hash that takes little more room than what is in it: every frontend is in two of them.
//!
//! A tree with [`WIDTH`] branches at each level, by four bits of the hash; its leaves are lists of just their length,
//! sorted by hash. A clone is free. A change makes one leaf anew and copies the branches above it that a clone has, too.
//! Keys are not stored: whoever asks says which value is meant, of those with one hash. Hashes are expected to be spread
//! evenly, so that a look into a leaf begins where a hash should be. Those that are not, or are equal, are still found,
//! in time linear in their leaf, which is long only where no bit is left to divide it by.

use std::sync::Arc;

/// The map.
pub(super) struct Map<V> {
    root: Node<V>,
    len: usize,
}

enum Node<V> {
    /// Sorted by hash.
    Leaf(Arc<[Slot<V>]>),
    Branch(Arc<[Node<V>; WIDTH]>),
}

#[derive(Clone)]
pub(super) struct Slot<V> {
    hash: u64,
    value: V,
}

impl<V> Map<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of that hash which `is` what is looked for.
    pub(super) fn get(&self, hash: u64, is: impl Fn(&V) -> bool) -> Option<&V> {
        let (mut node, mut rest) = (&self.root, hash);
        loop {
            match node {
                Node::Branch(children) => {
                    node = &children[branch(rest)];
                    rest >>= BITS;
                }
                Node::Leaf(slots) => return find(slots, hash, is).ok().map(|at| &slots[at].value),
            }
        }
    }

    /// Every value, in no order that means anything.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        let mut nodes = vec![&self.root];
        let leaves = std::iter::from_fn(move || {
            loop {
                match nodes.pop()? {
                    Node::Leaf(slots) => return Some(slots),
                    Node::Branch(children) => nodes.extend(children.iter()),
                }
            }
        });
        leaves.flat_map(|slots| slots.iter().map(|slot| &slot.value))
    }
}

impl<V: Clone> Map<V> {
    /// Puts a value in, in the place of the one of that hash which `is` the same.
    pub(super) fn put(&mut self, hash: u64, value: V, is: impl Fn(&V) -> bool) {
        self.len += usize::from(self.root.put(Slot { hash, value }, hash, 0, &is));
    }

    /// Takes out the value of that hash which `is` meant.
    pub(super) fn take(&mut self, hash: u64, is: impl Fn(&V) -> bool) -> Option<V> {
        // What is not there copies nothing.
        self.get(hash, &is)?;
        let taken = self.root.take(hash, hash, &is)?;
        self.len -= 1;
        Some(taken)
    }
}

impl<V: Clone> Node<V> {
    /// Whether there is one value more than before. `rest` is what of the hash chooses branches from here on.
    fn put(&mut self, slot: Slot<V>, rest: u64, depth: u32, is: &impl Fn(&V) -> bool) -> bool {
        let slots = match self {
            Node::Branch(children) => {
                return Arc::make_mut(children)[branch(rest)].put(slot, rest >> BITS, depth + 1, is);
            }
            Node::Leaf(slots) => slots,
        };
        match find(slots, slot.hash, is) {
            Ok(at) => {
                Arc::make_mut(slots)[at] = slot;
                return false;
            }
            Err(at) => {
                let (before, after) = slots.split_at(at);
                *slots = before.iter().chain([&slot]).chain(after).cloned().collect();
            }
        }
        if slots.len() > MOST && depth < DEEPEST {
            let mut lists: [Vec<Slot<V>>; WIDTH] = std::array::from_fn(|_| Vec::new());
            for slot in &**slots {
                lists[branch(slot.hash >> (BITS * depth))].push(slot.clone());
            }
            *self = Node::Branch(Arc::new(lists.map(|list| Node::Leaf(list.into()))));
        }
        true
    }

    fn take(&mut self, hash: u64, rest: u64, is: &impl Fn(&V) -> bool) -> Option<V> {
        match self {
            Node::Leaf(slots) => {
                let at = find(slots, hash, is).ok()?;
                let taken = slots[at].value.clone();
                *slots = slots[..at].iter().chain(&slots[at + 1..]).cloned().collect();
                Some(taken)
            }
            Node::Branch(children) => {
                let children = Arc::make_mut(children);
                let taken = children[branch(rest)].take(hash, rest >> BITS, is)?;
                if let Some(slots) = together(children) {
                    *self = Node::Leaf(slots);
                }
                Some(taken)
            }
        }
    }
}

/// What so few leaves hold that one will do, with room for more.
fn together<V: Clone>(children: &[Node<V>; WIDTH]) -> Option<Arc<[Slot<V>]>> {
    let mut all = 0;
    for child in children {
        match child {
            Node::Leaf(slots) => all += slots.len(),
            Node::Branch(_) => return None,
        }
        if all > FEW {
            return None;
        }
    }
    let slots = children.iter().flat_map(|child| match child {
        Node::Leaf(slots) => &**slots,
        Node::Branch(_) => &[],
    });
    let mut slots: Vec<Slot<V>> = slots.cloned().collect();
    slots.sort_by_key(|slot| slot.hash);
    Some(slots.into())
}

/// Where a value is, or where it would be.
fn find<V>(slots: &[Slot<V>], hash: u64, is: impl Fn(&V) -> bool) -> Result<usize, usize> {
    // Of all bits only the lowest chose the leaf. Beginning here touches a line or two of memory; halving, one each time.
    let near = ((u128::from(hash) * slots.len() as u128) >> u64::BITS) as usize;
    let (before, after) = slots.split_at(near);
    let back = before.iter().rev().take_while(|slot| slot.hash >= hash).count();
    let ahead = after.iter().take_while(|slot| slot.hash < hash).count();
    let first = near - back + ahead;
    let same = slots[first..].iter().take_while(|slot| slot.hash == hash);
    same.enumerate().find(|(_, slot)| is(&slot.value)).map(|(at, _)| first + at).ok_or(first)
}

fn branch(rest: u64) -> usize {
    rest as usize % WIDTH
}

impl<V> Clone for Map<V> {
    fn clone(&self) -> Map<V> {
        Map { root: self.root.clone(), len: self.len }
    }
}

impl<V> Default for Map<V> {
    fn default() -> Map<V> {
        Map { root: Node::Leaf(Arc::default()), len: 0 }
    }
}

impl<V> Clone for Node<V> {
    fn clone(&self) -> Node<V> {
        match self {
            Node::Leaf(slots) => Node::Leaf(slots.clone()),
            Node::Branch(children) => Node::Branch(children.clone()),
        }
    }
}

const BITS: u32 = 4;
const WIDTH: usize = 1 << BITS;
/// Values of a leaf, unless no bit of their hashes is left.
const MOST: usize = 32;
/// Values that one leaf takes up again.
const FEW: usize = 8;
const DEEPEST: u32 = u64::BITS / BITS;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Hashes that share few bits, many, or all.
    fn hash() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..40u64, (0..40u64).prop_map(|n| n << 60), Just(7), Just(u64::MAX)]
    }

    fn shown(map: &Map<(u64, u8, u32)>) -> BTreeMap<(u64, u8), u32> {
        let all: Vec<_> = map.values().map(|(hash, name, value)| ((*hash, *name), *value)).collect();
        let count = all.len();
        let shown: BTreeMap<_, _> = all.into_iter().collect();
        assert_eq!((shown.len(), map.len(), map.is_empty()), (count, count, count == 0));
        shown
    }

    fn leaves<V>(node: &Node<V>) -> usize {
        match node {
            Node::Leaf(_) => 1,
            Node::Branch(children) => children.iter().map(leaves).sum(),
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_would_and_a_clone_stays_as_it_was(
            steps in prop::collection::vec((hash(), 0..3u8, any::<bool>()), 0..400),
            at in 0..400usize,
        ) {
            let (mut map, mut wanted) = (Map::default(), BTreeMap::new());
            let mut early = (map.clone(), wanted.clone());
            for (number, (hash, name, put)) in (0..).zip(&steps) {
                if number as usize == at {
                    early = (map.clone(), wanted.clone());
                }
                let is = |(_, known, _): &(u64, u8, u32)| known == name;
                if *put {
                    map.put(*hash, (*hash, *name, number), is);
                    wanted.insert((*hash, *name), number);
                } else {
                    let taken = map.take(*hash, is).map(|(.., value)| value);
                    prop_assert_eq!(taken, wanted.remove(&(*hash, *name)));
                }
                let found = map.get(*hash, is).map(|(.., value)| value);
                prop_assert_eq!(found, wanted.get(&(*hash, *name)));
            }
            prop_assert_eq!(shown(&map), wanted);
            prop_assert_eq!(shown(&early.0), early.1);
        }
    }

    #[test]
    fn a_change_copies_one_path_and_what_goes_leaves_nothing() {
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut map = Map::default();
        for n in 0..10_000 {
            map.put(hash(n), Arc::new(n), |known| **known == n);
        }
        let before = map.clone();
        map.put(hash(77), Arc::new(77), |known| **known == 77);
        // Who is in a leaf that was copied is held twice.
        let copied = before.values().filter(|value| Arc::strong_count(value) > 1).count();
        assert!((1..=MOST).contains(&copied), "{copied}");
        drop(before);
        for n in 0..10_000 {
            assert_eq!(map.take(hash(n), |known| **known == n).as_deref(), Some(&n));
            assert!(map.take(hash(n), |known| **known == n).is_none());
        }
        assert_eq!((map.len(), leaves(&map.root)), (0, 1));
    }
}
