//! A store of a few lines for tests: revisions, compares and leases that end when told to. It does not watch.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etna_store::{Batch, Change, Compare, Engine, Error, Item, LeaseId, Op, Revision, Txn};
use futures_util::stream::BoxStream;

/// The store.
#[derive(Default)]
pub(crate) struct Fake {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    revision: i64,
    items: BTreeMap<String, Item>,
    leases: Vec<LeaseId>,
    granted: i64,
    away: bool,
}

impl Fake {
    /// Lets it answer, or not.
    pub(crate) fn away(&self, away: bool) {
        self.state.lock().unwrap().away = away;
    }

    /// Ends a lease and deletes its keys.
    pub(crate) fn end(&self, lease: LeaseId) {
        let mut state = self.state.lock().unwrap();
        state.leases.retain(|its| *its != lease);
        state.items.retain(|_, item| item.lease != Some(lease));
        state.revision += 1;
    }

    /// Every key and its value.
    pub(crate) fn dump(&self) -> BTreeMap<String, String> {
        let state = self.state.lock().unwrap();
        state.items.iter().map(|(k, item)| (k.clone(), String::from_utf8(item.value.to_vec()).unwrap())).collect()
    }

    pub(crate) fn item(&self, key: &str) -> Option<Item> {
        self.state.lock().unwrap().items.get(key).cloned()
    }

    pub(crate) fn revision(&self) -> i64 {
        self.state.lock().unwrap().revision
    }

    fn open(&self) -> Result<std::sync::MutexGuard<'_, State>, Error> {
        let state = self.state.lock().unwrap();
        if state.away { Err(Error::Unavailable { context: "away".into(), source: None }) } else { Ok(state) }
    }
}

#[async_trait]
impl Engine for Fake {
    async fn snapshot(&self) -> Result<Batch, Error> {
        let state = self.open()?;
        let change =
            |(key, item): (&String, &Item)| Change { key: Bytes::from(key.clone()), value: Some(item.value.clone()) };
        Ok(Batch { revision: Revision(state.revision), changes: state.items.iter().map(change).collect() })
    }

    async fn watch(&self, _after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        Err(Error::Invalid { reason: "the sidekick does not watch".into() })
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, Error> {
        Ok(self.open()?.items.get(key).cloned())
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        let mut state = self.open()?;
        assert!(!txn.ops.is_empty() && txn.ops.len() <= 128, "{} writes in one transaction", txn.ops.len());
        let holds = |compare: &Compare| match compare {
            Compare::Absent(key) => !state.items.contains_key(key),
            Compare::Unchanged(key, revision) => state.items.get(key).is_some_and(|item| item.revision == *revision),
        };
        if !txn.compares.iter().all(holds) {
            return Err(Error::Conflict);
        }
        let dead = |op: &Op| matches!(op, Op::Put(_, _, Some(lease)) if !state.leases.contains(lease));
        if txn.ops.iter().any(dead) {
            return Err(Error::LeaseLost);
        }
        state.revision += 1;
        let revision = Revision(state.revision);
        for op in txn.ops {
            match op {
                Op::Put(key, value, lease) => drop(state.items.insert(key, Item { value, revision, lease })),
                Op::Delete(key) => drop(state.items.remove(&key)),
            }
        }
        Ok(revision)
    }

    async fn grant(&self, _ttl: Duration) -> Result<LeaseId, Error> {
        let mut state = self.open()?;
        state.granted += 1;
        let lease = LeaseId(state.granted);
        state.leases.push(lease);
        Ok(lease)
    }

    async fn keep(&self, lease: LeaseId) -> Result<Duration, Error> {
        if self.open()?.leases.contains(&lease) { Ok(Duration::from_secs(15)) } else { Err(Error::LeaseLost) }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.end(lease);
        Ok(())
    }

    fn describe(&self) -> String {
        "fake:".into()
    }
}
