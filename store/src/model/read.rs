//! What the model shows.

use std::sync::Arc;

use super::{Model, Revision};
use crate::key::Key;
use crate::object::{Backend, Frontend, Host, Id, Listener, Middleware, Server, Site};
use crate::problem::Problem;

impl Model {
    /// The revision it shows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Every frontend, those derived from sites included, by id.
    pub fn frontends(&self) -> impl Iterator<Item = &Arc<Frontend>> {
        self.frontends.values()
    }

    /// One frontend.
    pub fn frontend(&self, id: &str) -> Option<&Arc<Frontend>> {
        self.frontends.get(id)
    }

    /// A frontend's middlewares in the order they run. One whose value could never be read has an empty kind.
    pub fn middlewares(&self, frontend: &str) -> impl Iterator<Item = &Arc<Middleware>> {
        let mut middlewares: Vec<&Arc<Middleware>> = below(&self.middlewares, frontend).collect();
        middlewares.sort_by(|a, b| (a.priority, &a.id).cmp(&(b.priority, &b.id)));
        middlewares.into_iter()
    }

    /// Every backend, by id.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.backends.values()
    }

    /// One backend; implicit ones (servers without a backend key) included.
    pub fn backend(&self, id: &str) -> Option<&Arc<Backend>> {
        self.backends.get(id)
    }

    /// A backend's servers, by id.
    pub fn servers(&self, backend: &str) -> impl Iterator<Item = &Arc<Server>> {
        below(&self.servers, backend)
    }

    /// One server.
    pub fn server(&self, backend: &str, id: &str) -> Option<&Arc<Server>> {
        self.servers.get(&(backend.into(), id.into()))
    }

    /// The frontends that lead to a backend: as their first, as their fallback, or where some answers send them.
    pub fn frontends_of(&self, backend: &str) -> impl Iterator<Item = &Id> {
        self.leading.get(backend).into_iter().flatten()
    }

    /// Every listener, by id.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners.values()
    }

    /// One listener.
    pub fn listener(&self, id: &str) -> Option<&Arc<Listener>> {
        self.listeners.get(id)
    }

    /// Every host, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.hosts.values()
    }

    /// What proxies share with each other below a prefix that ends with a slash, `acme/…` or `tickets/`: key and value.
    pub fn shared<'m>(&'m self, prefix: &'m str) -> impl Iterator<Item = (&'m Id, &'m [u8])> {
        let from = self.shared.range(Id::from(prefix)..);
        from.take_while(move |(key, _)| key.starts_with(prefix)).map(|(key, value)| (key, &**value))
    }

    /// One value of these, by its key.
    pub fn shared_value(&self, key: &str) -> Option<&[u8]> {
        self.shared.get(key).map(|value| &**value)
    }

    /// One host, by its name in lower case.
    pub fn host(&self, name: &str) -> Option<&Arc<Host>> {
        self.hosts.get(name)
    }

    /// Every site, by id.
    pub fn sites(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.sites.values()
    }

    /// One site.
    pub fn site(&self, id: &str) -> Option<&Arc<Site>> {
        self.sites.get(id)
    }

    /// What could not be decoded, or is not in force as written, by key.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        let mut problems: Vec<&Problem> = self.flaws.values().chain(self.conflicts.values()).flatten().collect();
        problems.sort();
        problems.into_iter()
    }

    /// The key an operator would change to change a frontend: its own, its location's path, or its site.
    pub fn frontend_key(&self, id: &str) -> Option<String> {
        let frontend = self.frontends.get(id)?;
        if let Some(site) = &frontend.site {
            return Some(Key::Site(site.clone()).path());
        }
        let spellings = self.spellings(&Key::Frontend(frontend.id.clone()));
        let mut paths = spellings.iter().filter_map(|raw| String::from_utf8(raw.to_vec()).ok());
        // A location's other keys say less about it.
        paths.find(|path| matches!(Key::parse(path.as_bytes()), Ok(Key::Frontend(_) | Key::LegacyPath(..))))
    }

    /// Every stored key that belongs to an object, named by any of its keys: a backend with its servers, a frontend
    /// with its middlewares, in whichever layout and spelling. What has to be deleted to delete it.
    pub fn entries_under(&self, key: &Key) -> Vec<String> {
        let Some(object) = key.object() else { return Vec::new() };
        let mut found = self.spellings(&object);
        let legacy: Vec<Option<String>> =
            found.iter().filter_map(|raw| Key::parse(raw).ok()).map(|key| key.legacy_folder()).collect();
        let folders = [object.folder(), object.legacy_folder()].into_iter().chain(legacy).flatten();
        for folder in folders {
            let below = self
                .records
                .range::<[u8], _>((std::ops::Bound::Included(folder.as_bytes()), std::ops::Bound::Unbounded));
            for (raw, _) in below.take_while(|(raw, _)| raw.starts_with(folder.as_bytes())) {
                if Key::parse(raw).ok().and_then(|key| key.object()).is_some_and(|part| belongs(&part, &object)) {
                    found.push(raw.clone());
                }
            }
        }
        found.sort();
        found.dedup();
        found.into_iter().filter_map(|raw| String::from_utf8(raw.into()).ok()).collect()
    }
}

fn belongs(part: &Key, object: &Key) -> bool {
    match (part, object) {
        (Key::Server(backend, _), Key::Backend(id)) => backend == id,
        (Key::Middleware(frontend, _), Key::Frontend(id)) => frontend == id,
        (part, object) => part == object,
    }
}

fn below<'m, T>(map: &'m std::collections::BTreeMap<(Id, Id), T>, owner: &str) -> impl Iterator<Item = &'m T> {
    let first = (Id::from(owner), Id::from(""));
    let same = first.0.clone();
    map.range(first..).take_while(move |entry| entry.0.0 == same).map(|(_, value)| value)
}
