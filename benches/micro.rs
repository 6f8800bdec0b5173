//! Micro benches of the pure parts: finding a frontend, and what one change costs, at 10, 1,000 and 100,000 frontends;
//! what the rules of a WordPress site cost each request; what choosing a server costs, reading a head, finding the
//! cookie that sticks to a server, writing the head that the server gets, and counting beside another worker.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use etna_proxy::backend::balance::{Ask, Schedule};
use etna_proxy::backend::{Live, Server, sticky};
use etna_proxy::message::fields::Fields;
use etna_proxy::router::{Entry, Router, Ruled as _};
use etna_proxy::rule::{Head, Rule};
use etna_proxy::stats::Requests;
use etna_proxy::table::Table;
use etna_proxy::table::compile::Compiler;
use etna_proxy::traffic::h1::head;
use etna_proxy::traffic::headers::{self, Framing, Outbound};
use etna_proxy::traffic::trust::Peer;
use etna_store::{Batch, Change, Model, Revision, Site};
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

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

fn router(shape: &Shape, count: usize) -> Router<Entry> {
    let mut router = Router::default();
    for n in 0..count {
        router.insert(entry(&format!("f{n}"), &(shape.rule)(n), 0));
    }
    router
}

fn entry(id: &str, text: &str, priority: i64) -> Arc<Entry> {
    Arc::new(Entry::new(id.into(), rule(text), priority))
}

