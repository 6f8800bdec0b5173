//! The work for one host, from the claim to the certificate in the store. Whatever happens, what came of it is written
//! down, so that every proxy knows it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use etna_store::engine::Op;
use etna_store::object::{Challenge, Id};
use etna_store::seal::{KeyPair, Keyring};
use etna_store::{Engine, Error as StoreError, Revision, with_causes};
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName};
use rustls::pki_types::CertificateDer;
use tokio::sync::Mutex;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::challenge::{Posed, is_token};
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
            Failure::Ours(_) | Failure::Store(_) => "",
        }
    }

    /// In one line, of bounded length: an authority may say anything.
    fn text(&self) -> String {
        let text = match self {
            Failure::Authority(Error::Api(problem)) => said(problem),
            Failure::Authority(Error::Timeout(_)) => "the authority took too long".into(),
            Failure::Authority(error) => with_causes(error),
            Failure::Ours(reason) => reason.clone(),
            Failure::Store(error) => with_causes(error),
        };
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_REASON).collect();
        line
    }
}

fn said(problem: &instant_acme::Problem) -> String {
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
    /// It is written down: a certificate, a failure, or when to renew.
    Written,
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
    fn engine(&self) -> &Arc<dyn Engine> {
        &self.state.engine
    }

    fn host(&self) -> &Id {
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
        let result = async {
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
        match result.await {
            Ok(None) => {
                self.write(claim, &record, Vec::new()).await?;
            }
            Ok(Some((pair, certificate))) => self.keep(claim, &directory, &pair, &certificate).await?,
            Err(Failure::Store(error)) => return Err(error),
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

    /// Asks when the authority wants the certificate renewed. That it does not say is no failure.
    async fn ask(&self, account: &Account, subject: &Subject, record: &mut Record) -> Result<(), Failure> {
        let Some(certificate) = &subject.certificate else { return Ok(()) };
        let now = SystemTime::now();
        let known = record.certificate == certificate.fingerprint;
        if !known {
            // Somebody put this certificate there: what was known is about another one.
            let directory = self.state.acme.settings.directory(&subject.acme).to_owned();
            let issued = seconds(certificate.not_before);
            *record = Record { directory, issued, certificate: certificate.fingerprint.clone(), ..record.clone() };
            record.renew_at = None;
        }
        let told = match identifier(certificate) {
            Some(identifier) => account.renewal_info(&identifier).await,
            None => Err(Error::Unsupported("certificates without an authority key identifier")),
        };
        let wait = match told {
            Ok((info, wait)) => {
                let at = |moment: i64| names::time(u64::try_from(moment).unwrap_or_default());
                let window = info.suggested_window;
                let (start, end) = (at(window.start.unix_timestamp()), at(window.end.unix_timestamp()));
                // Within the same window the same moment, or it would never come.
                let is_within = record.renew_at.map(names::time).is_some_and(|at| start <= at && at <= end);
                if !is_within {
                    record.renew_at = Some(seconds(due::within(start, end, fastrand::f64())));
                }
                wait.clamp(SHORTEST_ASK, LONGEST_ASK)
            }
            Err(Error::Unsupported(_)) => LONGEST_ASK,
            Err(error) => {
                tracing::debug!(host = %self.host(), %error, "the authority does not say when to renew");
                AFTER_NO_ANSWER
            }
        };
        record.ask_at = Some(seconds(now + wait));
        Ok(())
    }

    /// A certificate and its key, from the authority.
    async fn order(
        &self,
        claim: &Claim,
        account: &Account,
        subject: &Subject,
        record: &Record,
    ) -> Result<(KeyPair, Certificate), Failure> {
        let host = self.host();
        let names = [Identifier::Dns(host.to_string())];
        let mut order = self.new_order(account, subject, record, &names).await?;
        let failures = record.failures_with(&subject.acme, self.state.acme.settings.directory(&subject.acme));
        let posed = self.answer(claim, &mut order, subject, failures).await?;
        match order.poll_ready(&POLLS).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) => return Err(self.why_not(&mut order, &posed).await),
            Err(Error::Api(problem)) => {
                return Err(match self.why_not(&mut order, &posed).await {
                    Failure::Ours(reason) if reason == NO_REASON => Error::Api(problem).into(),
                    failure => failure,
                });
            }
            Err(error) => return Err(error.into()),
        }
        let ours = |error: rcgen::Error| Failure::Ours(format!("cannot make a certificate request: {error}"));
        let mut params = CertificateParams::new([host.to_string()]).map_err(ours)?;
        params.distinguished_name = DistinguishedName::new();
        let key = Zeroizing::new(rcgen::KeyPair::generate().map_err(ours)?);
        let request = params.serialize_request(&*key).map_err(ours)?;
        order.finalize_csr(request.der()).await?;
        let chain = order.poll_certificate(&POLLS).await?;
        let pair = KeyPair::new(chain.into_bytes(), key.serialize_pem().into_bytes());
        let unusable = |reason: String| Failure::Ours(format!("what the authority gave cannot be used: {reason}"));
        let certificate = Certificate::read(host.clone(), &pair).map_err(|error| unusable(error.to_string()))?;
        let now = SystemTime::now();
        if !certificate.is_for(host) {
            return Err(unusable("the certificate is not for the host".into()));
        }
        if !certificate.holds(now) {
            return Err(unusable("the certificate does not hold now; is the clock right?".into()));
        }
        Ok((pair, certificate))
    }

    async fn new_order(
        &self,
        account: &Account,
        subject: &Subject,
        record: &Record,
        names: &[Identifier],
    ) -> Result<Order, Error> {
        // Only who says when to renew wants to know what is replaced (RFC 9773 section 5).
        let former = subject
            .certificate
            .as_ref()
            .filter(|known| record.renew_at.is_some() && record.certificate == known.fingerprint);
        if let Some(former) = former.and_then(|former| identifier(former)) {
            match account.new_order(&NewOrder::new(names).replaces(former)).await {
                Ok(order) => return Ok(order),
                Err(error @ Error::Api(_)) if kind(&error) == RATE_LIMITED => return Err(error),
                Err(error) => tracing::debug!(host = %self.host(), %error, "an order that replaces is not taken"),
            }
        }
        account.new_order(&NewOrder::new(names)).await
    }

    /// Answers the challenges of an order: written for all proxies, then told to the authority. The tokens.
    async fn answer(
        &self,
        claim: &Claim,
        order: &mut Order,
        subject: &Subject,
        failures: u32,
    ) -> Result<HashSet<String>, Failure> {
        let mut posed = HashSet::new();
        let mut kind = None;
        let mut written = Revision::default();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => return Err(Failure::Ours(format!("an authorization of the order is {status:?}"))),
            }
            let offered: Vec<Challenge> = authorization.challenges.iter().filter_map(|c| known(&c.r#type)).collect();
            let chosen =
                due::choose(subject.acme.challenge, &offered, self.answerable, failures).map_err(Failure::Ours)?;
            kind = Some(chosen);
            let Some(challenge) = authorization.challenge(unknown(chosen)) else { continue };
            if !is_token(&challenge.token) {
                return Err(Failure::Ours("the authority's challenge has no proper token".into()));
            }
            let value = Posed {
                host: self.host().to_string(),
                kind: chosen.name().to_owned(),
                authorization: challenge.key_authorization().as_str().to_owned(),
            };
            let value = serde_json::to_vec(&value).map_err(Error::from)?;
            written = claim.commit_for_now(names::challenge(&challenge.token), value).await?;
            posed.insert(challenge.token.clone());
        }
        let Some(kind) = kind else { return Ok(posed) };
        self.until_live(written, &posed).await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Pending
                && let Some(mut challenge) = authorization.challenge(unknown(kind))
            {
                tracing::debug!(host = %self.host(), challenge = kind.name(), "the authority may look");
                challenge.set_ready().await?;
            }
        }
        Ok(posed)
    }

    /// Waits until this proxy answers challenges, and a little longer, so that all others do.
    async fn until_live(&self, written: Revision, tokens: &HashSet<String>) -> Result<(), Failure> {
        let mut revisions = self.state.live.subscribe();
        let shown = async { revisions.wait_for(|revision| *revision >= written).await.is_ok() };
        let shown = timeout(LONGEST_UNTIL_LIVE, shown).await.unwrap_or(false);
        let table = self.state.live.table();
        if !shown || !tokens.iter().all(|token| table.challenges.has(token, self.host())) {
            return Err(Failure::Ours(
                "a challenge was stored and did not get into force: see the other problems".into(),
            ));
        }
        drop(table);
        tokio::time::sleep(FOR_OTHERS).await;
        Ok(())
    }

    /// What the authority saw instead of an answer.
    async fn why_not(&self, order: &mut Order, posed: &HashSet<String>) -> Failure {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            if authorization.refresh().await.is_err() {
                continue;
            }
            let failed = authorization.challenges.iter().filter(|challenge| posed.contains(&challenge.token));
            for challenge in failed {
                if let Some(problem) = &challenge.error {
                    let kind = known(&challenge.r#type).map_or("challenge", Challenge::name);
                    return Failure::Ours(format!("{kind}: {}", said(problem)));
                }
            }
        }
        Failure::Ours(NO_REASON.into())
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

fn kind(error: &Error) -> &str {
    match error {
        Error::Api(problem) => problem.r#type.as_deref().unwrap_or_default(),
        _ => "",
    }
}

fn known(kind: &ChallengeType) -> Option<Challenge> {
    match kind {
        ChallengeType::Http01 => Some(Challenge::Http01),
        ChallengeType::TlsAlpn01 => Some(Challenge::TlsAlpn01),
        _ => None,
    }
}

fn unknown(kind: Challenge) -> ChallengeType {
    if kind == Challenge::TlsAlpn01 { ChallengeType::TlsAlpn01 } else { ChallengeType::Http01 }
}

/// How an authority names a certificate (RFC 9773 section 4.1).
fn identifier(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let leaf: &CertificateDer<'_> = certificate.key.cert.first()?;
    CertificateIdentifier::try_from(leaf).ok().map(CertificateIdentifier::into_owned)
}

const ERRORS: &str = "urn:ietf:params:acme:error:";
const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
const NO_REASON: &str = "the authority refused the order and does not say why";
const LONGEST_REASON: usize = 500;
const LONGEST_WORK: Duration = Duration::from_secs(600);
const LONGEST_UNTIL_LIVE: Duration = Duration::from_secs(15);
/// Between a challenge in our own table and the authority's look: others follow in milliseconds.
const FOR_OTHERS: Duration = Duration::from_millis(750);
const BETWEEN_WRITES: Duration = Duration::from_secs(2);
const POLLS: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));
const FIRST_ASK: Duration = Duration::from_secs(5);
/// Bounds on how often the authority is asked when to renew (RFC 9773 section 4.3.2).
const SHORTEST_ASK: Duration = Duration::from_secs(60);
const LONGEST_ASK: Duration = Duration::from_secs(86_400);
const AFTER_NO_ANSWER: Duration = Duration::from_secs(3600);
