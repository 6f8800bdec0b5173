use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etna_store::{Batch, Change, Delta, Model, Revision};
use http::Method;
use proptest::prelude::*;

use super::compile::Compiler;
use super::*;
use crate::control::suspect::Suspects;

/// A model, the compiler that follows it, and the table in force.
#[derive(Default)]
struct Followed {
    model: Model,
    compiler: Compiler,
    table: Table,
}

impl Followed {
    fn change(&mut self, changes: &[(&str, Option<&str>)]) {
        let changes = changes.iter().map(|(key, value)| Change {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        });
        let revision = Revision(self.model.revision().0 + 1);
        let delta = self.model.apply(&Batch { revision, changes: changes.collect() });
        self.compile(&delta);
    }

    fn compile(&mut self, delta: &Delta) {
        self.table = self.compiler.compile(&self.model, delta, &self.table);
    }

    fn problems(&self) -> Vec<String> {
        let all = self.model.problems().chain(self.compiler.problems());
        all.map(|problem| format!("{}: {}", problem.key, problem.reason)).collect()
    }

    fn route(&self, host: &str, path: &str) -> Result<Route, Error> {
        let headers = crate::message::fields::Fields::default();
        let head = Head::new(&Method::GET, host, path, None, &headers, IpAddr::from([127, 0, 0, 1]));
        self.table.route("default", &head)
    }

    /// Everything a client could notice.
    fn shown(&self) -> String {
        let mut lines = Vec::new();
        for host in ["a.test", "b.test", "wp.test"] {
            for path in ["/", "/x", "/wp-admin/", "/wp-login.php"] {
                let route = self.route(host, path).map(|route| {
                    let servers = |backend: &Option<Arc<Backend>>| {
                        let servers = backend.iter().flat_map(|backend| &backend.servers);
                        servers.map(|server| format!("{:?}", server.spec)).collect::<Vec<_>>()
                    };
                    (
                        route.frontend.id.clone(),
                        route.frontend.broken,
                        servers(&route.backend),
                        servers(&route.fallback),
                    )
                });
                lines.push(format!("{host}{path}: {route:?}"));
            }
        }
        lines.push(format!("{:?}", self.table.listeners.keys().collect::<Vec<_>>()));
        lines.push(format!("{:?}", self.problems()));
        lines.join("\n")
    }
}

const FRONTEND: &str = r#"{"Type":"http","BackendId":"b","Route":"Host(\"a.test\")"}"#;

