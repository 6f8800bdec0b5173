//! Which of the keys that spell an object is in force, and what follows from a change of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::decode::Good;
use super::{Alias, Delta, IGNORED, Model, legacy};
use crate::key::{self, Key};
use crate::object::{Backend, Frontend, Host, Id, Middleware};
use crate::problem::{Flaw, Problem};

/// A version of an object, and the key it stands under.
struct Candidate<T> {
    raw: Box<[u8]>,
    value: Arc<T>,
}

impl Model {
    /// Looks again at everything stored about one object, named by its v3 key.
    pub(super) fn resolve(&mut self, object: &Key, delta: &mut Delta) {
        match object {
            Key::Frontend(id) => self.resolve_frontend(object, id, delta),
            Key::Middleware(frontend, id) => self.resolve_middleware(object, frontend, id, delta),
            Key::Backend(id) => self.resolve_backend(object, id, delta),
            Key::Server(backend, id) => self.resolve_server(object, backend, id, delta),
            Key::Host(name) => self.resolve_host(object, name, delta),
            Key::Listener(id) => {
                let candidates = self.candidates(object, |good| match good {
                    Good::Listener(listener) => Some(listener.clone()),
                    _ => None,
                });
                let winner = self.settle(candidates, delta);
                if set(&mut self.listeners, id, winner) {
                    delta.listeners.insert(id.clone());
                }
            }
            Key::Site(id) => {
                let candidates = self.candidates(object, |good| match good {
                    Good::Site(site) => Some(site.clone()),
                    _ => None,
                });
                let winner = self.settle(candidates, delta);
                self.set_site(id, winner, delta);
            }
            // No other key is an object's own.
            _ => {}
        }
    }

    fn resolve_frontend(&mut self, object: &Key, id: &Id, delta: &mut Delta) {
        let mut candidates = self.candidates(object, |good| match good {
            Good::Frontend(frontend) => Some(frontend.clone()),
            _ => None,
        });
        for (host, name) in self.locations(object) {
            candidates.extend(self.location(id, &host, &name, delta));
        }
        let winner = self.settle(candidates, delta);
        self.set_frontend(id, winner, delta);
    }

    /// The legacy locations that are this frontend: `a.b` may be location `b` of host `a`, and nothing forbids a second.
    fn locations(&self, object: &Key) -> BTreeSet<(Id, Id)> {
        let keys = self.aliases_of(object).filter_map(|alias| Key::parse(&alias.raw).ok());
        keys.filter_map(|key| match key {
            Key::LegacyPath(host, name) | Key::LegacyTarget(host, name) | Key::LegacyOptions(host, name) => {
                Some((host, name))
            }
            _ => None,
        })
        .collect()
    }

    fn location(&mut self, id: &Id, host: &Id, name: &Id, delta: &mut Delta) -> Option<Candidate<Frontend>> {
        let path = Key::LegacyPath(host.clone(), name.clone()).path();
        let target = Key::LegacyTarget(host.clone(), name.clone()).path();
        let options = Key::LegacyOptions(host.clone(), name.clone()).path();
        let found = match (self.good(&path), self.good(&target)) {
            (Some(Good::Path(path)), Some(Good::Target(target))) => {
                let settings = match self.good(&options) {
                    Some(Good::Options(settings)) => Some(&**settings),
                    _ => None,
                };
                Ok(Arc::new(legacy::frontend(id.clone(), host, path, target, settings)))
            }
            (Some(_), None) => Err((&path, "the location has a path and no upstream", &target)),
            (None, Some(_)) => Err((&target, "the location has an upstream and no path", &path)),
            _ => Err((&options, "the location has neither a path nor an upstream", &path)),
        };
        let incomplete = match &found {
            Ok(_) => None,
            Err((about, reason, missing)) => {
                let flaw = Flaw::new(*reason, format!("put {missing}"));
                Some((*about, flaw.into_problem(key::show(about.as_bytes()), IGNORED)))
            }
        };
        for raw in [&path, &target, &options] {
            let about =
                incomplete.as_ref().filter(|(about, _)| *about == raw && self.records.contains_key(raw.as_bytes()));
            let problems = about.map(|(_, problem)| problem.clone()).into_iter().collect();
            self.tell_conflicts(raw.as_bytes(), problems, delta);
        }
        found.ok().map(|value| Candidate { raw: path.into_bytes().into(), value })
    }

