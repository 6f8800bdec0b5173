//! Micro benches of the pure parts: finding a frontend, and what one change costs, at 10, 1,000 and 100,000 frontends.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use etna_proxy::router::Router;
use etna_proxy::rule::{Head, Rule};
use http::{HeaderMap, Method};

/// The rule of frontend `n`.
type Shape = fn(usize) -> String;

/// The shapes rules have.
const SHAPES: [(&str, Shape); 4] = [
    ("host", |n| format!(r#"Host("h{n}.test")"#)),
    ("host-and-path", |n| format!(r#"Host("one.test") && Path("/p{n}")"#)),
    ("prefix", |n| format!(r#"PathPrefix("/p{n}")"#)),
    ("host-pattern", |n| format!(r#"Host("<x>.d{n}.test")"#)),
];

fn router(shape: Shape, count: usize) -> Router<usize> {
    let mut router = Router::default();
    for n in 0..count {
        router.insert(format!("f{n}").into(), Arc::new(rule(&shape(n))), 0, n);
    }
    router
}

fn rule(text: &str) -> Rule {
    Rule::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn find(criterion: &mut Criterion) {
    let headers = HeaderMap::new();
    for (name, shape) in SHAPES {
        for count in [10, 100_000] {
            let router = router(shape, count);
            let (host, path) = match name {
                "host" => ("h7.test", "/"),
                "host-and-path" => ("one.test", "/p7"),
                "host-pattern" => ("x.d7.test", "/"),
                _ => ("any.test", "/p7/x"),
            };
            criterion.bench_function(&format!("find/{name}/{count}"), |bencher| {
                bencher.iter(|| {
                    let client = IpAddr::from([127, 0, 0, 1]);
                    let head = Head::new(&Method::GET, black_box(host), black_box(path), None, &headers, client);
                    assert_eq!(router.find(&head), Some(&7));
                });
            });
        }
    }
}

fn change(criterion: &mut Criterion) {
    for count in [10, 1_000, 100_000] {
        let router = router(SHAPES[0].1, count);
        let new = Arc::new(rule(r#"Host("new.test")"#));
        criterion.bench_function(&format!("insert-one/{count}"), |bencher| {
            bencher.iter_batched(
                || router.clone(),
                |mut router| {
                    router.insert("new".into(), new.clone(), 0, 0);
                    router
                },
                BatchSize::SmallInput,
            );
        });
    }
}

fn parse(criterion: &mut Criterion) {
    criterion.bench_function("parse", |bencher| {
        bencher.iter(|| Rule::parse(black_box(r#"Host("a.test") && (PathPrefix("/x") || Segment("wp-admin"))"#)));
    });
}

criterion_group!(benches, find, change, parse);
criterion_main!(benches);
