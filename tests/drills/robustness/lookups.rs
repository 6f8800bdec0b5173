//! G9: how long it takes to find a route among ten thousand.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etna_proxy::message::fields::Fields;
use etna_proxy::router::{Entry, Router};
use etna_proxy::rule::{Head, Rule};
use etna_tests::load::percentile;
use http::Method;

use crate::drill::{Length, Outcome};

/// Kinds of rules; `{}` is a number.
const KINDS: [(&str, &str); 4] = [
    ("hosts", "Host(`h{}.test`)"),
    ("paths", "Path(`/a/{}`)"),
    ("both", "Host(`h{}.test`) && Path(`/a/{}`)"),
    ("parts of paths", "Path(`/a/{}/<rest>`)"),
];

pub(super) async fn run(length: Length) -> Outcome {
    let runner = tokio::task::spawn_blocking(move || {
        let mut wrong = Vec::new();
        let mut figures = Vec::new();
        for (name, rule) in KINDS {
            let few = lookups(rule, 10);
            let many = lookups(rule, 10_000);
            let (few_p50, many_p50, many_p99) = (at(&few, 0.5), at(&many, 0.5), at(&many, 0.99));
            figures.push(format!("{name}: {many_p50:.0?}, p99 {many_p99:.0?}, of ten {few_p50:.0?}"));
            // More routes fill more of the processor's cache: some times as long is no sign of counting through them,
            // which would take a thousand times as long.
            if many_p50 > few_p50 * 32 || !length.fast(many_p99 < Duration::from_micros(2)) {
                wrong.push(format!("{name}: too slow among 10,000"));
            }
        }
        (figures, wrong)
    });
    let (figures, wrong) = runner.await.expect("it ran");
    crate::protocol::outcome("one core", KINDS.len() * 2 * PARTS * LOOKUPS, figures.join("; "), &wrong)
}

fn at(parts: &[Duration], share: f64) -> Duration {
    percentile(parts, share).unwrap_or_default()
}

/// What one lookup took, in parts of many, sorted.
fn lookups(rule: &str, routes: usize) -> Vec<Duration> {
    let mut router = Router::default();
    for n in 0..routes {
        let rule = Rule::parse(&rule.replace("{}", &n.to_string())).expect("a rule");
        router.insert(Arc::new(Entry::new(n.to_string().into(), rule, 0)));
    }
    let headers = Fields::default();
    let mut parts = Vec::new();
    let mut n = 0;
    for _ in 0..PARTS {
        let asked: Vec<(String, String)> = (0..LOOKUPS)
            .map(|_| {
                n = (n + 7919) % routes;
                let path = if rule.contains("rest") { format!("/a/{n}/x") } else { format!("/a/{n}") };
                (format!("h{n}.test"), path)
            })
            .collect();
        let began = Instant::now();
        for (host, path) in &asked {
            let head = Head::new(&Method::GET, host, path, None, &headers, IpAddr::from([127, 0, 0, 1]));
            assert!(router.find(&head).is_some(), "{host}{path} is not found");
        }
        parts.push(began.elapsed() / LOOKUPS as u32);
    }
    parts.sort_unstable();
    parts
}

const PARTS: usize = 200;
const LOOKUPS: usize = 50;
