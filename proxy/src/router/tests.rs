use super::*;
use crate::message::fields::Fields;
use http::{HeaderMap, Method};
use proptest::prelude::*;
use std::net::IpAddr;

fn ask<'r>(router: &'r Router<Entry>, host: &str, path: &str) -> Option<&'r str> {
    let headers = Fields::default();
    let found = router.find(&Head::new(&Method::GET, host, path, None, &headers, IpAddr::from([127, 0, 0, 1])));
    found.map(|entry| &*entry.id)
}

fn entry(id: &str, rule: &str, priority: i64) -> Arc<Entry> {
    Arc::new(Entry::new(id.into(), Rule::parse(rule).unwrap(), priority))
}

fn router(rules: &[(&str, &str, i64)]) -> Router<Entry> {
    let mut router = Router::default();
    for (id, rule, priority) in rules {
        router.insert(entry(id, rule, *priority));
    }
    router
}

#[test]
fn the_most_specific_rule_is_found() {
    let router = router(&[
        ("host", r#"Host("a.test")"#, 0),
        ("path", r#"Path("/x")"#, 0),
        ("both", r#"Host("a.test") && Path("/x")"#, 0),
        ("prefix", r#"Host("a.test") && PathPrefix("/x")"#, 0),
        ("wild", r#"Host("<sub>.test")"#, 0),
        ("first", r#"Path("/first")"#, 1),
    ]);
    assert_eq!(ask(&router, "a.test", "/x"), Some("both"));
    assert_eq!(ask(&router, "a.test", "/x/y"), Some("prefix"));
    assert_eq!(ask(&router, "a.test", "/xy"), Some("host"));
    assert_eq!(ask(&router, "b.test", "/"), Some("wild"));
    assert_eq!(ask(&router, "b.other", "/x"), Some("path"));
    assert_eq!(ask(&router, "b.other", "/"), None);
    assert_eq!(ask(&router, "a.test", "/first"), Some("first"));
}

#[test]
fn the_original_tutorials_paths_keep_their_order() {
    let router = router(&[
        ("home", r#"Host("w") && PathRegexp("/")"#, 0),
        ("admin", r#"Host("w") && PathRegexp("/wp-admin.*")"#, 0),
        ("login", r#"Host("w") && PathRegexp("/wp-login.php")"#, 0),
    ]);
    assert_eq!(ask(&router, "w", "/"), Some("home"));
    assert_eq!(ask(&router, "w", "/wp-admin/x"), Some("admin"));
    assert_eq!(ask(&router, "w", "/wp-login.php"), Some("login"));
}

#[test]
fn a_rule_that_went_is_not_found_and_a_clone_still_has_it() {
    let mut router = router(&[("a", r#"Host("a")"#, 0), ("b", r#"Host("a") && Path("/x")"#, 0)]);
    let before = router.clone();
    router.remove("b");
    assert_eq!(ask(&router, "a", "/x"), Some("a"));
    assert_eq!(ask(&before, "a", "/x"), Some("b"));
    router.remove("a");
    router.remove("never there");
    assert!(router.is_empty() && router.hosts.is_empty());
}

#[test]
fn a_name_put_in_again_replaces_its_rule() {
    let mut router = router(&[("a", r#"Host("a")"#, 0)]);
    router.insert(entry("a", r#"Host("b")"#, 0));
    assert_eq!((router.len(), ask(&router, "a", "/"), ask(&router, "b", "/")), (1, None, Some("a")));
}

#[test]
fn every_alternative_is_a_way_to_a_rule() {
    let many: Vec<String> = (0..500).map(|n| format!("Host(`h{n}.test`)")).collect();
    let router = router(&[("many", &many.join("||"), 0), ("mixed", "Host(`m`) || Header(`X`, `1`) || Path(`/m`)", 0)]);
    assert_eq!(ask(&router, "h0.test", "/"), Some("many"));
    assert_eq!(ask(&router, "h499.test", "/"), Some("many"));
    assert_eq!(ask(&router, "m", "/"), Some("mixed"));
    assert_eq!(ask(&router, "x", "/m"), Some("mixed"));
    // One alternative demands neither host nor header, so that rule is where every request looks.
    assert_eq!(router.hosts.len(), 500);
}

#[test]
fn two_places_fit_into_a_cache_line() {
    assert_eq!(size_of::<map::Slot<Paths<Entry>>>(), 32);
}

/// How many rules a request makes the router ask.
fn asked(router: &Router<Entry>, host: &str, path: &str, header: Option<&'static str>) -> usize {
    let mut headers = HeaderMap::new();
    if let Some(value) = header {
        headers.insert("x", http::HeaderValue::from_static(value));
    }
    let headers = Fields::from(&headers);
    router.candidates(&Head::new(&Method::GET, host, path, None, &headers, IpAddr::from([127, 0, 0, 1]))).len()
}

#[test]
fn few_rules_are_asked_however_many_there_are() {
    let fill = |rule: fn(usize) -> String| {
        let mut router = Router::default();
        for n in 0..2_000 {
            router.insert(entry(&n.to_string(), &rule(n), 0));
        }
        router
    };
    let hosts = fill(|n| format!("Host(`h{n}`) && Path(`/`)"));
    assert_eq!(asked(&hosts, "h7", "/", None), 1);
    assert_eq!(asked(&fill(|n| format!("Host(`one`) && Path(`/p{n}`)")), "one", "/p7", None), 1);
    assert_eq!(asked(&fill(|n| format!("Path(`/p{n}`)")), "any", "/p7", None), 1);
    assert_eq!(asked(&fill(|n| format!("PathPrefix(`/p{n}/`)")), "any", "/p7/x/y", None), 1);
    assert_eq!(asked(&fill(|n| format!("PathPrefix(`/p{n}`)")), "any", "/p7", None), 1);
    assert_eq!(asked(&fill(|n| format!("PathRegexp(`^/p{n}/x.*`)")), "any", "/p7/xy", None), 1);
    assert_eq!(asked(&fill(|n| format!("Host(`<x>.d{n}.test`)")), "www.d7.test", "/", None), 1);
    assert_eq!(asked(&fill(|n| format!("Header(`X`, `v{n}`)")), "any", "/", Some("v7")), 1);
    assert_eq!(asked(&fill(|n| format!("HostRegexp(`^h{n}$`)")), "h7", "/", None), 2_000);
}

fn some_rule() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        r#"Host("a.test")"#,
        r#"Host("b.test")"#,
        r#"Host("<x>.test")"#,
        r#"Host("a<x>test")"#,
        r#"Host("<x>.a.test")"#,
        r#"HostRegexp("^b")"#,
        r#"Path("/p1/<x>")"#,
        r#"Path("/p<int:x>")"#,
        r#"Path("<path:x>")"#,
        r#"PathPrefix("/")"#,
        r#"PathRegexp("p2")"#,
        r#"PathRegexp("^/p1?")"#,
        r#"PathRegexp("^/p1|q")"#,
        r#"Segment("q", "p3")"#,
        r#"LastSegment("p1")"#,
        r#"Method("GET")"#,
        r#"Header("X", "1")"#,
        r#"Header("X", "2")"#,
        r#"Header("X", "<any>")"#,
        r#"HeaderRegexp("Y", "^$")"#,
        r#"Query("z")"#,
    ]);
    let numbered =
        prop::sample::select(vec!["Path(`/pN`)", "PathPrefix(`/pN`)", "PathPrefix(`/pN/`)", "PathRegexp(`^/pN/.*`)"]);
    let leaf = prop_oneof![
        fixed.prop_map(str::to_owned),
        (numbered, 0..20u8).prop_map(|(rule, n)| rule.replace('N', &n.to_string())),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            4 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            2 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            1 => inner.prop_map(|a| format!("!{a}")),
        ]
    })
}

type Asked = (&'static str, String, Option<&'static str>, Option<&'static str>);

fn some_request() -> impl Strategy<Value = Asked> {
    let host = prop::sample::select(vec!["a.test", "b.test", "c.test", "x.a.test", "test", "x", "", "."]);
    let end = prop::sample::select(vec!["", "/", "/q", "//q/../p3", "%2fq"]);
    let path = (0..20u8, end).prop_map(|(n, end)| format!("/p{n}{end}"));
    let header = prop::sample::select(vec![None, Some("1"), Some("2"), Some("")]);
    (host, path, prop::sample::select(vec![None, Some("z=1")]), header)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn it_finds_what_asking_everyone_finds(
        // Names repeat, so rules are replaced too, even at once; `None` takes one out.
        changes in proptest::collection::vec((0..60u8, proptest::option::weighted(0.8, (some_rule(), -1i64..2))), 1..120),
        at_once in 1..60usize,
        requests in proptest::collection::vec(some_request(), 8),
    ) {
        let mut router = Router::default();
        let mut all: std::collections::BTreeMap<Id, Arc<Entry>> = std::collections::BTreeMap::new();
        for changes in changes.chunks(at_once) {
            let changes = changes.iter().map(|(name, rule)| {
                let id: Id = format!("f{name}").into();
                let entry = rule.as_ref().map(|(rule, priority)| entry(&id, rule, *priority));
                match &entry {
                    Some(entry) => all.insert(id.clone(), entry.clone()),
                    None => all.remove(&id),
                };
                (id, entry)
            });
            router.change(changes.collect());
        }
        prop_assert_eq!(router.len(), all.len());
        let mut best_first: Vec<&Arc<Entry>> = all.values().collect();
        best_first.sort_by(|a, b| a.order(b));
        for (host, path, query, header) in requests {
            let mut headers = HeaderMap::new();
            if let Some(value) = header {
                headers.insert("x", http::HeaderValue::from_static(value));
            }
            let headers = Fields::from(&headers);
            let head = Head::new(&Method::GET, host, &path, query, &headers, IpAddr::from([127, 0, 0, 1]));
            // The very ones: names stay where rules are replaced.
            let matching = best_first.iter().filter(|entry| entry.rule.matches(&head));
            let matching: Vec<*const Entry> = matching.map(|entry| Arc::as_ptr(entry)).collect();
            prop_assert_eq!(router.find(&head).map(Arc::as_ptr), matching.first().copied());
            let candidates = router.candidates(&head).into_iter().filter(|candidate| candidate.matches);
            prop_assert_eq!(candidates.map(|candidate| Arc::as_ptr(&candidate.value)).collect::<Vec<_>>(), matching);
        }
        router.change(all.keys().map(|id| (id.clone(), None)).collect());
        prop_assert!(router.hosts.is_empty() && router.suffixes.is_empty() && router.headers.is_empty());
        prop_assert!(router.anywhere.is_empty());
    }
}
