//! The model compiled for serving: immutable, published whole, shared by all workers.
//!
//! Every part is a persistent structure, so that a table that differs by one server costs what that server costs.
//! A frontend names its backends by slot: backends change under it without its being compiled again, and both always
//! come out of the same table. Only the control loop publishes (`LiveTable::publish` holds the one `store`).

mod acme;
pub mod compile;
mod digest;
pub(crate) mod edge;
mod otherwise;
mod own;
pub(crate) mod servers;
mod slots;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use etna_store::object::{HttpsMode, Id};
use etna_store::{Problem, Revision};
use http::StatusCode;
use tokio::sync::watch;

pub use digest::Digest;
pub use otherwise::Otherwise;

use crate::acme::Subject;
use crate::acme::challenge::Challenges;
use crate::backend::{Backend, Slot};
use crate::error::Error;
use crate::failover::Predicate;
use crate::middleware::Middleware;
use crate::router::{Router, Ruled};
use crate::rule::{Head, Rank, Rule};
use crate::stats::Requests;
use crate::tls::certificates::Certificates;
use crate::tls::terms::Terms;

/// Everything a request may need, at one revision.
#[derive(Clone, Default)]
pub struct Table {
    /// Whether it shows a store at all; the first one does not.
    pub loaded: bool,
    /// The revision of the store it shows.
    pub revision: Revision,
    /// Every compiled frontend: found by request, or by id.
    pub router: Router<Frontend>,
    /// Backends by slot; `None` where a frontend names one that is not there.
    pub backends: imbl::Vector<Option<Arc<Backend>>>,
    /// The rules of listeners that serve only some requests, by listener.
    pub scopes: Arc<BTreeMap<Id, Arc<Rule>>>,
    /// The listeners to accept on, by id.
    pub listeners: Arc<BTreeMap<Id, Arc<etna_store::Listener>>>,
    /// On which terms those of them speak TLS that do, by id.
    pub terms: Arc<BTreeMap<Id, Arc<Terms>>>,
    /// The certificates of hosts.
    pub certificates: Certificates,
    /// The hosts that want certificates by ACME.
    pub acme: imbl::OrdMap<Id, Arc<Subject>>,
    /// What authorities want to see now.
    pub challenges: Arc<Challenges>,
}

/// A frontend compiled for serving.
#[derive(Clone, Debug)]
pub struct Frontend {
    /// Its name.
    pub id: Id,
    /// What is stored of it; requests read the digest.
    pub spec: Arc<etna_store::Frontend>,
    /// What of that every request asks for.
    pub digest: Digest,
    /// When it is chosen.
    pub rule: Rule,
    /// Which of those it is that could be.
    pub rank: Rank,
    /// Where it leads.
    pub backend: Slot,
    /// Where it leads when that backend has no server.
    pub fallback: Option<Slot>,
    /// Where it asks again when the backend answers one of these statuses.
    pub elsewhere: Option<Box<(Box<[u16]>, Slot)>>,
    /// The status it answers with instead of forwarding.
    pub deny: Option<StatusCode>,
    /// Name of its sticky cookie, where it has one of its own.
    pub cookie: Option<Arc<str>>,
    /// When a request goes to another server, where it says so itself.
    pub failover: Option<Arc<Predicate>>,
    /// Its middlewares, outermost first.
    pub chain: Arc<[Step]>,
    /// Whether a middleware of it cannot be built: then it answers 503, for a middleware is never skipped.
    pub broken: bool,
    /// What survives publishes.
    pub live: Arc<FrontendLive>,
    /// The counters of `live`, from the first request on: found at once by those that come after it.
    counters: OnceLock<Arc<Requests>>,
}

impl Frontend {
    /// Its counters, for counting.
    pub fn requests(&self) -> &Requests {
        self.counters.get_or_init(|| self.live.requests.get_or_init(Arc::default).clone())
    }
}

impl Ruled for Frontend {
    fn id(&self) -> &Id {
        &self.id
    }

    fn rule(&self) -> &Rule {
        &self.rule
    }

    fn rank(&self) -> &Rank {
        &self.rank
    }
}

/// A middleware in a frontend's chain.
#[derive(Clone)]
pub struct Step {
    /// What is stored of it.
    pub spec: Arc<etna_store::Middleware>,
    /// The step itself, with its living state.
    pub middleware: Arc<dyn Middleware>,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.spec.fmt(f)
    }
}

/// A frontend's living state, identified by its name.
#[derive(Debug, Default)]
pub struct FrontendLive {
    requests: OnceLock<Arc<Requests>>,
}

impl FrontendLive {
    /// Its counters, if it ever answered.
    pub fn counted(&self) -> Option<&Requests> {
        self.requests.get().map(|requests| &**requests)
    }
}

/// What a request takes out of the table: closed, nothing is looked up after it.
#[derive(Clone, Debug)]
pub struct Route {
    /// The frontend.
    pub frontend: Arc<Frontend>,
    /// Where it leads.
    pub backend: Option<Arc<Backend>>,
    /// Where it leads when that has no server.
    pub fallback: Option<Arc<Backend>>,
    /// Where it asks again.
    pub elsewhere: Option<Arc<Backend>>,
    /// Whether its clients are to come over TLS.
    pub wants_tls: bool,
}

impl Route {
    /// The backend that serves it: its own, as long as that has servers, and where there is another one to fall back on, as
    /// long as any of them is well.
    pub fn serving(&self) -> Option<&Arc<Backend>> {
        let own = self.backend.as_ref().filter(|backend| !backend.schedule.is_empty());
        let Some(fallback) = self.fallback.as_ref().filter(|backend| !backend.schedule.is_empty()) else { return own };
        match own {
            Some(own) if own.has_serving() || !fallback.has_serving() => Some(own),
            _ => Some(fallback),
        }
    }
}

