//! What a store is, as a value: items, leases and history, and what each request does to them.
//!
//! Pure: no clock, no I/O. Cloning costs nothing, since parts are shared; so a change is made on a clone, written
//! down, and only then shown. A request that fails leaves the value as it was. [`super::local`] brings it to life.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet, Vector};
use tokio::time::Instant;

use super::{Batch, Change, Compare, Error, Item, LeaseId, Op, Revision, Txn};

/// All of a store at one revision.
#[derive(Clone, Debug)]
pub(super) struct Core {
    pub(super) revision: Revision,
    /// The newest revision that history no longer has.
    pub(super) compacted: Revision,
    pub(super) items: OrdMap<Bytes, Item>,
    pub(super) history: Vector<Arc<Batch>>,
    pub(super) leases: OrdMap<LeaseId, Lease>,
    pub(super) next_lease: i64,
    /// Bytes of keys and values in `items`.
    size: usize,
    /// Bytes of keys and values in `history`.
    history_size: usize,
    /// How many revisions history has at most.
    keep: usize,
}

/// A lease and what hangs on it.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    /// In seconds.
    pub(super) ttl: u32,
    deadline: Instant,
    keys: OrdSet<Bytes>,
}

impl Core {
    /// An empty store at revision 0, whose history has at most `keep` revisions. `first_lease` should be random, so
    /// that a lease of a store that is gone is not taken for one of this store.
    pub(super) fn new(keep: usize, first_lease: i64) -> Core {
        Core {
            revision: Revision(0),
            compacted: Revision(0),
            items: OrdMap::new(),
            history: Vector::new(),
            leases: OrdMap::new(),
            next_lease: first_lease.max(1),
            size: 0,
            history_size: 0,
            keep: keep.max(1),
        }
    }

    /// Puts back what was kept elsewhere: a lease, with its whole time before it.
    pub(super) fn restore_lease(&mut self, id: LeaseId, ttl: u32, now: Instant) {
        self.leases.insert(id, Lease { ttl, deadline: deadline(now, ttl), keys: OrdSet::new() });
    }

    /// Puts back an item, after its lease. False if its lease is not there.
    pub(super) fn restore_item(&mut self, key: Bytes, item: Item) -> bool {
        if let Some(id) = item.lease {
            match self.leases.get_mut(&id) {
                Some(lease) => _ = lease.keys.insert(key.clone()),
                None => return false,
            }
        }
        self.size += key.len() + item.value.len();
        self.items.insert(key, item);
        true
    }

    /// Puts back a revision of history, in order.
    pub(super) fn restore_history(&mut self, batch: Batch) {
        self.history_size += size_of(&batch);
        self.history.push_back(Arc::new(batch));
    }

    /// Everything, at one revision.
    pub(super) fn snapshot(&self) -> Batch {
        let changes = self.items.iter().map(|(key, item)| Change { key: key.clone(), value: Some(item.value.clone()) });
        Batch { revision: self.revision, changes: changes.collect() }
    }

    /// The first revision after `after`, if there is one already. A revision that this store has not reached is one of
    /// another store's history, so it is as good as compacted.
    pub(super) fn after(&self, after: Revision) -> Result<Option<Arc<Batch>>, Error> {
        if after < self.compacted || after > self.revision {
            return Err(Error::Compacted { oldest: Revision(self.compacted.0 + 1) });
        }
        let index = match self.history.binary_search_by_key(&after, |batch| batch.revision) {
            Ok(found) => found + 1,
            Err(place) => place,
        };
        Ok(self.history.get(index).cloned())
    }

