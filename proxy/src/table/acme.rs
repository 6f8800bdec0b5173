//! Compiling what proxies share about ACME: the certificates that hosts got, what is known of these hosts, and the
//! challenges that every proxy answers. What is wrong is read out of the store, so that every proxy says the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use etna_store::object::{Host, Id};
use etna_store::{Delta, Model, Problem};

use super::Table;
use super::compile::Compiler;
use crate::acme::challenge::Challenges;
use crate::acme::names::{self, CHALLENGES, Record};
use crate::acme::{Subject, due};
use crate::tls::certificate::{Certificate, Source};

/// A host's certificate by ACME, if it has one, and what this proxy may do for it.
type Got = (Option<Arc<Certificate>>, Option<Subject>);

impl Compiler {
    /// Takes in what proxies share, and tells for which hosts that may mean something, besides those that changed.
    pub(super) fn shared(&mut self, model: &Model, delta: &Delta, table: &mut Table) -> BTreeSet<Id> {
        if delta.shared.iter().any(|key| key.starts_with(CHALLENGES)) {
            let stored = model.shared(CHALLENGES);
            let stored = stored.filter_map(|(key, value)| Some((key.strip_prefix(CHALLENGES)?, value)));
            table.challenges = Arc::new(Challenges::of(stored, &table.challenges));
        }
        let mut hosts = delta.hosts.clone();
        hosts.extend(delta.shared.iter().filter_map(|key| names::host_of(key)));
        hosts
    }

    /// What a host has by ACME; nothing for one that does not want it.
    pub(super) fn by_acme(
        &self,
        model: &Model,
        host: &Host,
        current: Option<&Arc<Certificate>>,
        problems: &mut Vec<Problem>,
    ) -> Got {
        let Some(acme) = &host.acme else { return (None, None) };
        let value = |key: String| model.shared_value(&key);
        let now = SystemTime::now();
        let current = current.filter(|current| current.source == Source::Acme && current.holds(now));
        let mut tell = |reason: String, hint: String, served: Option<&Arc<Certificate>>| {
            problems.push(Problem {
                key: model.host_key(&host.name),
                reason,
                hint,
                line: None,
                column: None,
                effect: match served {
                    Some(served) => {
                        format!(
                            "the certificate that it has serves, until {}",
                            httpdate::fmt_http_date(served.not_after)
                        )
                    }
                    None => "no TLS for this host, unless another certificate is for it".into(),
                },
            });
        };
        let Some(keyring) = &self.keyring else {
            let hint = "start etna with --seal-key FILE; `etnactl secret new-key` makes one";
            tell("certificates by ACME need a key that seals them".into(), hint.into(), None);
            return (None, None);
        };
        let mut subject = Subject::new(host.name.clone(), acme.clone());
        subject.record = value(names::record(&host.name)).map(Record::read).unwrap_or_default();
        subject.is_claimed = value(names::claim(&host.name)).is_some();
        let key = names::certificate(&host.name);
        if let Some(sealed) = value(key.clone()) {
            let opened = keyring.open(sealed).map_err(|error| error.to_string()).and_then(|pair| {
                let read = Certificate::read(host.name.clone(), &pair).map_err(|error| error.to_string())?;
                // The same value as before, so that clients' connections for two names stay comparable.
                let known = current.filter(|current| current.fingerprint == read.fingerprint);
                Ok(known.cloned().unwrap_or_else(|| Arc::new(read.by_acme())))
            });
            match opened {
                Ok(certificate) => subject.certificate = Some(certificate),
                Err(error) => {
                    let hint =
                        format!("give all proxies the same seal keys; or delete {key}, and another one is ordered");
                    tell(format!("its certificate in {key}: {error}"), hint, current);
                    return (current.cloned(), None);
                }
            }
        }
        // One that has ended is still better than none: some clients can be told to go on.
        let holding = subject.certificate.clone().filter(|certificate| certificate.holds(now));
        let held = holding.or(current.cloned()).or(subject.certificate.clone());
        let directory = self.acme.directory(acme);
        let failures = subject.record.failures_with(acme, directory);
        if failures > 0 {
            let again = httpdate::fmt_http_date(due::next(&subject, directory).0);
            let reason = format!("no certificate by ACME: {}", subject.record.reason);
            let hint =
                format!("attempt {} is made at {again}, or when its settings change", failures.saturating_add(1));
            tell(reason, hint, held.as_ref());
        }
        (held, Some(subject))
    }

    /// Shows a host's wish for certificates, or that it has none.
    pub(super) fn subject(
        &mut self,
        name: &Id,
        subject: Option<Subject>,
        chosen: Option<&Arc<Certificate>>,
        table: &mut Table,
    ) {
        let Some(subject) = subject else {
            table.acme.remove(name);
            return;
        };
        let own = chosen.filter(|chosen| chosen.source == Source::KeyPair);
        table.acme.insert(name.clone(), Arc::new(Subject { key_pair_until: own.map(|own| own.not_after), ..subject }));
    }
}
