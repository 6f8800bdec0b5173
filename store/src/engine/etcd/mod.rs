//! An etcd cluster, version 3.4 or later, as a store below one prefix.
//!
//! Reads are linearizable: they tell the truth even when the member asked lags behind. A request is bounded to 5 s; a
//! member that fails is left for the next; trying again later is the caller's. Not here: gRPC's details (`members`,
//! `error`) and following changes (`watch`).

mod error;
mod members;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{Client, CompareOp, GetOptions, GetResponse, PutOptions, ResponseHeader, TxnOp};
use futures_util::stream::BoxStream;

use super::{Batch, Change, Compare, Engine, Error, Item, LeaseId, Op, Options, Revision, Txn, limits};
use members::Members;

/// A connection to a cluster.
pub struct Etcd(Arc<Inner>);

struct Inner {
    members: Members,
    /// With its trailing slash, so that siblings do not match.
    prefix: String,
    /// The cluster's id as of the last snapshot; 0 before.
    cluster: AtomicU64,
    /// Its raft term then; 0 before. It never goes back in a history that lives.
    term: AtomicU64,
}

impl Etcd {
    /// A store below `prefix` (`/vulcand` and `/vulcand/` mean the same; `vulcand`, without the leading slash, is
    /// another one) of the cluster at `addresses`, each `HOST:PORT`. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a file that `options` names cannot be read.
    pub async fn new(addresses: &[String], secure: bool, prefix: &str, options: &Options) -> Result<Etcd, Error> {
        let members = Members::new(addresses, secure, options.clone());
        members.check().await?;
        let prefix = format!("{}/", prefix.trim_end_matches('/'));
        Ok(Etcd(Arc::new(Inner { members, prefix, cluster: AtomicU64::new(0), term: AtomicU64::new(0) })))
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.0.prefix)
    }
}

#[async_trait]
impl Engine for Etcd {
    async fn snapshot(&self) -> Result<Batch, Error> {
        for _ in 0..MOST_TRIES {
            match self.0.snapshot().await {
                // Somebody compacted while we turned the pages.
                Err(Error::Compacted { .. }) => {}
                result => return result,
            }
        }
        let context = "etcd is compacted faster than a snapshot can be read; compact less often".into();
        Err(Error::Unavailable { context, source: None })
    }

