//! The model as a whole, by example.

use bytes::Bytes;

use super::*;
use crate::engine::Change;

pub(super) fn batch(changes: &[(&str, Option<&str>)]) -> Batch {
    let change = |(key, value): &(&str, Option<&str>)| Change {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
    };
    Batch { revision: Revision(1), changes: changes.iter().map(change).collect() }
}

fn put(model: &mut Model, key: &str, value: &str) -> Delta {
    model.apply(&batch(&[(key, Some(value))]))
}

fn delete(model: &mut Model, key: &str) -> Delta {
    model.apply(&batch(&[(key, None)]))
}

/// Everything a model shows, as lines.
pub(super) fn shown(model: &Model) -> Vec<String> {
    let mut lines = Vec::new();
    for frontend in model.frontends() {
        lines.push(format!("{frontend:?} at {:?}", model.frontend_key(&frontend.id)));
    }
    lines.extend(model.middlewares.keys().map(|name| format!("{name:?}")));
    for frontend in model.middlewares.keys().map(|(frontend, _)| frontend).collect::<BTreeSet<_>>() {
        lines.extend(model.middlewares(frontend).map(|middleware| format!("{middleware:?}")));
    }
    for backend in model.backends() {
        lines.push(format!("{backend:?}"));
        lines.extend(model.servers(&backend.id).map(|server| format!("{} {server:?}", backend.id)));
    }
    lines.extend(model.leading.iter().map(|entry| format!("{entry:?}")));
    lines.extend(model.listeners().map(|listener| format!("{listener:?}")));
    lines.extend(model.hosts().map(|host| format!("{host:?} {:?}", host.key_pair)));
    lines.extend(model.sites().map(|site| format!("{site:?}")));
    lines.extend(model.problems().map(|problem| format!("{problem:?}")));
    lines
}

pub(super) fn reasons(model: &Model) -> Vec<(String, String, String)> {
    model.problems().map(|it| (it.key.clone(), it.reason.clone(), it.effect.clone())).collect()
}

fn set(ids: &[&str]) -> BTreeSet<Id> {
    ids.iter().map(|id| Id::from(*id)).collect()
}

const FRONTEND: &str = r#"{"Type":"http","BackendId":"b1","Route":"Path(\"/\")"}"#;
const SITE: &str = r#"{"Preset":"wordpress","Hosts":["a.test","b.test"],"Public":"pub","Admin":"adm"}"#;

#[test]
fn objects_come_change_and_go() {
    let mut model = Model::default();
    let delta = put(&mut model, "frontends/f/frontend", FRONTEND);
    assert_eq!(delta, Delta { frontends: set(&["f"]), ..Delta::default() });
    assert_eq!(model.frontends_of("b1").collect::<Vec<_>>(), [&Id::from("f")]);
    assert!(model.backend("b1").is_none());

    assert!(put(&mut model, "frontends/f/frontend", FRONTEND).is_empty());
    // Other bytes that mean the same are no change either.
    assert!(put(&mut model, "frontends/f/frontend", &format!("{FRONTEND}\n")).is_empty());

    put(&mut model, "frontends/f/frontend", &FRONTEND.replace("b1", "b2"));
    assert_eq!(model.frontends_of("b1").count(), 0);
    assert_eq!(model.frontends_of("b2").count(), 1);

    assert_eq!(delete(&mut model, "frontends/f/frontend").frontends, set(&["f"]));
    assert!(delete(&mut model, "frontends/f/frontend").is_empty());
    assert_eq!(shown(&model), Vec::<String>::new());
    assert!(model.leading.is_empty());
}

