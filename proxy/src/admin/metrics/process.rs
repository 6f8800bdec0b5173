//! What is counted of the process as a whole: the store, connections, listeners, TLS, upgrades, its log.

use std::time::Instant;

use super::{Kind, acme, family, sample};
use crate::control::State;
use crate::stats::{Goaways, Handshakes, Http2, Process, ProxyProtocolRefused, Retries, ServerHandshakes};

/// What concerns the process as a whole.
pub(super) fn write(state: &State, now: Instant) -> String {
    let mut out = String::with_capacity(4096);
    let store = state.store();
    let table = state.live.table();
    family(&mut out, "etna_build_info", "The version that runs.", Kind::Gauge);
    sample(&mut out, "etna_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let age = store.age(now).map_or(f64::NAN, |age| age.as_secs_f64());
    let suspects = state.suspects();
    let servers: usize = table.backends.iter().flatten().map(|backend| backend.servers.len()).sum();
    let draining = f64::from(u8::from(state.draining.is_cancelled()));
    let gauges: [(&str, &str, f64); 13] = [
        (
            "etna_uptime_seconds",
            "Since the process started.",
            now.saturating_duration_since(state.started).as_secs_f64(),
        ),
        ("etna_ready", "Whether requests can be served.", f64::from(u8::from(state.is_ready()))),
        ("etna_draining", "Whether the process was told to stop and finishes what runs.", draining),
        ("etna_store_revision", "Revision of the store that is in force.", store.revision.map_or(0.0, |r| r.0 as f64)),
        (
            "etna_last_table_revision",
            "Revision of the last table on disk, 0 until this process wrote it.",
            store.kept_revision.map_or(0.0, |r| r.0 as f64),
        ),
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
        loops,
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
        ("etna_loops_total", "Requests that came back to the proxy.", Kind::Counter, loops.get()),
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