    fn resolve_middleware(&mut self, object: &Key, frontend: &Id, id: &Id, delta: &mut Delta) {
        let candidates = self.candidates(object, |good| match good {
            Good::Middleware(middleware) => Some(middleware.clone()),
            _ => None,
        });
        let mut winner = self.settle(candidates, delta);
        if winner.is_none() && !self.spellings(object).is_empty() {
            // It is there and means something: without it more would be served than was allowed.
            winner = Some(Arc::new(Middleware::unreadable(frontend.clone(), id.clone())));
        }
        if set(&mut self.middlewares, &(frontend.clone(), id.clone()), winner) {
            delta.frontends.insert(frontend.clone());
        }
    }

    fn resolve_backend(&mut self, object: &Key, id: &Id, delta: &mut Delta) {
        let candidates = self.candidates(object, |good| match good {
            Good::Backend(backend) => Some(backend.clone()),
            _ => None,
        });
        let mut winner = self.settle(candidates, delta);
        if winner.is_none() && self.servers(id).next().is_some() {
            winner = Some(Arc::new(Backend::implicit(id.clone())));
        }
        if set(&mut self.backends, id, winner) {
            delta.backends.insert(id.clone());
        }
    }

    fn resolve_server(&mut self, object: &Key, backend: &Id, id: &Id, delta: &mut Delta) {
        let candidates = self.candidates(object, |good| match good {
            Good::Server(server) => Some(server.clone()),
            _ => None,
        });
        let winner = self.settle(candidates, delta);
        let backend = super::shared(&self.backends, backend.clone());
        let name = (backend, winner.as_ref().map_or_else(|| id.clone(), |server| server.id.clone()));
        let there = winner.is_some();
        let was_there = self.servers.contains_key(&name);
        if set(&mut self.servers, &name, winner) {
            delta.backends.insert(name.0.clone());
            if there != was_there {
                self.resolve_backend(&Key::Backend(name.0.clone()), &name.0, delta);
            }
        }
    }

    fn resolve_host(&mut self, object: &Key, name: &Id, delta: &mut Delta) {
        let mut candidates = self.candidates(object, |good| match good {
            Good::Host(host) => Some(host.clone()),
            _ => None,
        });
        // The legacy parts make one host together; which of them speaks for it may have changed.
        let spellings: Vec<Alias> = self.aliases_of(object).cloned().collect();
        for alias in &spellings {
            self.tell_conflicts(&alias.raw, Vec::new(), delta);
        }
        let mut parts = None;
        for alias in self.aliases_of(object) {
            let good = self.records.get(&alias.raw).and_then(|record| record.good.as_ref());
            let (default, key_pair) = match good {
                Some(Good::HostDefault(default)) => (Some(*default), None),
                Some(Good::KeyPair(key_pair)) => (None, Some(key_pair.to_vec())),
                _ => continue,
            };
            let (_, host) = parts.get_or_insert_with(|| (alias.raw.clone(), Host::plain(name.clone())));
            host.default |= default.unwrap_or_default();
            host.key_pair = host.key_pair.take().or(key_pair);
        }
        candidates.extend(parts.map(|(raw, host)| Candidate { raw, value: Arc::new(host) }));
        let winner = self.settle(candidates, delta);
        if set(&mut self.hosts, name, winner) {
            delta.hosts.insert(name.clone());
        }
    }

