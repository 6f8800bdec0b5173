//! A [`Core`] brought to life: one task changes it, everybody reads it, watchers follow its history.
//!
//! What waits is taken as one group, written to disk with one sync, shown, and then answered: nobody sees or is
//! promised what is not kept. Watchers have no queues; each reads history at its own pace and is told when it fell out
//! of it. Not here: what a request means ([`super::core`]) and how it is written ([`super::embedded`]).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _, unfold};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::core::Core;
use super::embedded::Place;
use super::{Batch, Engine, Error, Item, LeaseId, Revision, Txn, limits};

/// An engine of this process.
#[derive(Debug)]
pub(super) struct Local {
    works: mpsc::Sender<Work>,
    loans: mpsc::Sender<Loan>,
    current: watch::Receiver<Arc<Core>>,
    name: String,
}

/// Lending the place on disk to another process, and getting it back; answered when done.
#[derive(Debug)]
enum Loan {
    Out(oneshot::Sender<()>),
    Back(oneshot::Sender<()>),
}

/// One request: applied to a core, it says how to answer once it is known whether the disk has it.
type Work = Box<dyn FnOnce(&mut Core, Instant) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Option<&str>) + Send>;

impl Local {
    /// Starts the task. It ends when this value is dropped; call it inside a tokio runtime.
    pub(super) fn start(core: Core, place: Option<Place>, name: String) -> Local {
        let core = Arc::new(core);
        let (works, waiting) = mpsc::channel(LONGEST_QUEUE);
        let (loans, lending) = mpsc::channel(1);
        let (shown, current) = watch::channel(core.clone());
        tokio::spawn(Writer { core, place, shown, waiting, lending }.run());
        Local { works, loans, current, name }
    }

    async fn ask<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Core, Instant) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, answer) = oneshot::channel();
        let work: Work = Box::new(move |core, now| {
            let result = change(core, now);
            Box::new(move |failure| {
                let _ = sender.send(match failure {
                    None => result,
                    Some(failure) => Err(Error::Unavailable { context: failure.into(), source: None }),
                });
            })
        });
        let asked = async {
            self.works.send(work).await.map_err(|_| closed())?;
            answer.await.map_err(|_| closed())?
        };
        match tokio::time::timeout(LONGEST_REQUEST, asked).await {
            Ok(result) => result,
            Err(_) => {
                let context = format!("{} took longer than {LONGEST_REQUEST:?}; is its disk slow or full?", self.name);
                Err(Error::Unavailable { context, source: None })
            }
        }
    }

    async fn lend(&self, loan: impl FnOnce(oneshot::Sender<()>) -> Loan) {
        let (sender, done) = oneshot::channel();
        if self.loans.send(loan(sender)).await.is_ok() {
            let _ = done.await;
        }
    }

    fn now(&self) -> Arc<Core> {
        self.current.borrow().clone()
    }
}

#[async_trait]
impl Engine for Local {
    async fn snapshot(&self) -> Result<Batch, Error> {
        Ok(self.now().snapshot())
    }