impl Table {
    /// Certificates in force that have ended, or will within a week.
    pub fn ending(&self, now: SystemTime) -> impl Iterator<Item = Problem> {
        edge::ending(&self.certificates, now)
    }

    /// The route of a request that came in on a listener.
    pub fn route(&self, listener: &str, head: &Head<'_>) -> Result<Route, Error> {
        if !self.is_in_scope(listener, head) {
            return Err(Error::NoRoute);
        }
        let none = if self.loaded { Error::NoRoute } else { Error::Starting };
        let frontend = self.router.find(head).ok_or(none)?;
        if self.otherwise(listener, head, frontend).is_some() {
            return Err(Error::BadRequest(AMBIGUOUS));
        }
        let mut route = self.route_of(frontend);
        route.wants_tls = match route.frontend.digest.https {
            HttpsMode::Off => false,
            HttpsMode::Always => true,
            HttpsMode::Auto | HttpsMode::Admin => self.certificates.find(head.host()).is_some(),
        };
        Ok(route)
    }

    /// Whether a listener serves a request at all.
    fn is_in_scope(&self, listener: &str, head: &Head<'_>) -> bool {
        self.scopes.is_empty() || self.scopes.get(listener).is_none_or(|scope| scope.matches(head))
    }

    /// The route of a frontend's requests, if it is still there, for one that was on its way when the table changed.
    pub fn route_again(&self, frontend: &Id) -> Option<Route> {
        Some(self.route_of(self.router.get(frontend)?))
    }

    fn route_of(&self, frontend: &Arc<Frontend>) -> Route {
        Route {
            backend: self.backend(frontend.backend).cloned(),
            fallback: frontend.fallback.and_then(|slot| self.backend(slot)).cloned(),
            elsewhere: frontend.elsewhere.as_ref().and_then(|elsewhere| self.backend(elsewhere.1)).cloned(),
            frontend: frontend.clone(),
            wants_tls: false,
        }
    }

    /// Whether an address is that of a server of the frontend's site: of any of its frontends' backends.
    pub fn is_own_server(&self, frontend: &Frontend, address: IpAddr) -> bool {
        let site = frontend.spec.site.as_ref().and_then(|site| self.router.get(&format!("site:{site}:public")));
        let shown = site.map_or(frontend, |public| &**public);
        let slots = [Some(frontend.backend), Some(shown.backend), shown.fallback].into_iter().flatten();
        let mut servers = slots.filter_map(|slot| self.backend(slot)).flat_map(|backend| &backend.servers);
        servers.any(|server| server.spec.host.parse::<IpAddr>().is_ok_and(|own| own.to_canonical() == address))
    }

    /// The backend in a slot.
    pub fn backend(&self, slot: Slot) -> Option<&Arc<Backend>> {
        self.backends.get(slot.0 as usize)?.as_ref()
    }
}

/// Why a request is refused that [`Table::otherwise`] finds another place for.
const AMBIGUOUS: &str = "its path leads elsewhere once escapes, .. and // in it are resolved";

/// The table in force.
pub struct LiveTable {
    current: ArcSwap<Table>,
    revision: watch::Sender<Revision>,
}

impl Default for LiveTable {
    fn default() -> LiveTable {
        LiveTable { current: ArcSwap::from_pointee(Table::default()), revision: watch::Sender::new(Revision(0)) }
    }
}

impl LiveTable {
    /// The route of a request, taken out of the table in force. Called once per request. `name` is what the client asked
    /// for by SNI where that is another host than the request's: both must have one certificate (RFC 9110 section
    /// 7.4), else a client could reach what it did not ask TLS for.
    pub fn route(&self, listener: &str, name: Option<&str>, head: &Head<'_>) -> Result<Route, Error> {
        let table = self.current.load();
        if name.is_some_and(|name| !table.certificates.are_alike(name, head.host())) {
            return Err(Error::Misdirected);
        }
        table.route(listener, head)
    }

    /// On which terms a listener speaks TLS.
    pub fn terms(&self, listener: &str) -> Option<Arc<Terms>> {
        self.current.load().terms.get(listener).cloned()
    }

    /// What an authority is answered that asks a host for a token.
    pub fn token(&self, host: &str, path: &str) -> Option<String> {
        self.current.load().challenges.answer(host, path).map(str::to_owned)
    }

    /// Whether a listener's clients may begin with HTTP/2 in the clear.
    pub fn knows_h2c(&self, listener: &Id) -> bool {
        let table = self.current.load();
        !table.listeners.is_empty() && table.listeners.get(listener).is_some_and(|listener| listener.h2c)
    }

    /// The table in force, for looking at; the request path uses [`LiveTable::route`].
    pub fn table(&self) -> Arc<Table> {
        self.current.load_full()
    }

    /// Puts a table in force and returns the one it replaces, so that the control loop frees it, not a worker.
    #[expect(clippy::disallowed_methods, reason = "the one place that publishes")]
    pub(crate) fn publish(&self, table: Table) -> Arc<Table> {
        let revision = table.revision;
        let old = self.current.load_full();
        self.current.store(Arc::new(table));
        self.revision.send_replace(revision);
        old
    }

    /// Tells when another table is in force.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }
}

/// Whether a problem is only that there is no seal key here, or may come of that.
pub fn is_for_want_of_seal_keys(problem: &Problem) -> bool {
    problem.reason.ends_with(servers::NO_SEAL_KEY)
        || [acme::NO_KEY_FOR_ACME, edge::NO_CERTIFICATE].contains(&problem.reason.as_str())
}

#[cfg(test)]
mod tests;
