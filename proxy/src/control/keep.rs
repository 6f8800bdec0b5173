//! When the last table is written: soon after a change, at most once a second, never on the way of a change.
//!
//! It is written by one task, which is handed what is in force when it is about to write it. A disk that fails is a
//! problem that is shown and tried again; serving knows nothing of it. Not here: the file (`disk.rs`).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etna_store::Problem;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::disk::{self, Kept};
use super::state::State;

/// The task that writes, and whether there is something for it.
pub(super) struct Keeper {
    turn: Arc<Turn>,
    handed: mpsc::Sender<Kept>,
    problem: watch::Receiver<Option<Problem>>,
    task: JoinHandle<()>,
    /// Whether what is to be kept changed since it was last handed over.
    changed: bool,
}

/// Whose turn it is. While both have the pairs, every change copies some of them, so they are handed over only when they
/// are about to be written.
#[derive(Default)]
struct Turn {
    /// Told when there is something to write.
    changed: Notify,
    /// Whether the task wants it now.
    wanted: AtomicBool,
}

impl Keeper {
    /// Starts it. `rotate` says whether the newest generation on disk is of use.
    pub(super) fn start(dir: PathBuf, state: Arc<State>, rotate: bool) -> Keeper {
        let turn = Arc::<Turn>::default();
        let (handed, taken) = mpsc::channel(1);
        let (tell, problem) = watch::channel(None);
        let writer = Writer { dir, state, turn: turn.clone(), taken, tell, rotate };
        Keeper { turn, handed, problem, task: tokio::spawn(writer.work()), changed: false }
    }

    /// Wants this on disk if it `changed`; called every now and then, it hands it over when that is wanted.
    pub(super) fn offer(&mut self, changed: bool, kept: impl FnOnce() -> Kept) {
        if changed && !std::mem::replace(&mut self.changed, true) {
            self.turn.changed.notify_one();
        }
        if self.changed && self.turn.wanted.swap(false, Ordering::Relaxed) {
            // There is room: what was handed over before has been taken, else no more was wanted.
            self.changed = self.handed.try_send(kept()).is_err();
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
    pub(super) async fn finish(self, kept: Kept) {
        let Keeper { handed, task, changed, .. } = self;
        let finished = async {
            if changed {
                let _ = handed.send(kept).await;
            }
            drop(handed);
            let _ = task.await;
        };
        let _ = tokio::time::timeout(LONGEST_FINISH, finished).await;
    }
}

struct Writer {
    dir: PathBuf,
    state: Arc<State>,
    turn: Arc<Turn>,
    taken: mpsc::Receiver<Kept>,
    tell: watch::Sender<Option<Problem>>,
    rotate: bool,
}

impl Writer {
    async fn work(mut self) {
        let mut pause = SHORTEST;
        while let Some(kept) = self.next(pause).await {
            let began = Instant::now();
            if !self.write_at_last(kept).await {
                return;
            }
            pause = pause_after(began.elapsed());
        }
    }

    /// Waits until something has changed, and so long after that; `None`: nothing comes any more.
    async fn next(&mut self, pause: Duration) -> Option<Kept> {
        loop {
            tokio::select! {
                () = self.turn.changed.notified() => break,
                kept = self.taken.recv() => return kept,
                () = tokio::time::sleep(TOUCH) => self.touch().await,
            }
        }
        self.rest(pause).await;
        self.turn.wanted.store(true, Ordering::Relaxed);
        self.taken.recv().await
    }

    /// Tries until it is written; false if that had to be given up.
    async fn write_at_last(&mut self, mut kept: Kept) -> bool {
        while let Err(error) = self.write(kept.clone()).await {
            self.failed(&error);
            if self.state.draining.is_cancelled() {
                return false;
            }
            self.turn.wanted.store(true, Ordering::Relaxed);
            self.rest(RETRY).await;
            while let Ok(newer) = self.taken.try_recv() {
                kept = newer;
            }
        }
        self.turn.wanted.store(false, Ordering::Relaxed);
        true
    }

    /// Waits, unless the process ends.
    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.state.draining.cancelled() => {}
        }
    }

    async fn write(&mut self, kept: Kept) -> Result<(), String> {
        let (dir, rotate, revision) = (self.dir.clone(), self.rotate, kept.revision);
        let written = tokio::task::spawn_blocking(move || disk::write(&dir, &kept, rotate)).await;
        written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.rotate = true;
        self.state.set_store(|store| {
            store.kept += 1;
            store.kept_revision = Some(revision);
        });
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

/// How long to rest after a write that took so long.
fn pause_after(took: Duration) -> Duration {
    (took * SHARE).clamp(SHORTEST, LONGEST)
}

const SHORTEST: Duration = Duration::from_secs(1);
/// Writing a large table takes at most a twentieth of the time.
const SHARE: u32 = 20;
/// A slow disk does not make what is on it much older.
const LONGEST: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(5);
const TOUCH: Duration = Duration::from_secs(30);
const LONGEST_FINISH: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use etna_store::Revision;

    use super::super::suspect::Pairs;
    use super::*;

    fn kept(revision: i64) -> Kept {
        let pairs = Pairs::unit(Bytes::from("sites/a"), Bytes::from("{}"));
        Kept { store: "memory".into(), revision: Revision(revision), pairs, held: Vec::new() }
    }

    fn found(dir: &std::path::Path) -> Option<i64> {
        disk::read(dir, "memory").0.map(|found| found.batch.revision.0)
    }

    #[test]
    fn a_large_table_is_written_less_often_and_a_slow_disk_is_not_given_up() {
        let rests = [1, 200, 5000].map(|took| pause_after(Duration::from_millis(took)).as_secs());
        assert_eq!(rests, [1, 4, 10]);
    }

    #[tokio::test]
    async fn a_storm_is_handed_over_once_in_a_while_and_its_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::new(etna_store::engine::memory::open()));
        let mut keeper = Keeper::start(dir.path().to_owned(), state.clone(), false);
        let (began, mut handed, mut revision) = (Instant::now(), 0, 0);
        keeper.offer(false, || unreachable!("nothing changed"));
        // Two are written, each a second after something changed.
        while state.store().kept < 2 {
            assert!(began.elapsed() < Duration::from_secs(60), "{handed} of {revision}");
            revision += 1;
            keeper.offer(true, || {
                handed += 1;
                kept(revision)
            });
            tokio::task::yield_now().await;
        }
        assert!(
            began.elapsed() >= SHORTEST * 2 && (2..=3).contains(&handed) && revision > 10,
            "{handed} of {revision}"
        );
        keeper.offer(true, || kept(revision));
        state.draining.cancel();
        keeper.finish(kept(revision + 1)).await;
        assert_eq!(found(dir.path()), Some(revision + 1));
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_a_problem_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State::new(etna_store::engine::memory::open()));
        let inside = dir.path().join("inside");
        let mut keeper = Keeper::start(inside.clone(), state.clone(), false);
        let began = Instant::now();
        while state.store().keep_errors == 0 {
            assert!(began.elapsed() < Duration::from_secs(60));
            keeper.offer(state.store().publishes == 0, || kept(1));
            tokio::task::yield_now().await;
        }
        let reason = keeper.problem().unwrap().reason;
        assert!(keeper.take_changed() && reason.contains("cannot be written"), "{reason}");
        std::fs::create_dir(&inside).unwrap();
        // The newest is written when it is tried again, though nothing changes any more.
        while state.store().kept == 0 {
            assert!(began.elapsed() < Duration::from_secs(60));
            keeper.offer(found(&inside).is_none(), || kept(2));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((found(&inside), keeper.problem()), (Some(2), None));
    }
}
