//! Fields: their syntax, `Host`, and what is for one hop.

use super::Expect::{Deny, Either, Forward, Refuse};
use super::{SMUGGLED, Vector, get, post, vector};

/// Lines that are no fields.
const LINES: [&[u8]; 32] = [
    b"X: y\r\n folded",
    b"X: y\r\n\tfolded",
    b"X:\r\n folded",
    b"X: y\r\n \r\n",
    b"no colon",
    b": no name",
    b" : y",
    b"X Y: z",
    b"X : y",
    b"X\t: y",
    b"X\x00: y",
    b"X\x01: y",
    b"X\x7f: y",
    b"X\x80: y",
    b"X(: y",
    b"X@Y: z",
    b"X[]: y",
    b"X{}: y",
    b"X,Y: z",
    b"X\"Y\": z",
    b"X/Y: z",
    b"X;: y",
    b"X=Y: z",
    b"X: \x00",
    b"X: a\x01b",
    b"X: a\x08b",
    b"X: a\x1bb",
    b"X: a\x7fb",
    b"X: a\rb",
    b"X: a\nY: b",
    b"X: y\r",
    b"X: y\n",
];

/// Values of `Host` that are none.
const HOSTS: [&str; 20] = [
    "a.test b.test",
    "a.test, b.test",
    "a.test,b.test",
    "a.test/x",
    "a.test?x",
    "a.test#x",
    "u@a.test",
    "u:p@a.test",
    "a.test:port",
    "a.test:99999999",
    "a.test:80:80",
    "[::1",
    "::1]",
    "http://a.test",
    "a\\b",
    "a.test\t b",
    "<a.test>",
    "a\"b",
    "a.test\u{fc}",
    "a|b",
];

