//! A persistent map by hash that takes little more room than what is in it: every frontend is in two of them.
//!
//! A tree with [`WIDTH`] branches at each level, by four bits of the hash; its leaves are lists of just their length,
//! sorted by hash. A clone is free. A change makes one leaf anew and copies the branches above it that a clone has, too;
//! many at once make each of their leaves anew once. Keys are not stored: whoever asks says which value is meant, of those
//! with one hash.
//!
//! Hashes are expected to be spread evenly, so that a look into a leaf begins where a hash should be. Those that are not,
//! or are equal, are still found, in time linear in their leaf, which is long only where no bit is left to divide it by.

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

/// What is at a hash, or is to happen there.
#[derive(Clone)]
pub(super) struct Slot<V> {
    pub(super) hash: u64,
    pub(super) value: V,
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
    /// Makes changes, those of one hash in their order: what `change` makes of the value of that hash which `is` meant, or
    /// of none, is there instead.
    pub(super) fn change<C>(
        &mut self,
        changes: Vec<Slot<C>>,
        is: impl Fn(&V, &C) -> bool,
        mut change: impl FnMut(Option<V>, C) -> Option<V>,
    ) {
        let len = &mut self.len;
        let mut counted = |known: Option<V>, what| {
            *len -= usize::from(known.is_some());
            let next = change(known, what);
            *len += usize::from(next.is_some());
            next
        };
        self.root.change(changes, 0, &is, &mut counted);
    }
}

impl<V: Clone> Node<V> {
    /// Of values that are sorted.
    fn of(slots: Vec<Slot<V>>, depth: u32) -> Node<V> {
        if slots.len() > MOST && depth < DEEPEST { Node::branches(slots, depth) } else { Node::Leaf(slots.into()) }
    }

    fn branches(slots: Vec<Slot<V>>, depth: u32) -> Node<V> {
        Node::Branch(Arc::new(split(slots, depth).map(|slots| Node::of(slots, depth + 1))))
    }

    fn change<C>(
        &mut self,
        changes: Vec<Slot<C>>,
        depth: u32,
        is: &impl Fn(&V, &C) -> bool,
        change: &mut impl FnMut(Option<V>, C) -> Option<V>,
    ) {
        if changes.is_empty() {
            return;
        }
        // More than one leaf takes: divided first, so that no list is long.
        if let Node::Leaf(slots) = self
            && changes.len() > MOST
            && depth < DEEPEST
        {
            *self = Node::branches(slots.to_vec(), depth);
        }
        match self {
            Node::Leaf(slots) => {
                let mut all = Vec::with_capacity(slots.len() + changes.len());
                all.extend_from_slice(slots);
                for Slot { hash, value: what } in changes {
                    let found = find(&all, hash, |value| is(value, &what));
                    let known = found.ok().map(|at| all.remove(at).value);
                    if let Some(value) = change(known, what) {
                        let (Ok(at) | Err(at)) = found;
                        all.insert(at, Slot { hash, value });
                    }
                }
                *self = Node::of(all, depth);
            }
            Node::Branch(children) => {
                let children = Arc::make_mut(children);
                for (child, changes) in children.iter_mut().zip(split(changes, depth)) {
                    child.change(changes, depth + 1, is, change);
                }
                if let Some(slots) = together(children) {
                    *self = Node::Leaf(slots);
                }
            }
        }
    }
}

/// By the branches that they are in at a depth; those of one in their order.
fn split<S>(slots: Vec<Slot<S>>, depth: u32) -> [Vec<Slot<S>>; WIDTH] {
    let mut lists = [const { Vec::new() }; WIDTH];
    for slot in slots {
        lists[branch(slot.hash >> (BITS * depth))].push(slot);
    }
    lists
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

    /// What is put in, or that it is taken out, and what was there before.
    type Step = (u64, u8, Option<u32>);

    fn change(map: &mut Map<(u64, u8, u32)>, steps: &[Step]) -> Vec<Step> {
        let changes = steps.iter().map(|step| Slot { hash: step.0, value: *step }).collect();
        let mut before = Vec::new();
        map.change(
            changes,
            |(_, known, _), (_, name, _)| known == name,
            |known, (hash, name, next)| {
                before.push((hash, name, known.map(|(.., value)| value)));
                next.map(|value| (hash, name, value))
            },
        );
        // Only the order of one name's is known.
        before.sort_by_key(|(hash, name, _)| (*hash, *name));
        before
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_would_and_a_clone_stays_as_it_was(
            // One at a time, and more than a leaf takes.
            steps in prop::collection::vec((hash(), 0..3u8, prop::option::of(any::<u32>())), 0..600),
            sizes in prop::collection::vec(prop_oneof![Just(1), 1..100usize], 1..40),
            at in 0..40usize,
        ) {
            let (mut map, mut wanted) = (Map::default(), BTreeMap::new());
            let mut early = (map.clone(), wanted.clone());
            let mut rest = &steps[..];
            for (number, size) in sizes.iter().cycle().enumerate() {
                if number == at {
                    early = (map.clone(), wanted.clone());
                }
                if rest.is_empty() {
                    break;
                }
                let (group, later) = rest.split_at((*size).min(rest.len()));
                rest = later;
                let mut before = Vec::new();
                for (hash, name, next) in group {
                    let known = match next {
                        Some(next) => wanted.insert((*hash, *name), *next),
                        None => wanted.remove(&(*hash, *name)),
                    };
                    before.push((*hash, *name, known));
                }
                before.sort_by_key(|(hash, name, _)| (*hash, *name));
                prop_assert_eq!(change(&mut map, group), before);
                for (hash, name, _) in group {
                    let found = map.get(*hash, |(_, known, _)| known == name).map(|(.., value)| value);
                    prop_assert_eq!(found, wanted.get(&(*hash, *name)));
                }
            }
            prop_assert_eq!(shown(&map), wanted);
            prop_assert_eq!(shown(&early.0), early.1);
        }
    }

    #[test]
    fn a_change_copies_one_path_and_what_goes_leaves_nothing() {
        let slot = |n: u64| Slot { hash: n.wrapping_mul(0x9e37_79b9_7f4a_7c15), value: n };
        let all = || (0..10_000).map(slot);
        let mut map = Map::default();
        let put = |map: &mut Map<Arc<u64>>, changes: Vec<Slot<u64>>| {
            map.change(changes, |known, n| **known == *n, |_, n| Some(Arc::new(n)));
        };
        put(&mut map, all().collect());
        let before = map.clone();
        put(&mut map, vec![slot(77)]);
        // Who is in a leaf that was copied is held twice.
        let copied = before.values().filter(|value| Arc::strong_count(value) > 1).count();
        assert!((1..=MOST).contains(&copied), "{copied}");
        // One at a time it comes to be the same.
        let mut single = Map::default();
        all().for_each(|slot| put(&mut single, vec![slot]));
        assert_eq!(leaves(&single.root), leaves(&map.root));
        drop(before);
        for taken in [all().map(|slot| vec![slot]).collect(), vec![all().collect::<Vec<_>>()]] {
            let mut map = map.clone();
            let mut sum = 0;
            for changes in taken {
                map.change(
                    changes,
                    |known, n| **known == *n,
                    |known, _| {
                        sum += *known.unwrap();
                        None
                    },
                );
            }
            assert_eq!((sum, map.len(), leaves(&map.root)), ((0..10_000).sum(), 0, 1));
        }
    }
}
