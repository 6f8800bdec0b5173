//! `/metrics`: what is counted, as Prometheus text.
//!
//! Written piece by piece while the client reads, so that a large table needs no large buffer. Only what served is
//! shown, so that idle frontends cost no scraper anything. Not here: the counters (`stats.rs`).

mod acme;
mod process;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State as Extract;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;

use super::exposition::{Kind, family, sample};
use super::reply;
use crate::backend::{Backend, Server};
use crate::control::State;
use crate::stats::{BOUNDS_US, Requests};
use crate::table::Frontend;

/// `GET /metrics`.
pub(super) async fn metrics(Extract(state): Extract<Arc<State>>) -> Response {
    let pieces = pieces(&state, Instant::now()).map(|piece| Ok::<_, std::convert::Infallible>(Bytes::from(piece)));
    reply::text("text/plain; version=0.0.4; charset=utf-8", Body::from_stream(stream::iter(pieces)))
}

/// The whole text, in order, in pieces of about [`PIECE`] bytes.
pub(super) fn pieces(state: &State, now: Instant) -> impl Iterator<Item = String> + Send + use<> {
    let table = state.live.table();
    let mut frontends: Vec<Arc<Frontend>> =
        table.router.values().filter(|frontend| frontend.live.counted().is_some()).cloned().collect();
    frontends.sort_by(|a, b| a.id.cmp(&b.id));
    let mut servers: Vec<(Arc<Backend>, usize)> = Vec::new();
    for backend in table.backends.iter().flatten() {
        let known = backend.servers.iter().enumerate().filter(|(_, server)| has_served(server));
        servers.extend(known.map(|(index, _)| (backend.clone(), index)));
    }
    servers.sort_by(|a, b| a.0.id.cmp(&b.0.id));
    let mut backends: Vec<Arc<Backend>> =
        table.backends.iter().flatten().filter(|backend| has_queued(backend)).cloned().collect();
    backends.sort_by(|a, b| a.id.cmp(&b.id));
    let backends = Arc::<[_]>::from(backends);
    let (frontends, servers) = (Arc::<[_]>::from(frontends), Arc::<[_]>::from(servers));

    std::iter::once(process::write(state, now))
        .chain(std::iter::once(super::health::metrics(state, &table)))
        .chain(section(&SERVER_UP, servers.clone(), |out, server| {
            by_server(out, SERVER_UP.name, server, |server| u64::from(server.live.health.standing().serving));
        }))
        .chain(section(&SERVER_EJECTIONS, servers.clone(), |out, server| {
            by_server(out, SERVER_EJECTIONS.name, server, |server| server.live.health.ejections());
        }))
        .chain(section(&REQUESTS, frontends.clone(), requests))
        .chain(section(&DURATIONS, frontends, durations))
        .chain(section(&SERVER_REQUESTS, servers.clone(), server_requests))
        .chain(section(&SERVER_IN_FLIGHT, servers.clone(), |out, server| {
            by_server(out, SERVER_IN_FLIGHT.name, server, |server| u64::from(server.live.in_flight()));
        }))
        .chain(section(&SERVER_CONNECT_ERRORS, servers.clone(), |out, server| {
            by_server(out, SERVER_CONNECT_ERRORS.name, server, |server| server.live.connect_errors.get());
        }))
        .chain(section(&SERVER_REQUEST_ERRORS, servers, |out, server| {
            by_server(out, SERVER_REQUEST_ERRORS.name, server, |server| server.live.request_errors.get());
        }))
        .chain(section(&QUEUE, backends.clone(), |out, backend: &Arc<Backend>| {
            sample(out, QUEUE.name, &[("backend", &backend.id)], backend.live.queue.len() as u64);
        }))
        .chain(section(&QUEUED, backends.clone(), |out, backend: &Arc<Backend>| {
            let queue = &backend.live.queue;
            let outcomes = [("waited", &queue.waited), ("full", &queue.overflowed), ("expired", &queue.expired)];
            for (outcome, counter) in outcomes {
                sample(out, QUEUED.name, &[("backend", &backend.id), ("outcome", outcome)], counter.get());
            }
        }))
        .chain(section(&RETRIES_DENIED, backends, |out, backend: &Arc<Backend>| {
            sample(out, RETRIES_DENIED.name, &[("backend", &backend.id)], backend.live.retries_denied.get());
        }))
}

/// One metric of many objects: its head, then every object's samples, a piece at a time.
fn section<T: Send + Sync + 'static>(
    metric: &'static Metric,
    objects: Arc<[T]>,
    write: fn(&mut String, &T),
) -> impl Iterator<Item = String> + Send {
    let mut next = 0;
    std::iter::from_fn(move || {
        let mut out = String::new();
        if next == 0 && !objects.is_empty() {
            family(&mut out, metric.name, metric.help, metric.kind);
        }
        while out.len() < PIECE {
            let Some(object) = objects.get(next) else { break };
            write(&mut out, object);
            next += 1;
        }
        (!out.is_empty()).then_some(out)
    })
}

fn requests(out: &mut String, frontend: &Arc<Frontend>) {
    if let Some(counted) = frontend.live.counted() {
        classes(out, REQUESTS.name, &[("frontend", &frontend.id), ("backend", &frontend.spec.backend)], counted);
    }
}

