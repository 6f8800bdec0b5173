use super::*;
use http::{HeaderMap, Method};
use proptest::prelude::*;
use std::net::IpAddr;

fn ask<'r>(router: &'r Router<&'static str>, host: &str, path: &str) -> Option<&'r &'static str> {
    let headers = HeaderMap::new();
    router.find(&Head::new(&Method::GET, host, path, None, &headers, IpAddr::from([127, 0, 0, 1])))
}

fn router(rules: &[(&'static str, &str, i64)]) -> Router<&'static str> {
    let mut router = Router::default();
    for (id, rule, priority) in rules {
        router.insert((*id).into(), Arc::new(Rule::parse(rule).unwrap()), *priority, *id);
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
    assert_eq!(ask(&router, "a.test", "/x"), Some(&"both"));
    assert_eq!(ask(&router, "a.test", "/x/y"), Some(&"prefix"));
    assert_eq!(ask(&router, "a.test", "/xy"), Some(&"host"));
    assert_eq!(ask(&router, "b.test", "/"), Some(&"wild"));
    assert_eq!(ask(&router, "b.other", "/x"), Some(&"path"));
    assert_eq!(ask(&router, "b.other", "/"), None);
    assert_eq!(ask(&router, "a.test", "/first"), Some(&"first"));
}

#[test]
fn the_original_tutorials_paths_keep_their_order() {
    let router = router(&[
        ("home", r#"Host("w") && PathRegexp("/")"#, 0),
        ("admin", r#"Host("w") && PathRegexp("/wp-admin.*")"#, 0),
        ("login", r#"Host("w") && PathRegexp("/wp-login.php")"#, 0),
    ]);
    assert_eq!(ask(&router, "w", "/"), Some(&"home"));
    assert_eq!(ask(&router, "w", "/wp-admin/x"), Some(&"admin"));
    assert_eq!(ask(&router, "w", "/wp-login.php"), Some(&"login"));
}

#[test]
fn a_rule_that_went_is_not_found_and_a_clone_still_has_it() {
    let mut router = router(&[("a", r#"Host("a")"#, 0), ("b", r#"Host("a") && Path("/x")"#, 0)]);
    let before = router.clone();
    router.remove("b");
    assert_eq!(ask(&router, "a", "/x"), Some(&"a"));
    assert_eq!(ask(&before, "a", "/x"), Some(&"b"));
    router.remove("a");
    assert!(router.is_empty() && router.hosts.is_empty());
}

fn some_rule() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        Just(r#"Host("a.test")"#.to_owned()),
        Just(r#"Host("b.test")"#.to_owned()),
        Just(r#"Host("<x>.test")"#.to_owned()),
        Just(r#"Host("a<x>test")"#.to_owned()),
        Just(r#"HostRegexp("^b")"#.to_owned()),
    ];
    let path = prop_oneof![
        (0..30u8).prop_map(|n| format!(r#"Path("/p{n}")"#)),
        (0..30u8).prop_map(|n| format!(r#"PathPrefix("/p{n}")"#)),
        (0..30u8).prop_map(|n| format!(r#"PathRegexp("^/p{n}/.*")"#)),
        Just(r#"Path("/p1/<x>")"#.to_owned()),
        Just(r#"Path("<path:x>")"#.to_owned()),
        Just(r#"PathRegexp("p2")"#.to_owned()),
    ];
    let leaf = prop_oneof![host, path];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.prop_map(|a| format!("!{a}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn it_finds_what_asking_everyone_finds(
        rules in proptest::collection::vec((some_rule(), -1i64..2), 1..60),
        gone in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        host in prop_oneof![Just("a.test"), Just("b.test"), Just("c.test"), Just("x")],
        path in (0..30u8, 0..3u8).prop_map(|(n, deep)| ["", "/", "/q"].get(usize::from(deep)).map(|end| format!("/p{n}{end}")).unwrap()),
    ) {
        let mut router = Router::default();
        let mut all: Vec<Arc<Entry<usize>>> = Vec::new();
        for (at, (rule, priority)) in rules.iter().enumerate() {
            let rule = Arc::new(Rule::parse(rule).unwrap());
            let id: Id = format!("f{at}").into();
            router.insert(id.clone(), rule.clone(), *priority, at);
            all.push(Arc::new(Entry { id, rank: rule.rank(*priority), rule, value: at }));
        }
        for index in gone {
            if !all.is_empty() {
                let entry = all.remove(index.index(all.len()));
                router.remove(&entry.id);
            }
        }
        let headers = HeaderMap::new();
        let head = Head::new(&Method::GET, host, &path, None, &headers, IpAddr::from([127, 0, 0, 1]));
        all.sort_by(|a, b| a.order(b));
        let expected = all.iter().find(|entry| entry.rule.matches(&head)).map(|entry| entry.value);
        prop_assert_eq!(router.find(&head).copied(), expected);
        prop_assert_eq!(router.candidates(&head).iter().find(|c| c.matches).map(|c| c.value), expected);
    }
}
