//! When the last table is written: soon after a change, at most once a second, never on the way of a change.
//!
//! It is written by one task from values that cost nothing to hand over. A disk that fails is a problem that is shown
//! and tried again; serving knows nothing of it. Not here: the file (`disk.rs`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etna_store::Problem;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::disk::{self, Kept};
use super::state::State;
use super::suspect::Pairs;

/// The task that writes, and what was last given to it.
pub(super) struct Keeper {
    offers: watch::Sender<Option<Kept>>,
    problem: watch::Receiver<Option<Problem>>,
    task: JoinHandle<()>,
    last: Pairs,
}

impl Keeper {
    /// Starts it. `last` is what the disk holds; `rotate` says whether the newest generation there is of use.
    pub(super) fn start(dir: PathBuf, state: Arc<State>, last: Pairs, rotate: bool) -> Keeper {
        let (offers, offered) = watch::channel(None);
        let (tell, problem) = watch::channel(None);
        let writer = Writer { dir, state, offered, tell, rotate };
        Keeper { offers, problem, task: tokio::spawn(writer.work()), last }
    }

    /// Wants this on disk, unless it is there.
    pub(super) fn offer(&mut self, held_changed: bool, pairs: &Pairs, kept: impl FnOnce() -> Kept) {
        if held_changed || !self.last.ptr_eq(pairs) {
            self.last = pairs.clone();
            self.offers.send_replace(Some(kept()));
        }
    }

    /// Why it cannot be written.
    pub(super) fn problem(&self) -> Option<Problem> {
        self.problem.borrow().clone()
    }

    /// Whether that changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        let changed = self.problem.has_changed().unwrap_or(false);
        self.problem.mark_unchanged();
        changed
    }

    /// Writes what is still to be written, if that goes quickly.
    pub(super) async fn finish(self) {
        drop(self.offers);
        let _ = tokio::time::timeout(LONGEST_FINISH, self.task).await;
    }
}

struct Writer {
    dir: PathBuf,
    state: Arc<State>,
    offered: watch::Receiver<Option<Kept>>,
    tell: watch::Sender<Option<Problem>>,
    rotate: bool,
}

impl Writer {
    async fn work(mut self) {
        let draining = self.state.draining.clone();
        let mut pause = SHORTEST;
        let mut wanted = false;
        loop {
            if !wanted {
                tokio::select! {
                    offered = self.offered.changed() => match offered {
                        Ok(()) => wanted = true,
                        Err(_) => return,
                    },
                    () = tokio::time::sleep(TOUCH) => {
                        self.touch().await;
                        continue;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = draining.cancelled() => {}
            }
            let Some(kept) = self.offered.borrow_and_update().clone() else { continue };
            let began = Instant::now();
            match self.write(kept).await {
                Ok(()) => {
                    wanted = false;
                    pause = SHORTEST.max(began.elapsed() * SHARE);
                }
                Err(error) => {
                    self.failed(&error);
                    pause = RETRY;
                    if draining.is_cancelled() {
                        return;
                    }
                }
            }
        }
    }

    async fn write(&mut self, kept: Kept) -> Result<(), String> {
        let (dir, rotate) = (self.dir.clone(), self.rotate);
        let written = tokio::task::spawn_blocking(move || disk::write(&dir, &kept, rotate)).await;
        written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.rotate = true;
        self.state.set_store(|store| store.kept += 1);
        if self.tell.borrow().is_some() {
            tracing::info!(file = %self.file().display(), "the last table can be written again");
            self.tell.send_replace(None);
        }
        Ok(())
    }

    fn failed(&self, error: &str) {
        self.state.set_store(|store| store.keep_errors += 1);
        let problem = Problem {
            key: self.file().display().to_string(),
            reason: format!("the last table cannot be written: {error}"),
            hint: "free space there, or make the state directory writable".into(),
            line: None,
            column: None,
            effect: "served from memory; a start without the store would serve an older table".into(),
        };
        // The control loop logs problems, once.
        self.tell.send_if_modified(|told| told.replace(problem.clone()) != Some(problem));
    }

    /// What has not changed is still true, as long as the store is heard of.
    async fn touch(&self) {
        if self.state.store().following && self.tell.borrow().is_none() {
            let (dir, store) = (self.dir.clone(), self.state.engine.describe());
            let _ = tokio::task::spawn_blocking(move || disk::touch(&dir, &store)).await;
        }
    }

    fn file(&self) -> PathBuf {
        disk::path(&self.dir, &self.state.engine.describe())
    }
}

const SHORTEST: Duration = Duration::from_secs(1);
/// Writing a large table takes at most a twentieth of the time.
const SHARE: u32 = 20;
const RETRY: Duration = Duration::from_secs(5);
const TOUCH: Duration = Duration::from_secs(30);
const LONGEST_FINISH: Duration = Duration::from_secs(3);