    /// Puts a frontend in force, or takes it out, and keeps the index of what leads where.
    pub(super) fn set_frontend(&mut self, id: &Id, frontend: Option<Arc<Frontend>>, delta: &mut Delta) {
        let old = self.frontends.get(id);
        if old == frontend.as_ref() {
            return;
        }
        if let Some(old) = old.cloned() {
            for backend in targets(&old) {
                if let Some(leading) = self.leading.get_mut(backend) {
                    leading.remove(id);
                    if leading.is_empty() {
                        self.leading.remove(backend);
                    }
                }
            }
        }
        let id = frontend.as_ref().map_or_else(|| id.clone(), |frontend| frontend.id.clone());
        for backend in frontend.iter().flat_map(|frontend| targets(frontend)) {
            self.leading.entry(backend.clone()).or_default().insert(id.clone());
        }
        match frontend {
            Some(frontend) => self.frontends.insert(id.clone(), frontend),
            None => self.frontends.remove(&id),
        };
        delta.frontends.insert(id);
    }

    /// The last good versions of an object under all its spellings, the one that wins first.
    fn candidates<T>(&self, object: &Key, pick: impl Fn(&Good) -> Option<Arc<T>>) -> Vec<Candidate<T>> {
        let candidate = |raw: &[u8]| {
            let value = pick(self.records.get(raw)?.good.as_ref()?)?;
            Some(Candidate { raw: raw.into(), value })
        };
        let own = candidate(object.path().as_bytes());
        own.into_iter().chain(self.aliases_of(object).filter_map(|alias| candidate(&alias.raw))).collect()
    }

    /// The stored keys that say something about an object.
    pub(super) fn spellings(&self, object: &Key) -> Vec<Box<[u8]>> {
        let own: Box<[u8]> = object.path().into_bytes().into();
        let own = self.records.contains_key(&own).then_some(own);
        own.into_iter().chain(self.aliases_of(object).map(|alias| alias.raw.clone())).collect()
    }

    fn aliases_of(&self, object: &Key) -> impl Iterator<Item = &Alias> {
        // Hardly any store has one.
        let first = (!self.aliases.is_empty()).then(|| (object.clone(), Alias { legacy: false, raw: Box::default() }));
        let same = first.as_ref().map(|first| first.0.clone());
        let rest = first.map(|first| self.aliases.range(first..));
        let rest = rest.into_iter().flatten().take_while(move |entry| same.as_ref() == Some(&entry.0));
        rest.map(|(_, alias)| alias)
    }

    fn good(&self, path: &str) -> Option<&Good> {
        self.records.get(path.as_bytes())?.good.as_ref()
    }

    /// The first candidate wins; the others are problems, unless they say the same.
    fn settle<T: PartialEq>(&mut self, candidates: Vec<Candidate<T>>, delta: &mut Delta) -> Option<Arc<T>> {
        let mut candidates = candidates.into_iter();
        let winner = candidates.next()?;
        self.tell_conflicts(&winner.raw, Vec::new(), delta);
        for loser in candidates {
            let problem = (loser.value != winner.value).then(|| shadowed(&loser.raw, &winner.raw));
            self.tell_conflicts(&loser.raw, problem.into_iter().collect(), delta);
        }
        Some(winner.value)
    }
}

fn shadowed(loser: &[u8], winner: &[u8]) -> Problem {
    let winner = key::show(winner);
    Flaw::new(format!("{winner} names the same object and wins"), "delete one of the two")
        .into_problem(key::show(loser), IGNORED)
}

/// The backends a frontend may lead to.
fn targets(frontend: &Frontend) -> impl Iterator<Item = &Id> {
    let elsewhere = frontend.elsewhere.as_ref().map(|elsewhere| &elsewhere.backend);
    std::iter::once(&frontend.backend).chain(&frontend.fallback).chain(elsewhere)
}

/// Makes an entry what it should be, and says whether that was a change.
fn set<K: Ord + Clone, T: PartialEq>(
    map: &mut std::collections::BTreeMap<K, Arc<T>>,
    name: &K,
    value: Option<Arc<T>>,
) -> bool {
    match value {
        None => map.remove(name).is_some(),
        Some(value) => {
            if map.get(name) == Some(&value) {
                return false;
            }
            map.insert(name.clone(), value);
            true
        }
    }
}
