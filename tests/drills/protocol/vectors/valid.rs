//! A hundred requests that are right, and must pass: strictness must not cost anybody service.

use super::Expect::Forward;
use super::{Plain, Vector, plain, vector};

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "X-OWN"];

/// Fields as clients write them.
const FIELDS: [&str; 22] = [
    "accept:*/*",
    "ACCEPT: */*",
    "aCcEpT:\t*/*",
    "Accept:   */*   ",
    "Accept:",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
    "Cookie: a=b; c=\"d\"; e=%20",
    "Cookie: a=b\r\nCookie: c=d",
    "Accept-Language: de;q=0.8, en;q=0.5",
    "Range: bytes=0-1",
    "If-None-Match: W/\"x\", \"y\"",
    "Connection: keep-alive",
    "Connection: Keep-Alive, X",
    "connection:keep-alive",
    "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "X-Punct: !#$%&'*+-.^_`|~\"(),/:;<=>?@[\\]{}",
    "!#$%&'*+-.^`|~: y",
    "X: \u{e9}",
    "Authorization: Basic eDp5",
    "1: 2",
    "Origin: null",
    "Referer: http://b.test/?q=<>",
];

/// Targets as clients write them.
const TARGETS: [&str; 24] = [
    "/",
    "/a",
    "/a/",
    "/a/b/c.html",
    "/?",
    "/?a",
    "/?a=b&c=d",
    "/a?b=/c/d",
    "/%20",
    "/%C3%BC",
    "/a%2Cb",
    "/~u/",
    "/a;b=c",
    "/a:b",
    "/@x",
    "/a+b",
    "/a,b",
    "/(a)",
    "/!",
    "/'a'",
    "/*",
    "/a=b",
    "/$",
    "/&",
];

pub(crate) fn controls() -> Vec<Vector> {
    let mut all: Vec<Vector> = Vec::new();
    let mut add = |name: String, bytes: Vec<u8>, seen: Plain| all.push(vector(name, bytes, Forward(seen)));
    for method in METHODS {
        let request = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        add(format!("{method} without a body"), request.into(), plain(method, "/", b""));
        // A HEAD or GET may have a body, and it must arrive, or the connection end.
        let request = format!("{method} / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello");
        add(format!("{method} with a body"), request.into(), plain(method, "/", b"hello"));
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
        );
        add(format!("{method} with chunks"), request.into(), plain(method, "/", b"hello"));
    }
    for field in FIELDS {
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n");
        add(format!("with {}", field.escape_debug()), request.into(), plain("GET", "/", b""));
    }
    for target in TARGETS {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        add(format!("target {target}"), request.into(), plain("GET", target, b""));
    }
    for host in ["host: a.test", "HOST:a.test", "hOsT:\ta.test  ", "Host: a.test:80"] {
        let request = format!("GET / HTTP/1.1\r\n{host}\r\n\r\n");
        add(host.escape_debug().to_string(), request.into(), plain("GET", "/", b""));
    }
    for count in [1, 10, 50, 98, 99] {
        let fields: String = (0..count).map(|n| format!("X-{n}: {n}\r\n")).collect();
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        add(format!("{count} more fields"), request.into(), plain("GET", "/", b""));
    }
    for length in [1, 100, 1000, 4000, 8000] {
        let target = format!("/{}", "a".repeat(length));
        let request = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        add(format!("a target of {length} bytes"), request.into(), plain("GET", &target, b""));
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nCookie: {}\r\n\r\n", "a".repeat(length));
        add(format!("a cookie of {length} bytes"), request.into(), plain("GET", "/", b""));
    }
    for size in [1, 15, 16, 255, 256, 4095, 4096, 65_535, 65_536, 100_000] {
        let body = vec![b'x'; size];
        let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n");
        add(format!("a body of {size} bytes"), [head.as_bytes(), &body].concat(), plain("POST", "/", &body));
        let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n");
        add(
            format!("a chunk of {size} bytes"),
            [head.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat(),
            plain("POST", "/", &body),
        );
    }
    all
}
