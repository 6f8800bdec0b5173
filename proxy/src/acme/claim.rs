//! One proxy at a time works for a host: whoever made the key `acme/issuing/<host>`, for as long as its lease lives.
//!
//! What it writes is written only while the key is still its own, so that one that was away for too long does no harm.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etna_store::engine::{Compare, LeaseId, Op, Txn};
use etna_store::{Engine, Error, Revision};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::names;

/// The right to work for a host.
pub(super) struct Claim {
    engine: Arc<dyn Engine>,
    key: String,
    revision: Revision,
    lease: LeaseId,
    /// Cancelled when the right is lost.
    pub(super) lost: CancellationToken,
    _kept: AbortOnDropHandle<()>,
}

impl Claim {
    /// Takes the right, unless another proxy has it: then `None`.
    pub(super) async fn take(engine: &Arc<dyn Engine>, host: &str, by: &str) -> Result<Option<Claim>, Error> {
        let key = names::claim(host);
        if engine.get(&key).await?.is_some() {
            return Ok(None);
        }
        let lease = engine.grant(LIFE).await?;
        let op = Op::Put(key.clone(), Bytes::copy_from_slice(by.as_bytes()), Some(lease));
        match engine.commit(Txn { compares: vec![Compare::Absent(key.clone())], ops: vec![op] }).await {
            Ok(revision) => {
                let lost = CancellationToken::new();
                let kept = AbortOnDropHandle::new(tokio::spawn(keep(engine.clone(), lease, lost.clone())));
                Ok(Some(Claim { engine: engine.clone(), key, revision, lease, lost, _kept: kept }))
            }
            Err(error) => {
                let _ = engine.revoke(lease).await;
                if matches!(error, Error::Conflict) { Ok(None) } else { Err(error) }
            }
        }
    }

    /// Writes, if the right is still ours.
    pub(super) async fn commit(&self, mut compares: Vec<Compare>, ops: Vec<Op>) -> Result<Revision, Error> {
        compares.push(Compare::Unchanged(self.key.clone(), self.revision));
        self.engine.commit(Txn { compares, ops }).await
    }

    /// Writes something that is gone when the right is.
    pub(super) async fn commit_for_now(&self, key: String, value: Vec<u8>) -> Result<Revision, Error> {
        self.commit(Vec::new(), vec![Op::Put(key, value.into(), Some(self.lease))]).await
    }

    /// Gives the right back, and with it what was written for now.
    pub(super) async fn release(self) {
        if timeout(PATIENCE, self.engine.revoke(self.lease)).await.is_err() {
            tracing::debug!(key = self.key, "the store does not answer: a lease ends by itself");
        }
    }
}

/// Keeps a lease until it is lost.
async fn keep(engine: Arc<dyn Engine>, lease: LeaseId, lost: CancellationToken) {
    let mut until = Instant::now() + LIFE;
    loop {
        tokio::time::sleep(EVERY).await;
        let asked = Instant::now();
        match timeout(EVERY, engine.keep(lease)).await {
            Ok(Ok(life)) => until = asked + life,
            Ok(Err(Error::LeaseLost)) => break,
            Ok(Err(_)) | Err(_) => {}
        }
        if Instant::now() + EVERY >= until {
            break;
        }
    }
    lost.cancel();
}

/// How long a right lives when its proxy does not.
const LIFE: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_secs(7);
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time() {
        let engine = etna_store::engine::memory::open();
        let first = Claim::take(&engine, "a.test", "one").await.unwrap().unwrap();
        assert!(Claim::take(&engine, "a.test", "two").await.unwrap().is_none());
        assert!(Claim::take(&engine, "b.test", "two").await.unwrap().is_some());
        first.commit_for_now("acme/challenges/t".into(), b"x".to_vec()).await.unwrap();
        first.release().await;
        assert!(engine.get("acme/challenges/t").await.unwrap().is_none());
        assert!(Claim::take(&engine, "a.test", "two").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn who_has_lost_the_right_writes_nothing() {
        let engine = etna_store::engine::memory::open();
        let late = Claim::take(&engine, "a.test", "one").await.unwrap().unwrap();
        engine.revoke(late.lease).await.unwrap();
        let other = Claim::take(&engine, "a.test", "two").await.unwrap().unwrap();
        let put = || vec![Op::Put("acme/certs/a.test".into(), Bytes::from_static(b"x"), None)];
        assert!(matches!(late.commit(Vec::new(), put()).await, Err(Error::Conflict)));
        other.commit(Vec::new(), put()).await.unwrap();
    }
}
