//! All certificates of a table, by name. Persistent: a table that differs by one shares the others.
//!
//! A name gets, in this order: the certificate of the host of that name; one that is for it; the wildcard host above it;
//! a wildcard one that is for it; that of the default host. Where several would do, the host first in the alphabet, so
//! that every proxy decides alike.

use std::sync::Arc;

use etna_store::object::Id;

use super::certificate::Certificate;

/// The certificates in force.
#[derive(Clone, Default)]
pub struct Certificates {
    hosts: imbl::OrdMap<Id, Arc<Certificate>>,
    /// Hosts whose certificates are for a name.
    names: imbl::HashMap<Box<str>, imbl::OrdSet<Id>>,
    /// Hosts whose certificates serve names that no other has.
    defaults: imbl::OrdSet<Id>,
}

impl Certificates {
    /// Puts a host's certificate in, or takes it out; `default` is the host's word that it serves unknown names.
    pub fn set(&mut self, host: &Id, certificate: Option<Arc<Certificate>>, default: bool) {
        if let Some(old) = self.hosts.remove(host) {
            for name in &old.names {
                let emptied = self.names.get_mut(name).is_some_and(|hosts| {
                    hosts.remove(host);
                    hosts.is_empty()
                });
                if emptied {
                    self.names.remove(name);
                }
            }
            self.defaults.remove(host);
        }
        let Some(certificate) = certificate else { return };
        for name in &certificate.names {
            self.names.entry(name.clone()).or_default().insert(host.clone());
        }
        if default {
            self.defaults.insert(host.clone());
        }
        self.hosts.insert(host.clone(), certificate);
    }

    /// A host's own.
    pub fn of(&self, host: &str) -> Option<&Arc<Certificate>> {
        self.hosts.get(host)
    }

    /// All, by host.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.hosts.values()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// The certificate for a name in lower case, if there is one for it.
    pub fn find(&self, name: &str) -> Option<&Arc<Certificate>> {
        self.hosts.get(name).or_else(|| self.named(name)).or_else(|| {
            let (_, above) = name.split_once('.')?;
            let wild = format!("*.{above}");
            self.hosts.get(wild.as_str()).or_else(|| self.named(&wild))
        })
    }

    /// What names get that no host has.
    pub fn fallback(&self) -> Option<&Arc<Certificate>> {
        self.hosts.get(self.defaults.get_min()?)
    }

    /// The default host, if that is decided.
    pub fn defaults(&self) -> impl Iterator<Item = &Id> {
        self.defaults.iter()
    }

    /// Whether two names get the same.
    pub fn are_alike(&self, one: &str, other: &str) -> bool {
        let of = |name| self.find(name).or_else(|| self.fallback());
        match (of(one), of(other)) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }

    fn named(&self, name: &str) -> Option<&Arc<Certificate>> {
        self.hosts.get(self.names.get(name)?.get_min()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::pair;
    use super::*;

    fn certificates(hosts: &[(&str, &[&str], bool)]) -> Certificates {
        let mut all = Certificates::default();
        for (host, names, default) in hosts {
            let certificate = Certificate::read((*host).into(), &pair(names)).unwrap();
            all.set(&(*host).into(), Some(Arc::new(certificate)), *default);
        }
        all
    }

    fn found<'c>(all: &'c Certificates, name: &str) -> Option<&'c str> {
        all.find(name).map(|certificate| &*certificate.host)
    }

    #[test]
    fn the_most_exact_wins() {
        let mut all = certificates(&[
            ("a.test", &["a.test", "www.a.test"], false),
            ("*.a.test", &["*.a.test"], false),
            ("other", &["*.b.test", "x.a.test"], true),
        ]);
        assert_eq!(found(&all, "a.test"), Some("a.test"));
        assert_eq!(found(&all, "www.a.test"), Some("a.test"));
        assert_eq!(found(&all, "x.a.test"), Some("other"));
        assert_eq!(found(&all, "y.a.test"), Some("*.a.test"));
        assert_eq!(found(&all, "y.b.test"), Some("other"));
        assert_eq!(found(&all, "z.y.b.test"), None);
        assert_eq!(&*all.fallback().unwrap().host, "other");
        assert!(all.are_alike("y.b.test", "unknown"));
        assert!(!all.are_alike("a.test", "unknown"));

        all.set(&"a.test".into(), None, false);
        assert_eq!(found(&all, "www.a.test"), Some("*.a.test"));
        all.set(&"other".into(), None, false);
        assert!(all.fallback().is_none());
        assert!(!all.names.contains_key("x.a.test"), "nothing is left behind");
    }

    #[test]
    fn of_equals_the_first_in_the_alphabet_is_chosen_whatever_the_order() {
        let hosts: [(&str, &[&str], bool); 3] =
            [("c", &["x.test"], true), ("a", &["x.test"], true), ("b", &["x.test"], true)];
        let mut others = hosts;
        others.reverse();
        for all in [certificates(&hosts), certificates(&others)] {
            assert_eq!(found(&all, "x.test"), Some("a"));
            assert_eq!(&*all.fallback().unwrap().host, "a");
        }
    }
}
