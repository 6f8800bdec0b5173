//! Compiling what faces clients: hosts into certificates, listeners into where and on which terms we accept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use etna_store::object::{Host, Id, Listener, Network, Protocol};
use etna_store::{Delta, Key, Model, Problem};

use super::Table;
use super::compile::Compiler;
use crate::rule::Rule;
use crate::tls::certificate::Certificate;
use crate::tls::certificates::Certificates;
use crate::tls::files::{self, Found};
use crate::tls::terms::Terms;

/// What is wrong with an https listener where all that is wrong is that hosts are missing.
pub(crate) const NO_CERTIFICATE: &str = "no host has a certificate";

impl Compiler {
    /// A host's certificate. One that cannot be used, or has ended, does not replace one that holds.
    pub(super) fn host(&mut self, model: &Model, name: &Id, table: &mut Table) {
        let host = model.host(name);
        let mut problems = Vec::new();
        let current = table.certificates.of(name).cloned();
        let next = host.and_then(|host| self.certificate(host, current, &mut problems));
        table.certificates.set(name, next, host.is_some_and(|host| host.default));
        self.tell(&format!("hosts/{name}").into(), problems);
    }

    fn certificate(
        &self,
        host: &Host,
        current: Option<Arc<Certificate>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<Certificate>> {
        let sealed = host.key_pair.as_ref()?;
        let (opened, hint) = match self.open(host, sealed) {
            Ok(certificate) => (Ok(certificate), PUT_ANOTHER),
            Err((reason, hint)) => (Err(reason), hint),
        };
        choose(opened, current, &Key::Host(host.name.clone()).to_string(), hint, problems)
    }

    /// From now on these certificates of files are there, and no others; the next table has them.
    pub fn take_files(&mut self, dir: &Path, found: Found) {
        self.files = Some((dir.to_owned(), found));
    }

    /// Brings the certificates of files into a table.
    pub(super) fn files(&mut self, table: &mut Table) {
        let Some((dir, found)) = self.files.take() else { return };
        let gone = table.certificates.iter().map(|known| known.host.clone());
        let gone: Vec<Id> = gone.filter(|host| host.starts_with("file:") && !found.contains_key(host)).collect();
        for host in gone {
            table.certificates.set(&host, None, false);
        }
        let mut problems = Vec::new();
        for (host, read) in found {
            let key = dir.join(host.trim_start_matches("file:")).display().to_string();
            let current = table.certificates.of(&host).cloned();
            let chosen = choose(read, current, &key, PUT_ANOTHER, &mut problems);
            table.certificates.set(&host, chosen, files::is_default(&host));
        }
        self.tell(&"certificates/files".into(), problems);
    }

    fn open(&self, host: &Host, sealed: &[u8]) -> Result<Certificate, (String, &'static str)> {
        let keyring = self.keyring.as_ref().ok_or((
            "KeyPair is sealed and there is no key to open it".to_owned(),
            "start etna with --seal-key FILE",
        ))?;
        let pair = keyring
            .open(sealed)
            .map_err(|error| (format!("KeyPair: {error}"), "seal it with the key that --seal-key names"))?;
        Certificate::read(host.name.clone(), &pair)
            .map_err(|error| (format!("KeyPair: {error}"), "put a PEM certificate chain, leaf first, and its key"))
    }

    pub(super) fn listeners(&mut self, model: &Model, delta: &Delta, table: &mut Table) {
        let mut compiled = Listeners::default();
        for spec in model.listeners() {
            let mut problems = Vec::new();
            if let Err((reason, hint, column)) = compiled.add(spec, table) {
                problems.push(Problem {
                    key: Key::Listener(spec.id.clone()).to_string(),
                    reason,
                    hint,
                    line: None,
                    column,
                    effect: "not listening there".into(),
                });
            }
            if spec.protocol == Protocol::Https && table.certificates.is_empty() {
                problems.push(Problem {
                    key: Key::Listener(spec.id.clone()).to_string(),
                    reason: NO_CERTIFICATE.into(),
                    hint: "put hosts/NAME/host with one: `etnactl host upsert --help`".into(),
                    line: None,
                    column: None,
                    effect: "every TLS handshake fails".into(),
                });
            }
            self.tell(&format!("listeners/{}", spec.id).into(), problems);
        }
        for gone in delta.listeners.iter().filter(|id| model.listener(id).is_none()) {
            self.tell(&format!("listeners/{gone}").into(), Vec::new());
        }
        if compiled.all != *table.listeners {
            table.listeners = Arc::new(compiled.all);
        }
        table.scopes = Arc::new(compiled.scopes);
        table.terms = Arc::new(compiled.terms);
    }
}

/// Certificates in force that have ended, or soon will.
pub(crate) fn ending(certificates: &Certificates, now: SystemTime) -> impl Iterator<Item = Problem> {
    let soon = certificates.iter().filter(move |certificate| certificate.not_after < now + SOON);
    soon.map(move |certificate| {
        let has_ended = certificate.not_after <= now;
        Problem {
            key: match certificate.host.strip_prefix("file:") {
                Some(file) => file.to_owned(),
                None => Key::Host(certificate.host.clone()).to_string(),
            },
            reason: ended(certificate, if has_ended { "ended" } else { "ends" }),
            hint: PUT_ANOTHER.into(),
            line: None,
            column: None,
            effect: if has_ended { COMPLAIN } else { "it serves until then" }.into(),
        }
    })
}

fn ended(certificate: &Certificate, word: &str) -> String {
    format!("the certificate {word} {}", httpdate::fmt_http_date(certificate.not_after))
}

/// One that holds, whether it is new or was there before.
fn choose(
    read: Result<Certificate, String>,
    current: Option<Arc<Certificate>>,
    key: &str,
    hint: &str,
    problems: &mut Vec<Problem>,
) -> Option<Arc<Certificate>> {
    let now = SystemTime::now();
    let (reason, new) = match read {
        Ok(certificate) if certificate.holds(now) => return Some(Arc::new(certificate)),
        Ok(certificate) => {
            let reason = if certificate.not_after <= now {
                ended(&certificate, "ended")
            } else {
                format!("the certificate does not hold before {}", httpdate::fmt_http_date(certificate.not_before))
            };
            (reason, Some(certificate))
        }
        Err(reason) => (reason, None),
    };
    // An ended certificate is still better than none: some clients can be told to go on.
    let holds = current.as_ref().is_some_and(|current| current.holds(now));
    let chosen = if holds { current } else { new.map(Arc::new).or(current) };
    problems.push(Problem {
        key: key.into(),
        reason,
        hint: hint.into(),
        line: None,
        column: None,
        effect: match (&chosen, holds) {
            (Some(_), true) => "the last good certificate serves",
            (Some(_), false) => COMPLAIN,
            (None, _) => "no TLS for this host, unless another certificate is for it",
        }
        .into(),
    });
    chosen
}

#[derive(Default)]
struct Listeners {
    all: BTreeMap<Id, Arc<Listener>>,
    scopes: BTreeMap<Id, Arc<Rule>>,
    terms: BTreeMap<Id, Arc<Terms>>,
}

impl Listeners {
    /// Takes one, or says why not: reason, hint, column.
    fn add(&mut self, spec: &Arc<Listener>, table: &Table) -> Result<(), (String, String, Option<u32>)> {
        if spec.network == Network::Unix {
            return Err(("unix listeners are not supported".into(), "set Address.Network to tcp".into(), None));
        }
        // Serving everything where only some was asked for would fail open.
        let scope = spec.scope.as_deref().map(Rule::parse).transpose();
        let scope = scope.map_err(|error| (format!("scope: {}", error.message), error.hint, Some(error.column)))?;
        if spec.protocol == Protocol::Https {
            // The same terms as long as the listener is the same: a worker's configuration is made of them.
            let known = table.listeners.get(&spec.id).filter(|known| *known == spec);
            let terms = match known.and_then(|_| table.terms.get(&spec.id)) {
                Some(terms) => terms.clone(),
                None => {
                    let hint = "correct Settings.TLS, or Settings.ClientAuth";
                    Arc::new(Terms::of(spec).map_err(|error| (error.to_string(), hint.into(), None))?)
                }
            };
            self.terms.insert(spec.id.clone(), terms);
        }
        self.scopes.extend(scope.map(|rule| (spec.id.clone(), Arc::new(rule))));
        self.all.insert(spec.id.clone(), spec.clone());
        Ok(())
    }
}

const PUT_ANOTHER: &str = "put a certificate that holds, and its key; if this one does, correct the clock";
const COMPLAIN: &str = "it serves all the same; clients will complain";
/// Before its end a certificate is told of for so long.
const SOON: Duration = Duration::from_secs(7 * 86_400);
