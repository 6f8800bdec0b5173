//! Requests whose path means one thing to a rule and another to a server.
//!
//! Rules see a path as it was sent, as vulcand's do, and so do servers; but servers then decode it, and resolve `..` and
//! `//`. With `PathPrefix("/admin")` for some and an open frontend for all, `/x/../admin` and `/%61dmin` would come in by
//! the open one. Such a request is refused, and only such a one: whose path is not plainly written, and which in one of
//! its readings another frontend would have, or none. What all readings lead to alike goes through, with the bytes that
//! came. Sites are spared among their own frontends, whose `Segment` sees a path resolved; what leads from a site to
//! another frontend of the host, or back, is not. Who writes an escape into a rule means it: then those are not decoded.

use std::sync::Arc;

use super::{Frontend, Table};
use crate::rule::{self, Head};

/// Where else a request would lead.
#[derive(Debug)]
pub struct Otherwise {
    /// The path as a server may read it.
    pub path: String,
    /// The frontend that has that; `None`: none, or not on this listener.
    pub frontend: Option<Arc<Frontend>>,
}

impl Table {
    /// Where else a request that leads to a frontend would, if its path is read in another way. For a path that is
    /// plainly written this is one look at its bytes.
    pub fn otherwise(&self, listener: &str, head: &Head<'_>, chosen: &Frontend) -> Option<Otherwise> {
        if !rule::is_odd(head.path()) {
            return None;
        }
        self.read_otherwise(listener, head, chosen)
    }

    #[cold]
    fn read_otherwise(&self, listener: &str, head: &Head<'_>, chosen: &Frontend) -> Option<Otherwise> {
        if !head.path().starts_with('/') {
            return None;
        }
        let decodes = !chosen.rule.source().contains('%');
        rule::readings(head.path(), decodes).filter(|path| path != head.path()).find_map(|path| {
            let read = head.with_path(&path);
            let found = self.router.find(&read).filter(|_| self.is_in_scope(listener, &read));
            let is_same = found.is_some_and(|found| {
                found.id == chosen.id || (chosen.spec.site.is_some() && found.spec.site == chosen.spec.site)
            });
            let frontend = found.cloned();
            (!is_same).then_some(Otherwise { path, frontend })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use bytes::Bytes;
    use etna_store::{Batch, Change, Model, Revision};
    use http::Method;

    use super::*;
    use crate::error::Error;
    use crate::message::fields::Fields;
    use crate::table::compile::Compiler;

    /// A table of these frontends, beside a site `w.test`.
    fn table(rules: &[(&str, &str)]) -> Table {
        let put = |key: String, value: String| Change { key: key.into(), value: Some(Bytes::from(value)) };
        let mut changes: Vec<Change> = rules
            .iter()
            .map(|(id, rule)| {
                let value = serde_json::json!({ "Type": "http", "BackendId": "b", "Route": rule });
                put(format!("frontends/{id}/frontend"), value.to_string())
            })
            .collect();
        let site = r#"{"Preset":"wordpress","Hosts":["w.test"],"Public":"p","Admin":"a"}"#;
        changes.push(put("sites/w".into(), site.into()));
        changes.push(put("listeners/l".into(), LISTENER.into()));
        let mut model = Model::default();
        let delta = model.apply(&Batch { revision: Revision(1), changes });
        Compiler::default().compile(&model, &delta, &Table::default())
    }

    fn route_at(table: &Table, listener: &str, host: &str, path: &str) -> String {
        let fields = Fields::default();
        let head = Head::new(&Method::GET, host, path, None, &fields, IpAddr::from([192, 0, 2, 1]));
        match table.route(listener, &head) {
            Ok(route) => route.frontend.id.to_string(),
            Err(Error::BadRequest(_)) => "refused".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_would_step_around_a_prefix_is_refused() {
        let table = table(&[
            ("admin", r#"Host("a.test") && PathPrefix("/admin")"#),
            ("exact", r#"Host("a.test") && Path("/exact")"#),
            ("expression", r#"Host("a.test") && PathRegexp("^/secret")"#),
            ("open", r#"Host("a.test")"#),
            ("below", r#"Host("b.test") && PathPrefix("/below")"#),
            ("escaped", r#"Host("c.test") && PathPrefix("/@x%2fy")"#),
            ("others", r#"Host("c.test")"#),
        ]);
        let route = |host: &str, path: &str| route_at(&table, "default", host, path);
        for path in [
            "/x/../admin",
            "/x/..%2fadmin",
            "/%61dmin",
            "//admin/",
            "/./admin",
            "/.%2e/admin/x",
            "/admin%2fx",
            "/admin\\x",
            "/x/..;/admin",
            "/admin/../x",
            "/ex%61ct",
            "/%73ecret",
            "/b/c%2fd/../../admin",
        ] {
            assert_eq!(route("a.test", path), "refused", "{path}");
        }
        for (path, frontend) in [
            ("/admin", "admin"),
            ("/admin/a%20b/./c//d%2fe", "admin"),
            ("/admin/x/../y", "admin"),
            ("/caf%C3%A9//x/%7euser", "open"),
            ("/x/../y", "open"),
            ("/exact%20", "open"),
            ("/.well-known/x", "open"),
        ] {
            assert_eq!(route("a.test", path), frontend, "{path}");
        }
        // Out of what is served at all.
        assert_eq!(route("b.test", "/below/../above"), "refused");
        assert_eq!(route("b.test", "/above"), "no route");
        assert_eq!(route("b.test", "/above/../below"), "no route");
        // Who writes an escape means it.
        assert_eq!(route("c.test", "/@x%2fy/z"), "escaped");
        assert_eq!(route("c.test", "/@x%2fy/../z"), "refused");
    }

    #[test]
    fn a_scope_is_not_stepped_around() {
        let table = table(&[("open", r#"Host("a.test")"#)]);
        let route = |path: &str| route_at(&table, "l", "a.test", path);
        assert_eq!(["/public/x", "/x"].map(route), ["open", "no route"]);
        assert_eq!(["/public/../x", "/public/a/../x"].map(route), ["refused", "open"]);
    }

    #[test]
    fn a_site_sees_its_own_paths_resolved_but_not_those_of_others() {
        let table = table(&[("own", r#"Host("w.test") && PathPrefix("/shop")"#)]);
        let route = |path: &str| route_at(&table, "default", "w.test", path);
        for (path, frontend) in [
            ("/x/../wp-admin/", "site:w:admin"),
            ("/%77p-login.php", "site:w:admin"),
            ("/wp-admin/../x", "site:w:public"),
            ("//x", "site:w:public"),
            ("/shop/x/../y", "own"),
            ("/x/../shop", "refused"),
            ("/shop/../x", "refused"),
            ("/shop/../wp-admin/", "site:w:admin"),
        ] {
            assert_eq!(route(path), frontend, "{path}");
        }
    }

    const LISTENER: &str = r#"{"Protocol":"http","Address":{"Network":"tcp","Address":"127.0.0.1:1"},
        "Scope":"PathPrefix(\"/public\")"}"#;
}
