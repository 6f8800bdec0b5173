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
            tell(NO_KEY_FOR_ACME.into(), hint.into(), None);
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

/// What is wrong with a wish for certificates where nobody here could open them.
pub(super) const NO_KEY_FOR_ACME: &str = "certificates by ACME need a key that seals them";

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use etna_store::seal::{Keyring, SealKey};
    use etna_store::{Batch, Change, Revision};
    use proptest::prelude::*;

    use super::*;
    use crate::tls::testing::pair;

    struct Followed {
        model: Model,
        compiler: Compiler,
        table: Table,
        ring: Arc<Keyring>,
    }

    impl Followed {
        fn new() -> Followed {
            let ring = Arc::new(Keyring::new(SealKey::generate().unwrap()));
            let compiler = Compiler::new(None, Some(ring.clone()));
            Followed { model: Model::default(), compiler, table: Table::default(), ring }
        }

        fn put(&mut self, key: &str, value: &[u8]) {
            let value = Some(Bytes::copy_from_slice(value));
            let change = Change { key: Bytes::copy_from_slice(key.as_bytes()), value };
            let revision = Revision(self.model.revision().0 + 1);
            let delta = self.model.apply(&Batch { revision, changes: vec![change] });
            self.table = self.compiler.compile(&self.model, &delta, &self.table);
        }

        fn sealed(&self, names: &[&str]) -> Vec<u8> {
            self.ring.seal(&pair(names)).unwrap()
        }

        fn problems(&self) -> Vec<&str> {
            self.compiler.problems().map(|problem| problem.reason.as_str()).collect()
        }

        fn served(&self) -> Option<(Source, &str)> {
            self.table.certificates.of("a.test").map(|served| (served.source, served.fingerprint.as_str()))
        }
    }

    const WANTS: &[u8] = br#"{"Settings":{"Acme":true}}"#;

    #[test]
    fn a_stored_certificate_serves_the_host_that_wants_it() {
        let mut at = Followed::new();
        at.put("acme/certs/a.test", &at.sealed(&["a.test"]));
        assert!(at.served().is_none() && at.table.acme.is_empty(), "nobody asked for it");
        at.put("hosts/a.test/host", WANTS);
        let first = at.served().map(|(source, print)| (source, print.to_owned())).unwrap();
        assert_eq!(first.0, Source::Acme);
        at.put("acme/issuing/a.test", b"somebody");
        assert!(at.table.acme["a.test"].is_claimed);
        at.put("acme/certs/a.test", &at.sealed(&["a.test"]));
        assert_ne!(at.served().unwrap().1, first.1);
        assert!(at.problems().is_empty());

        let own = at.sealed(&["a.test"]);
        let own = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, own);
        at.put("hosts/a.test/host", format!(r#"{{"Settings":{{"Acme":true,"KeyPair":"{own}"}}}}"#).as_bytes());
        assert_eq!(at.served().unwrap().0, Source::KeyPair);
        assert!(at.table.acme["a.test"].key_pair_until.is_some());
        at.put("hosts/a.test/host", br#"{"Settings":{"Acme":true,"KeyPair":"e30="}}"#);
        assert_eq!(at.served().unwrap().0, Source::Acme, "one that cannot be used does not go first");
        assert_eq!(at.problems().len(), 1);
        at.put("hosts/a.test/host", b"{}");
        assert!(at.table.acme.is_empty());
    }

    #[test]
    fn what_cannot_be_opened_leaves_what_serves_and_is_not_replaced() {
        let mut at = Followed::new();
        at.put("hosts/a.test/host", WANTS);
        at.put("acme/certs/a.test", &at.sealed(&["a.test"]));
        let first = at.served().unwrap().1.to_owned();
        let stranger = Followed::new().sealed(&["a.test"]);
        for bad in [&stranger[..], b"", b"{}", b"\xff\xfe", br#"{"Encryption":"secretbox.v1"}"#] {
            at.put("acme/certs/a.test", bad);
            assert_eq!(at.served().unwrap().1, first);
            assert!(at.problems()[0].starts_with("its certificate in acme/certs/a.test: "), "{:?}", at.problems());
            assert!(at.table.acme.is_empty(), "nobody may order over it who cannot open it");
        }
        at.put("acme/certs/a.test", &at.sealed(&["a.test"]));
        assert!(at.problems().is_empty() && at.table.acme.contains_key("a.test"));
    }

    #[test]
    fn failures_are_told_until_the_settings_change() {
        let mut at = Followed::new();
        at.put("hosts/a.test/host", WANTS);
        let acme = etna_store::object::Acme::default();
        let record = Record {
            failures: 3,
            reason: "the authority says: no".into(),
            retry_at: 4_000_000_000,
            settings: names::settings(&acme, crate::acme::DIRECTORY),
            ..Record::default()
        };
        at.put("acme/hosts/a.test", &record.write());
        let problem = at.compiler.problems().next().unwrap().clone();
        assert_eq!(problem.reason, "no certificate by ACME: the authority says: no");
        assert!(problem.hint.contains("attempt 4 is made at") && problem.hint.contains("2096"), "{}", problem.hint);
        at.put("hosts/a.test/host", br#"{"Settings":{"Acme":{"Email":"a@b.test"}}}"#);
        assert!(at.problems().is_empty());
    }

    proptest! {
        #[test]
        fn whatever_lies_there_nothing_breaks(
            key in "acme/(certs|hosts|issuing|challenges)/(a\\.test|x|[a-z/]{0,5})",
            value in proptest::collection::vec(any::<u8>(), 0..100),
            record in "\\{\"(Failures|RenewAt|AskAt|RetryAt|Issued)\":-?[0-9]{1,25}\\}",
        ) {
            let mut at = Followed::new();
            at.put("hosts/a.test/host", WANTS);
            at.put(&key, &value);
            at.put(&key, record.as_bytes());
            prop_assert!(at.served().is_none());
        }
    }
}
