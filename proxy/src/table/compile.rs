//! Compiling: model and table in force → next table and problems. Cannot fail.
//!
//! Only what a [`Delta`] names is compiled again; everything else is the same value as before. An object whose new
//! version cannot be compiled keeps its last good one. Living state is found by identity: a frontend and a backend by
//! name, a server by name and address, a middleware by its unchanged settings.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use etna_store::object::{Id, Policy, Scheme};
use etna_store::seal::Keyring;
use etna_store::{Delta, Key, Model, Problem};
use http::StatusCode;

use super::servers;
use super::slots::Slots;
use super::{Digest, Frontend, Step, Table};
use crate::acme::Settings;
use crate::backend::balance::Schedule;
use crate::backend::hash::HashKey;
use crate::backend::{Backend, BackendLive, Live, Server, sticky};
use crate::failover::Predicate;
use crate::middleware;
use crate::rule::Rule;
use crate::tls::files::Found;

/// Compiles tables one after the other. What must not be in a table, because only compiling needs it, is here.
#[derive(Default)]
pub struct Compiler {
    slots: Slots,
    /// By what they are about: a frontend's id, or something with a slash, which no id has.
    problems: BTreeMap<Id, Vec<Problem>>,
    servers_made: u64,
    backends_made: u64,
    /// Backends that the last table has otherwise than the one before; those who wait at them are not told yet.
    moved: Vec<(Arc<BackendLive>, Option<Arc<Backend>>)>,
    /// The zone this proxy is in.
    zone: Option<String>,
    /// Where this proxy itself answers.
    pub(super) own: Vec<SocketAddr>,
    /// What opens sealed keys.
    pub(super) keyring: Option<Arc<Keyring>>,
    /// What the command line says about ACME.
    pub(super) acme: Settings,
    /// Certificates of files that no table has yet.
    pub(super) files: Option<Found>,
    /// Whether the problems differ from when they were last asked about.
    changed: bool,
}

impl Compiler {
    /// For a proxy in that zone, which opens sealed keys with these.
    pub fn new(zone: Option<String>, keyring: Option<Arc<Keyring>>) -> Compiler {
        Compiler { zone, keyring, ..Compiler::default() }
    }

    /// The same, with the command line's word about ACME.
    pub fn with_acme(self, acme: Settings) -> Compiler {
        Compiler { acme, ..self }
    }

    /// Opens sealed keys with these from now on. What they mean for what is compiled already, the next delta has to name.
    pub fn open_with(&mut self, keyring: Option<Arc<Keyring>>) {
        self.keyring = keyring;
    }

    /// The table that shows the model, given the one in force and what changed since.
    pub fn compile(&mut self, model: &Model, delta: &Delta, current: &Table) -> Table {
        self.moved.clear();
        let mut next = current.clone();
        next.loaded = true;
        next.revision = model.revision();
        for id in &delta.backends {
            self.backend(model, id, delta, &mut next);
        }
        let frontends = delta.frontends.iter().filter_map(|id| self.frontend(model, id, &mut next)).collect();
        next.router.change(frontends);
        let had_none = next.certificates.is_empty();
        self.files(&mut next);
        let hosts = self.shared(model, delta, &mut next);
        for name in &hosts {
            self.host(model, name, &mut next);
        }
        let is_certain = had_none == next.certificates.is_empty();
        if !delta.listeners.is_empty() || !hosts.is_empty() || !is_certain {
            self.listeners(model, delta, &mut next);
        }
        next
    }

    /// Tells those who wait for a server that their backend changed. Once the last table is in force: they may look at it.
    pub fn tell_waiting(&mut self) {
        for (live, backend) in self.moved.drain(..) {
            live.queue.follow(backend.as_ref());
        }
    }

