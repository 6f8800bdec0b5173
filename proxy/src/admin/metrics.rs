//! `/metrics`: what is counted, as Prometheus text.
//!
//! Written piece by piece while the client reads, so that a large table needs no large buffer. Only what served is
//! shown, so that idle frontends cost no scraper anything. Not here: the counters (`stats.rs`).

mod acme;

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
use crate::stats::{
    BOUNDS_US, Goaways, Handshakes, Http2, Process, ProxyProtocolRefused, Requests, Retries, ServerHandshakes,
};
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

    std::iter::once(process(state, now))
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

/// What concerns the process as a whole.
fn process(state: &State, now: Instant) -> String {
    let mut out = String::with_capacity(4096);
    let store = state.store();
    let table = state.live.table();
    family(&mut out, "etna_build_info", "The version that runs.", Kind::Gauge);
    sample(&mut out, "etna_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let age = store.age(now).map_or(f64::NAN, |age| age.as_secs_f64());
    let suspects = state.suspects();
    let servers: usize = table.backends.iter().flatten().map(|backend| backend.servers.len()).sum();
    let draining = f64::from(u8::from(state.draining.is_cancelled()));
    let gauges: [(&str, &str, f64); 12] = [
        (
            "etna_uptime_seconds",
            "Since the process started.",
            now.saturating_duration_since(state.started).as_secs_f64(),
        ),
        ("etna_ready", "Whether requests can be served.", f64::from(u8::from(state.is_ready()))),
        ("etna_draining", "Whether the process was told to stop and finishes what runs.", draining),
        ("etna_store_revision", "Revision of the store that is in force.", store.revision.map_or(0.0, |r| r.0 as f64)),
        ("etna_store_following", "Whether changes of the store arrive.", f64::from(u8::from(store.following))),
        ("etna_store_age_seconds", "Since the store was last heard of.", age),
        (
            "etna_store_stale",
            "Whether what is served may differ from what is stored: the store is away.",
            f64::from(u8::from(store.is_stale())),
        ),
        ("etna_suspects", "Keys gone from the store in a mass and held.", suspects.count as f64),
        ("etna_problems", "Stored objects that are not served as written.", state.problems().len() as f64),
        ("etna_frontends", "Frontends in force.", table.router.len() as f64),
        ("etna_backends", "Backends in force.", table.backends.iter().flatten().count() as f64),
        ("etna_servers", "Servers in force.", servers as f64),
    ];
    for (name, help, value) in gauges {
        family(&mut out, name, help, Kind::Gauge);
        let value = if value.is_nan() { "NaN".to_owned() } else { value.to_string() };
        sample(&mut out, name, &[], value);
    }
    let log_lost = state.log_lost.as_ref().map_or(0, |lost| lost.dropped_lines() as u64);
    let Process {
        accepted,
        connections,
        accept_errors,
        tunnels,
        tunnels_opened,
        handshakes,
        unrouted,
        retries,
        upstream_connections,
        server_handshakes,
        errors,
        shed_connections,
        shed_requests,
        refused,
        proxy_protocol_refused,
        panics,
        http2,
    } = &*state.process;
    let Http2 { connections: http2_connections, streams, open, resets, goaways } = http2;
    for (name, help, kind, value) in [
        ("etna_connections", "Client connections open now.", Kind::Gauge, connections.get()),
        ("etna_tunnels", "Tunnels (WebSocket) open now.", Kind::Gauge, tunnels.get()),
        ("etna_connections_total", "Client connections accepted.", Kind::Counter, accepted.get()),
        ("etna_accept_errors_total", "Connections that could not be accepted.", Kind::Counter, accept_errors.get()),
        ("etna_tunnels_total", "Tunnels opened.", Kind::Counter, tunnels_opened.get()),
        ("etna_unrouted_total", "Requests that no frontend took.", Kind::Counter, unrouted.get()),
        (
            "etna_upstream_connections_total",
            "Connections opened to servers.",
            Kind::Counter,
            upstream_connections.get(),
        ),
        ("etna_errors_total", "Requests answered with an error of the proxy's own.", Kind::Counter, errors.get()),
        ("etna_refused_total", "What came instead of a request and was refused.", Kind::Counter, refused.get()),
        (
            "etna_shed_connections_total",
            "Connections turned away because there were too many.",
            Kind::Counter,
            shed_connections.get(),
        ),
        (
            "etna_shed_requests_total",
            "Requests turned away because the proxy was overloaded.",
            Kind::Counter,
            shed_requests.get(),
        ),
        ("etna_log_dropped_total", "Lines of the log that nobody took in time.", Kind::Counter, log_lost),
        ("etna_panics_total", "Client connections ended by a bug of the proxy.", Kind::Counter, panics.get()),
        ("etna_store_snapshots_total", "Snapshots taken of the store.", Kind::Counter, store.snapshots),
        ("etna_store_resyncs_total", "Comparisons with the store while following it.", Kind::Counter, store.resyncs),
        ("etna_store_differences_total", "Changes the store did not tell of.", Kind::Counter, store.differences),
        ("etna_suspects_total", "Keys ever held as suspect.", Kind::Counter, suspects.total),
        ("etna_last_table_writes_total", "Times the last table was written.", Kind::Counter, store.kept),
        (
            "etna_last_table_errors_total",
            "Times the last table could not be written or read.",
            Kind::Counter,
            store.keep_errors,
        ),
        ("etna_http2_connections_total", "Client connections of HTTP/2.", Kind::Counter, http2_connections.get()),
        ("etna_http2_streams", "Requests of HTTP/2 that are being answered.", Kind::Gauge, open.get()),
        ("etna_http2_streams_total", "Requests of HTTP/2.", Kind::Counter, streams.get()),
        ("etna_http2_resets_total", "Requests of HTTP/2 that clients took back.", Kind::Counter, resets.get()),
        ("etna_publishes_total", "Tables put in force.", Kind::Counter, store.publishes),
    ] {
        family(&mut out, name, help, kind);
        sample(&mut out, name, &[], value);
    }
    let Goaways {
        no_error,
        enhance_your_calm,
        protocol_error,
        flow_control_error,
        frame_size_error,
        compression_error,
        other,
    } = goaways;
    let help = "Connections of HTTP/2 that were told to end, by why.";
    family(&mut out, "etna_http2_goaways_total", help, Kind::Counter);
    for (reason, counter) in [
        ("no_error", no_error),
        ("enhance_your_calm", enhance_your_calm),
        ("protocol_error", protocol_error),
        ("flow_control_error", flow_control_error),
        ("frame_size_error", frame_size_error),
        ("compression_error", compression_error),
        ("other", other),
    ] {
        sample(&mut out, "etna_http2_goaways_total", &[("reason", reason)], counter.get());
    }
    let Retries { connect, closed, refused, broken, late, status } = retries;
    family(&mut out, "etna_retries_total", "Requests tried once more, by why.", Kind::Counter);
    for (reason, counter) in [
        ("connect", connect),
        ("closed", closed),
        ("refused", refused),
        ("broken", broken),
        ("late", late),
        ("status", status),
    ] {
        sample(&mut out, "etna_retries_total", &[("reason", reason)], counter.get());
    }
    let ProxyProtocolRefused { stranger, malformed, late } = proxy_protocol_refused;
    let name = "etna_proxy_protocol_refused_total";
    family(&mut out, name, "Connections closed for want of a PROXY protocol header, by why.", Kind::Counter);
    for (reason, counter) in [("stranger", stranger), ("malformed", malformed), ("late", late)] {
        sample(&mut out, name, &[("reason", reason)], counter.get());
    }
    let Handshakes { full_12, full_13, resumed, failed } = handshakes;
    family(&mut out, "etna_tls_handshakes_total", "TLS handshakes with clients, by result.", Kind::Counter);
    for (result, counter) in
        [("full_tls12", full_12), ("full_tls13", full_13), ("resumed", resumed), ("failed", failed)]
    {
        sample(&mut out, "etna_tls_handshakes_total", &[("result", result)], counter.get());
    }
    let ServerHandshakes { full, resumed, failed } = server_handshakes;
    let name = "etna_server_tls_handshakes_total";
    family(&mut out, name, "TLS handshakes with servers, by result.", Kind::Counter);
    for (result, counter) in [("full", full), ("resumed", resumed), ("failed", failed)] {
        sample(&mut out, name, &[("result", result)], counter.get());
    }
    if !table.certificates.is_empty() {
        let help = "When a host's certificate ends, in seconds since 1970.";
        family(&mut out, "etna_certificate_not_after_seconds", help, Kind::Gauge);
        for certificate in table.certificates.iter() {
            let ends = certificate.not_after.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
            sample(&mut out, "etna_certificate_not_after_seconds", &[("host", &certificate.host)], ends.as_secs());
        }
    }
    acme::write(state, &table, &mut out);
    let upgraded = state.upgrades.now();
    let help = "Attempts to replace the running binary, those of replaced processes included.";
    family(&mut out, "etna_upgrades_total", help, Kind::Counter);
    for (result, count) in [("ok", upgraded.ok), ("failed", upgraded.failed)] {
        sample(&mut out, "etna_upgrades_total", &[("result", result)], count);
    }
    announced(&mut out, state);
    access_log(&mut out, state);
    out
}

/// Only of a proxy that announces itself.
fn announced(out: &mut String, state: &State) {
    let counts = state.announced.counts();
    if counts.is_empty() {
        return;
    }
    family(out, "etna_announced", "Whether this proxy is announced in a store.", Kind::Gauge);
    for (store, is_there, _) in &counts {
        sample(out, "etna_announced", &[("store", store)], u64::from(*is_there));
    }
    let help = "Times the announcement could not be made as it should be.";
    family(out, "etna_announce_failures_total", help, Kind::Counter);
    for (store, _, failures) in &counts {
        sample(out, "etna_announce_failures_total", &[("store", store)], failures);
    }
}

/// Only of a proxy that writes an access log.
fn access_log(out: &mut String, state: &State) {
    let Some(access) = &state.access else { return };
    family(out, "etna_access_log_lines_total", "Lines of the access log that were written.", Kind::Counter);
    sample(out, "etna_access_log_lines_total", &[], access.lines.get());
    let name = "etna_access_log_dropped_total";
    let help = "Lines of the access log that were lost: it was written too slowly, or could not be.";
    family(out, name, help, Kind::Counter);
    for (reason, counter) in [("slow", &access.slow), ("error", &access.unwritten)] {
        sample(out, name, &[("reason", reason)], counter.get());
    }
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
