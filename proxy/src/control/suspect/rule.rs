//! What is a mass.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etna_store::object::{Id, ServerState};
use etna_store::{Delta, Key, Model};

use super::{Lost, Suspects, What};

impl Suspects {
    /// Holds what must not be believed, and gives back the rest.
    pub(super) fn judge(
        &mut self,
        model: &mut Model,
        gone: Vec<Bytes>,
        now: Instant,
        replaced: bool,
        delta: &mut Delta,
    ) -> Vec<Bytes> {
        let until = (!replaced).then(|| now + self.hold);
        let objects: Vec<(Bytes, Option<Key>)> =
            gone.into_iter().map(|key| (key.clone(), Key::parse(&key).ok().and_then(|key| key.object()))).collect();
        if let Some(what) = self.is_mass(model, &objects) {
            self.open(what, objects.into_iter().map(|(key, _)| key).collect(), until, now);
            return Vec::new();
        }
        let mut believed = Vec::new();
        let mut losing: BTreeMap<Id, Vec<(Bytes, Id)>> = BTreeMap::new();
        for (key, object) in objects {
            match object {
                Some(Key::Server(backend, id)) if is_up(model, &backend, &id) => {
                    losing.entry(backend).or_default().push((key, id));
                }
                _ => believed.push(key),
            }
        }
        // First, because a backend that no frontend leads to any more loses nothing.
        delta.merge(self.let_go(model, &believed));
        believed.clear();
        for (backend, servers) in losing {
            let led_to = model.frontends_of(&backend).next().is_some();
            match self.loss(model, &backend, servers.len(), now).filter(|_| led_to) {
                Some(what) => {
                    let lost = self.lost.remove(&backend).into_iter().flatten();
                    let storm = lost.filter(|(at, ..)| now.duration_since(*at) < BURST);
                    self.returning.extend(storm.map(|(_, key, lost)| (key, lost)));
                    self.open(what, servers.into_iter().map(|(key, _)| key).collect(), until, now);
                }
                None => {
                    for (key, id) in servers {
                        self.remember(model, &backend, &id, &key, now);
                        believed.push(key);
                    }
                }
            }
        }
        believed
    }

    /// Remembers a server that is let go, for the moment in which a storm shows.
    fn remember(&mut self, model: &Model, backend: &Id, id: &Id, key: &Bytes, now: Instant) {
        let (Some(server), Some(value)) = (model.server(backend, id), self.pairs.get(key)) else { return };
        let (backend, server, value) = (backend.clone(), server.clone(), value.clone());
        let lost = self.lost.entry(backend.clone()).or_default();
        lost.retain(|(at, ..)| now.duration_since(*at) < BURST);
        if lost.len() < MOST_LOST {
            lost.push_back((now, key.clone(), Lost { value, server, backend, asked: false }));
        }
    }

    /// Whether so many servers less is a mass, for this backend.
    fn loss(&mut self, model: &Model, backend: &Id, going: usize, now: Instant) -> Option<What> {
        let present = model
            .servers(backend)
            .filter(|server| server.state == ServerState::Up)
            .filter(|server| {
                self.held_servers.is_empty() || !self.held_servers.contains(&(backend.clone(), server.id.clone()))
            })
            .count();
        let counts = self.counts.entry(backend.clone()).or_default();
        counts.retain(|(at, _)| now.duration_since(*at) < WINDOW);
        // Only what is greater than all that came later can ever be the most.
        while counts.back().is_some_and(|(_, count)| *count <= present) {
            counts.pop_back();
        }
        counts.push_back((now, present));
        let most = |within: Duration| {
            let recent = counts.iter().filter(|(at, _)| now.duration_since(*at) <= within);
            recent.map(|(_, count)| *count).max().unwrap_or(present)
        };
        let (after, of, burst) = (present.saturating_sub(going), most(WINDOW), most(BURST));
        let gone = of.saturating_sub(after);
        let is_mass = (gone >= FEWEST_SERVERS && after * 2 < of) || (after == 0 && burst >= WHOLE_BACKEND);
        is_mass.then(|| What::Servers { backend: backend.clone(), gone, of })
    }

    /// Whether so many objects as a whole go in this one step.
    fn is_mass(&self, model: &Model, gone: &[(Bytes, Option<Key>)]) -> Option<What> {
        let mut whole: HashSet<Key> = HashSet::new();
        let mut losing: HashMap<&Id, HashSet<&Id>> = HashMap::new();
        for (_, object) in gone {
            match object {
                Some(object) if is_counted(model, object) => {
                    whole.insert(object.clone());
                }
                Some(Key::Server(backend, id)) if model.server(backend, id).is_some() => {
                    losing.entry(backend).or_default().insert(id);
                }
                Some(Key::Backend(backend)) if model.backend(backend).is_some() => {
                    losing.entry(backend).or_default();
                }
                _ => {}
            }
        }
        for (backend, servers) in losing {
            if model.servers(backend).all(|server| servers.contains(&server.id)) {
                whole.insert(Key::Backend(backend.clone()));
            }
        }
        let gone = whole.len();
        if gone < FEWEST_ALL {
            return None;
        }
        // Counted no further than it matters.
        let enough = gone * 4 + 1;
        let frontends = model.frontends().filter(|frontend| frontend.site.is_none()).map(drop);
        let others = model.backends().map(drop).chain(model.sites().map(drop)).chain(model.hosts().map(drop));
        let of = frontends.chain(others).chain(model.listeners().map(drop)).take(enough).count();
        let is_mass = (gone >= FEWEST_OBJECTS && gone * 10 > of * 3) || gone >= of;
        is_mass.then_some(What::Objects { gone, of })
    }
}

/// Whether an object goes as a whole with its key. A key whose value was never understood is none.
fn is_counted(model: &Model, object: &Key) -> bool {
    match object {
        Key::Frontend(id) => model.frontend(id).is_some(),
        Key::Site(id) => model.site(id).is_some(),
        Key::Host(name) => model.host(name).is_some(),
        Key::Listener(id) => model.listener(id).is_some(),
        _ => false,
    }
}

/// Whether a server is there and has not announced that it goes.
fn is_up(model: &Model, backend: &str, id: &str) -> bool {
    model.server(backend, id).is_some_and(|server| server.state == ServerState::Up)
}

/// Within this time losses of one backend count together.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// The same where a backend loses all it has.
pub(super) const BURST: Duration = Duration::from_secs(2);
const FEWEST_SERVERS: usize = 3;
const WHOLE_BACKEND: usize = 2;
const FEWEST_OBJECTS: usize = 3;
const FEWEST_ALL: usize = 2;
/// Servers of a backend that may come back after a storm.
const MOST_LOST: usize = 10_000;
