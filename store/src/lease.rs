//! One lease of a process: adopted from an earlier life of it or granted, then renewed every third of its TTL. Renewal
//! is a task of its own, so that a slow write never costs the lease.
//!
//! The lease is never revoked here: a process that is replaced leaves its keys in place for one TTL, and the next one
//! takes the lease over from the [`Notebook`]. What is written under it is its holder's business.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::engine::{Engine, Error, LeaseId, with_causes};
use crate::pace::{Backoff, Throttle};

/// Gives a store five seconds to answer before it counts as unavailable.
///
/// # Errors
/// [`Error::Unavailable`] after that time; what the call says before.
pub async fn within<T>(context: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    limit(5, context, call).await
}

/// The same for an answer as large as the whole keyspace: half a minute.
///
/// # Errors
/// As [`within`].
pub async fn within_long<T>(context: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    limit(30, context, call).await
}

async fn limit<T>(seconds: u64, context: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let slow = |_| Error::Unavailable { context: format!("{context}: no answer in {seconds} s"), source: None };
    tokio::time::timeout(Duration::from_secs(seconds), call).await.map_err(slow)?
}

/// Where the id of the lease survives a restart of its process: a file.
#[derive(Clone, Debug, Default)]
pub struct Notebook {
    file: Option<PathBuf>,
    /// Which store and holder the lease is of; a note about another one is not taken.
    subject: String,
}

impl Notebook {
    /// A notebook in `file`, about a lease for `holder` in the store that describes itself as `store`.
    pub fn new(file: PathBuf, store: &str, holder: &str) -> Notebook {
        Notebook { file: Some(file), subject: format!("{holder} {store}") }
    }

    /// A notebook that forgets.
    pub fn none() -> Notebook {
        Notebook::default()
    }

    /// The lease noted last.
    pub fn read(&self) -> Option<LeaseId> {
        let text = std::fs::read_to_string(self.file.as_ref()?).ok()?;
        let (id, subject) = text.trim_end().split_once(' ')?;
        if subject == self.subject { id.parse().ok().map(LeaseId) } else { None }
    }

    fn write(&self, lease: LeaseId) {
        let Some(file) = &self.file else { return };
        let new = file.with_extension("new");
        let text = format!("{} {}\n", lease.0, self.subject);
        // Written beside and renamed: a reader sees the old note or the new one.
        if let Err(error) = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, file)) {
            tracing::warn!(event = "lease-not-noted", file = %file.display(), %error,
                "after a restart the lease will not be found, and what is under it ends before it is written again: \
                 say --state-dir");
        }
    }
}

/// The end of the lease that those have who write under it.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The lease, once there is one. It changes when the old one has ended.
    pub id: watch::Receiver<Option<LeaseId>>,
    /// Why it could not be had or renewed the last time; `None` while it stands.
    pub trouble: watch::Receiver<Option<String>>,
    /// Tell the keeper that the store does not know the lease any more.
    pub doubt: Arc<Notify>,
}

/// Keeps the lease.
pub struct Keeper {
    engine: Arc<dyn Engine>,
    ttl: Duration,
    notebook: Notebook,
    id: watch::Sender<Option<LeaseId>>,
    trouble: watch::Sender<Option<String>>,
    doubt: Arc<Notify>,
}

impl Keeper {
    /// A keeper that has done nothing yet; [`Keeper::run`] it.
    pub fn new(engine: Arc<dyn Engine>, ttl: Duration, notebook: Notebook) -> (Keeper, Lease) {
        let (id, receiver) = watch::channel(None);
        let (trouble, told) = watch::channel(None);
        let doubt = Arc::new(Notify::new());
        let lease = Lease { id: receiver, trouble: told, doubt: doubt.clone() };
        (Keeper { engine, ttl, notebook, id, trouble, doubt }, lease)
    }

    /// Has and keeps a lease for ever.
    pub async fn run(self) {
        let (mut backoff, mut throttle) = (Backoff::default(), Throttle::default());
        let noted = self.notebook.read();
        let mut current = noted;
        loop {
            let wait = match self.renew(&mut current).await {
                Ok(lives) => {
                    self.trouble.send_if_modified(|trouble| trouble.take().is_some());
                    if *self.id.borrow() != current {
                        let (lease, adopted) = (current.map(|lease| lease.0), current == noted);
                        tracing::info!(event = "lease", lease, adopted, ttl_s = self.ttl.as_secs(), "the lease stands");
                        self.id.send_replace(current);
                    }
                    backoff.succeeded();
                    // One that was adopted may have been granted for another time.
                    lives.min(self.ttl) / 3
                }
                Err(error) => {
                    self.trouble.send_replace(Some(with_causes(&error)));
                    if throttle.admits(Instant::now()) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            event = "lease-not-renewed",
                            error,
                            "the lease could not be renewed; trying again"
                        );
                    }
                    backoff.failed()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.doubt.notified() => {}
            }
        }
    }

    /// Has a lease once, without keeping it.
    ///
    /// # Errors
    /// What the store says.
    pub async fn once(self) -> Result<(), Error> {
        let mut current = self.notebook.read();
        self.renew(&mut current).await?;
        self.id.send_replace(current);
        Ok(())
    }

    /// Renews the current lease, or grants one where there is none or it has ended; how long it lives now.
    async fn renew(&self, current: &mut Option<LeaseId>) -> Result<Duration, Error> {
        if let Some(lease) = *current {
            match within("renewing the lease", self.engine.keep(lease)).await {
                Ok(lives) => return Ok(lives),
                Err(Error::LeaseLost) => {
                    if self.id.borrow().is_some() {
                        tracing::warn!(
                            event = "lease-lost",
                            lease = lease.0,
                            "the lease has ended; what was under it is written again"
                        );
                    }
                    *current = None;
                }
                Err(error) => return Err(error),
            }
        }
        let lease = within("granting a lease", self.engine.grant(self.ttl)).await?;
        self.notebook.write(lease);
        *current = Some(lease);
        Ok(self.ttl)
    }
}
