//! One request's line, put together while it runs: what it asked for at once, the rest as it becomes known.
//!
//! Written into a buffer from the beginning, so that nothing of the request need be kept for it. A server's part begins
//! at a mark, and is written over when another one is asked.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use http::{StatusCode, Version};

use super::json;
use super::lines::Lines;
use crate::message::RequestHead;

/// Puts together the lines of a connection, one after the other, or of a stream.
#[derive(Debug)]
pub struct Recorder {
    lines: Rc<Lines>,
    http2: bool,
    line: RefCell<Option<Line>>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

/// Whose doing the end of an exchange was that did not run to its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The client left, or did not read on.
    Client,
    /// The server broke off.
    Server,
}

#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    /// Where a server's part begins.
    mark: usize,
    started: Instant,
    tries: u32,
    /// How long the server took that answered.
    upstream: Option<Duration>,
    status: u16,
    broken: Option<Broken>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// The client, as trusted proxies tell it.
    pub client: IpAddr,
    /// Whether TLS is 1.3, where it is TLS.
    pub is_tls13: Option<bool>,
}

impl Recorder {
    pub(super) fn new(lines: Rc<Lines>, http2: bool) -> Recorder {
        Recorder { lines, http2, line: RefCell::default(), received: Cell::new(0), sent: Cell::new(0) }
    }

    /// A request has arrived; `None`: something that is none.
    pub fn begin(&self, asking: Asking, head: Option<&RequestHead>) {
        let mut out = self.lines.buffer();
        out.extend_from_slice(b"{\"time\":\"");
        self.lines.clock.write(&mut out, SystemTime::now());
        out.push(b'"');
        json::address(&mut out, "client", asking.client);
        let protocol: &[u8] = match head.map(|head| head.version) {
            _ if self.http2 => b"HTTP/2.0",
            Some(Version::HTTP_10) => b"HTTP/1.0",
            _ => b"HTTP/1.1",
        };
        json::text(&mut out, "protocol", protocol, SHORT);
        if let Some(is_13) = asking.is_tls13 {
            json::text(&mut out, "tls", if is_13 { b"TLSv1.3" } else { b"TLSv1.2" }, SHORT);
        }
        if let Some(head) = head {
            self.write_head(&mut out, head);
        }
        let mark = out.len();
        self.received.set(0);
        self.sent.set(0);
        self.line.replace(Some(Line {
            text: out,
            mark,
            started: Instant::now(),
            tries: 0,
            upstream: None,
            status: 0,
            broken: Some(Broken::Client),
        }));
    }

    fn write_head(&self, out: &mut Vec<u8>, head: &RequestHead) {
        json::text(out, "method", head.method.as_str().as_bytes(), SHORT);
        let host = head.uri.authority().map(|authority| authority.as_str().as_bytes());
        let host = host.or_else(|| head.fields.get("host"));
        if let Some(host) = host {
            json::text(out, "host", host, LONG);
        }
        json::text(out, "path", head.uri.path().as_bytes(), LONGEST);
        if let Some(query) = head.uri.query() {
            json::query(out, "query", query.as_bytes(), self.lines.query(), LONG);
        }
        if let Some(agent) = head.fields.get("user-agent") {
            json::text(out, "user_agent", agent, LONG);
        }
        if let Some(referer) = head.fields.get("referer") {
            json::url(out, "referer", referer, self.lines.query(), LONG);
        }
        if let Some(id) = head.fields.get(REQUEST_ID) {
            json::text(out, "request_id", id, LONG);
        }
    }

    /// A frontend takes the request.
    pub fn routed(&self, frontend: &str) {
        self.with(|line| {
            line.text.truncate(line.mark);
            json::text(&mut line.text, "frontend", frontend.as_bytes(), LONG);
            line.mark = line.text.len();
        });
    }

    /// It is sent to a server, or would be if that accepted a connection.
    pub fn tries(&self, backend: &str, server: &str) {
        self.with(|line| {
            line.tries += 1;
            line.text.truncate(line.mark);
            json::text(&mut line.text, "backend", backend.as_bytes(), LONG);
            json::text(&mut line.text, "server", server.as_bytes(), LONG);
        });
    }

    /// The server has answered after that time.
    pub fn answered(&self, after: Duration) {
        self.with(|line| line.upstream = Some(after));
    }

    /// We answer instead of a server, for this reason.
    pub fn failed(&self, why: &dyn Display) {
        use std::io::Write as _;
        self.with(|line| {
            let mut reason = [0; 128];
            let mut rest = &mut reason[..];
            // What is longer is cut.
            let _ = write!(rest, "{why}");
            let left = rest.len();
            let length = reason.len() - left;
            json::text(&mut line.text, "error", &reason[..length], LONG);
        });
    }

    /// The answer begins.
    pub fn status(&self, status: StatusCode) {
        self.with(|line| line.status = status.as_u16());
    }

    /// Bytes of the request's body, or from a tunnel's client.
    pub fn received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
    }

    /// Bytes of the answer's body, or to a tunnel's client.
    pub fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
    }

    /// It ran to its end, or broke by somebody's doing. Until this is told it is the client's.
    pub fn ended(&self, broken: Option<Broken>) {
        self.with(|line| line.broken = broken);
    }

    /// It is over, by the end of a drain's time if it was cut. The line is complete.
    pub fn finish(&self, is_cut: bool) {
        // It may be called while a panic unwinds.
        let Some(mut line) = self.line.try_borrow_mut().ok().and_then(|mut line| line.take()) else { return };
        let out = &mut line.text;
        if line.tries > 0 {
            json::number(out, "tries", u64::from(line.tries));
        }
        if let Some(upstream) = line.upstream {
            json::milliseconds(out, "upstream_ms", upstream);
        }
        json::number(out, "status", u64::from(line.status));
        json::number(out, "bytes_received", self.received.get());
        json::number(out, "bytes_sent", self.sent.get());
        json::milliseconds(out, "duration_ms", line.started.elapsed());
        let broken: Option<&[u8]> = match line.broken {
            None => None,
            Some(Broken::Client) if is_cut => Some(b"proxy"),
            Some(Broken::Client) => Some(b"client"),
            Some(Broken::Server) => Some(b"server"),
        };
        if let Some(broken) = broken {
            json::text(out, "broken_by", broken, SHORT);
        }
        out.extend_from_slice(b"}\n");
        self.lines.push(line.text);
    }

    fn with(&self, change: impl FnOnce(&mut Line)) {
        if let Some(line) = &mut *self.line.borrow_mut() {
            change(line);
        }
    }
}

const REQUEST_ID: &str = "x-request-id";
/// Bytes of what has few.
const SHORT: usize = 32;
/// Bytes of a name, an address of a page, a program's words about itself.
const LONG: usize = 512;
/// Bytes of a path.
const LONGEST: usize = 2048;
