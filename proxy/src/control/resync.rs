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
const SHARE: u32 = 200;
/// Until what was committed before the snapshot has surely come over the watch.
const SETTLE: Duration = Duration::from_secs(2);
const MOST_TOUCHED: usize = 200_000;
