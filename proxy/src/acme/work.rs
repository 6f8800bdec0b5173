//! The work for one host, from the claim to the certificate in the store. Whatever happens, what came of it is written
//! down, so that every proxy knows it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use etna_store::engine::Op;
use etna_store::object::Id;
use etna_store::seal::{KeyPair, Keyring};
use etna_store::{Engine, Error as StoreError, Revision, with_causes};
use instant_acme::Error;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::claim::Claim;
use super::due::{self, Answerable, Task};
use super::http::Way;
use super::names::{self, Record, seconds};
use super::{Subject, account};
use crate::control::State;
use crate::tls::certificate::Certificate;

/// Why there is no certificate.
#[derive(Debug)]
pub(super) enum Failure {
    /// The authority, or the way to it.
    Authority(Error),
    /// What the authority saw, or what we can do.
    Ours(String),
    /// What only this proxy lacks, such as the right seal key: another one may do better.
    Unable(String),
    /// The store.
    Store(StoreError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Authority(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

impl Failure {
    fn kind(&self) -> &str {
        match self {
            Failure::Authority(error) => kind(error),
            Failure::Ours(_) | Failure::Unable(_) | Failure::Store(_) => "",
        }
    }

    /// In one line, of bounded length: an authority may say anything.
    fn text(&self) -> String {
        let text = match self {
            Failure::Authority(Error::Api(problem)) => said(problem),
            Failure::Authority(Error::Timeout(_)) => "the authority took too long".into(),
            Failure::Authority(error) => with_causes(error),
            Failure::Ours(reason) | Failure::Unable(reason) => reason.clone(),
            Failure::Store(error) => with_causes(error),
        };
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_REASON).collect();
        line
    }
}

/// What an authority says, in one line.
pub(super) fn said(problem: &instant_acme::Problem) -> String {
    let detail = problem.detail.as_deref().unwrap_or("without a word");
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let mut text = format!("the authority says: {detail} ({})", kind.strip_prefix(ERRORS).unwrap_or(kind));
    for part in problem.subproblems.iter().take(3) {
        text.push_str("; ");
        text.push_str(part.detail.as_deref().unwrap_or_default());
    }
    text
}

/// What came of it.
pub(super) enum Outcome {
    /// Another proxy works for the host, or has done so.
    NotOurs,
    /// It is written down: a certificate, or when to renew.
    Written,
    /// No certificate; that is written down, too.
    Failed,
    /// This proxy cannot work for the host. Nothing is written, for another one may be able to.
    Unable(String),
}

/// One host's turn.
pub(super) struct Work {
    pub(super) state: Arc<State>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) way: Way,
    pub(super) subject: Arc<Subject>,
    /// Who we are, for the claim.
    pub(super) proxy: String,
    /// Accounts are made one at a time.
    pub(super) accounts: Arc<Mutex<()>>,
    pub(super) answerable: Answerable,
}

impl Work {
    pub(super) fn engine(&self) -> &Arc<dyn Engine> {
        &self.state.engine
    }

    pub(super) fn host(&self) -> &Id {
        &self.subject.host
    }

    /// Does what is due, if it still is and nobody else does it. Only errors of the store are told.
    pub(super) async fn run(self) -> Result<Outcome, StoreError> {
        let Some(claim) = Claim::take(self.engine(), self.host(), &self.proxy).await? else {
            return Ok(Outcome::NotOurs);
        };
        let lost = claim.lost.clone();
        let work = timeout(LONGEST_WORK, self.with(&claim));
        let outcome = tokio::select! {
            outcome = work => outcome.unwrap_or_else(|_| {
                Err(StoreError::Unavailable { context: "the work for a certificate took too long".into(), source: None })
            }),
            () = lost.cancelled() => Err(StoreError::LeaseLost),
            () = self.state.draining.cancelled() => Ok(Outcome::NotOurs),
        };
        claim.release().await;
        if outcome.is_err() {
            self.state.acme.lost.add(1);
        }
        outcome
    }

