//! Request lines, and what stands before them.

use super::Expect::{Deny, Either, Forward, Refuse};
use super::{Vector, get, plain, vector};

/// Request lines, whole with their end, that are none.
const LINES: [&[u8]; 44] = [
    b"GET  / HTTP/1.1\r\n",
    b"GET /  HTTP/1.1\r\n",
    b" GET / HTTP/1.1\r\n",
    b"\tGET / HTTP/1.1\r\n",
    b"GET / HTTP/1.1 \r\n",
    b"GET\t/ HTTP/1.1\r\n",
    b"GET /\tHTTP/1.1\r\n",
    b"GET\x0b/ HTTP/1.1\r\n",
    b"GET / http/1.1\r\n",
    b"GET / Http/1.1\r\n",
    b"GET / HTTP/2.0\r\n",
    b"GET / HTTP/0.9\r\n",
    b"GET / HTTP/3\r\n",
    b"GET / HTTP/11\r\n",
    b"GET / HTTP/1.10\r\n",
    b"GET / HTTP/01.1\r\n",
    b"GET / HTTP/1.\r\n",
    b"GET / HTTP/1,1\r\n",
    b"GET / HTTP/ 1.1\r\n",
    b"GET / HTTPS/1.1\r\n",
    b"GET / FOO/1.1\r\n",
    b"GET / HTTP\r\n",
    b"GET /\r\n",
    b"GET\r\n",
    b"/ HTTP/1.1\r\n",
    b"GET / HTTP/1.1\n",
    b"GET / HTTP/1.1\r\r\n",
    b"GET / HTTP/1.1\rX: y\r\n",
    b"GET /\x00 HTTP/1.1\r\n",
    b"GET /\x01 HTTP/1.1\r\n",
    b"GET /\x7f HTTP/1.1\r\n",
    b"GET /a b HTTP/1.1\r\n",
    b"GET /\rHTTP/1.1\r\n",
    b"G@T / HTTP/1.1\r\n",
    b"GET\x00 / HTTP/1.1\r\n",
    b"{GET} / HTTP/1.1\r\n",
    b"G\xcbT / HTTP/1.1\r\n",
    b"GET: / HTTP/1.1\r\n",
    b"\nGET / HTTP/1.1\r\n",
    b"\rGET / HTTP/1.1\r\n",
    b"\x00GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    b"PRI * HTTP/2.0\r\n",
    b"GET / HTTP/1.1 HTTP/1.1\r\n",
];

/// Targets that are none, or not for us.
const TARGETS: [(&str, &str); 17] = [
    ("GET", "*"),
    ("GET", "?x"),
    ("GET", "a.test/"),
    ("GET", "a"),
    ("GET", "/#fragment"),
    ("GET", "/a#/../b"),
    ("GET", "http:///x"),
    ("GET", "http://"),
    ("GET", "http://b.test/"),
    ("GET", "http://a.test@b.test/"),
    ("GET", "http://a.test:80@b.test/"),
    ("GET", "http://a.test.b.test/"),
    ("GET", "ftp://a.test/"),
    ("GET", "http:/a.test/"),
    ("GET", "file:///etc/passwd"),
    ("CONNECT", "a.test:80"),
    ("CONNECT", "/"),
];

/// Targets that are odd and may pass: then they pass as they are.
const ODD: [&str; 14] = [
    "/%00",
    "/%",
    "/%zz",
    "/\"",
    "/<>",
    "/^`{|}",
    "/\\",
    "/a\\..\\b",
    "/;a=b",
    "/..;/",
    "/:@!$&'()*+,",
    "/%0d%0aX:%20y",
    "/?a=b?c=d",
    "/[x]",
];

pub(super) fn all() -> Vec<Vector> {
    let rest = b"Host: a.test\r\n\r\n";
    let mut all: Vec<Vector> = LINES
        .iter()
        .map(|line| vector(format!("line {}", line.escape_ascii()), [line, rest.as_slice()].concat(), Refuse))
        .collect();
    for (method, target) in TARGETS {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        all.push(vector(format!("target {method} {target}"), request, Deny));
    }
    for target in ODD {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        all.push(vector(format!("target {target}"), request, Either(get(target))));
    }
    all.push(vector("raw UTF-8 in a target", "GET /ü HTTP/1.1\r\nHost: a.test\r\n\r\n", Deny));
    all.push(vector("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a.test\r\n\r\n", Either(get("/"))));
    all.push(vector("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", Either(plain("OPTIONS", "*", b""))));
    let whole = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    all.push(vector("a whole URL", whole("http://a.test/x?y"), Forward(get("/x?y"))));
    all.push(vector("a whole URL without a path", whole("http://a.test"), Forward(get("/"))));
    all.push(vector("a whole URL in capitals", whole("HTTP://A.TEST/"), Either(get("/"))));
    all.push(vector("a whole https URL", whole("https://a.test/"), Either(get("/"))));
    all.push(vector("two slashes", whole("//b.test/x"), Either(get("//b.test/x"))));
    all.push(vector("an empty line before", format!("\r\n{}", whole("/")), Forward(get("/"))));
    all.push(vector("three empty lines before", format!("\r\n\r\n\r\n{}", whole("/")), Either(get("/"))));
    let lower = "get / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    all.push(vector("a method in small letters", lower, Either(plain("get", "/", b""))));
    let trace = "TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    all.push(vector("TRACE", trace, Either(plain("TRACE", "/", b""))));
    let old = "GET /\r\n";
    all.push(vector("HTTP/0.9", old, Refuse));
    all
}
