//! Sites and the frontends derived from them.
//!
//! A host belongs to the site with the lowest id that names it; the others serve their other hosts and say so. Of all
//! sites that name a host only the next one after a site that changed can win or lose it: only that one is looked at.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use super::{Delta, IGNORED, Model};
use crate::key::{self, Key};
use crate::object::{Backend, Checking, HealthCheck, Host, Id, Site};
use crate::problem::Flaw;
use crate::wordpress;

impl Model {
    /// Puts a site in force, or takes it out, with its derived frontends.
    pub(super) fn set_site(&mut self, id: &Id, site: Option<Arc<Site>>, delta: &mut Delta) {
        let old = self.sites.get(id).cloned();
        if old == site {
            return;
        }
        // How their servers are checked depends on the site.
        delta.backends.extend(old.iter().flat_map(|site| backends(site)));
        let before = claimed(old.as_deref());
        let after = claimed(site.as_deref());
        let mut affected = BTreeSet::from([id.clone()]);
        for host in before.symmetric_difference(&after) {
            let claim = (host.clone(), id.clone());
            if after.contains(host) {
                self.claims.insert(claim.clone());
            } else {
                self.claims.remove(&claim);
            }
            affected.extend(self.next_claim(&claim).cloned());
        }
        match site {
            Some(site) => self.sites.insert(id.clone(), site),
            None => self.sites.remove(id),
        };
        for site in affected {
            self.derive(&site, delta);
        }
        // Whose certificates may come from elsewhere now.
        let now = self.sites.get(id);
        if old.as_ref().is_some_and(|site| site.acme.is_some()) || now.is_some_and(|site| site.acme.is_some()) {
            delta.hosts.extend(before.union(&after).cloned());
        }
    }

    /// A host as it is served: what its key says, and what the site of that name says about its certificate where the
    /// key says nothing. `None` where neither does.
    pub fn served_host(&self, name: &str) -> Option<Arc<Host>> {
        let own = self.hosts.get(name);
        let has_own = own.is_some_and(|host| host.key_pair.is_some() || host.acme.is_some());
        let acme = self.site_of(name).filter(|_| !has_own).and_then(|site| site.acme.clone());
        match acme {
            None => own.cloned(),
            Some(acme) => {
                let host = own.map_or_else(|| Host::plain(name.into()), |host| (**host).clone());
                Some(Arc::new(Host { acme: Some(acme), ..host }))
            }
        }
    }

    /// The hosts of sites that get certificates because their sites say so, and have no key of their own.
    pub fn hosts_of_sites(&self) -> impl Iterator<Item = Arc<Host>> {
        let names = self.sites.values().filter(|site| site.acme.is_some()).flat_map(|site| &site.hosts);
        let names: BTreeSet<&str> = names.map(String::as_str).filter(|name| !self.hosts.contains_key(*name)).collect();
        names.into_iter().filter_map(|name| self.served_host(name))
    }

    /// The key an operator would change to change how a host gets its certificate: its own, or its site's.
    pub fn host_key(&self, name: &str) -> String {
        let site = self.site_of(name).filter(|_| !self.hosts.contains_key(name));
        site.map_or_else(|| Key::Host(name.into()), |site| Key::Site(site.id.clone())).path()
    }

    /// The site that has a host.
    fn site_of(&self, host: &str) -> Option<&Arc<Site>> {
        let from = (Id::from(host), Id::from(""));
        let (_, site) = self.claims.range(from..).next().filter(|(name, _)| **name == *host)?;
        self.sites.get(site)
    }

    fn derive(&mut self, id: &Id, delta: &mut Delta) {
        let mut frontends = Vec::new();
        let mut conflicts = Vec::new();
        if let Some(site) = self.sites.get(id) {
            delta.backends.extend(backends(site));
            let path = Key::Site(id.clone()).path();
            let mut mine = Vec::with_capacity(site.hosts.len());
            for host in &site.hosts {
                match self.earlier_claim(host, id) {
                    None => mine.push(host.clone()),
                    Some(other) => {
                        let reason = format!("host {host:?} is already claimed by site {other:?}");
                        let hint = "remove the host from one of the two; the site with the lower id has it";
                        conflicts.push(Flaw::new(reason, hint).into_problem(key::show(path.as_bytes()), IGNORED));
                    }
                }
            }
            frontends = wordpress::expand(&Site { hosts: mine, ..(**site).clone() });
            self.tell_conflicts(path.as_bytes(), conflicts, delta);
        }
        let ids: Vec<Id> = frontends.iter().map(|frontend| frontend.id.clone()).collect();
        for gone in self.derived.remove(id).unwrap_or_default() {
            if !ids.contains(&gone) {
                self.set_frontend(&gone, None, delta);
            }
        }
        for frontend in frontends {
            self.set_frontend(&frontend.id.clone(), Some(Arc::new(frontend)), delta);
        }
        if !ids.is_empty() {
            self.derived.insert(id.clone(), ids);
        }
    }

    /// How the servers of a backend are checked: as it says itself, or as the first site does that uses it.
    pub fn health_check(&self, backend: &Backend) -> Option<Arc<HealthCheck>> {
        match &backend.health_check {
            Checking::Own(check) => Some(check.clone()),
            Checking::Off => None,
            Checking::Preset => {
                // By their names: among a hundred thousand others that lead there they would be looked for with each change.
                let rows = (Bound::Included("site:"), Bound::Excluded("site;"));
                let rows = self.leading.get(&backend.id).into_iter().flat_map(|leading| leading.range::<str, _>(rows));
                let mut sites = rows.filter_map(|id| self.sites.get(self.frontends.get(id)?.site.as_ref()?));
                sites.find_map(|site| wordpress::check(site, &backend.id)).map(Arc::new)
            }
        }
    }

    /// The site that comes before this one among those that name the host.
    fn earlier_claim(&self, host: &str, id: &Id) -> Option<&Id> {
        let claim = (Id::from(host), id.clone());
        self.claims.range(..claim).next_back().filter(|(other, _)| **other == *host).map(|(_, site)| site)
    }

    fn next_claim(&self, claim: &(Id, Id)) -> Option<&Id> {
        let after = (Bound::Excluded(claim), Bound::Unbounded);
        self.claims.range::<(Id, Id), _>(after).next().filter(|(host, _)| *host == claim.0).map(|(_, site)| site)
    }
}

fn backends(site: &Site) -> impl Iterator<Item = Id> {
    [Some(site.public.clone()), site.admin.clone()].into_iter().flatten()
}

fn claimed(site: Option<&Site>) -> BTreeSet<Id> {
    site.into_iter().flat_map(|site| &site.hosts).map(|host| Id::from(host.as_str())).collect()
}
