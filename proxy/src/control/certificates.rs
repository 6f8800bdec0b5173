//! Certificates of files: looked at every two seconds, and when told to by HUP.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use etna_store::Problem;
use tokio::task::JoinHandle;

use super::follow::Control;
use crate::tls::files::{self, Found, Stamp};

/// A directory of certificates.
pub(super) struct CertificateFiles {
    dir: PathBuf,
    seen: Option<Stamp>,
    looking: Option<JoinHandle<Look>>,
    looked: Option<Instant>,
    /// What was last wrong with the directory itself.
    error: Option<String>,
}

/// What a look brought: nothing if nothing changed.
type Look = Result<Option<(Stamp, Found)>, String>;

impl CertificateFiles {
    pub(super) fn new(dir: PathBuf) -> CertificateFiles {
        CertificateFiles { dir, seen: None, looking: None, looked: None, error: None }
    }

    /// Reads everything again.
    pub(super) fn forget(&mut self) {
        self.seen = None;
        self.looked = None;
    }

    /// Whether it was ever looked into, or tried to.
    pub(super) fn is_read(&self) -> bool {
        self.seen.is_some() || self.error.is_some()
    }

    /// What is wrong with the directory itself.
    pub(super) fn problem(&self) -> Option<Problem> {
        Some(Problem {
            key: format!("--certificates {}", self.dir.display()),
            reason: format!("the directory cannot be read: {}", self.error.as_ref()?),
            hint: "let the proxy read it; it looks again every two seconds".into(),
            line: None,
            column: None,
            effect: "the last certificates of it serve, if there were any".into(),
        })
    }

    /// What has changed, if anything has; `told` if that is what is wrong with the directory.
    async fn news(&mut self, told: &mut bool) -> Option<Found> {
        if let Some(looking) = self.looking.take_if(|looking| looking.is_finished()) {
            match looking.await.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(found) => {
                    *told |= self.error.take().is_some();
                    let (seen, found) = found?;
                    self.seen = Some(seen);
                    return Some(found);
                }
                Err(error) => {
                    *told |= self.error.as_ref() != Some(&error);
                    self.error = Some(error);
                }
            }
        }
        if self.looking.is_none() && self.looked.is_none_or(|looked| looked.elapsed() >= BETWEEN) {
            self.looked = Some(Instant::now());
            let (dir, seen) = (self.dir.clone(), self.seen.clone());
            self.looking = Some(tokio::task::spawn_blocking(move || {
                let look = || {
                    // Before what it stands for: what changes meanwhile is seen the next time.
                    let now = files::stamp(&dir)?;
                    if Some(&now) == seen.as_ref() { Ok(None) } else { Ok(Some((now, files::read(&dir)?))) }
                };
                look().map_err(|error: std::io::Error| error.to_string())
            }));
        }
        None
    }
}

impl Control {
    /// Hands changed certificates to the compiler; whether there are any.
    pub(super) async fn look_at_certificates(&mut self) -> bool {
        let Some(files) = &mut self.certificate_files else { return false };
        let Some(found) = files.news(&mut self.news).await else { return false };
        tracing::info!(dir = %files.dir.display(), pairs = found.len(), "read certificates");
        self.compiler.take_files(found);
        true
    }
}

const BETWEEN: Duration = Duration::from_secs(2);