    /// What could be decoded but not compiled as written.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// Whether the problems changed since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn backend(&mut self, model: &Model, id: &Id, delta: &Delta, table: &mut Table) {
        let slot = self.slots.of(id, &mut table.backends);
        let old = table.backend(slot).cloned();
        let next = model.backend(id).map(|spec| Arc::new(self.make_backend(model, spec, old.as_deref())));
        if next.is_none() {
            self.tell(&format!("backends/{id}").into(), Vec::new());
        }
        self.moved.extend(old.as_ref().map(|old| (old.live.clone(), next.clone())));
        let came_or_went = old.is_some() != next.is_some();
        table.backends.set(slot.0 as usize, next);
        self.slots.free(id, &table.backends);
        if came_or_went {
            // Those that are compiled anyway look then.
            for frontend in model.frontends_of(id).filter(|frontend| !delta.frontends.contains(*frontend)) {
                self.dangling(model, frontend);
            }
        }
    }

    fn make_backend(&mut self, model: &Model, spec: &Arc<etna_store::Backend>, old: Option<&Backend>) -> Backend {
        let now = Instant::now();
        let backend_live = old.map(|old| old.live.clone()).unwrap_or_default();
        let limit = spec.limit.map(|limit| limit.requests);
        let mut problems = Vec::new();
        let mut servers = Vec::new();
        let mut new = Vec::new();
        let check = model.health_check(spec);
        let is_needed = spec.tls.is_some() || model.servers(&spec.id).any(|server| server.scheme == Scheme::Https);
        let tls = is_needed.then(|| self.server_tls(spec, old, &mut problems)).flatten();
        for server in model.servers(&spec.id) {
            let is_https = server.scheme == Scheme::Https;
            if !self.is_another(server, &spec.id, &mut problems) {
                continue;
            }
            if is_https && !servers::is_usable(tls.as_deref(), server, &spec.id, &mut problems) {
                continue;
            }
            let known = old.and_then(|old| {
                let at = old.servers.binary_search_by(|known| known.spec.id.cmp(&server.id)).ok()?;
                old.servers[at].same_place(server).then(|| old.servers[at].live.clone())
            });
            let is_new = known.is_none();
            let live = known.unwrap_or_else(|| {
                self.servers_made += 1;
                let live = Live::new(self.servers_made, &spec.id, server);
                Arc::new(live.waiting_in(backend_live.queue.clone()))
            });
            live.follow(server, limit, now);
            match check {
                Some(_) if is_new => live.health.expect_check(),
                Some(_) => {}
                None => live.health.forget_checks(),
            }
            let tls = tls.clone().filter(|_| is_https);
            servers.push(Server { spec: server.clone(), live, tls });
            new.extend(servers.last().filter(|server| is_new && server.takes_new()).cloned());
        }
        if servers.len() > MOST_SERVERS {
            problems.push(Problem {
                key: Key::Backend(spec.id.clone()).to_string(),
                reason: format!("the backend has {} servers", servers.len()),
                hint: format!("spread them over backends of at most {MOST_SERVERS} servers"),
                line: None,
                column: None,
                effect: format!("only the first {MOST_SERVERS} are used"),
            });
            servers.truncate(MOST_SERVERS);
        }
        self.tell(&format!("backends/{}", spec.id).into(), problems);
        self.backends_made += 1;
        let backend = Backend {
            number: self.backends_made,
            id: spec.id.clone(),
            schedule: Schedule::new(spec, &servers, self.zone.as_deref()),
            hash: (spec.policy == Policy::Hash).then(|| HashKey::new(&spec.hash_on)).flatten(),
            cookie: spec.sticky.as_ref().map(|sticky| cookie_name(sticky, &spec.id)),
            check,
            servers,
            tls,
            spec: spec.clone(),
            live: backend_live,
        };
        backend.begin(&new, now);
        backend
    }

    /// What its name is to lead to from now on, if that changes.
    fn frontend(&mut self, model: &Model, id: &Id, table: &mut Table) -> Option<(Id, Option<Arc<Frontend>>)> {
        let old = table.router.get(id).cloned();
        let Some(spec) = model.frontend(id) else {
            if let Some(old) = &old {
                self.slots.forget(&old.spec, &table.backends);
            }
            self.tell(id, Vec::new());
            self.dangling(model, id);
            return old.map(|_| (id.clone(), None));
        };
        let mut problems = Vec::new();
        let rule = match old.as_ref().filter(|old| old.spec.route == spec.route) {
            Some(old) => Some(old.rule.clone()),
            None => match Rule::parse(&spec.route) {
                Ok(rule) => Some(rule),
                Err(error) => {
                    problems.push(Problem {
                        key: key_of(model, id),
                        reason: format!("route {:?}: {}", spec.route, error.message),
                        hint: error.hint,
                        line: None,
                        column: Some(error.column),
                        effect: if old.is_some() { LAST_GOOD } else { MATCHES_NOTHING }.into(),
                    });
                    None
                }
            },
        };
        // A frontend whose rule cannot be read keeps serving as it last could.
        let next = rule.map(|rule| {
            let (chain, broken) = chain(model, id, old.as_deref(), &mut problems);
            let failover = failover(model, spec, old.as_deref(), &mut problems);
            let frontend = Arc::new(Frontend {
                id: id.clone(),
                digest: Digest::of(spec),
                rank: rule.rank(spec.priority),
                rule,
                backend: self.slots.of(&spec.backend, &mut table.backends),
                fallback: spec.fallback.as_ref().map(|backend| self.slots.of(backend, &mut table.backends)),
                elsewhere: spec.elsewhere.as_ref().map(|elsewhere| {
                    Box::new((
                        elsewhere.statuses.clone().into(),
                        self.slots.of(&elsewhere.backend, &mut table.backends),
                    ))
                }),
                deny: spec.deny.and_then(|status| StatusCode::from_u16(status).ok()),
                cookie: spec.sticky.as_ref().map(|sticky| cookie_name(sticky, &spec.backend)),
                failover,
                chain,
                broken,
                live: old.as_ref().map(|old| old.live.clone()).unwrap_or_default(),
                counters: OnceLock::new(),
                spec: spec.clone(),
            });
            self.slots.name(spec);
            if let Some(old) = old {
                self.slots.forget(&old.spec, &table.backends);
            }
            (id.clone(), Some(frontend))
        });
        self.tell(id, problems);
        self.dangling(model, id);
        next
    }

    /// Says, or no longer says, that a frontend names a backend that is not there.
    fn dangling(&mut self, model: &Model, frontend: &Id) {
        let missing = model
            .frontend(frontend)
            .filter(|spec| spec.deny.is_none() && model.backend(&spec.backend).is_none())
            // A site's rows all name the same two backends, and one that has no container yet is no mistake.
            .filter(|spec| spec.site.is_none());
        let problem = missing.map(|spec| Problem {
            key: key_of(model, frontend),
            reason: format!("backend {:?} does not exist", spec.backend),
            hint: format!("put backends/{}/backend or one of its servers, or correct BackendId", spec.backend),
            line: None,
            column: None,
            effect: "answers 503".into(),
        });
        // With neither there is nothing to say, and no name to be made.
        if problem.is_none() && self.problems.is_empty() {
            return;
        }
        self.tell(&format!("frontends/{frontend}/backend").into(), problem.into_iter().collect());
    }

    pub(super) fn tell(&mut self, about: &Id, problems: Vec<Problem>) {
        if problems.is_empty() {
            self.changed |= self.problems.remove(about).is_some();
        } else {
            self.changed |= self.problems.insert(about.clone(), problems.clone()).is_none_or(|old| old != problems);
        }
    }
}

