use super::*;
use crate::message::fields::Fields;
use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use std::net::IpAddr;

fn matches(rule: &str, method: &Method, url: &str, fields: &[(&'static str, &[u8])]) -> bool {
    with(method, url, fields, |head| Rule::parse(rule).unwrap().matches(head))
}

fn with<R>(method: &Method, url: &str, fields: &[(&'static str, &[u8])], ask: impl FnOnce(&Head<'_>) -> R) -> R {
    let (host, target) = url.split_once('/').unwrap();
    let target = format!("/{target}");
    let (path, query) = target.split_once('?').map_or((target.as_str(), None), |(path, query)| (path, Some(query)));
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
    }
    let headers = Fields::from(&headers);
    let host = host_of(host);
    ask(&Head::new(method, &host, path, query, &headers, IpAddr::from([10, 1, 2, 3])))
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
        "Host(\n\t\"a\",\n) &&\r\n Path(`/`)",
        r#"Path("/<>/<x")"#,
        r#"Cookie("a", "") && Query("b", "")"#,
        r#"Host("localhost") && PathRegexp("/v1/.*") && Method("GET") && HeaderRegexp("Content-Type", "application/.*")"#,
    ] {
        assert!(Rule::parse(valid).is_ok(), "{valid}: {:?}", Rule::parse(valid));
        assert_eq!(check(valid), Ok(()));
    }
    for (invalid, column) in [
        ("", 1),
        (r#"Host("")"#, 6),
        (r#"Path("")"#, 6),
        (r#"Host("..")"#, 6),
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
        (r#"Host("\xff")"#, 6),
        (r#"Host()"#, 6),
        (r#"Host"#, 5),
        (r#"Host(1)"#, 6),
        (r#"host("a")"#, 1),
        (r#"PathPrefix("x")"#, 12),
        (r#"Path("/<string:a:b>")"#, 6),
        (r#"Header("X", "")"#, 13),
        (r#"Header("a b", "c")"#, 8),
        (r#"Segment("a", "")"#, 14),
        (r#"Segment("a/b")"#, 9),
        (r#"Query("é") && Nope("a")"#, 15),
        (r#"Query("a", "b", "c")"#, 1),
        (r#"HostRegexp("a{1000}{1000}")"#, 12),
        (r#"(Host("a")"#, 11),
    ] {
        let error = Rule::parse(invalid).unwrap_err();
        assert_eq!(error.column, column, "{invalid}: {error}");
        assert!(!error.hint.is_empty());
        assert_eq!(check(invalid), Err(error));
    }
}

#[test]
fn an_error_says_what_to_write_instead() {
    let error = |rule: &str| Rule::parse(rule).unwrap_err();
    for (wrong, right) in
        [("PathRegex", "PathRegexp"), ("host", "Host"), ("PathPrefx", "PathPrefix"), ("ClientIp", "ClientIP")]
    {
        assert_eq!(error(&format!("{wrong}(`/x`)")).hint, format!("did you mean {right}?"));
    }
    assert!(error("TrieRoute(`/x`)").hint.contains("PathPrefix"));
    assert_eq!(error("Query(`a`, `b`, `c`)").message, "Query takes 1 to 2 arguments, not 3");
    assert_eq!(error("Host(`a`, `b`)").message, "Host takes 1 argument, not 2");
    assert_eq!(error("PathRegexp(`(`)").message, "not a regular expression: unclosed group");
    assert_eq!(error("HostRegexp(`a{1000}{1000}`)").message, "the regular expression is too large");
    assert_eq!(error("PathPrefix(`x`)").hint, "write \"/x\"");
}

#[test]
fn what_no_request_can_match_is_refused() {
    for (wrong, message, hint) in [
        ("Host(`http://a.test`)", "a host has no scheme", r#"write Host("a.test"); for patterns use HostRegexp"#),
        ("Host(`https://A.test:8080/x/?y`)", "a host has no scheme", r#"write Host("a.test") && PathPrefix("/x/");"#),
        ("Host(`a.test:8080`)", "a host is compared without its port", r#"write Host("a.test");"#),
        ("Host(`<x>.test:80`)", "a host is compared without its port", "write a name alone"),
        ("Host(`a.test/shop`)", "a host has no path", r#"write Host("a.test") && PathPrefix("/shop");"#),
        ("Host(`*.a.test`)", "there is no wildcard in a host", r#"write Host("<name>.a.test")"#),
        ("Host(`*.a.*`)", "there is no wildcard in a host", "for patterns use HostRegexp"),
        ("Host(`bücher.test`)", "a host is sent in ASCII", "xn--"),
        ("Host(`[[::1]]`)", "no host is like that", "IPv6"),
        ("Host(`a b`)", "no host is like that", "example.com"),
        ("Path(`shop`)", "a path begins with a slash", r#"write "/shop""#),
        ("Path(`http://a.test/x`)", "a path begins with a slash", r#"write "/x""#),
        ("Path(`/a?b=1&c`)", "a path ends before the query", r#"write Path("/a") && Query("b", "1")"#),
        ("PathPrefix(`/a?b`)", "a path ends before the query", r#"write PathPrefix("/a") && Query("b")"#),
        ("Path(`/<x>#top`)", "a path ends before the query", r#"write Path("/<x>")"#),
        ("Method(`get`)", "methods are written in capitals", r#"write Method("GET")"#),
        ("Method(`GET|post`)", "no method is like that", r#"write MethodRegexp("^(GET|POST)$")"#),
    ] {
        let error = Rule::parse(&format!("Query(`x`) && {wrong}")).unwrap_err();
        assert_eq!(error.message, message, "{wrong}");
        assert!(error.hint.contains(hint), "{wrong}: {}", error.hint);
        assert_eq!(error.column as usize, "Query(`x`) && (".len() + wrong.find('(').unwrap() + 1, "{wrong}");
    }
    for right in [
        "Host(`a_b-c~1.test`)",
        "Host(`fe80::1`)",
        "Host(`<x>::<int:y>`)",
        "Host(`<int:n>.<path:rest>`)",
        "Path(`*`)",
        "Path(`<path:x>`)",
        "Path(`<x>/b`)",
        "Method(`PURGE`)",
        "Method(`purge`)",
        "Method(`<x>`)",
    ] {
        assert!(Rule::parse(right).is_ok(), "{right}: {:?}", Rule::parse(right));
    }
}

#[test]
fn length_and_depth_are_bounded() {
    let nested = |depth: usize| format!("{}Host(`a`){}", "(".repeat(depth), ")".repeat(depth));
    assert!(Rule::parse(&nested(31)).is_ok());
    assert!(Rule::parse(&nested(32)).unwrap_err().message.contains("nested"));
    assert!(Rule::parse(&format!("{}Host(`a`)", "!".repeat(32))).unwrap_err().message.contains("nested"));
    assert!(Rule::parse(&format!("Path(`/{}`)", "a".repeat(16 * 1024))).unwrap_err().message.contains("bytes"));
    let expressions = |each: &str, count: usize| vec![format!("PathRegexp(`{each}`)"); count].join("&&");
    assert!(Rule::parse(&expressions("[^x]{500}", 4)).is_ok() && Rule::parse(&expressions(r"/\w+", 100)).is_ok());
    assert!(Rule::parse(&expressions("[^x]{500}", 40)).unwrap_err().message.contains("together"));
    // The deepest rule prints no deeper.
    let deepest = (1..32).fold("Host(`a`)".to_owned(), |inner, n| {
        format!("({inner} {} Path(`/{n}`))", if n % 2 == 0 { "&&" } else { "||" })
    });
    let rule = Rule::parse(&deepest).unwrap();
    assert_eq!(Rule::parse(&rule.to_string()), Ok(rule));
}

#[test]
fn hosts_are_compared_without_case_port_and_final_dot() {
    for host in ["a.test", "A.TEST", "a.test:8080", "a.test."] {
        assert!(get(r#"Host("A.test")"#, &format!("{host}/")), "{host}");
    }
    assert!(get(r#"Host("::1")"#, "[::1]:80/") && get(r#"Host("[::1]")"#, "[::1]/") && get(r#"Host("a.")"#, "a/"));
    assert!(get(r#"Host("<x>.Test")"#, "b.test/"));
    assert!(!get(r#"Host("<x>.test")"#, "a.b.test/"));
    assert!(get(r#"HostRegexp("^\\D+$")"#, "abc/") && get("HostRegexp(`^Example\\.`)", "EXAMPLE.com/"));
    assert!(matches!(host_of("a.test:80"), std::borrow::Cow::Borrowed("a.test")));
    for odd in ["", ":", "[", "[]", "]", "[::1", ".", "::1", "[::1].", "é.test"] {
        host_of(odd);
    }
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
    assert!(get(r#"PathPrefix("/x/")"#, "a/x/") && get(r#"PathPrefix("/x/")"#, "a/x/y"));
    assert!(!get(r#"PathPrefix("/x/")"#, "a/x"));
    // An escape is matched as it was sent.
    assert!(get(r#"Path("/b/c%20d")"#, "a/b/c%20d") && !get(r#"Path("/b/c d")"#, "a/b/c%20d"));
    // A placeholder may be empty, and gives nothing back.
    assert!(get(r#"Path("/a/<x>")"#, "a/a/") && !get(r#"Path("/f-<x>.jpg")"#, "a/f-1.jpg"));
    assert!(!get(r#"Path("/a/<int:x>")"#, "a/a/"));
    assert!(get(r#"Path("/<x>/b/<int:y>")"#, "a/q/b/7") && get(r#"Path("/<>/<x")"#, "a/<>/<x"));
    assert!(matches(r#"Method("<x>")"#, &Method::PATCH, "a/", &[]));
    assert!(!matches(r#"Method("GET")"#, &Method::from_bytes(b"get").unwrap(), "a/", &[]));
}

#[test]
fn a_segment_is_seen_however_it_is_spelled() {
    let admin = r#"Segment("wp-admin", "wp-login.php")"#;
    for path in [
        "wp-admin",
        "wp-admin/",
        "/wp-admin",
        "%77p-admin/",
        "%77%70%2D%61%64%6d%69%6e",
        "x/../wp-admin/",
        "x/%2e%2e/wp-admin",
        "x%2f..%2fwp-admin",
        "blog/wp-admin/post.php",
        "wp-login.php/x",
        "wp-login.php/%ff",
        "./wp-admin",
        "\\wp-admin",
        "x\\..\\wp-admin",
        "%5cwp-admin",
        ".//.//wp-admin",
        "../wp-admin",
        "%2fwp-admin",
        "wp-admin%2Fpost.php",
        "wp-admin%2f..%2fwp-admin",
        "wp-admin?x=/y",
        "x/..;/wp-admin",
    ] {
        assert!(get(admin, &format!("a/{path}")), "{path}");
    }
    for path in [
        "wp-administrator",
        "my-wp-admin/",
        "wp-login.php.bak",
        "%2577p-admin/",
        "wp-admin/../x",
        "wp-admin%2f..",
        "wp-admin/%2e%2e/",
        "WP-ADMIN",
        "%zz",
        "wp-admin%00",
        "wp-admin%00.jpg",
        "wp-admin%20",
        "wp-admin%ff",
        "wp-admin%c0%af",
        "wp%adadmin",
        "wp-admin;x",
        "?wp-admin/wp-admin",
        "",
    ] {
        assert!(!get(admin, &format!("a/{path}")), "{path}");
    }
    assert!(get(r#"LastSegment("b")"#, "a/x/b/") && get(r#"LastSegment("x")"#, "a/x/b/.."));
    assert!(!get(r#"LastSegment("x")"#, "a/x/b") && !get(r#"LastSegment("x")"#, "a/"));
}

#[test]
fn queries_headers_and_clients() {
    assert!(get(r#"Query("preview")"#, "a/?x=1&preview"));
    assert!(get(r#"Query("s", "a b")"#, "a/?s=a+b") && get(r#"Query("s", "a b")"#, "a/?s=a%20b"));
    assert!(get(r#"Query("s", "2")"#, "a/?s=1&s=2") && get(r#"Query("s", "")"#, "a/?s"));
    assert!(get(r#"QueryRegexp("p", "^[0-9]+$")"#, "a/?p=%31") && !get(r#"QueryRegexp("p", "^[0-9]+$")"#, "a/?p=x"));
    assert!(!get(r#"Query("s")"#, "a/?ss=1") && !get(r#"Query("s")"#, "a/"));
    assert!(get(r#"ClientIP("10.1.0.0/16")"#, "a/") && !get(r#"ClientIP("10.2.0.0/16", "::1")"#, "a/"));
    let json: &[(&'static str, &[u8])] = &[("content-type", b"application/json"), ("x-name", b"J\xfcrg")];
    let json = |rule: &str| matches(rule, &Method::POST, "a/", json);
    assert!(json(r#"Header("Content-Type", "<string>/json")"#) && json(r#"Method("POST")"#));
    assert!(json(r#"HeaderRegexp("X-None", ".*")"#) && !json(r#"HeaderRegexp("X-None", ".")"#));
    assert!(json(r#"Header("X-None", "<x>")"#) && !json(r#"Header("X-None", "x")"#));
    assert!(json(r#"HeaderRegexp("X-Name", "^J.*rg$")"#));
    assert!(json(r#"!Method("GET") && (Host("b") || Host("a"))"#));
}

#[test]
fn an_ipv4_client_of_a_dual_stack_socket_is_an_ipv4_client() {
    let headers = Fields::default();
    let client = "::ffff:10.1.2.3".parse().unwrap();
    let head = Head::new(&Method::GET, "a", "/", None, &headers, client);
    for network in ["10.0.0.0/8", "10.1.2.3", "::ffff:10.0.0.0/104"] {
        assert!(Rule::parse(&format!("ClientIP(`{network}`)")).unwrap().matches(&head), "{network}");
    }
}

#[test]
fn a_cookie_is_found_among_odd_ones_and_in_any_field() {
    let fields: &[(&'static str, &[u8])] =
        &[("cookie", b"x=1; odd=\xff\xfe;;=; flag; wordpress_logged_in_ab=y=z"), ("cookie", b" c = d ")];
    let cookie = |rule: &str| matches(rule, &Method::GET, "a/", fields);
    for rule in [
        r#"Cookie("x")"#,
        r#"Cookie("x", "1")"#,
        r#"Cookie("wordpress_logged_in_ab", "y=z")"#,
        r#"Cookie("flag")"#,
        r#"Cookie("flag", "")"#,
        r#"Cookie("c", "d")"#,
        r#"CookieRegexp("^wordpress_logged_in_")"#,
    ] {
        assert!(cookie(rule), "{rule}");
    }
    for rule in [r#"Cookie("x", "2")"#, r#"Cookie("X")"#, r#"CookieRegexp("^y")"#, r#"CookieRegexp("^$")"#] {
        assert!(!cookie(rule), "{rule}");
    }
}

#[test]
fn it_is_explained_part_by_part() {
    let rule = Rule::parse(r#"Host("a") && !(Path("/x") || Path("/y")) && (Method("GET") || Query("q"))"#).unwrap();
    let parts = with(&Method::GET, "a/x", &[], |head| rule.explain(head));
    let parts: Vec<(&str, bool)> = parts.iter().map(|(part, holds)| (part.as_str(), *holds)).collect();
    let expected = [
        (r#"Host("a")"#, true),
        (r#"!(Path("/x") || Path("/y"))"#, false),
        (r#"Method("GET")"#, true),
        (r#"Query("q")"#, false),
    ];
    assert_eq!(parts, expected);
}

#[test]
fn what_binds_tighter() {
    for (written, read) in [
        ("Host(`a`)||Host(`b`)&&!Path(`/x`)", r#"Host("a") || Host("b") && !Path("/x")"#),
        ("(Host(`a`)||Host(`b`))&&Path(`/x`)", r#"(Host("a") || Host("b")) && Path("/x")"#),
        ("!(Host(`a`)&&(Host(`b`)&&(Path(`/x`))))", r#"!(Host("a") && Host("b") && Path("/x"))"#),
        ("!!Host(`a`)||(!Host(`b`)||Host(`c`))", r#"!!Host("a") || !Host("b") || Host("c")"#),
        (r#"PathRegexp("\\.php$")"#, r"PathRegexp(`\.php$`)"),
    ] {
        let rule = Rule::parse(written).unwrap();
        assert_eq!((rule.to_string().as_str(), rule.source()), (read, written));
    }
    assert_eq!(Rule::parse("Host(`A.`) && (Path(`/`))"), Rule::parse("Host(\"a\")&&Path(\"/\")"));
    assert_ne!(Rule::parse("Host(`a`)"), Rule::parse("Host(`b`)"));
    // What is put in order once is in order.
    for odd in ["a..", "[::1].", "<X>.A."] {
        let rule = Rule::parse(&format!("Host(`{odd}`)")).unwrap();
        assert_eq!(Rule::parse(&rule.to_string()), Ok(rule), "{odd}");
    }
}

fn some_rule() -> impl Strategy<Value = String> {
    let text = || "[a-z<>:./\"\\\\é `]{1,8}".prop_map(|text| literal::quote(&text));
    let one = prop_oneof![
        Just("Host"),
        Just("HostRegexp"),
        Just("Path"),
        Just("PathRegexp"),
        Just("Method"),
        Just("MethodRegexp"),
        Just("PathPrefix"),
        Just("Query"),
        Just("Cookie"),
        Just("CookieRegexp"),
        Just("Segment"),
        Just("LastSegment"),
    ];
    let two = prop_oneof![
        Just("Header"),
        Just("HeaderRegexp"),
        Just("Query"),
        Just("QueryRegexp"),
        Just("Cookie"),
        Just("Segment"),
    ];
    let leaf = prop_oneof![
        (one, text()).prop_map(|(name, a)| format!("{name}({a})")),
        (two, "[a-zA-Z-]{1,6}", text()).prop_map(|(name, a, b)| format!("{name}(\"{a}\", {b})")),
        (any::<IpAddr>(), 0..33u8).prop_map(|(address, length)| format!("ClientIP(\"{address}/{length}\")")),
    ];
    let leaf = leaf.prop_map(|rule| if Rule::parse(&rule).is_ok() { rule } else { "Path(\"/\")".to_owned() });
    leaf.prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}||{b})")),
            inner.prop_map(|a| format!("!{a}")),
        ]
    })
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
            Just("`/<x>`"), Just(","), Just("Segment"), Just("ClientIP"), Just("\"::1\""), Just(" "), Just("\"\\x"),
        ], 0..24)
    ) {
        if let Ok(rule) = Rule::parse(&words.concat()) {
            prop_assert_eq!(Rule::parse(&rule.to_string()).unwrap(), rule);
        }
    }

    #[test]
    fn what_is_printed_is_the_same_rule(text in some_rule()) {
        let rule = Rule::parse(&text).unwrap();
        prop_assert_eq!(Rule::parse(&rule.to_string()).unwrap(), rule);
    }

    #[test]
    fn any_rule_asks_any_request_without_a_panic(
        text in some_rule(),
        host in "[a-z.]{0,6}",
        path in "[a-z./%\\\\]{0,12}",
        query in proptest::option::of("[a-z=&%+;]{0,12}"),
        cookie in proptest::collection::vec(32..=255u8, 0..20),
    ) {
        let rule = Rule::parse(&text).unwrap();
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&cookie) {
            headers.append("cookie", value);
        }
        let headers = Fields::from(&headers);
        let path = format!("/{path}");
        let head = Head::new(&Method::GET, &host, &path, query.as_deref(), &headers, IpAddr::from([10, 1, 2, 3]));
        let parts = rule.explain(&head);
        prop_assert!(!parts.is_empty());
        // With no alternative all parts hold, or the rule does not.
        if !text.contains("||") {
            prop_assert_eq!(rule.matches(&head), parts.iter().all(|(_, holds)| *holds));
        }
    }
}
