//! How following begins: with the last table on disk at hand.
//!
//! It serves if the store does not answer at once, and tells what has vanished meanwhile if the store does.

use std::pin::pin;
use std::time::{Duration, Instant};

use etna_store::{Batch, Delta, Error, with_causes};
use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::disk::{self, Found};
use super::follow::Control;
use super::keep::Keeper;

impl Control {
    /// Takes up the last table on disk, and gives the first snapshot if the store answered at once.
    pub(super) async fn begin(&mut self) -> Option<Result<Batch, Error>> {
        let dir = self.keep_in.clone()?;
        let engine = self.state.engine.clone();
        let store = engine.describe();
        let began = Instant::now();
        let snapshot = tokio::spawn(async move { engine.snapshot().await });
        let mut snapshot = pin!(snapshot.map(|result| result.unwrap_or_else(|cause| Err(broke(&cause)))));
        let place = dir.clone();
        let read = tokio::task::spawn_blocking(move || {
            disk::clean(&place);
            disk::read(&place, &store)
        });
        let read = read.await;
        let (found, refused) = read.unwrap_or_else(|cause| (None, vec![cause.to_string()]));
        for reason in &refused {
            tracing::warn!(reason, "a last table on disk is of no use");
        }
        self.state.set_store(|store| store.keep_errors += refused.len() as u64);
        let rotate = found.as_ref().is_some_and(|found| found.newest);
        let answer = timeout(PATIENCE.saturating_sub(began.elapsed()), &mut snapshot).await.ok();
        let answered = matches!(answer, Some(Ok(_)));
        // A table that is long out of date says little about what vanished.
        let found = found.filter(|found| !answered || found.age < FRESH);
        let age = found.as_ref().map(|found| found.age);
        let delta = found.map(|found| self.restore(found)).unwrap_or_default();
        self.keeper = Some(Keeper::start(dir, self.state.clone(), rotate));
        match (age, answered) {
            (Some(age), false) => {
                let error = answer.as_ref().and_then(|answer| answer.as_ref().err());
                let error = error.map_or_else(|| "no answer yet".into(), |error| with_causes(error));
                tracing::warn!(
                    store = %self.state.engine.describe(),
                    error,
                    revision = self.seen.0,
                    age_seconds = age.as_secs(),
                    "serving the last table on disk: the store does not answer"
                );
                self.state.set_store(|store| {
                    store.from_disk = Some((Instant::now(), age));
                    store.error = Some(error);
                });
                self.news = true;
                self.publish(self.seen, &delta).await;
            }
            // Published with what the store says.
            (Some(_), true) => self.chores.pending.merge(delta),
            (None, _) => {}
        }
        match answer {
            Some(answer) => Some(answer),
            None => Some(self.meanwhile(snapshot).await),
        }
    }

    fn restore(&mut self, found: Found) -> Delta {
        let mut model = self.state.model_mut();
        let delta = self.suspects.restore(&mut model, &found.batch, &found.held, Instant::now());
        self.seen = found.batch.revision;
        delta
    }
}

fn broke(cause: &tokio::task::JoinError) -> Error {
    Error::Unavailable { context: format!("reading a snapshot broke: {cause}"), source: None }
}

/// How long a start waits for the store, if there is a table on disk.
const PATIENCE: Duration = Duration::from_secs(1);
/// How old a table on disk may be to tell what vanished while nobody looked.
const FRESH: Duration = Duration::from_secs(3600);