    async fn with(&self, claim: &Claim) -> Result<Outcome, StoreError> {
        // What the table shows may be older than what the last one did who had the claim.
        let Some(subject) = self.as_stored().await? else { return Ok(Outcome::NotOurs) };
        let directory = self.state.acme.settings.directory(&self.subject.acme).to_owned();
        let (at, mut task) = due::next(&subject, &directory);
        if at > SystemTime::now() {
            return Ok(Outcome::NotOurs);
        }
        let (way, told) = self.way.afresh();
        let mut record = subject.record.clone();
        let mut attempt = async || {
            let account = {
                let _one = self.accounts.lock().await;
                account::open(self.engine(), &self.keyring, &way, &directory, subject.acme.email.as_deref()).await?
            };
            if task == Task::Ask {
                self.ask(&account, &subject, &mut record).await?;
                let again = Subject { record: record.clone(), ..subject.clone() };
                match due::next(&again, &directory) {
                    (at, Task::Order) if at <= SystemTime::now() => task = Task::Order,
                    _ => return Ok(None),
                }
            }
            tracing::info!(host = %self.host(), %directory, "ordering a certificate");
            self.order(claim, &account, &subject, &record).await.map(Some)
        };
        let mut result = attempt().await;
        for _ in 0..MORE_ATTEMPTS {
            // The request was good, and wants to be made again (RFC 8555 section 6.5).
            if !result.as_ref().is_err_and(|failure| failure.kind() == BAD_NONCE) {
                break;
            }
            result = attempt().await;
        }
        match result {
            Ok(None) => {
                self.write(claim, &record, Vec::new()).await?;
            }
            Ok(Some((pair, certificate))) => self.keep(claim, &directory, &pair, &certificate).await?,
            Err(Failure::Store(error)) => return Err(error),
            Err(Failure::Unable(reason)) => return Ok(Outcome::Unable(reason)),
            Err(failure) => {
                if failure.kind() == NO_ACCOUNT {
                    account::forget(self.engine(), &directory, subject.acme.email.as_deref()).await?;
                }
                record.failures = subject.record.failures_with(&subject.acme, &directory).saturating_add(1);
                record.settings = names::settings(&subject.acme, &directory);
                record.reason = failure.text();
                let now = SystemTime::now();
                let pause = due::back_off(record.failures, told.wait(now), fastrand::f64());
                record.retry_at = seconds(now + pause);
                self.state.acme.failed.add(1);
                if failure.kind() == RATE_LIMITED {
                    self.state.acme.limited.add(1);
                }
                tracing::warn!(host = %self.host(), reason = record.reason, seconds = pause.as_secs(), "no certificate; tried again later");
                self.write(claim, &record, Vec::new()).await?;
                return Ok(Outcome::Failed);
            }
        }
        Ok(Outcome::Written)
    }

    /// The host as the store shows it now; `None` if a certificate lies there that we cannot open.
    async fn as_stored(&self) -> Result<Option<Subject>, StoreError> {
        let mut subject = (*self.subject).clone();
        let record = self.engine().get(&names::record(self.host())).await?;
        subject.record = record.map(|item| Record::read(&item.value)).unwrap_or_default();
        if let Some(item) = self.engine().get(&names::certificate(self.host())).await? {
            let opened = self.keyring.open(&item.value).ok();
            let read = opened.and_then(|pair| Certificate::read(self.host().clone(), &pair).ok());
            let Some(certificate) = read else { return Ok(None) };
            subject.certificate = Some(Arc::new(certificate.by_acme()));
        } else {
            subject.certificate = None;
        }
        Ok(Some(subject))
    }

    /// Puts a certificate in the store.
    async fn keep(
        &self,
        claim: &Claim,
        directory: &str,
        pair: &KeyPair,
        certificate: &Certificate,
    ) -> Result<(), StoreError> {
        let sealed = self.keyring.seal(pair).map_err(|error| StoreError::Invalid { reason: error.to_string() })?;
        let now = seconds(SystemTime::now());
        let record = Record {
            directory: directory.to_owned(),
            issued: now,
            certificate: certificate.fingerprint.clone(),
            // A moment later: authorities need not know yet what they have just issued.
            ask_at: Some(now + FIRST_ASK.as_secs()),
            ..Record::default()
        };
        let put = Op::Put(names::certificate(self.host()), sealed.into(), None);
        // Without a certificate in the store, the next attempt begins anew: worth more than one try.
        let mut tries = 0;
        loop {
            match self.write(claim, &record, vec![put.clone()]).await {
                Ok(_) => break,
                Err(StoreError::Unavailable { .. }) if tries < 10 => {
                    tries += 1;
                    tokio::time::sleep(BETWEEN_WRITES).await;
                }
                Err(error) => return Err(error),
            }
        }
        self.state.acme.issued.add(1);
        let until = httpdate::fmt_http_date(certificate.not_after);
        tracing::info!(host = %self.host(), issuer = certificate.issuer, until, "a certificate was issued");
        Ok(())
    }

    async fn write(&self, claim: &Claim, record: &Record, mut ops: Vec<Op>) -> Result<Revision, StoreError> {
        ops.push(Op::Put(names::record(self.host()), Bytes::from(record.write()), None));
        claim.commit(Vec::new(), ops).await
    }
}

/// What an authority calls its error.
pub(super) fn kind(error: &Error) -> &str {
    match error {
        Error::Api(problem) => problem.r#type.as_deref().unwrap_or_default(),
        _ => "",
    }
}

const ERRORS: &str = "urn:ietf:params:acme:error:";
pub(super) const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";
const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
/// At once, each after a request whose nonces were refused several times in a row.
const MORE_ATTEMPTS: u32 = 3;
const LONGEST_REASON: usize = 500;
const LONGEST_WORK: Duration = Duration::from_secs(600);
const BETWEEN_WRITES: Duration = Duration::from_secs(2);
const FIRST_ASK: Duration = Duration::from_secs(5);