    async fn watch(&self, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        watch::start(self.0.clone(), after).await
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, Error> {
        limits::check_key(key)?;
        let key = self.key(key);
        let get = |client: Client| {
            let key = key.clone();
            async move { client.kv_client().get(key, None).await }
        };
        let mut answer = self.0.members.ask("read a key", true, get).await?;
        Ok(answer.take_kvs().into_iter().next().map(|pair| Item {
            revision: Revision(pair.mod_revision()),
            lease: Some(pair.lease()).filter(|id| *id != 0).map(LeaseId),
            value: pair.into_key_value().1.into(),
        }))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        limits::check(&txn)?;
        let txn = self.txn(txn);
        let commit = |client: Client| {
            let txn = txn.clone();
            async move { client.kv_client().txn(txn).await }
        };
        let answer = self.0.members.ask("write", false, commit).await?;
        if !answer.succeeded() {
            return Err(Error::Conflict);
        }
        Ok(Revision(header(answer.header())?.revision()))
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        let ttl = limits::seconds(ttl)?;
        let grant = |client: Client| async move { client.lease_client().grant(ttl.into(), None).await };
        // A lease that nobody knows of ends by itself.
        let answer = self.0.members.ask("grant a lease", true, grant).await?;
        Ok(LeaseId(answer.id()))
    }

    async fn keep(&self, lease: LeaseId) -> Result<Duration, Error> {
        // The client library swallows the first answer of a stream, and with it the lease's time.
        let keep = |client: Client| async move {
            let (mut keeper, mut answers) = client.lease_client().keep_alive(lease.0).await?;
            keeper.keep_alive().await?;
            Ok(answers.message().await?.map_or(0, |answer| answer.ttl()))
        };
        let ttl = self.0.members.ask("renew a lease", true, keep).await?;
        match u64::try_from(ttl) {
            Ok(ttl) if ttl > 0 => Ok(Duration::from_secs(ttl)),
            _ => Err(Error::LeaseLost),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        let revoke = |client: Client| async move { client.lease_client().revoke(lease.0).await };
        match self.0.members.ask("end a lease", true, revoke).await {
            Ok(_) | Err(Error::LeaseLost) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn renew(&self) -> Result<(), Error> {
        self.0.members.renew().await
    }

    fn describe(&self) -> String {
        let scheme = if self.0.members.is_secure() { "etcds" } else { "etcd" };
        let prefix = self.0.prefix.trim_end_matches('/');
        match prefix.strip_prefix('/') {
            Some(_) => format!("{scheme}://{}{prefix}", self.0.members.addresses()),
            None => format!("{scheme}://{}?prefix={prefix}", self.0.members.addresses()),
        }
    }
}

impl Etcd {
    fn txn(&self, txn: Txn) -> etcd_client::Txn {
        let compares: Vec<_> = txn
            .compares
            .into_iter()
            .map(|compare| match compare {
                Compare::Absent(key) => etcd_client::Compare::create_revision(self.key(&key), CompareOp::Equal, 0),
                Compare::Unchanged(key, Revision(at)) => {
                    etcd_client::Compare::mod_revision(self.key(&key), CompareOp::Equal, at)
                }
            })
            .collect();
        let ops: Vec<_> = txn
            .ops
            .into_iter()
            .map(|op| match op {
                Op::Put(key, value, lease) => {
                    let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
                    TxnOp::put(self.key(&key), value, options)
                }
                Op::Delete(key) => TxnOp::delete(self.key(&key), None),
            })
            .collect();
        etcd_client::Txn::new().when(compares).and_then(ops)
    }
}

impl Inner {
    /// Reads page after page at the revision of the first.
    async fn snapshot(&self) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        let mut cluster = None;
        let mut term = 0;
        let mut from = self.prefix.clone().into_bytes();
        loop {
            let (mut page, more) = self.page(&from, batch.revision).await?;
            let header = header(page.header())?;
            if *cluster.get_or_insert(header.cluster_id()) != header.cluster_id() {
                let context = format!(
                    "the endpoints {} belong to different clusters; give those of one",
                    self.members.addresses()
                );
                return Err(Error::Unavailable { context, source: None });
            }
            if batch.revision == Revision::default() {
                batch.revision = Revision(header.revision());
                term = header.raft_term();
            }
            for pair in page.take_kvs() {
                let (key, value) = pair.into_key_value();
                from.clone_from(&key);
                if let Some(key) = self.relative(key) {
                    batch.changes.push(Change { key, value: Some(value.into()) });
                }
            }
            if !more {
                break;
            }
            from.push(0);
        }
        self.believe(cluster.unwrap_or_default()).await?;
        self.cluster.store(cluster.unwrap_or_default(), Ordering::Relaxed);
        self.term.store(term, Ordering::Relaxed);
        Ok(batch)
    }

    /// Whether another cluster than the one followed so far is taken for it: only if all endpoints say that they are of
    /// it, because one that does not is either a stranger among them or the one that knows better.
    async fn believe(&self, cluster: u64) -> Result<(), Error> {
        let known = self.cluster.load(Ordering::Relaxed);
        if known == 0 || known == cluster || self.members.clusters().await.iter().all(|said| *said == Some(cluster)) {
            return Ok(());
        }
        self.members.avoid_current();
        let context = format!(
            "an endpoint of {} belongs to another cluster ({cluster:x}) than the one followed ({known:x}); give those of \
             one, or, if this is its successor, bring all of them up",
            self.members.addresses()
        );
        Err(Error::Unavailable { context, source: None })
    }

    /// Pairs from a key on, at a revision or, with 0, now; and whether there are more.
    async fn page(&self, from: &[u8], at: Revision) -> Result<(GetResponse, bool), Error> {
        let mut limit = LARGEST_PAGE;
        loop {
            let options = GetOptions::new().with_range(self.end()).with_limit(limit).with_revision(at.0);
            let read = |client: Client| {
                let (from, options) = (from.to_vec(), options.clone());
                async move {
                    match client.kv_client().max_decoding_message_size(LONGEST_ANSWER).get(from, Some(options)).await {
                        Ok(page) => Ok(Some(page)),
                        Err(error) if limit > 1 && error::is_too_long(&error) => Ok(None),
                        Err(error) => Err(error),
                    }
                }
            };
            match self.members.ask("read a snapshot", true, read).await? {
                Some(page) => {
                    let more = page.more() && !page.kvs().is_empty();
                    return Ok((page, more));
                }
                None => limit = (limit / 8).max(1),
            }
        }
    }

    /// The revision that the cluster, not only a member of it, has reached.
    async fn newest(&self) -> Result<Revision, Error> {
        let read = |client: Client| {
            let options = GetOptions::new().with_count_only();
            async move { client.kv_client().get(self.prefix.clone(), Some(options)).await }
        };
        let answer = self.members.ask("read the revision", true, read).await?;
        Ok(Revision(header(answer.header())?.revision()))
    }

    /// The key below the prefix.
    fn relative(&self, key: Vec<u8>) -> Option<Bytes> {
        key.starts_with(self.prefix.as_bytes()).then(|| Bytes::from(key).slice(self.prefix.len()..))
    }

    /// The first key after all keys with the prefix.
    fn end(&self) -> Vec<u8> {
        let mut end = self.prefix.clone().into_bytes();
        // The prefix ends in a slash, so adding one never overflows.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        end
    }
}

fn header(header: Option<&ResponseHeader>) -> Result<&ResponseHeader, Error> {
    header.ok_or_else(|| Error::Unavailable { context: "etcd answered without a header".into(), source: None })
}

/// In pairs. Values are small, but certificates are among them.
const LARGEST_PAGE: i64 = 1000;
/// In bytes.
const LONGEST_ANSWER: usize = 32 << 20;
const MOST_TRIES: usize = 5;