#[test]
fn a_backend_exists_as_soon_as_a_server_does() {
    let mut model = Model::default();
    let server = r#"{"URL":"http://10.0.0.1:80"}"#;
    assert_eq!(put(&mut model, "backends/b/servers/s1", server).backends, set(&["b"]));
    assert_eq!(**model.backend("b").unwrap(), Backend::implicit("b".into()));
    put(&mut model, "backends/b/servers/s10", server);
    put(&mut model, "backends/b1/servers/s1", server);
    assert_eq!(delete(&mut model, "backends/b/servers/s1").backends, set(&["b"]));
    assert_eq!(model.servers("b").count(), 1);
    put(&mut model, "backends/b/backend", r#"{"Type":"http","Policy":"p2c"}"#);
    delete(&mut model, "backends/b/backend");
    assert_eq!(**model.backend("b").unwrap(), Backend::implicit("b".into()));
    assert_eq!(delete(&mut model, "backends/b/servers/s10").backends, set(&["b"]));
    assert!(model.backend("b").is_none());
    assert!(model.backend("b1").is_some());
}

#[test]
fn a_bad_value_is_a_problem_and_the_last_good_version_stays() {
    let mut model = Model::default();
    put(&mut model, "frontends/f/frontend", FRONTEND);
    let delta = put(&mut model, "frontends/f/frontend", "{");
    assert_eq!(delta, Delta { problems: true, ..Delta::default() });
    assert!(model.frontend("f").is_some());
    let problem = model.problems().next().unwrap();
    assert_eq!((problem.key.as_str(), problem.effect.as_str()), ("frontends/f/frontend", "last good version serves"));
    assert_eq!(problem.line, Some(1));
    // The same bad value is no news.
    assert!(put(&mut model, "frontends/f/frontend", "{").is_empty());

    let delta = put(&mut model, "frontends/f/frontend", FRONTEND);
    assert_eq!(delta, Delta { problems: true, ..Delta::default() });
    assert_eq!(model.problems().count(), 0);

    put(&mut model, "frontends/g/frontend", "{}");
    assert_eq!(model.problems().next().unwrap().effect, "ignored");
    assert!(delete(&mut model, "frontends/g/frontend").problems);
    assert_eq!(model.problems().count(), 0);
}

#[test]
fn a_middleware_that_cannot_be_read_fails_closed() {
    let mut model = Model::default();
    let delta = put(&mut model, "frontends/f/middlewares/m", "{}");
    assert_eq!((delta.frontends, delta.problems), (set(&["f"]), true));
    assert_eq!(model.middlewares("f").next().unwrap().kind, "");
    assert_eq!(model.problems().next().unwrap().effect, "its frontend answers 503");
    let good = |id: &str, priority: i32| (format!("frontends/f/middlewares/{id}"), priority);
    for (key, priority) in [good("m", 2), good("a", 2), good("z", -1)] {
        put(&mut model, &key, &format!(r#"{{"Type":"k","Priority":{priority},"Middleware":{{}}}}"#));
    }
    let order: Vec<&str> = model.middlewares("f").map(|it| &*it.id).collect();
    assert_eq!(order, ["z", "a", "m"]);
    assert_eq!(model.middlewares("ff").count(), 0);
    assert_eq!(model.problems().count(), 0);
}

#[test]
fn keys_that_are_none_are_problems_until_they_are_gone() {
    let mut model = Model::default();
    let raw = Change { key: Bytes::from_static(b"sites/\xff"), value: Some(Bytes::from_static(b"{}")) };
    assert!(model.apply(&Batch { revision: Revision(1), changes: vec![raw.clone()] }).problems);
    put(&mut model, "nonsense", "x");
    put(&mut model, "acme/account", "\u{0}");
    put(&mut model, "autocert_cache/x", "y");
    assert_eq!(
        reasons(&model),
        [
            ("nonsense".into(), "unknown key".into(), "ignored".into()),
            ("sites/\\xff".into(), "the key is not UTF-8".into(), "ignored".into()),
        ]
    );
    assert!(model.replace(&batch(&[("acme/account", Some("z"))])).problems);
    assert_eq!(model.problems().count(), 0);
    let huge = "x".repeat(crate::json::LONGEST_VALUE + 1);
    put(&mut model, "sites/a", &huge);
    assert!(model.problems().next().unwrap().reason.contains("more than the 1048576"));
}

#[test]
fn a_snapshot_says_only_what_differs() {
    let mut model = Model::default();
    let listener = r#"{"Protocol":"http","Address":{"Network":"tcp","Address":":80"}}"#;
    let all = [("frontends/f/frontend", Some(FRONTEND)), ("listeners/l", Some(listener)), ("sites/s", Some(SITE))];
    model.replace(&batch(&all));
    assert!(model.replace(&batch(&all)).is_empty());
    let delta = model.replace(&batch(&[all[1], ("hosts/H/host", Some("{}"))]));
    assert_eq!(delta.hosts, set(&["h"]));
    assert!(delta.listeners.is_empty());
    assert!(delta.frontends.contains("f") && delta.frontends.contains("site:s:admin"));
    assert_eq!(model.frontends().count(), 0);
    assert_eq!((model.listeners().count(), model.sites().count()), (1, 0));
    assert!(model.claims.is_empty() && model.derived.is_empty() && model.leading.is_empty());
}

#[test]
fn short_spellings_are_the_same_object_and_lose() {
    let mut model = Model::default();
    put(&mut model, "frontends/f", FRONTEND);
    assert!(model.frontend("f").is_some());
    assert_eq!(model.frontend_key("f").as_deref(), Some("frontends/f"));
    put(&mut model, "frontends/f/frontend", FRONTEND);
    assert_eq!(model.problems().count(), 0);
    put(&mut model, "frontends/f/frontend", &FRONTEND.replace("b1", "b2"));
    assert_eq!(&*model.frontend("f").unwrap().backend, "b2");
    let reason = "frontends/f/frontend names the same object and wins";
    assert_eq!(reasons(&model), [("frontends/f".into(), reason.into(), "ignored".into())]);
    delete(&mut model, "frontends/f/frontend");
    assert_eq!(&*model.frontend("f").unwrap().backend, "b1");
    assert_eq!(model.problems().count(), 0);
}

#[test]
fn the_layout_of_vulcand_up_to_0_7() {
    let mut model = Model::default();
    put(&mut model, "upstreams/wordpress/endpoints/core-01-wordpress-0a.service", "http://10.0.0.1:49153");
    assert_eq!(model.server("wordpress", "core-01-wordpress-0a.service").unwrap().port, 49153);
    put(&mut model, "upstreams/wordpress/options", r#"{"Timeouts":{"Read":"7s","TlsHandshake":"1s"}}"#);
    assert_eq!(model.backend("wordpress").unwrap().timeouts.answer(None).as_secs(), 7);

    put(&mut model, "hosts/wordpress.local/locations/home/path", "/");
    assert_eq!(model.frontends().count(), 0);
    assert_eq!(model.problems().next().unwrap().reason, "the location has a path and no upstream");
    let delta = put(&mut model, "hosts/wordpress.local/locations/home/upstream", "wordpress");
    assert_eq!((delta.frontends, delta.problems), (set(&["wordpress.local.home"]), true));
    let frontend = model.frontend("wordpress.local.home").unwrap().clone();
    assert_eq!(frontend.route, r#"Host("wordpress.local") && PathRegexp("/")"#);
    assert!(frontend.settings.pass_host_header);
    assert_eq!(
        model.frontend_key("wordpress.local.home").as_deref(),
        Some("hosts/wordpress.local/locations/home/path")
    );
    let middleware = r#"{"Id":"m","Type":"ratelimit","Priority":1,"Middleware":{"Requests":1}}"#;
    put(&mut model, "hosts/wordpress.local/locations/home/middlewares/ratelimit/m", middleware);
    assert_eq!(model.middlewares("wordpress.local.home").count(), 1);
    put(&mut model, "hosts/wordpress.local/locations/home/options", r#"{"Limits":{"MaxBodyBytes":9}}"#);
    let settings = model.frontend("wordpress.local.home").unwrap().settings.clone();
    assert_eq!((settings.limits.max_body_bytes, settings.pass_host_header), (Some(9), true));
    put(&mut model, "hosts/wordpress.local/options", r#"{"Default":true}"#);
    put(&mut model, "hosts/wordpress.local/keypair", r#"{"Encryption":"secretbox.v1","Value":{}}"#);
    let host = model.host("wordpress.local").unwrap();
    assert!(host.default && host.key_pair.is_some());
    let listener = r#"{"Protocol":"http","Address":{"Network":"tcp","Address":":80"}}"#;
    put(&mut model, "hosts/wordpress.local/listeners/l", listener);
    assert!(model.listener("l").is_some());
    assert_eq!(reasons(&model), []);

    let v3 = "frontends/wordpress.local.home/frontend";
    put(&mut model, v3, FRONTEND);
    let (key, reason, _) = reasons(&model).remove(0);
    assert_eq!(key, "hosts/wordpress.local/locations/home/path");
    assert!(reason.starts_with(v3), "{reason}");
    assert_eq!(
        model.entries_under(&Key::Frontend("wordpress.local.home".into())),
        [
            v3,
            "hosts/wordpress.local/locations/home/middlewares/ratelimit/m",
            "hosts/wordpress.local/locations/home/options",
            "hosts/wordpress.local/locations/home/path",
            "hosts/wordpress.local/locations/home/upstream",
        ]
    );
    delete(&mut model, v3);
    delete(&mut model, "hosts/wordpress.local/locations/home/upstream");
    assert!(model.frontend("wordpress.local.home").is_none());
    for key in ["path", "options", "middlewares/ratelimit/m"] {
        delete(&mut model, &format!("hosts/wordpress.local/locations/home/{key}"));
    }
    assert_eq!(reasons(&model), []);
}

#[test]
fn what_belongs_to_an_object_is_found_exactly() {
    let mut model = Model::default();
    let server = r#"{"URL":"http://a"}"#;
    for key in
        ["backends/b/servers/s", "backends/b1/servers/s", "upstreams/b/endpoints/e", "backends/b", "backends/b/x"]
    {
        put(&mut model, key, server);
    }
    put(&mut model, "backends/b/servers/bad", "{");
    let found = model.entries_under(&Key::Backend("b".into()));
    assert_eq!(found, ["backends/b", "backends/b/servers/bad", "backends/b/servers/s", "upstreams/b/endpoints/e"]);
    assert_eq!(model.entries_under(&Key::Server("b".into(), "s".into())), ["backends/b/servers/s"]);
    assert!(model.entries_under(&Key::Site("b".into())).is_empty());
}

#[test]
fn sites_and_their_frontends_keep_step() {
    let mut model = Model::default();
    let delta = put(&mut model, "sites/s", SITE);
    assert!(delta.frontends.contains("site:s:admin") && delta.frontends.contains("site:s:uploads"));
    assert_eq!(model.frontend_key("site:s:admin").as_deref(), Some("sites/s"));
    let leading: Vec<&str> = model.frontends_of("adm").map(|id| &**id).collect();
    assert!(leading.contains(&"site:s:public") && leading.contains(&"site:s:admin"));

    let delta = put(&mut model, "sites/s", &SITE.replace("}", r#","UploadsFallback":false}"#));
    assert_eq!(delta.frontends, set(&["site:s:uploads"]));
    assert!(model.frontend("site:s:uploads").is_none());
    put(&mut model, "sites/s", "{}");
    assert!(model.frontend("site:s:admin").is_some());
    delete(&mut model, "sites/s");
    assert_eq!(shown(&model), Vec::<String>::new());
}

#[test]
fn a_host_belongs_to_the_site_with_the_lower_id() {
    let mut model = Model::default();
    let one = |host: &str| format!(r#"{{"Preset":"wordpress","Hosts":[{host}],"Public":"p"}}"#);
    put(&mut model, "sites/c", &one(r#""x.test""#));
    put(&mut model, "sites/b", &one(r#""x.test","y.test""#));
    assert!(model.frontend("site:c:public").is_none());
    let delta = put(&mut model, "sites/a", &one(r#""x.test""#));
    assert_eq!(model.frontend("site:a:public").unwrap().route, r#"Host("x.test")"#);
    assert_eq!(model.frontend("site:b:public").unwrap().route, r#"Host("y.test")"#);
    assert!(delta.frontends.contains("site:b:public"));
    let ignored = |key: &str, other: &str| {
        let reason = format!("host \"x.test\" is already claimed by site \"{other}\"");
        (key.to_owned(), reason, "ignored".to_owned())
    };
    assert_eq!(reasons(&model), [ignored("sites/b", "a"), ignored("sites/c", "b")]);
    delete(&mut model, "sites/b");
    assert_eq!(reasons(&model), [ignored("sites/c", "a")]);
    delete(&mut model, "sites/a");
    assert!(model.frontend("site:c:public").is_some());
    assert_eq!(reasons(&model), []);
}

#[test]
fn checking_says_what_storing_would() {
    assert_eq!(check(b"frontends/f/frontend", FRONTEND.as_bytes()), Ok(Vec::new()));
    assert_eq!(check(b"acme/x", b"\xff"), Ok(Vec::new()));
    assert_eq!(check(b"x", b"").unwrap_err().reason, "unknown key");
    assert_eq!(check(b"frontends/f/frontend", b"{}").unwrap_err().reason, "Type is missing");
    let notes = check(b"backends/b/servers/s", br#"{"URL":"http://a/x"}"#).unwrap();
    assert_eq!(notes[0].effect, "ignored");
}

#[test]
fn a_site_says_how_its_hosts_get_certificates() {
    let mut model = Model::default();
    let site = |acme: &str| format!(r#"{{"Preset":"wordpress","Hosts":["a.test","b.test"],"Public":"p"{acme}}}"#);
    assert!(put(&mut model, "sites/s", &site("")).hosts.is_empty());
    assert_eq!(model.served_host("a.test"), None);

    let delta = put(&mut model, "sites/s", &site(r#","Acme":{"Email":"a@b.test"}"#));
    assert_eq!(delta.hosts, ["a.test".into(), "b.test".into()].into());
    let email = |model: &Model, host: &str| model.served_host(host).and_then(|host| host.acme.clone()?.email);
    assert_eq!(email(&model, "b.test").as_deref(), Some("a@b.test"));
    assert_eq!(email(&model, "c.test"), None);
    assert_eq!((model.hosts().count(), model.hosts_of_sites().count()), (0, 2));
    assert_eq!(model.host_key("a.test"), "sites/s");

    // What the host says itself goes before; where it says nothing, the site does.
    put(&mut model, "hosts/a.test/host", r#"{"Settings":{"Acme":{"Email":"own@a.test"}}}"#);
    put(&mut model, "hosts/b.test/host", r#"{"Settings":{"Default":true}}"#);
    assert_eq!(email(&model, "a.test").as_deref(), Some("own@a.test"));
    assert_eq!(email(&model, "b.test").as_deref(), Some("a@b.test"));
    assert!(model.served_host("b.test").unwrap().default);
    assert_eq!((model.host_key("a.test"), model.hosts_of_sites().count()), ("hosts/a.test/host".into(), 0));

    // Of two sites the first has the host.
    delete(&mut model, "hosts/b.test/host");
    let delta = put(&mut model, "sites/r", r#"{"Preset":"wordpress","Hosts":["b.test"],"Public":"p","Acme":true}"#);
    assert_eq!(delta.hosts, ["b.test".into()].into());
    assert_eq!(model.host_key("b.test"), "sites/r");
    assert!(delete(&mut model, "sites/r").hosts.contains("b.test"));
    delete(&mut model, "sites/s");
    assert_eq!(model.served_host("b.test"), None);
}