fn chain(model: &Model, id: &Id, old: Option<&Frontend>, problems: &mut Vec<Problem>) -> (Arc<[Step]>, bool) {
    let mut broken = false;
    let mut steps = Vec::new();
    for spec in model.middlewares(id) {
        let known = old.and_then(|old| old.chain.iter().find(|step| step.spec.id == spec.id));
        let same = |step: &&Step| step.spec.kind == spec.kind && step.spec.settings.get() == spec.settings.get();
        if let Some(step) = known.filter(same) {
            steps.push(Step { spec: spec.clone(), middleware: step.middleware.clone() });
            continue;
        }
        match middleware::build(spec) {
            Ok(middleware) => steps.push(Step { spec: spec.clone(), middleware }),
            // Its value could not be read at all, which the model has told already.
            Err(_) if spec.kind.is_empty() => broken = true,
            Err(error) => {
                problems.push(Problem {
                    key: Key::Middleware(id.clone(), spec.id.clone()).to_string(),
                    reason: error.reason,
                    hint: error.hint,
                    line: None,
                    column: None,
                    effect: if known.is_some() { LAST_GOOD } else { "its frontend answers 503" }.into(),
                });
                match known {
                    Some(step) => steps.push(step.clone()),
                    None => broken = true,
                }
            }
        }
    }
    (steps.into(), broken)
}

/// When the frontend's requests go to another server; `None`: by default.
fn failover(
    model: &Model,
    spec: &etna_store::Frontend,
    old: Option<&Frontend>,
    problems: &mut Vec<Problem>,
) -> Option<Arc<Predicate>> {
    let written = spec.settings.failover_predicate.as_deref()?;
    match Predicate::parse(written) {
        Ok(predicate) => Some(Arc::new(predicate)),
        Err(error) => {
            let known = old.and_then(|old| old.failover.clone());
            problems.push(Problem {
                key: key_of(model, &spec.id),
                reason: format!("FailoverPredicate {written:?}: {}", error.message),
                hint: error.hint,
                line: None,
                column: Some(error.column),
                effect: if known.is_some() { LAST_GOOD } else { "the default is in force" }.into(),
            });
            known
        }
    }
}

/// The key an operator edits to change a frontend: its own, a site's, or one of the old layout.
fn key_of(model: &Model, id: &Id) -> String {
    model.frontend_key(id).unwrap_or_else(|| Key::Frontend(id.clone()).to_string())
}

fn cookie_name(sticky: &etna_store::object::Sticky, backend: &str) -> Arc<str> {
    match &sticky.cookie {
        Some(name) => name.as_str().into(),
        None => sticky::default_cookie(backend),
    }
}

const LAST_GOOD: &str = "its last good version serves";
const MATCHES_NOTHING: &str = "it matches nothing: its requests are answered 404, or by another frontend";
/// Servers are numbered with 16 bits inside a backend.
const MOST_SERVERS: usize = 10_000;
