//! Counters of what was served: atomics that outlive tables, read by `/metrics` and `/v3/status`.
//!
//! A frontend's counters are allocated by its first request, so that a hundred thousand idle ones cost nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the latency buckets, in microseconds; a last bucket without bound follows.
pub const BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    30_000_000,
];

/// Requests by status class, and how long they took until the response header.
///
/// What nearly every request counts, down to the two quickest buckets, is one cache line: among many frontends none of
/// it is in the cache, and each line more is one more wait.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Requests {
    sum_us: AtomicU64,
    /// 1xx (101 only), 2xx, 3xx, 4xx, 5xx.
    classes: [AtomicU64; 5],
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
}

impl Requests {
    /// Counts one answered request.
    pub fn record(&self, status: http::StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.classes[class].fetch_add(1, Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Requests so far by class: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub fn classes(&self) -> [u64; 5] {
        std::array::from_fn(|i| self.classes[i].load(Relaxed))
    }

    /// All requests so far.
    pub fn total(&self) -> u64 {
        self.classes().iter().sum()
    }

    /// Requests so far by latency bucket (not cumulative), the unbounded one last.
    pub fn buckets(&self) -> [u64; BOUNDS_US.len() + 1] {
        std::array::from_fn(|i| self.buckets[i].load(Relaxed))
    }

    /// Sum of all latencies, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Relaxed)
    }
}

/// A number that goes up and down with the guards that hold it.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn up(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// One more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
}

/// Requests that were tried once more, at another server or on another connection.
#[derive(Debug, Default)]
pub struct Retries {
    /// No connection could be made.
    pub connect: Counter,
    /// The server had closed a kept connection before.
    pub closed: Counter,
    /// The server said that it had not begun with it (HTTP/2).
    pub refused: Counter,
    /// It broke without an answer.
    pub broken: Counter,
    /// The answer did not come in time; only where the frontend says so.
    pub late: Counter,
    /// The answer's status; only where the frontend says so.
    pub status: Counter,
}

/// What is counted of HTTP/2 towards clients.
#[derive(Debug, Default)]
pub struct Http2 {
    /// Connections so far.
    pub connections: Counter,
    /// Streams so far, each a request.
    pub streams: Counter,
    /// Streams open now.
    pub open: Gauge,
    /// Requests that clients took back, those left with their connection not counted.
    pub resets: Counter,
    /// Connections that were told to end, by why.
    pub goaways: Goaways,
}

/// GOAWAY frames sent, by their error code (RFC 9113 section 7).
#[derive(Debug, Default)]
pub struct Goaways {
    /// The connection is idle, or the process drains.
    pub no_error: Counter,
    /// The client asked for too much.
    pub enhance_your_calm: Counter,
    /// What the client sent makes no sense.
    pub protocol_error: Counter,
    /// It sent more than it was allowed to.
    pub flow_control_error: Counter,
    /// A frame has a length that it cannot have.
    pub frame_size_error: Counter,
    /// Heads can no longer be read.
    pub compression_error: Counter,
    /// Any other.
    pub other: Counter,
}

impl Goaways {
    /// The counter of an error code.
    pub fn of(&self, reason: h2::Reason) -> &Counter {
        match reason {
            h2::Reason::NO_ERROR => &self.no_error,
            h2::Reason::ENHANCE_YOUR_CALM => &self.enhance_your_calm,
            h2::Reason::PROTOCOL_ERROR => &self.protocol_error,
            h2::Reason::FLOW_CONTROL_ERROR => &self.flow_control_error,
            h2::Reason::FRAME_SIZE_ERROR => &self.frame_size_error,
            h2::Reason::COMPRESSION_ERROR => &self.compression_error,
            _ => &self.other,
        }
    }
}

/// Connections that were closed for want of a PROXY protocol header.
#[derive(Debug, Default)]
pub struct ProxyProtocolRefused {
    /// They came from nobody who may send one, and it was required.
    pub stranger: Counter,
    /// It was missing, malformed, cut off, or of a version that the listener does not take.
    pub malformed: Counter,
    /// It did not arrive in time.
    pub late: Counter,
}

/// TLS handshakes with clients.
#[derive(Debug, Default)]
pub struct Handshakes {
    /// In full, TLS 1.2.
    pub full_12: Counter,
    /// In full, TLS 1.3.
    pub full_13: Counter,
    /// That went on with an earlier session.
    pub resumed: Counter,
    /// That came to nothing.
    pub failed: Counter,
}

/// TLS handshakes with servers.
#[derive(Debug, Default)]
pub struct ServerHandshakes {
    /// In full.
    pub full: Counter,
    /// That went on with an earlier session.
    pub resumed: Counter,
    /// That came to nothing.
    pub failed: Counter,
}

/// What the whole process counts.
#[derive(Debug, Default)]
pub struct Process {
    /// Client connections accepted so far.
    pub accepted: Counter,
    /// Client connections open now.
    pub connections: Gauge,
    /// `accept` calls that failed.
    pub accept_errors: Counter,
    /// Tunnels (WebSocket) open now.
    pub tunnels: Gauge,
    /// Tunnels opened so far.
    pub tunnels_opened: Counter,
    /// TLS handshakes.
    pub handshakes: Handshakes,
    /// Requests that no frontend took.
    pub unrouted: Counter,
    /// Requests tried once more, by why.
    pub retries: Retries,
    /// Connections opened to servers.
    pub upstream_connections: Counter,
    /// TLS handshakes with servers, those of checks left out.
    pub server_handshakes: ServerHandshakes,
    /// Connections turned away because there were too many.
    pub shed_connections: Counter,
    /// Requests that came back to this proxy.
    pub loops: Counter,
    /// Requests turned away because a worker had more to do than it could.
    pub shed_requests: Counter,
    /// What came instead of a request and was refused.
    pub refused: Counter,
    /// Connections closed for want of a PROXY protocol header, by why.
    pub proxy_protocol_refused: ProxyProtocolRefused,
    /// Connections that a bug of ours ended.
    pub panics: Counter,
    /// Requests that ended with an error of ours instead of a server's answer.
    pub errors: Counter,
    /// HTTP/2 towards clients.
    pub http2: Http2,
}