#[test]
fn a_frontend_may_come_before_its_backend() {
    let mut followed = Followed::default();
    followed.change(&[("frontends/f/frontend", Some(FRONTEND))]);
    assert!(followed.route("a.test", "/").unwrap().backend.is_none());
    assert_eq!(followed.problems(), ["frontends/f/frontend: backend \"b\" does not exist"]);
    followed.change(&[("backends/b/servers/s", Some(r#"{"URL":"http://127.0.0.1:1"}"#))]);
    assert_eq!(followed.route("a.test", "/").unwrap().backend.unwrap().servers.len(), 1);
    assert!(followed.problems().is_empty());
}

#[test]
fn a_frontend_is_four_cache_lines_with_its_counts() {
    // The allocator's next size is 320.
    assert!(size_of::<Frontend>() + 2 * size_of::<usize>() <= 256, "{}", size_of::<Frontend>());
}

#[test]
fn names_that_come_and_go_take_no_more_room() {
    let mut followed = Followed::default();
    followed.change(&[("backends/b/servers/s", Some(r#"{"URL": "http://127.0.0.1:1"}"#))]);
    for n in 0..100 {
        let frontend = format!(r#"{{"Type": "http", "BackendId": "b{n}", "Route": "Host(`a.test`)"}}"#);
        let server = format!("backends/b{n}/servers/s");
        followed.change(&[("frontends/f/frontend", Some(&frontend))]);
        assert!(followed.route("a.test", "/").unwrap().backend.is_none(), "another's slot");
        followed.change(&[(&server, Some(r#"{"URL": "http://127.0.0.1:2"}"#))]);
        assert_eq!(&*followed.route("a.test", "/").unwrap().backend.unwrap().id, format!("b{n}"));
        followed.change(&[(&server, None)]);
    }
    followed.change(&[("frontends/f/frontend", None)]);
    assert!(followed.table.backends.len() <= 3, "{} slots", followed.table.backends.len());
}

#[test]
fn what_did_not_change_is_the_same_value_after_a_publish() {
    let mut followed = Followed::default();
    followed.change(&[
        ("frontends/f/frontend", Some(FRONTEND)),
        ("frontends/f/middlewares/m", Some(r#"{"Type":"ratelimit","Middleware":{"Requests":1}}"#)),
        ("backends/b/servers/s", Some(r#"{"URL":"http://127.0.0.1:1"}"#)),
    ]);
    let before = followed.route("a.test", "/").unwrap();
    followed.change(&[
        ("backends/b/servers/t", Some(r#"{"URL":"http://127.0.0.1:2"}"#)),
        ("backends/b/servers/s", Some(r#"{"URL":"http://127.0.0.1:1","Weight":7}"#)),
        ("frontends/f/frontend", Some(r#"{"Type":"http","BackendId":"b","Route":"Host(\"a.test\") && Path(\"/\")"}"#)),
        ("frontends/other/frontend", Some(FRONTEND)),
    ]);
    let after = followed.route("a.test", "/").unwrap();
    assert!(Arc::ptr_eq(&before.frontend.live, &after.frontend.live));
    assert!(before.frontend.live.counted().is_none());
    assert!(std::ptr::eq(after.frontend.requests(), before.frontend.requests()));
    assert!(before.frontend.live.counted().is_some_and(|counted| std::ptr::eq(counted, after.frontend.requests())));
    assert!(Arc::ptr_eq(&before.frontend.chain[0].middleware, &after.frontend.chain[0].middleware));
    let (before, after) = (before.backend.unwrap(), after.backend.unwrap());
    assert!(Arc::ptr_eq(&before.live, &after.live));
    assert!(Arc::ptr_eq(&before.servers[0].live, &after.servers[0].live));
    // Another address is another server.
    followed.change(&[("backends/b/servers/s", Some(r#"{"URL":"http://127.0.0.1:3"}"#))]);
    let moved = followed.route("a.test", "/").unwrap().backend.unwrap();
    assert!(!Arc::ptr_eq(&after.servers[0].live, &moved.servers[0].live));
}

#[test]
fn what_cannot_be_compiled_keeps_its_last_good_version_or_fails_closed() {
    let mut followed = Followed::default();
    followed.change(&[("frontends/f/frontend", Some(FRONTEND)), ("backends/b/backend", Some(r#"{"Type":"http"}"#))]);
    followed.change(&[("frontends/f/frontend", Some(r#"{"Type":"http","BackendId":"b","Route":"Hast(\"a\")"}"#))]);
    assert!(followed.route("a.test", "/").is_ok());
    assert_eq!(followed.problems().len(), 1);
    followed.change(&[("frontends/f/frontend", Some(FRONTEND))]);
    assert!(followed.problems().is_empty());
    followed.change(&[("frontends/f/middlewares/m", Some(r#"{"Type":"moonlight","Middleware":{}}"#))]);
    assert!(followed.route("a.test", "/").unwrap().frontend.broken);
    followed.change(&[("frontends/f/middlewares/m", None)]);
    assert!(!followed.route("a.test", "/").unwrap().frontend.broken);
}

#[test]
fn what_is_gone_takes_its_problems_with_it() {
    let mut followed = Followed::default();
    let listener = r#"{"Protocol":"https","Address":{"Network":"tcp","Address":"127.0.0.1:1"}}"#;
    followed.change(&[("listeners/l", Some(listener)), ("backends/b/backend", Some(BAD_TLS))]);
    assert_eq!(followed.problems().len(), 2);
    followed.change(&[("listeners/l", None), ("backends/b/backend", None)]);
    assert_eq!(followed.problems(), Vec::<String>::new());
}

#[test]
fn tls_of_servers_keeps_its_last_good_settings_and_is_never_left_out() {
    let mut followed = Followed::default();
    let server = Some(r#"{"URL":"https://a.test"}"#);
    followed.change(&[
        ("frontends/f/frontend", Some(FRONTEND)),
        ("backends/b/backend", Some(BAD_TLS)),
        ("backends/b/servers/s", server),
        ("backends/b/servers/plain", Some(r#"{"URL":"http://a.test"}"#)),
    ]);
    let backend = |followed: &Followed| followed.route("a.test", "/").unwrap().backend.unwrap();
    let tls =
        |followed: &Followed| backend(followed).servers.iter().map(|server| server.tls.clone()).collect::<Vec<_>>();
    assert!(matches!(&tls(&followed)[..], [None]), "the https server is not used");
    let good = r#"{"Type":"http","Settings":{"TLS":{"InsecureSkipVerify":true}}}"#;
    followed.change(&[("backends/b/backend", Some(good))]);
    let [None, Some(first)] = &tls(&followed)[..] else { panic!("each as its URL says") };
    // The same settings are the same value, so that connections and sessions go on; bad ones do not replace them.
    for (value, problems) in
        [(r#"{"Type":"http","Policy":"p2c","Settings":{"TLS":{"InsecureSkipVerify":true}}}"#, 0), (BAD_TLS, 1)]
    {
        followed.change(&[("backends/b/backend", Some(value))]);
        let told = followed.problems().iter().filter(|problem| problem.contains("Settings.TLS.CA")).count();
        assert_eq!(told, problems);
        assert!(Arc::ptr_eq(first, tls(&followed)[1].as_ref().unwrap()));
    }
}

#[test]
fn problems_of_frontends_with_alike_names_stay_apart() {
    let mut followed = Followed::default();
    let bad = r#"{"Type":"http","BackendId":"b","Route":"Pth()"}"#;
    followed.change(&[("backends/b", Some(r#"{"Type":"http"}"#)), ("frontends/f backend", Some(bad))]);
    assert_eq!(followed.problems().len(), 1);
    followed.change(&[("frontends/f", Some(r#"{"Type":"http","BackendId":"b","Route":"Path(`/`)"}"#))]);
    assert_eq!(followed.problems().len(), 1);
}

fn some_change() -> impl Strategy<Value = (String, Option<String>)> {
    let id = prop_oneof![Just("1"), Just("2"), Just("3")];
    let backend = prop_oneof![Just("1"), Just("2"), Just("3")];
    let route = prop_oneof![Just("a.test"), Just("b.test")];
    let value = |change: (String, String), keep: bool| (change.0, keep.then_some(change.1));
    let frontend = (id.clone(), backend.clone(), route, 0..3u8).prop_map(|(id, backend, host, priority)| {
        let route = format!("Host(`{host}`)");
        let text = format!(r#"{{"Type":"http","BackendId":"{backend}","Route":"{route}","Priority":{priority}}}"#);
        (format!("frontends/{id}/frontend"), text)
    });
    let middleware = id.clone().prop_map(|id| {
        (format!("frontends/{id}/middlewares/m"), r#"{"Type":"connlimit","Middleware":{"Connections":3}}"#.to_owned())
    });
    let server = (backend, id.clone(), 1..4u16).prop_map(|(backend, id, port)| {
        (format!("backends/{backend}/servers/{id}"), format!(r#"{{"URL":"http://127.0.0.1:{port}"}}"#))
    });
    let site = id.clone().prop_map(|id| {
        (format!("sites/{id}"), format!(r#"{{"Preset":"wordpress","Hosts":["wp.test"],"Public":"{id}","Admin":"3"}}"#))
    });
    let listener = id.prop_map(|id| {
        let text = format!(r#"{{"Protocol":"http","Address":{{"Network":"tcp","Address":"127.0.0.1:{id}"}}}}"#);
        (format!("listeners/{id}"), text)
    });
    (prop_oneof![frontend, middleware, server, site, listener], prop::bool::weighted(0.7))
        .prop_map(move |(change, keep)| value(change, keep))
}

/// One life of a proxy: revisions, and what happens between them.
fn some_life() -> impl Strategy<Value = Vec<Moment>> {
    let revision = proptest::collection::vec(some_change(), 1..6).prop_map(Moment::Revision);
    let wipe = prop::sample::select(vec!["", "backends/", "frontends/", "sites/"]).prop_map(Moment::Wipe);
    let pass = (0..200u64).prop_map(Moment::Pass);
    let moment =
        prop_oneof![8 => revision, 1 => wipe, 1 => Just(Moment::Resync), 2 => pass, 1 => Just(Moment::Release)];
    proptest::collection::vec(moment, 1..40)
}

#[derive(Clone, Debug)]
enum Moment {
    Revision(Vec<(String, Option<String>)>),
    /// Everything below a path goes in one revision.
    Wipe(&'static str),
    Resync,
    /// So many seconds.
    Pass(u64),
    Release,
}

/// As many as `PROPTEST_CASES` says.
fn cases(otherwise: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig::with_cases(wanted.unwrap_or(otherwise))
}

proptest! {
    #![proptest_config(cases(100))]
    #[test]
    fn whatever_is_held_the_table_is_that_of_what_is_stored_and_held(life in some_life(), hold in 0..2u64) {
        let mut followed = Followed::default();
        let mut suspects = Suspects::new(Duration::from_secs(hold * 300));
        let mut now = Instant::now();
        let mut stored: BTreeMap<String, String> = BTreeMap::new();
        let pair = |(key, value): (&String, Option<&String>)| Change {
            key: Bytes::from(key.clone()),
            value: value.map(|value| Bytes::from(value.clone())),
        };
        for (number, moment) in (1i64..).zip(life) {
            let revision = Revision(number);
            let delta = match moment {
                Moment::Revision(changes) => {
                    let changes: BTreeMap<String, Option<String>> = changes.into_iter().collect();
                    for (key, value) in &changes {
                        match value {
                            Some(value) => stored.insert(key.clone(), value.clone()),
                            None => stored.remove(key),
                        };
                    }
                    let changes = changes.iter().map(|(key, value)| pair((key, value.as_ref()))).collect();
                    suspects.apply(&mut followed.model, &Batch { revision, changes }, now, false)
                }
                Moment::Wipe(path) => {
                    let gone: Vec<String> = stored.keys().filter(|key| key.starts_with(path)).cloned().collect();
                    stored.retain(|key, _| !key.starts_with(path));
                    let changes = gone.iter().map(|key| pair((key, None))).collect();
                    suspects.apply(&mut followed.model, &Batch { revision, changes }, now, false)
                }
                Moment::Resync => {
                    let changes = stored.iter().map(|(key, value)| pair((key, Some(value)))).collect();
                    let diff = suspects.diff(&Batch { revision, changes });
                    suspects.apply(&mut followed.model, &diff, now, false)
                }
                Moment::Pass(seconds) => {
                    now += Duration::from_secs(seconds);
                    suspects.expire(&mut followed.model, now)
                }
                Moment::Release => suspects.release(&mut followed.model),
            };
            followed.compile(&delta);
        }
        let fresh = |pairs: Vec<Change>| {
            let mut fresh = Followed::default();
            let delta = fresh.model.apply(&Batch { revision: Revision(1), changes: pairs });
            fresh.compile(&delta);
            fresh.shown()
        };
        let serving = suspects.pairs().iter().map(|(key, value)| Change { key: key.clone(), value: Some(value.clone()) });
        prop_assert_eq!(followed.shown(), fresh(serving.collect()));
        let delta = suspects.release(&mut followed.model);
        followed.compile(&delta);
        prop_assert_eq!(followed.shown(), fresh(stored.iter().map(|(key, value)| pair((key, Some(value)))).collect()));
    }
}

proptest! {
    #![proptest_config(cases(300))]
    #[test]
    fn any_order_and_grouping_of_changes_gives_the_table_of_the_last_snapshot(
        changes in proptest::collection::vec(some_change(), 1..40),
        groups in proptest::collection::vec(1usize..6, 1..40),
    ) {
        let mut followed = Followed::default();
        let mut rest = &changes[..];
        let mut last: BTreeMap<&str, &str> = BTreeMap::new();
        for size in groups.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (group, later) = rest.split_at((*size).min(rest.len()));
            rest = later;
            for (key, value) in group {
                match value {
                    Some(value) => last.insert(key, value),
                    None => last.remove(key.as_str()),
                };
            }
            let group: Vec<(&str, Option<&str>)> =
                group.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
            followed.change(&group);
        }
        let mut fresh = Followed::default();
        let pairs = last.iter().map(|(key, value)| Change {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
        });
        let snapshot = Batch { revision: Revision(1), changes: pairs.collect() };
        let delta = fresh.model.replace(&snapshot);
        fresh.compile(&delta);
        prop_assert_eq!(followed.shown(), fresh.shown());
        // And again through a snapshot: nothing differs, so nothing is compiled.
        let delta = followed.model.replace(&snapshot);
        prop_assert!(delta.frontends.is_empty() && delta.backends.is_empty() && delta.listeners.is_empty());
    }
}

const BAD_TLS: &str =
    r#"{"Type":"http","Settings":{"TLS":{"CA":"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"}}}"#;