fn rule(text: &str) -> Rule {
    Rule::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn find(criterion: &mut Criterion) {
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::from_static("v7"))]);
    let headers = Fields::from(&headers);
    for shape in &SHAPES {
        for count in [10, shape.most] {
            let router = router(shape, count);
            let (host, path) = shape.request;
            criterion.bench_function(&format!("find/{}/{count}", shape.name), |bencher| {
                bencher.iter(|| {
                    let head = Head::new(&Method::GET, black_box(host), black_box(path), None, &headers, CLIENT);
                    assert_eq!(router.find(&head).map(|found| &**found.id()), Some("f7"));
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
    let visitor = Fields::default();
    let editor = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static("a=1; b=2; wordpress_logged_in_0a=x"))]);
    let editor = Fields::from(&editor);
    for others in [0, 100_000] {
        let mut router = router(&SHAPES[0], others);
        for row in &rows {
            router.insert(entry(&row.id, &row.route, row.priority));
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
            let new = entry("new", new, 0);
            criterion.bench_function(&format!("insert-one/{}/{count}", shape.name), |bencher| {
                bencher.iter_batched(
                    || router.clone(),
                    |mut router| {
                        router.insert(new.clone());
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

/// A change as it is applied and compiled, until the table that would be put in force, which is one store more.
fn publish(criterion: &mut Criterion) {
    for count in [10, 1_000, 100_000] {
        let (mut model, mut compiler, mut table) = (Model::default(), Compiler::default(), Table::default());
        let mut change = |changes: Vec<(String, String)>| {
            let changes = changes.into_iter().map(|(key, value)| Change { key: key.into(), value: Some(value.into()) });
            let revision = Revision(model.revision().0 + 1);
            let delta = model.apply(&Batch { revision, changes: changes.collect() });
            table = compiler.compile(&model, &delta, &table);
            table.router.len()
        };
        let server = |port: usize| {
            let key = "backends/b/servers/s".to_owned();
            (key, format!(r#"{{"URL":"http://127.0.0.1:{port}"}}"#))
        };
        let frontend = |n: usize, more: usize| {
            let value = format!(r#"{{"Type":"http","BackendId":"b","Route":"Host(\"h{n}.test\")","Priority":{more}}}"#);
            (format!("frontends/f{n}/frontend"), value)
        };
        let mut all: Vec<_> = (0..count).map(|n| frontend(n, 0)).collect();
        all.extend([("backends/b/backend".to_owned(), r#"{"Type":"http"}"#.to_owned()), server(1)]);
        assert_eq!(change(all), count);
        let mut turn = 0;
        criterion.bench_function(&format!("publish/server/{count}"), |bencher| {
            bencher.iter(|| {
                turn += 1;
                change(vec![server(1000 + turn % 1000)])
            });
        });
        criterion.bench_function(&format!("publish/frontend/{count}"), |bencher| {
            bencher.iter(|| {
                turn += 1;
                change(vec![frontend(7, turn % 1000)])
            });
        });
    }
}

/// What is done with each head: read, its cookies searched, and written as the server gets it.
fn heads(criterion: &mut Criterion) {
    let bytes = BytesMut::from(BROWSER);
    criterion.bench_function("head/read", |bencher| {
        bencher.iter_batched(
            || bytes.clone(),
            |mut bytes| head::read(&mut bytes, &mut 0).map(|head| head.is_some()).unwrap_or_default(),
            BatchSize::SmallInput,
        );
    });
    let Ok(Some(read)) = head::read(&mut bytes.clone(), &mut 0) else { panic!("a browser's head is one") };
    let local = std::net::SocketAddr::new(CLIENT, 80);
    let peer = Peer {
        address: CLIENT,
        from_port: 40_000,
        to: local,
        text: CLIENT.to_string().into(),
        proto: "http",
        port: "80".into(),
    };
    let mut out = Vec::with_capacity(4096);
    criterion.bench_function("head/write", |bencher| {
        bencher.iter(|| {
            let how = Outbound {
                peer: &peer,
                believe: false,
                trusted: false,
                certificate: None,
                server_name: None,
                host: None,
                mark: b"cdn-loop: etna-0123456789abcdef\r\n",
                authority: b"127.0.0.1:8080",
                websocket: false,
                expect: false,
                framing: Framing::None,
            };
            out.clear();
            headers::write(&mut out, black_box(&read.parts), &how);
            out.len()
        });
    });
    for (name, last) in [("found", "etna-0a1b2c3d=x"), ("absent", "d=4")] {
        let value = format!("_ga=GA1.2.1234567890.1234567890; wp-settings-1=libraryContent%3Dbrowse; a=1; b=2; {last}");
        let value = HeaderValue::from_str(&value).unwrap_or_else(|error| panic!("{error}"));
        let headers = Fields::from(&HeaderMap::from_iter([(COOKIE, value)]));
        criterion.bench_function(&format!("cookie/{name}"), |bencher| {
            bencher.iter(|| sticky::cookie_value(black_box(&headers), "etna-0a1b2c3d").is_some());
        });
    }
}

/// What counting a request costs a worker: alone, and while another core (where there is one) counts the same all the
/// time.
fn count(criterion: &mut Criterion) {
    let requests = Requests::default();
    let record = || requests.record(StatusCode::OK, black_box(Duration::from_micros(300)));
    criterion.bench_function("count/alone", |bencher| bencher.iter(record));
    std::thread::scope(|scope| {
        let measured = Arc::new(());
        let is_measured = Arc::downgrade(&measured);
        scope.spawn(move || {
            while is_measured.strong_count() > 0 {
                record();
            }
        });
        criterion.bench_function("count/beside-another-core", |bencher| bencher.iter(record));
    });
}

fn parse(criterion: &mut Criterion) {
    criterion.bench_function("parse", |bencher| {
        bencher.iter(|| Rule::parse(black_box(r#"Host("a.test") && (PathPrefix("/x") || Segment("wp-admin"))"#)));
    });
}

/// A page as a browser asks for it.
const BROWSER: &[u8] = b"GET /2026/11/hello-world/?utm_source=feed HTTP/1.1\r\nHost: www.example.test\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\nReferer: https://www.example.test/\r\nConnection: keep-alive\r\n\
    Cookie: _ga=GA1.2.1234567890.1234567890; wp-settings-1=libraryContent%3Dbrowse\r\n\
    Upgrade-Insecure-Requests: 1\r\n\r\n";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

criterion_group!(benches, find, wordpress, change, publish, choose, heads, count, parse);
criterion_main!(benches);
