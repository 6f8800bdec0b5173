//! Compiling what faces clients: hosts into certificates, listeners into where and on which terms we accept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use etna_store::object::{Host, Id, Listener, Network, Protocol};
use etna_store::{Delta, Key, Model, Problem};

use super::Table;
use super::compile::Compiler;
use crate::rule::Rule;
use crate::tls::certificate::{Certificate, Source};
use crate::tls::certificates::Certificates;
use crate::tls::files::{self, Found};
use crate::tls::terms::Terms;

/// What is wrong with an https listener where all that is wrong is that hosts are missing.
pub(crate) const NO_CERTIFICATE: &str = "no host has a certificate";

impl Compiler {
    /// A host's certificate. One that cannot be used, or has ended, does not replace one that holds.
    pub(super) fn host(&mut self, model: &Model, name: &Id, table: &mut Table) {
        let host = model.served_host(name);
        let host = host.as_deref();
        let mut problems = Vec::new();
        let current = table.certificates.of(name).cloned();
        let (by_acme, subject) =
            host.map(|host| self.by_acme(model, host, current.as_ref(), &mut problems)).unwrap_or_default();
        let own = host.and_then(|host| self.certificate(host, by_acme.clone().or(current), &mut problems));
        let next = own.or(by_acme);
        self.subject(name, subject, next.as_ref(), table);
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
        let (opened, hint) = match self.open(&host.name, sealed) {
            Ok(certificate) => (Ok(certificate), PUT_ANOTHER),
            Err((reason, hint)) => (Err(reason), hint),
        };
        choose(opened, current, &place(&host.name), hint, problems)
    }

    /// From now on these certificates of files are there, and no others; the next table has them.
    pub fn take_files(&mut self, found: Found) {
        self.files = Some(found);
    }

    /// Brings the certificates of files into a table.
    pub(super) fn files(&mut self, table: &mut Table) {
        let Some(found) = self.files.take() else { return };
        let gone = table.certificates.iter().map(|known| known.host.clone());
        let gone: Vec<Id> = gone.filter(|host| host.starts_with("file:") && !found.contains_key(host)).collect();
        for host in gone {
            table.certificates.set(&host, None, false);
        }
        let mut problems = Vec::new();
        for (host, read) in found {
            let current = table.certificates.of(&host).cloned();
            let chosen = choose(read, current, &place(&host), PUT_ANOTHER, &mut problems);
            table.certificates.set(&host, chosen, files::is_default(&host));
        }
        self.tell(&"certificates/files".into(), problems);
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
                problems.push(no_certificate(Key::Listener(spec.id.clone()).to_string()));
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

/// That a listener of TLS has nothing to show.
pub(crate) fn no_certificate(key: String) -> Problem {
    Problem {
        key,
        reason: NO_CERTIFICATE.into(),
        hint: "put hosts/NAME/host with one: `etnactl host upsert --help`".into(),
        line: None,
        column: None,
        effect: "every TLS handshake fails".into(),
    }
}

/// Certificates in force that have ended, or soon will.
pub(crate) fn ending(certificates: &Certificates, now: SystemTime) -> impl Iterator<Item = Problem> {
    let soon = certificates.iter().filter(move |certificate| certificate.not_after < now + soon(certificate));
    soon.map(move |certificate| {
        let has_ended = certificate.not_after <= now;
        Problem {
            key: place(&certificate.host),
            reason: ended(certificate, if has_ended { "ended" } else { "ends" }),
            hint: PUT_ANOTHER.into(),
            line: None,
            column: None,
            effect: if has_ended { COMPLAIN } else { "it serves until then" }.into(),
        }
    })
}

/// How long before its end one is told of. ACME renews in time; what is left then may be less than usual for others.
fn soon(certificate: &Certificate) -> Duration {
    let life = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
    if certificate.source == Source::Acme { SOON.min(life / 6) } else { SOON }
}

/// Where a host's certificate is put: a key of the store, or a file's name without its ending.
fn place(host: &Id) -> String {
    host.strip_prefix("file:").map_or_else(|| Key::Host(host.clone()).to_string(), str::to_owned)
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