pub(super) fn all() -> Vec<Vector> {
    let mut all = Vec::new();
    for line in LINES {
        let request = [b"GET / HTTP/1.1\r\nHost: a.test\r\n", line, b"\r\n\r\n"].concat();
        all.push(vector(format!("field {}", line.escape_ascii()), request, Refuse));
        if line.starts_with(b"X: y\r\n") {
            let first = [b"GET / HTTP/1.1\r\n", &line[6..], b"\r\nHost: a.test\r\n\r\n"].concat();
            all.push(vector(format!("first field {}", line[6..].escape_ascii()), first, Refuse));
        }
    }
    let ends: [(&str, &[u8]); 6] = [
        ("a head in lines of LF", b"GET / HTTP/1.1\nHost: a.test\n\n"),
        ("a head ended by LF", b"GET / HTTP/1.1\r\nHost: a.test\r\n\n"),
        ("a last field ended by LF", b"GET / HTTP/1.1\r\nHost: a.test\n\r\n"),
        ("a head in lines of CR", b"GET / HTTP/1.1\rHost: a.test\r\r"),
        ("a head ended by CR CR LF", b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\r\n"),
        ("a head ended by LF CR", b"GET / HTTP/1.1\r\nHost: a.test\n\r\n\r"),
    ];
    all.extend(ends.map(|(name, bytes)| vector(name, bytes, Refuse)));
    for (name, line) in [
        ("no space", "X:y"),
        ("an empty value", "X:"),
        ("a tab in a value", "X: a\tb"),
        ("a long name", &*"X".repeat(200)),
    ] {
        let line = if line.contains(':') { line.to_owned() } else { format!("{line}: y") };
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{line}\r\n\r\n");
        all.push(vector(name, request, Forward(get("/"))));
    }
    let opaque = b"GET / HTTP/1.1\r\nHost: a.test\r\nX: \xfc\xff\r\n\r\n";
    all.push(vector("bytes above ASCII in a value", opaque, Either(get("/"))));
    all
}

pub(super) fn hosts() -> Vec<Vector> {
    let mut all = Vec::new();
    for host in HOSTS {
        all.push(vector(format!("Host {host}"), format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), Deny));
    }
    let whole: [(&str, &[u8]); 10] = [
        ("no Host", b"GET / HTTP/1.1\r\n\r\n"),
        ("no Host, other fields", b"GET / HTTP/1.1\r\nX-Host: a.test\r\n\r\n"),
        ("two Hosts", b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n"),
        ("two equal Hosts", b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n"),
        ("two Hosts in other letters", b"GET / HTTP/1.1\r\nHost: a.test\r\nhOST: a.test\r\n\r\n"),
        ("two Hosts, one empty", b"GET / HTTP/1.1\r\nHost:\r\nHost: a.test\r\n\r\n"),
        ("no Host beside a whole URL", b"GET http://a.test/ HTTP/1.1\r\n\r\n"),
        ("an empty Host beside a whole URL", b"GET http://a.test/ HTTP/1.1\r\nHost:\r\n\r\n"),
        ("another Host beside a whole URL", b"GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n"),
        ("another port beside a whole URL", b"GET http://a.test:81/ HTTP/1.1\r\nHost: a.test:80\r\n\r\n"),
    ];
    all.extend(whole.map(|(name, bytes)| vector(name, bytes, Deny)));
    let refused: [(&str, &[u8]); 4] = [
        ("a space before Host's colon", b"GET / HTTP/1.1\r\nHost : a.test\r\n\r\n"),
        ("a folded Host", b"GET / HTTP/1.1\r\nHost:\r\n a.test\r\n\r\n"),
        ("NUL in Host", b"GET / HTTP/1.1\r\nHost: a.test\x00b\r\n\r\n"),
        ("CR in Host", b"GET / HTTP/1.1\r\nHost: a.test\rb\r\n\r\n"),
    ];
    all.extend(refused.map(|(name, bytes)| vector(name, bytes, Refuse)));
    for host in ["A.TEST", "a.test:8080", "[::1]:80", "127.0.0.1", "a.test."] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        all.push(vector(format!("Host {host}"), request, Forward(get("/"))));
    }
    all.push(vector("an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", Either(get("/"))));
    all.push(vector("HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n", Either(get("/"))));
    all.push(vector("HTTP/1.0", "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n", Forward(get("/"))));
    let kept = "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n";
    all.push(vector("HTTP/1.0 kept alive", kept, Forward(get("/"))));
    all
}

/// Fields for one hop, and those that try to take others with them. All end here, and nothing else does.
pub(super) fn hops() -> Vec<Vector> {
    let mut all = Vec::new();
    for field in [
        "Connection: X\r\nX: y",
        "Connection: Host",
        "Connection: X-Forwarded-For, Host, close",
        "Keep-Alive: timeout=1",
        "TE: gzip",
        "TE: chunked",
        "TE: trailers",
        "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Upgrade: websocket",
        "Connection: upgrade\r\nUpgrade: foo",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eDp5",
        "Proxy: http://b.test",
        "X_Forwarded_For: 1",
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "Trailer: X",
        "X-Accel-Redirect: /x",
        "Content-Length: 0",
        "Connection:",
        "Connection: ,,,",
        "Connection: \"close\"",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n");
        all.push(vector(format!("with {}", field.escape_debug()), request, Forward(get("/"))));
    }
    for field in [
        "Connection: Content-Length",
        "Connection: content-length, keep-alive",
        "Connection: upgrade\r\nUpgrade: websocket",
        "Connection: upgrade\r\nUpgrade: h2c",
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\n{field}\r\nContent-Length: {}\r\n\r\n{SMUGGLED}",
            SMUGGLED.len()
        );
        all.push(vector(format!("a body with {}", field.escape_debug()), request, Forward(post(SMUGGLED.as_bytes()))));
    }
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    for field in ["Connection: Transfer-Encoding", "Connection: upgrade\r\nUpgrade: websocket"] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: a.test\r\n{field}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        all.push(vector(format!("chunks with {}", field.escape_debug()), request, Forward(post(b"hello"))));
    }
    for value in ["200-ok", "100-continue, x", "x 100-continue"] {
        let request = format!("POST / HTTP/1.1\r\nHost: a.test\r\nExpect: {value}\r\nContent-Length: 5\r\n\r\nhello");
        all.push(vector(format!("Expect {value}"), request, Either(post(b"hello"))));
    }
    all
}
