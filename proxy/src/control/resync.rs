//! Comparing what is served with what is stored, now and then: against events that a watch lost.
//!
//! A snapshot is read beside the watch. Keys that the watch brings meanwhile, and for two seconds after, are left out;
//! whatever else differs was lost on the way. It is read so seldom that it takes a two-hundredth of the time at most.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etna_store::{Batch, Engine, Error, Revision};
use tokio::task::JoinHandle;

/// The comparison that runs, or when the next one does.
pub(super) struct Resync {
    next: Instant,
    running: Option<Running>,
}

struct Running {
    began: Instant,
    /// The revision that was surely reached when it began.
    from: Revision,
    task: Option<JoinHandle<Result<Batch, Error>>>,
    read: Option<(Batch, Instant)>,
    touched: HashSet<Bytes>,
}

/// What a comparison has come to.
pub(super) enum Step {
    /// It goes on, or is not due.
    Nothing,
    /// What is stored, without the keys that changed meanwhile; and those.
    Compare(Batch, HashSet<Bytes>),
    /// The store's history is another one.
    Replaced,
    /// It could not be read.
    Failed(Error),
}

impl Resync {
    pub(super) fn new(now: Instant) -> Resync {
        Resync { next: now + pause(Duration::ZERO), running: None }
    }

    /// Stops what runs, because the watch does not bring what changes meanwhile.
    pub(super) fn reset(&mut self, now: Instant) {
        if let Some(task) = self.running.take().and_then(|running| running.task) {
            task.abort();
        }
        self.next = now + pause(Duration::ZERO);
    }

    /// The same where a watch was taken up again: if the history was replaced meanwhile, nothing else may ever tell.
    /// Not at once, so that a fleet does not come all together.
    pub(super) fn soon(&mut self, now: Instant) {
        self.reset(now);
        self.next = now + SOON.mul_f64(fastrand::f64());
    }

    /// Notes what the watch brought.
    pub(super) fn brought(&mut self, batch: &Batch) {
        if let Some(running) = &mut self.running {
            running.touched.extend(batch.changes.iter().map(|change| change.key.clone()));
            if running.touched.len() > MOST_TOUCHED {
                self.reset(Instant::now());
            }
        }
    }

    /// Goes on as far as it can without waiting.
    pub(super) async fn step(&mut self, engine: &Arc<dyn Engine>, seen: Revision, now: Instant) -> Step {
        let Some(running) = &mut self.running else {
            if now >= self.next {
                let engine = engine.clone();
                let task = tokio::spawn(async move { engine.snapshot().await });
                let (read, touched) = (None, HashSet::new());
                self.running = Some(Running { began: now, from: seen, task: Some(task), read, touched });
            }
            return Step::Nothing;
        };
        if let Some(task) = running.task.take_if(|task| task.is_finished()) {
            let took = now.duration_since(running.began);
            self.next = now + pause(took);
            match task.await {
                Ok(Ok(batch)) if batch.revision < running.from => {
                    self.running = None;
                    return Step::Replaced;
                }
                Ok(Ok(batch)) => running.read = Some((batch, now + SETTLE)),
                Ok(Err(error)) => {
                    self.running = None;
                    return Step::Failed(error);
                }
                Err(_) => self.running = None,
            }
            return Step::Nothing;
        }
        match &running.read {
            Some((_, due)) if now >= *due => match self.running.take() {
                Some(Running { read: Some((batch, _)), touched, .. }) => Step::Compare(batch, touched),
                _ => Step::Nothing,
            },
            _ => Step::Nothing,
        }
    }
}

fn pause(took: Duration) -> Duration {
    (EVERY + EVERY.mul_f64(fastrand::f64() / 2.0)).max(took * SHARE)
}

const EVERY: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(4);
const SHARE: u32 = 200;
/// Until what was committed before the snapshot has surely come over the watch.
const SETTLE: Duration = Duration::from_secs(2);
const MOST_TOUCHED: usize = 200_000;

#[cfg(test)]
mod tests {
    use etna_store::Txn;
    use etna_store::engine::memory;

    use super::*;

    /// Steps until something comes out, as the control loop does.
    async fn until_out(resync: &mut Resync, engine: &Arc<dyn Engine>, seen: Revision, now: Instant) -> Step {
        loop {
            match resync.step(engine, seen, now).await {
                Step::Nothing if resync.running.as_ref().is_some_and(|it| it.task.is_some()) => {
                    tokio::task::yield_now().await;
                }
                step => return step,
            }
        }
    }

    #[tokio::test]
    async fn what_the_watch_brings_meanwhile_is_left_out() {
        let engine = memory::open();
        let seen = engine.commit(Txn::put("sites/a", "1")).await.unwrap();
        let start = Instant::now();
        let mut resync = Resync::new(start);
        assert!(matches!(resync.step(&engine, seen, start + Duration::from_secs(59)).await, Step::Nothing));
        assert!(resync.running.is_none(), "not before its time");
        let now = start + EVERY * 2;
        assert!(matches!(until_out(&mut resync, &engine, seen, now).await, Step::Nothing));
        let change = etna_store::Change { key: "sites/b".into(), value: None };
        resync.brought(&Batch { revision: Revision(seen.0 + 1), changes: vec![change] });
        assert!(matches!(resync.step(&engine, seen, now + SETTLE / 2).await, Step::Nothing));
        match resync.step(&engine, seen, now + SETTLE).await {
            Step::Compare(batch, touched) => {
                assert_eq!((batch.changes.len(), touched.len()), (1, 1));
            }
            _ => panic!("it is due"),
        }
        // A revision below one that was reached is another history.
        let far = Revision(seen.0 + 1000);
        let later = now + EVERY * 4;
        assert!(matches!(until_out(&mut resync, &engine, far, later).await, Step::Replaced));
        // A watch that was taken up again is followed by a comparison soon.
        resync.soon(later);
        let _ = resync.step(&engine, seen, later + SOON).await;
        assert!(resync.running.is_some());
    }

    #[test]
    fn it_takes_a_small_share_of_the_time() {
        assert!(pause(Duration::ZERO) >= EVERY && pause(Duration::ZERO) <= EVERY * 3 / 2);
        assert_eq!(pause(Duration::from_secs(3)), Duration::from_secs(600));
    }
}