    async fn watch(&self, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        self.now().after(after)?;
        let start = Some((self.current.clone(), after));
        Ok(unfold(start, |state| async move {
            let (mut current, seen) = state?;
            loop {
                let next = current.borrow_and_update().after(seen);
                match next {
                    Ok(Some(batch)) => {
                        let seen = batch.revision;
                        return Some((Ok(Batch::clone(&batch)), Some((current, seen))));
                    }
                    Ok(None) => {}
                    Err(error) => return Some((Err(error), None)),
                }
                if current.changed().await.is_err() {
                    return Some((Err(closed()), None));
                }
            }
        })
        .boxed())
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, Error> {
        limits::check_key(key)?;
        Ok(self.now().items.get(key.as_bytes()).cloned())
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        limits::check(&txn)?;
        self.ask(move |core, _| core.commit(txn)).await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        let ttl = limits::seconds(ttl)?;
        self.ask(move |core, now| core.grant(ttl, now)).await
    }

    async fn keep(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.ask(move |core, now| core.keep(lease, now)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.ask(move |core, _| {
            core.revoke(lease);
            Ok(())
        })
        .await
    }

    async fn release(&self) {
        self.lend(Loan::Out).await;
    }

    async fn resume(&self) {
        self.lend(Loan::Back).await;
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}

/// The only one who changes the core.
struct Writer {
    core: Arc<Core>,
    place: Option<Place>,
    shown: watch::Sender<Arc<Core>>,
    waiting: mpsc::Receiver<Work>,
    lending: mpsc::Receiver<Loan>,
}

impl Writer {
    async fn run(mut self) {
        let mut works = Vec::with_capacity(LARGEST_GROUP);
        let mut before = Instant::now();
        let mut lent = false;
        loop {
            tokio::select! {
                taken = self.waiting.recv_many(&mut works, LARGEST_GROUP), if !lent => if taken == 0 { break },
                () = tokio::time::sleep(TICK), if !lent && !self.core.leases.is_empty() => {}
                loan = self.lending.recv() => match (loan, &mut self.place) {
                    (None, _) => break,
                    (Some(Loan::Out(done)), Some(place)) => {
                        place.release().await;
                        lent = true;
                        let _ = done.send(());
                    }
                    (Some(Loan::Back(done)), Some(place)) => {
                        // Its leases begin anew, as whenever it is opened.
                        if let Some(core) = place.take_back().await {
                            self.core = Arc::new(core);
                        }
                        before = Instant::now();
                        self.turn(std::iter::empty(), before, Duration::ZERO).await;
                        lent = false;
                        let _ = done.send(());
                    }
                    (Some(Loan::Out(done) | Loan::Back(done)), None) => _ = done.send(()),
                },
            }
            if lent {
                continue;
            }
            let now = Instant::now();
            self.turn(works.drain(..), now, now - before).await;
            before = now;
        }
        if let Some(place) = self.place {
            place.close().await;
        }
    }

    /// One group. `since` is the time since the last one began.
    async fn turn(&mut self, works: impl Iterator<Item = Work>, now: Instant, since: Duration) {
        let reopened = match &mut self.place {
            Some(place) => place.reopen(now).await,
            None => Ok(None),
        };
        let (mut staged, mut failure) = match reopened {
            Ok(Some(core)) => {
                self.core = Arc::new(core);
                ((*self.core).clone(), None)
            }
            Ok(None) => ((*self.core).clone(), None),
            Err(failure) => ((*self.core).clone(), Some(failure)),
        };
        // A process that was stopped, or a disk that hung, is no fault of those who could not renew meanwhile.
        if since > LONGEST_TURN && !staged.leases.is_empty() {
            tracing::warn!(seconds = since.as_secs_f32(), "the store stood still; its leases get that time back");
            staged.extend(since);
        }
        let answers: Vec<Answer> = works.map(|work| work(&mut staged, now)).collect();
        // After the requests: a renewal that waited counts.
        staged.expire(now);
        let staged = Arc::new(staged);
        if let (Some(place), None) = (&mut self.place, &failure) {
            failure = place.write(self.core.clone(), staged.clone()).await.err();
        }
        if failure.is_none() {
            self.core = staged;
        }
        let core = self.core.clone();
        self.shown.send_if_modified(|shown| {
            let moved = shown.revision != core.revision;
            *shown = core;
            moved
        });
        for answer in answers {
            answer(failure.as_deref());
        }
    }
}

/// A random number to begin counting leases with.
pub(super) fn first_lease() -> i64 {
    // The upper bit stays clear, and there is room to count.
    i64::try_from(RandomState::new().hash_one(Bytes::new()) >> 2).unwrap_or(1)
}

fn closed() -> Error {
    Error::Unavailable { context: "the engine was closed".into(), source: None }
}

const LARGEST_GROUP: usize = 256;
const LONGEST_QUEUE: usize = 1024;
const LONGEST_REQUEST: Duration = Duration::from_secs(10);
/// How often leases are looked at.
const TICK: Duration = Duration::from_millis(250);
/// A turn that took longer was a stall.
const LONGEST_TURN: Duration = Duration::from_secs(2);
