//! Files that are read again when the process is told to (HUP): seal keys, certificates, and what the store is shown.
//!
//! What cannot be used changes nothing, and is a problem until it is read again and can be. Not here: the admin token,
//! which the admin API keeps itself.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use etna_store::seal::{Keyring, SealError};
use etna_store::{Delta, Error, Problem, with_causes};
use tokio::task::JoinHandle;

use super::certificates::CertificateFiles;
use super::follow::Control;
use super::tickets;
use crate::acme::names::CERTIFICATES;

/// What is read again.
#[derive(Default)]
pub(super) struct Reread {
    seal_key: Option<PathBuf>,
    reading: Option<JoinHandle<Read>>,
    problems: Vec<Problem>,
}

/// What it brought.
struct Read {
    ring: Option<Result<Keyring, SealError>>,
    store: Result<(), Error>,
}

impl Reread {
    pub(super) fn new(seal_key: Option<PathBuf>) -> Reread {
        Reread { seal_key, ..Reread::default() }
    }

    /// What could not be used the last time.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }
}

impl Control {
    /// Begins to read if told to, takes in what was read, and says what has to be compiled again for it.
    pub(super) async fn read_again(&mut self) -> Delta {
        if self.reread.reading.is_none() && self.state.reread.swap(false, Ordering::Relaxed) {
            self.certificate_files.iter_mut().for_each(CertificateFiles::forget);
            let (file, engine) = (self.reread.seal_key.clone(), self.state.engine.clone());
            self.reread.reading = Some(tokio::spawn(async move {
                let ring = match file {
                    Some(file) => tokio::task::spawn_blocking(move || Keyring::read(&file)).await.ok(),
                    None => None,
                };
                Read { ring, store: engine.renew().await }
            }));
        }
        let Some(reading) = self.reread.reading.take_if(|reading| reading.is_finished()) else {
            return Delta::default();
        };
        let Ok(Read { ring, store }) = reading.await else { return Delta::default() };
        self.reread.problems.clear();
        self.news = true;
        if let Err(error) = store {
            let key = self.state.engine.describe();
            let reason = format!("what was read again for the store cannot be used: {}", with_causes(&error));
            self.reread.problems.push(problem(key, reason, "the former is shown as long as the store takes it"));
        }
        match ring {
            Some(Ok(ring)) => self.open_with(ring),
            Some(Err(error)) => {
                let file = self.reread.seal_key.iter().map(|file| file.display().to_string()).collect();
                self.reread.problems.push(problem(file, error.to_string(), "the former seal keys are used"));
                Delta::default()
            }
            None => {
                tracing::info!("SIGHUP: read files again");
                Delta::default()
            }
        }
    }

    /// Opens with these keys from now on; names all that is sealed, if they are others.
    fn open_with(&mut self, ring: Keyring) -> Delta {
        let is_new = self.state.keyring().as_deref() != Some(&ring);
        tracing::info!(seal_keys_changed = is_new, "SIGHUP: read files again");
        if !is_new {
            return Delta::default();
        }
        self.state.set_keyring(Some(ring.into()));
        self.compiler.open_with(self.state.keyring());
        if self.state.store().revision.is_none() {
            // All is compiled when the store is read.
            return Delta::default();
        }
        let model = self.state.model();
        let has_pair = |backend: &etna_store::Backend| backend.tls.as_ref().is_some_and(|tls| tls.key_pair.is_some());
        Delta {
            hosts: model
                .hosts()
                .map(|host| host.name.clone())
                .chain(model.hosts_of_sites().map(|host| host.name.clone()))
                .collect(),
            backends: model.backends().filter(|backend| has_pair(backend)).map(|backend| backend.id.clone()).collect(),
            shared: [CERTIFICATES, tickets::FOLDER]
                .iter()
                .flat_map(|folder| model.shared(folder))
                .map(|(key, _)| key.clone())
                .collect(),
            ..Delta::default()
        }
    }
}

fn problem(key: String, reason: String, effect: &str) -> Problem {
    let hint = "correct the file, and send HUP again".into();
    Problem { key, reason, hint, line: None, column: None, effect: effect.into() }
}