    /// Commits a transaction that passed [`super::limits::check`].
    pub(super) fn commit(&mut self, txn: Txn) -> Result<Revision, Error> {
        self.check(&txn)?;
        let revision = Revision(self.revision.0 + 1);
        let mut changes = Vec::with_capacity(txn.ops.len());
        for op in txn.ops {
            match op {
                Op::Put(key, value, lease) => {
                    let key = Bytes::from(key);
                    self.forget(&key);
                    if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
                        lease.keys.insert(key.clone());
                    }
                    self.size += key.len() + value.len();
                    self.items.insert(key.clone(), Item { value: value.clone(), revision, lease });
                    changes.push(Change { key, value: Some(value) });
                }
                Op::Delete(key) => {
                    let key = Bytes::from(key);
                    if self.forget(&key) {
                        changes.push(Change { key, value: None });
                    }
                }
            }
        }
        self.record(changes);
        Ok(self.revision)
    }

    /// Grants a lease of `ttl` seconds.
    pub(super) fn grant(&mut self, ttl: u32, now: Instant) -> Result<LeaseId, Error> {
        if self.leases.len() >= MOST_LEASES {
            let context = format!("there are {MOST_LEASES} leases already; revoke some");
            return Err(Error::Unavailable { context, source: None });
        }
        let id = LeaseId(self.next_lease);
        self.next_lease = self.next_lease.checked_add(1).unwrap_or(1);
        self.restore_lease(id, ttl, now);
        Ok(id)
    }

    /// Renews a lease and tells its time.
    pub(super) fn keep(&mut self, id: LeaseId, now: Instant) -> Result<Duration, Error> {
        let lease = self.leases.get_mut(&id).ok_or(Error::LeaseLost)?;
        lease.deadline = deadline(now, lease.ttl);
        Ok(Duration::from_secs(lease.ttl.into()))
    }

    /// Ends a lease and deletes its keys, in one revision.
    pub(super) fn revoke(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.remove(&id) else { return };
        let mut changes = Vec::with_capacity(lease.keys.len());
        for key in lease.keys {
            if self.forget(&key) {
                changes.push(Change { key, value: None });
            }
        }
        self.record(changes);
    }

    /// Ends the leases whose time is over, each in a revision of its own.
    pub(super) fn expire(&mut self, now: Instant) {
        let over: Vec<LeaseId> =
            self.leases.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.revoke(id);
        }
    }

    /// Gives every lease the time in which nobody could have renewed it.
    pub(super) fn extend(&mut self, by: Duration) {
        let leases: Vec<LeaseId> = self.leases.keys().copied().collect();
        for id in leases {
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.deadline = lease.deadline.checked_add(by).unwrap_or(lease.deadline);
            }
        }
    }

    fn check(&self, txn: &Txn) -> Result<(), Error> {
        for compare in &txn.compares {
            let holds = match compare {
                Compare::Absent(key) => !self.items.contains_key(key.as_bytes()),
                Compare::Unchanged(key, at) => self.items.get(key.as_bytes()).is_some_and(|item| item.revision == *at),
            };
            if !holds {
                return Err(Error::Conflict);
            }
        }
        let mut more = 0;
        for op in &txn.ops {
            if let Op::Put(key, value, lease) = op {
                more += key.len() + value.len();
                if lease.is_some_and(|id| !self.leases.contains_key(&id)) {
                    return Err(Error::LeaseLost);
                }
            }
        }
        if more > 0 && self.size + more > LARGEST_STORE {
            let context = format!("it holds {} bytes of at most {LARGEST_STORE}; delete keys", self.size);
            return Err(Error::Unavailable { context, source: None });
        }
        Ok(())
    }

    /// Removes a key from everywhere but history. False if it was not there.
    fn forget(&mut self, key: &Bytes) -> bool {
        let Some(item) = self.items.remove(key) else { return false };
        self.size -= key.len() + item.value.len();
        if let Some(lease) = item.lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
        true
    }

    fn record(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        self.revision = Revision(self.revision.0 + 1);
        self.restore_history(Batch { revision: self.revision, changes });
        while self.history.len() > self.keep || self.history_size > LARGEST_HISTORY {
            let Some(oldest) = self.history.pop_front() else { return };
            self.history_size -= size_of(&oldest);
            self.compacted = oldest.revision;
        }
    }
}

fn deadline(now: Instant, ttl: u32) -> Instant {
    now.checked_add(Duration::from_secs(ttl.into())).unwrap_or(now)
}

fn size_of(batch: &Batch) -> usize {
    batch.changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len)).sum()
}

/// In bytes of keys and values. All of it is in memory.
const LARGEST_STORE: usize = 512 << 20;
/// In bytes of keys and values. Values that are still in force are shared with the items.
const LARGEST_HISTORY: usize = 64 << 20;
const MOST_LEASES: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, lease: Option<LeaseId>) -> Txn {
        Txn { compares: Vec::new(), ops: vec![Op::Put(key.into(), "v".into(), lease)] }
    }

    #[test]
    fn a_lease_ends_in_one_revision_and_takes_only_its_keys() {
        let now = Instant::now();
        let mut core = Core::new(100, 1);
        let lease = core.grant(5, now).unwrap();
        for key in ["a", "b", "mine"] {
            core.commit(put(key, Some(lease))).unwrap();
        }
        core.commit(put("mine", None)).unwrap();
        core.expire(now + Duration::from_millis(4999));
        assert_eq!(core.revision, Revision(4));
        core.expire(now + Duration::from_secs(5));
        let last = core.after(Revision(4)).unwrap().unwrap();
        assert_eq!((last.revision, last.changes.len()), (Revision(5), 2));
        assert_eq!(core.snapshot().changes.len(), 1);
        assert!(matches!(core.keep(lease, now), Err(Error::LeaseLost)));
        assert!(matches!(core.commit(put("c", Some(lease))), Err(Error::LeaseLost)));
    }

    #[test]
    fn a_failed_transaction_changes_nothing() {
        let mut core = Core::new(100, 1);
        core.commit(put("a", None)).unwrap();
        let txn = Txn { compares: vec![Compare::Absent("a".into())], ops: vec![Op::Delete("a".into())] };
        assert!(matches!(core.commit(txn), Err(Error::Conflict)));
        assert_eq!((core.revision, core.items.len()), (Revision(1), 1));
    }

    #[test]
    fn history_is_bounded_and_says_so() {
        let mut core = Core::new(3, 1);
        for i in 0..5 {
            core.commit(put(&format!("k{i}"), None)).unwrap();
        }
        assert!(matches!(core.after(Revision(1)), Err(Error::Compacted { oldest: Revision(3) })));
        assert_eq!(core.after(Revision(2)).unwrap().unwrap().revision, Revision(3));
        assert!(core.after(Revision(5)).unwrap().is_none());
        assert!(core.after(Revision(6)).is_err());
    }

    #[test]
    fn deleting_nothing_is_no_revision() {
        let mut core = Core::new(3, 1);
        assert_eq!(core.commit(Txn::delete("a")).unwrap(), Revision(0));
        assert!(core.history.is_empty());
    }

    #[test]
    fn sizes_return_to_zero() {
        let mut core = Core::new(3, 1);
        core.commit(put("a", None)).unwrap();
        core.commit(put("a", None)).unwrap();
        core.commit(Txn::delete("a")).unwrap();
        assert_eq!(core.size, 0);
    }
}
