//! Micro benches of the pure parts: finding a frontend, and what one change costs, at 10, 1,000 and 100,000 frontends;
//! what the rules of a WordPress site cost each request; and what choosing a server costs.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use etna_proxy::backend::balance::{Ask, Schedule};
use etna_proxy::backend::{Live, Server};
use etna_proxy::router::Router;
use etna_proxy::rule::{Head, Rule};
use etna_store::Site;
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Rules of one kind.
struct Shape {
    name: &'static str,
    /// The rule of frontend `n`.
    rule: fn(usize) -> String,
    /// Host and path of a request to frontend 7; its header `x` is `v7`.
    request: (&'static str, &'static str),
    /// The most frontends that are of use: what is linear is not asked at 100,000.
    most: usize,
}

const SHAPES: [Shape; 9] = [
    shape("host", |n| format!(r#"Host("h{n}.test")"#), ("h7.test", "/")),
    shape("host-and-root", |n| format!(r#"Host("h{n}.test") && Path("/")"#), ("h7.test", "/")),
    shape("host-and-path", |n| format!(r#"Host("one.test") && Path("/p{n}")"#), ("one.test", "/p7")),
    shape("path", |n| format!(r#"Path("/p{n}")"#), ("any.test", "/p7")),
    shape("prefix", |n| format!(r#"PathPrefix("/p{n}")"#), ("any.test", "/p7/x")),
    shape("prefix-with-slash", |n| format!(r#"PathPrefix("/p{n}/")"#), ("any.test", "/p7/x")),
    shape("host-pattern", |n| format!(r#"Host("<x>.d{n}.test")"#), ("x.d7.test", "/")),
    shape("header", |n| format!(r#"Header("X", "v{n}")"#), ("any.test", "/")),
    Shape { most: 1_000, ..shape("host-regexp-linear", |n| format!("HostRegexp(`^h{n}[.]test$`)"), ("h7.test", "/")) },
];

const fn shape(name: &'static str, rule: fn(usize) -> String, request: (&'static str, &'static str)) -> Shape {
    Shape { name, rule, request, most: 100_000 }
}

fn router(shape: &Shape, count: usize) -> Router<usize> {
    let mut router = Router::default();
    for n in 0..count {
        router.insert(format!("f{n}").into(), Arc::new(rule(&(shape.rule)(n))), 0, n);
    }
    router
}

fn rule(text: &str) -> Rule {
    Rule::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn find(criterion: &mut Criterion) {
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::from_static("v7"))]);
    for shape in &SHAPES {
        for count in [10, shape.most] {
            let router = router(shape, count);
            let (host, path) = shape.request;
            criterion.bench_function(&format!("find/{}/{count}", shape.name), |bencher| {
                bencher.iter(|| {
                    let head = Head::new(&Method::GET, black_box(host), black_box(path), None, &headers, CLIENT);
                    assert_eq!(router.find(&head), Some(&7));
                });
            });
        }
    }
}

/// A WordPress site as it is really routed, alone and beside 100,000 other hosts.
fn wordpress(criterion: &mut Criterion) {
    let value = br#"{"Preset":"wordpress","Hosts":["w.test"],"Public":"public","Admin":"admin"}"#;
    let site = Site::decode("w".into(), value, &mut Vec::new()).unwrap_or_else(|flaw| panic!("{flaw:?}"));
    let rows = etna_store::wordpress::expand(&site);
    let visitor = HeaderMap::new();
    let editor = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static("a=1; b=2; wordpress_logged_in_0a=x"))]);
    for others in [0, 100_000] {
        let mut router = router(&SHAPES[0], others);
        for (n, row) in rows.iter().enumerate() {
            router.insert(row.id.clone(), Arc::new(rule(&row.route)), row.priority, others + n);
        }
        for (name, path, query, headers) in [
            ("page", "/2026/11/hello-world/", None, &visitor),
            ("page-escaped", "/2026/11/h%C3%A9llo/", None, &visitor),
            ("upload", "/wp-content/uploads/2026/11/a.jpg", Some("ver=6"), &visitor),
            ("admin", "/wp-admin/post.php", Some("post=1&action=edit"), &editor),
            ("rest", "/wp-json/wp/v2/posts", Some("context=edit"), &editor),
        ] {
            criterion.bench_function(&format!("wordpress/{name}/{others}"), |bencher| {
                bencher.iter(|| {
                    let head = Head::new(&Method::GET, black_box("w.test"), black_box(path), query, headers, CLIENT);
                    assert!(router.find(&head).is_some());
                });
            });
        }
    }
}

fn change(criterion: &mut Criterion) {
    // A host of its own, one more path of a host that has all the others, one more host at a pattern's end.
    for (shape, new) in [
        (&SHAPES[0], r#"Host("new.test")"#),
        (&SHAPES[2], r#"Host("one.test") && Path("/new")"#),
        (&SHAPES[6], r#"Host("<x>.new.test")"#),
    ] {
        for count in [10, 1_000, 100_000] {
            let router = router(shape, count);
            let new = Arc::new(rule(new));
            criterion.bench_function(&format!("insert-one/{}/{count}", shape.name), |bencher| {
                bencher.iter_batched(
                    || router.clone(),
                    |mut router| {
                        router.insert("new".into(), new.clone(), 0, 0);
                        router
                    },
                    BatchSize::SmallInput,
                );
            });
            criterion.bench_function(&format!("remove-one/{}/{count}", shape.name), |bencher| {
                bencher.iter_batched(
                    || router.clone(),
                    |mut router| {
                        router.remove("f7");
                        router
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
}

/// Which server takes a request, with nothing configured, and what each thing that may be configured adds.
fn choose(criterion: &mut Criterion) {
    for (name, more, server) in [
        ("wrr", r#""Policy":"wrr""#, ""),
        ("p2c", r#""Policy":"p2c""#, ""),
        ("ewma", r#""Policy":"ewma""#, ""),
        ("hash", r#""Policy":"hash""#, ""),
        ("wrr-limit", r#""Policy":"wrr","Limit":100"#, ""),
        ("wrr-zone", r#""Policy":"wrr""#, r#","Zone":"a""#),
    ] {
        for count in [3, 100] {
            let value = format!(r#"{{"Type":"http",{more}}}"#);
            let backend = etna_store::Backend::decode("b".into(), value.as_bytes(), &mut Vec::new());
            let backend = backend.unwrap_or_else(|flaw| panic!("{flaw:?}"));
            let servers: Vec<Server> = (0..count)
                .map(|n| {
                    // One is elsewhere, so that the zone makes a difference.
                    let value =
                        format!(r#"{{"URL":"http://10.0.0.1:{}"{}}}"#, 1000 + n, if n > 0 { server } else { "" });
                    let id = format!("s{n}");
                    let spec = etna_store::Server::decode(id.as_str().into(), value.as_bytes(), &mut Vec::new());
                    let spec = spec.unwrap_or_else(|flaw| panic!("{flaw:?}"));
                    Server { live: Arc::new(Live::new(n, "b", &spec)), spec: Arc::new(spec), tls: None }
                })
                .collect();
            let schedule = Schedule::new(&backend, &servers, Some("a"));
            let mut turn = 0u64;
            let now = Instant::now();
            criterion.bench_function(&format!("choose/{name}/{count}"), |bencher| {
                bencher.iter(|| {
                    turn += 1;
                    let random = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let ask = Ask { turn, random, key: Some(random), now, ramping: false, tried: &[] };
                    schedule.pick(black_box(&servers), &ask)
                });
            });
        }
    }
}

fn parse(criterion: &mut Criterion) {
    criterion.bench_function("parse", |bencher| {
        bencher.iter(|| Rule::parse(black_box(r#"Host("a.test") && (PathPrefix("/x") || Segment("wp-admin"))"#)));
    });
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

criterion_group!(benches, find, wordpress, change, choose, parse);
criterion_main!(benches);
