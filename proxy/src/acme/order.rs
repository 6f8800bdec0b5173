//! Talking with the authority about one host: an order from its beginning to the certificate, and when to renew one.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use etna_store::Revision;
use etna_store::engine::Op;
use etna_store::object::Challenge;
use etna_store::seal::KeyPair;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::challenge::{Posed, is_token};
use super::claim::Claim;
use super::names::{self, Record, seconds};
use super::work::{Failure, RATE_LIMITED, Work, kind, said};
use super::{Subject, due};
use crate::tls::certificate::Certificate;

impl Work {
    /// Asks when the authority wants the certificate renewed. That it does not say is no failure.
    pub(super) async fn ask(&self, account: &Account, subject: &Subject, record: &mut Record) -> Result<(), Failure> {
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

    /// A certificate and its key, from the authority. Challenges of an order that came to nothing are taken back: the
    /// next one poses others.
    pub(super) async fn order(
        &self,
        claim: &Claim,
        account: &Account,
        subject: &Subject,
        record: &Record,
    ) -> Result<(KeyPair, Certificate), Failure> {
        let mut posed = HashSet::new();
        let result = self.go_through(claim, account, subject, record, &mut posed).await;
        if result.is_err() && !posed.is_empty() {
            let back = posed.iter().map(|token| Op::Delete(names::challenge(token)));
            if let Err(error) = claim.commit(Vec::new(), back.collect()).await {
                tracing::debug!(host = %self.host(), %error, "challenges stay until the right to work for the host is given back");
            }
        }
        result
    }

    async fn go_through(
        &self,
        claim: &Claim,
        account: &Account,
        subject: &Subject,
        record: &Record,
        posed: &mut HashSet<String>,
    ) -> Result<(KeyPair, Certificate), Failure> {
        let host = self.host();
        let names = [Identifier::Dns(host.to_string())];
        let mut order = self.new_order(account, subject, record, &names).await?;
        let failures = record.failures_with(&subject.acme, self.state.acme.settings.directory(&subject.acme));
        self.answer(claim, &mut order, subject, failures, posed).await?;
        match order.poll_ready(&POLLS).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) => return Err(self.why_not(&mut order, posed).await),
            Err(Error::Api(problem)) => {
                return Err(match self.why_not(&mut order, posed).await {
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

    /// Answers the challenges of an order: written for all proxies, then told to the authority. `posed` gets their
    /// tokens.
    async fn answer(
        &self,
        claim: &Claim,
        order: &mut Order,
        subject: &Subject,
        failures: u32,
        posed: &mut HashSet<String>,
    ) -> Result<(), Failure> {
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
        let Some(kind) = kind else { return Ok(()) };
        self.until_live(written, posed).await?;
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
        Ok(())
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

const NO_REASON: &str = "the authority refused the order and does not say why";
const LONGEST_UNTIL_LIVE: Duration = Duration::from_secs(15);
/// Between a challenge in our own table and the authority's look: others follow in milliseconds.
const FOR_OTHERS: Duration = Duration::from_millis(750);
const POLLS: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));
/// Bounds on how often the authority is asked when to renew (RFC 9773 section 4.3.2).
const SHORTEST_ASK: Duration = Duration::from_secs(60);
const LONGEST_ASK: Duration = Duration::from_secs(86_400);
const AFTER_NO_ANSWER: Duration = Duration::from_secs(3600);
