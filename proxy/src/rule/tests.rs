use super::*;
use http::Method;
use http::header::{COOKIE, HeaderMap, HeaderValue};
use proptest::prelude::*;
use std::net::IpAddr;

fn matches(rule: &str, method: &Method, url: &str, fields: &[(&'static str, &'static str)]) -> bool {
    let (host, target) = url.split_once('/').unwrap();
    let target = format!("/{target}");
    let (path, query) = target.split_once('?').map_or((target.as_str(), None), |(path, query)| (path, Some(query)));
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let host = host_of(host);
    let head = Head::new(method, &host, path, query, &headers, IpAddr::from([10, 1, 2, 3]));
    Rule::parse(rule).unwrap().matches(&head)
}

fn get(rule: &str, url: &str) -> bool {
    matches(rule, &Method::GET, url, &[])
}

#[test]
fn vulcands_expressions_are_valid_and_its_mistakes_are_not() {
    for valid in [
        r#"Host("a")"#,
        "Host(`a`)",
        r#"  ( Host( "a" ) && Path("/x") )  "#,
        r#"Host("a") && Method("POST") && Header("Content-Type", "<string>/json")"#,
        r#"PathRegexp("/v1/.*")"#,
        r#"Path("/v/<int:id>/<path:rest>")"#,
        r#"Path("/a\u0062\x63\t")"#,
        r#"!Host("a") || ClientIP("10.0.0.0/8", "::1")"#,
    ] {
        assert!(Rule::parse(valid).is_ok(), "{valid}: {:?}", Rule::parse(valid));
    }
    for (invalid, column) in [
        ("", 1),
        (r#"Host("")"#, 6),
        (r#"Path("")"#, 6),
        (r#"Host("a", "b")"#, 1),
        (r#"Header("a")"#, 1),
        ("Host('a')", 6),
        (r#"Host("a");"#, 10),
        (r#"Host("a") Path("/")"#, 11),
        (r#"Host("a") & Path("/")"#, 11),
        (r#"TrieRoute("/x")"#, 1),
        (r#"Host("a") && "#, 14),
        (r#"PathRegexp("(")"#, 12),
        (r#"Path("/<a:b>")"#, 6),
        (r#"ClientIP("10.0.0.0/40")"#, 10),
        (r#"Host("a"#, 6),
        (r#"Host("\q")"#, 7),
    ] {
        let error = Rule::parse(invalid).unwrap_err();
        assert_eq!(error.column, column, "{invalid}: {error}");
        assert!(!error.hint.is_empty());
    }
    assert_eq!(Rule::parse(r#"PathRegex("/x")"#).unwrap_err().hint, "did you mean PathRegexp?");
    assert!(Rule::parse(&"(".repeat(100_000)).is_err());
}

#[test]
fn hosts_are_compared_without_case_port_and_final_dot() {
    for host in ["a.test", "A.TEST", "a.test:8080", "a.test."] {
        assert!(get(r#"Host("A.test")"#, &format!("{host}/")), "{host}");
    }
    assert!(get(r#"Host("::1")"#, "[::1]:80/"));
    assert!(get(r#"Host("<x>.test")"#, "b.test/"));
    assert!(!get(r#"Host("<x>.test")"#, "a.b.test/"));
    assert!(get(r#"HostRegexp("^\\D+$")"#, "abc/"));
}

#[test]
fn paths_are_matched_as_vulcand_does() {
    assert!(get(r#"Path("/x")"#, "a/x?y=1"));
    assert!(!get(r#"Path("/x")"#, "a/x/"));
    assert!(get(r#"Path("/a/<x>")"#, "a/a/b%2Fc"));
    assert!(!get(r#"Path("/a/<x>")"#, "a/a/b/c"));
    assert!(get(r#"Path("/a/<path:x>")"#, "a/a/b/c"));
    assert!(get(r#"Path("/a/<int:x>")"#, "a/a/12"));
    assert!(!get(r#"Path("/a/<int:x>")"#, "a/a/b"));
    assert!(get(r#"PathRegexp("/s.*")"#, "a/x/sse"));
    assert!(get(r#"PathPrefix("/x")"#, "a/x/y") && get(r#"PathPrefix("/x")"#, "a/x"));
    assert!(!get(r#"PathPrefix("/x")"#, "a/xy"));
    assert!(get(r#"PathPrefix("/")"#, "a/xy"));
}

#[test]
fn a_segment_is_seen_however_it_is_spelled() {
    let admin = r#"Segment("wp-admin") || Segment("wp-login.php")"#;
    for path in [
        "wp-admin",
        "wp-admin/",
        "/wp-admin",
        "%77p-admin/",
        "x/../wp-admin/",
        "blog/wp-admin/post.php",
        "wp-login.php/x",
        "./wp-admin",
        "wp-admin%2Fpost.php",
        "x/%2e%2e/wp-admin",
    ] {
        assert!(get(admin, &format!("a/{path}")), "{path}");
    }
    for path in
        ["wp-administrator", "my-wp-admin/", "wp-login.php.bak", "%2577p-admin/", "wp-admin/../x", "WP-ADMIN", "%zz"]
    {
        assert!(!get(admin, &format!("a/{path}")), "{path}");
    }
    assert!(get(r#"LastSegment("b")"#, "a/x/b/"));
    assert!(!get(r#"LastSegment("x")"#, "a/x/b"));
}

#[test]
fn queries_cookies_headers_and_clients() {
    assert!(get(r#"Query("preview")"#, "a/?x=1&preview"));
    assert!(get(r#"Query("s", "a b")"#, "a/?s=a+b") && get(r#"Query("s", "a b")"#, "a/?s=a%20b"));
    assert!(!get(r#"Query("s")"#, "a/?ss=1"));
    let cookie = |rule: &str| matches(rule, &Method::GET, "a/", &[("cookie", "x=1; wordpress_logged_in_ab=y")]);
    assert!(cookie(r#"Cookie("x")"#) && cookie(r#"Cookie("x", "1")"#) && !cookie(r#"Cookie("x", "2")"#));
    assert!(cookie(r#"CookieRegexp("^wordpress_logged_in_")"#) && !cookie(r#"CookieRegexp("^y")"#));
    assert!(get(r#"ClientIP("10.1.0.0/16")"#, "a/") && !get(r#"ClientIP("10.2.0.0/16", "::1")"#, "a/"));
    let json = |rule: &str| matches(rule, &Method::POST, "a/", &[("content-type", "application/json")]);
    assert!(json(r#"Header("Content-Type", "<string>/json")"#) && json(r#"Method("POST")"#));
    assert!(json(r#"HeaderRegexp("X-None", ".*")"#) && !json(r#"HeaderRegexp("X-None", ".")"#));
    assert!(json(r#"!Method("GET") && (Host("b") || Host("a"))"#));
    let two = |n: usize| {
        let mut headers = HeaderMap::new();
        for _ in 0..n {
            headers.append(COOKIE, HeaderValue::from_static("c=1"));
        }
        headers.len()
    };
    assert_eq!(two(2), 2);
}

#[test]
fn what_binds_tighter() {
    let rule = Rule::parse(r#"Host("a") || Host("b") && !Path("/x")"#).unwrap();
    assert_eq!(rule.to_string(), r#"(Host("a") || (Host("b") && !Path("/x")))"#);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        let _ = Rule::parse(&text);
    }

    #[test]
    fn text_made_of_its_words_never_panics_and_prints_back(
        words in proptest::collection::vec(prop_oneof![
            Just("Host"), Just("Path"), Just("("), Just(")"), Just("\"a\""), Just("&&"), Just("||"), Just("!"),
            Just("`/<x>`"), Just(","), Just("Segment"), Just("ClientIP"), Just("\"::1\""), Just(" "),
        ], 0..24)
    ) {
        if let Ok(rule) = Rule::parse(&words.concat()) {
            prop_assert_eq!(Rule::parse(&rule.to_string()).unwrap(), rule);
        }
    }
}