fn durations(out: &mut String, frontend: &Arc<Frontend>) {
    let Some(counted) = frontend.live.counted() else { return };
    let labels = [("frontend", &*frontend.id)];
    let mut so_far = 0;
    let buckets = counted.buckets();
    for (bound, count) in BOUNDS_US.iter().zip(&buckets) {
        so_far += count;
        let bound = seconds(*bound);
        sample(out, "etna_request_duration_seconds_bucket", &[labels[0], ("le", &bound)], so_far);
    }
    // The count is the sum of what was read once, so that it agrees with the buckets whatever is counted meanwhile.
    let all: u64 = buckets.iter().sum();
    sample(out, "etna_request_duration_seconds_bucket", &[labels[0], ("le", "+Inf")], all);
    sample(out, "etna_request_duration_seconds_sum", &labels, seconds(counted.sum_us()));
    sample(out, "etna_request_duration_seconds_count", &labels, all);
}

fn server_requests(out: &mut String, (backend, index): &(Arc<Backend>, usize)) {
    if let Some(server) = backend.servers.get(*index) {
        let labels = [("backend", &*backend.id), ("server", &*server.spec.id)];
        classes(out, SERVER_REQUESTS.name, &labels, &server.live.requests);
    }
}

fn by_server(out: &mut String, name: &str, (backend, index): &(Arc<Backend>, usize), value: fn(&Server) -> u64) {
    if let Some(server) = backend.servers.get(*index) {
        sample(out, name, &[("backend", &backend.id), ("server", &server.spec.id)], value(server));
    }
}

fn classes(out: &mut String, name: &str, labels: &[(&str, &str); 2], requests: &Requests) {
    for (class, count) in CLASSES.iter().zip(requests.classes()) {
        sample(out, name, &[labels[0], labels[1], ("class", class)], count);
    }
}

fn has_served(server: &Server) -> bool {
    let live = &server.live;
    live.health.is_known()
        || live.requests.total() > 0
        || live.in_flight() > 0
        || live.connect_errors.get() > 0
        || live.request_errors.get() > 0
}

fn has_queued(backend: &Backend) -> bool {
    backend.spec.limit.is_some() || backend.live.retries_denied.get() > 0
}

/// Microseconds as seconds, exactly.
fn seconds(us: u64) -> String {
    let mut text = (us / 1_000_000).to_string();
    let below = us % 1_000_000;
    if below > 0 {
        let _ = write!(text, ".{below:06}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text
}

/// A metric that many objects have.
struct Metric {
    name: &'static str,
    help: &'static str,
    kind: Kind,
}

const REQUESTS: Metric =
    Metric { name: "etna_requests_total", help: "Requests answered, by status class.", kind: Kind::Counter };
const DURATIONS: Metric = Metric {
    name: "etna_request_duration_seconds",
    help: "Time until the response header was there.",
    kind: Kind::Histogram,
};
const SERVER_REQUESTS: Metric =
    Metric { name: "etna_server_requests_total", help: "Answers of a server, by status class.", kind: Kind::Counter };
const SERVER_UP: Metric =
    Metric { name: "etna_server_up", help: "Whether a server is well and takes requests.", kind: Kind::Gauge };
const SERVER_EJECTIONS: Metric = Metric {
    name: "etna_server_ejections_total",
    help: "Times a server was left alone because requests to it failed.",
    kind: Kind::Counter,
};
const SERVER_IN_FLIGHT: Metric =
    Metric { name: "etna_server_in_flight", help: "Requests a server is answering now.", kind: Kind::Gauge };
const SERVER_CONNECT_ERRORS: Metric = Metric {
    name: "etna_server_connect_errors_total",
    help: "Connections to a server that could not be made.",
    kind: Kind::Counter,
};
const SERVER_REQUEST_ERRORS: Metric = Metric {
    name: "etna_server_request_errors_total",
    help: "Requests that broke after they were sent to a server.",
    kind: Kind::Counter,
};
const QUEUE: Metric =
    Metric { name: "etna_backend_queue", help: "Requests that wait for a server.", kind: Kind::Gauge };
const QUEUED: Metric = Metric {
    name: "etna_backend_queued_total",
    help: "Requests that waited for a server, of these that waited too long, and others that found the queue full.",
    kind: Kind::Counter,
};
const RETRIES_DENIED: Metric = Metric {
    name: "etna_backend_retries_denied_total",
    help: "Second attempts not made because the backend's budget for them was spent.",
    kind: Kind::Counter,
};
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const PIECE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_exact_seconds() {
        for (us, text) in [(0, "0"), (500, "0.0005"), (2_500_000, "2.5"), (30_000_000, "30"), (1, "0.000001")] {
            assert_eq!(seconds(us), text);
        }
    }

    #[test]
    fn a_long_section_comes_in_pieces_with_one_head() {
        let objects: Arc<[u32]> = (0..10_000).collect();
        let pieces: Vec<String> =
            section(&REQUESTS, objects, |out, n| sample(out, REQUESTS.name, &[("frontend", &n.to_string())], 1))
                .collect();
        assert!(pieces.len() > 3 && pieces.iter().all(|piece| piece.len() < 2 * PIECE));
        let text = pieces.concat();
        assert_eq!(text.matches("# TYPE").count(), 1);
        assert_eq!(text.lines().count(), 10_002);
        let none: Arc<[u32]> = Arc::from([]);
        assert_eq!(section(&REQUESTS, none, |_, _| ()).count(), 0);
    }
}
