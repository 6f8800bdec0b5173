//! A durable store inside the process: one host, nothing to install.
//!
//! All of it is in memory and all of it is on disk; a commit is answered when it is on disk. Leases are kept too, and
//! have their whole time again when the store is opened, as with etcd. History is kept for watchers: the last 10,000
//! revisions, at most 64 MiB. Not here: replication; for that there is etcd.

mod codec;
mod disk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use super::local::{self, Local};
use super::{Engine, Error};
use disk::Disk;

/// Opens the store in `dir` (made with mode 0700 if missing), which only one process can do at a time; one that is
/// just ending is waited for. Call it inside a tokio runtime.
///
/// # Errors
/// [`Error::Invalid`] if the file is damaged or of a newer version, [`Error::Denied`] without permission,
/// [`Error::Unavailable`] if another process has it open or the disk fails.
pub async fn open(dir: &Path) -> Result<Arc<dyn Engine>, Error> {
    let name = format!("embedded:{}", dir.display());
    let (disk, core) = load_when_free(dir).await?;
    let place = Place { dir: dir.to_owned(), disk: Some(disk), failing: false };
    Ok(Arc::new(Local::start(core, Some(place), name)))
}

/// Where the store is, and its file while that works.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    disk: Option<Disk>,
    /// Whether it is known already that writing fails.
    failing: bool,
}

impl Place {
    /// After a failed write the file may hold more than was promised: what it holds, once it can be read again.
    pub(super) async fn reopen(&mut self, now: Instant) -> Result<Option<Core>, String> {
        if self.disk.is_some() {
            return Ok(None);
        }
        let (disk, core) = load(self.dir.clone(), now).await.map_err(|error| error.to_string())?;
        self.disk = Some(disk);
        Ok(Some(core))
    }

    /// Writes what leads from one core to the next, with one sync, if anything does.
    pub(super) async fn write(&mut self, before: Arc<Core>, after: Arc<Core>) -> Result<(), String> {
        if !disk::differ(&before, &after) {
            return Ok(());
        }
        let Some(disk) = self.disk.take() else { return Err("its disk failed".into()) };
        let written = tokio::task::spawn_blocking(move || match disk.write(&before, &after) {
            Ok(()) => Ok(disk),
            // Dropped here, so that the file is closed before it is opened again.
            Err(error) => Err(error.to_string()),
        });
        match written.await {
            Ok(Ok(disk)) => {
                self.disk = Some(disk);
                if std::mem::take(&mut self.failing) {
                    tracing::info!(dir = %self.dir.display(), "the store can write to its disk again");
                }
                Ok(())
            }
            Ok(Err(cause)) => Err(self.failed(&cause)),
            Err(cause) => Err(self.failed(&cause.to_string())),
        }
    }

    /// Takes back what was lent, once the other process is gone, and says what it holds. If that fails, the next
    /// [`Place::reopen`] tries again.
    pub(super) async fn take_back(&mut self) -> Option<Core> {
        if self.disk.is_some() {
            return None;
        }
        match load_when_free(&self.dir).await {
            Ok((disk, core)) => {
                self.disk = Some(disk);
                Some(core)
            }
            Err(error) => {
                tracing::error!(dir = %self.dir.display(), %error, "the store was lent and cannot be opened again");
                None
            }
        }
    }

    /// Closes the file, so that another process can open it; [`Place::take_back`] ends that.
    pub(super) async fn release(&mut self) {
        let disk = self.disk.take();
        let _ = tokio::task::spawn_blocking(move || drop(disk)).await;
    }

    /// Closes the file.
    pub(super) async fn close(mut self) {
        self.release().await;
    }

    fn failed(&mut self, cause: &str) -> String {
        let dir = self.dir.display();
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%dir, cause, "the store cannot write to its disk");
        }
        format!("cannot write to {dir}: {cause}; free space there, or check the disk")
    }
}

/// Loads the store; a process that is just ending is waited for.
async fn load_when_free(dir: &Path) -> Result<(Disk, Core), Error> {
    let start = Instant::now();
    let mut told = false;
    loop {
        match load(dir.to_owned(), Instant::now()).await {
            Err(Error::Unavailable { context, .. })
                if context.contains(disk::IN_USE) && start.elapsed() < LONGEST_WAIT =>
            {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(dir = %dir.display(), "another process has the store open: waiting for its end");
                }
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            other => return other,
        }
    }
}

async fn load(dir: PathBuf, now: Instant) -> Result<(Disk, Core), Error> {
    let path = dir.join(disk::FILE);
    let empty = Core::new(HISTORY, local::first_lease());
    match tokio::task::spawn_blocking(move || Disk::open(&dir, empty, now)).await {
        Ok(result) => result,
        // The library panics on some damage.
        Err(cause) => Err(disk::damaged(&path, &cause.to_string())),
    }
}

const HISTORY: usize = 10_000;
const LONGEST_WAIT: Duration = Duration::from_secs(3);
const BETWEEN_TRIES: Duration = Duration::from_millis(50);
