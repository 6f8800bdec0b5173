//! Requests that are right, however they look.

use etna_tests::h2::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, block, frame};

use super::{Expect, Plain, Vector, With, data, headers, vector};

impl With {
    pub(super) fn controls(self) -> Vec<Vector> {
        let forward = |method, target: &str, body: &[u8]| Plain {
            method,
            target: target.into(),
            body: body.to_vec(),
            ..Plain::default()
        };
        let mut all = Vec::new();
        let mut right = |name: &str, bytes, plain| all.push(vector(name, bytes, Expect::Forward(plain)));
        let get = || forward("GET", "/", b"");
        right("GET", self.whole(&[], &[]), Plain { lacks: vec!["content-length", "transfer-encoding"], ..get() });
        for target in
            ["/a?b=c", "//b.test/x", "/a//b", "/?a=http://b.test/", "/a;b=c", "/%41%2F", "/a/../b", "/'()*!$&+,=:@~-._"]
        {
            right(target, self.whole(&[(":path", target)], &[]), forward("GET", target, b""));
        }
        for method in ["DELETE", "OPTIONS", "PROPFIND", "PATCH", "X-OWN"] {
            right(method, self.whole(&[(":method", method)], &[]), forward(method, "/", b""));
        }
        right("HEAD", self.whole(&[(":method", "HEAD")], &[]), forward("HEAD", "/", b""));
        right("OPTIONS *", self.whole(&[(":method", "OPTIONS"), (":path", "*")], &[]), forward("OPTIONS", "*", b""));
        right("a host that agrees", self.whole(&[], &[("host", "A.test")]), get());
        let alone = [(":method", "GET"), (":scheme", self.scheme), (":path", "/"), ("host", "a.test")];
        right("a host alone", headers(&block(&alone), true), Plain { has: vec![("host", "a.test")], ..get() });
        let crumbs = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3; d=4")];
        right(
            "a cookie in crumbs",
            self.whole(&[], &crumbs),
            Plain { has: vec![("cookie", "a=1; b=2; c=3; d=4")], ..get() },
        );
        right("te: trailers", self.whole(&[], &[("te", "trailers")]), Plain { has: vec![("te", "trailers")], ..get() });
        right("an empty value", self.whole(&[], &[("x", "")]), Plain { has: vec![("x", "")], ..get() });
        right(
            "a value that looks like a request",
            self.whole(&[], &[("x", "GET /smuggled HTTP/1.1")]),
            Plain { has: vec![("x", "GET /smuggled HTTP/1.1")], ..get() },
        );
        right(
            "a body with a length",
            self.post(&[("content-length", "5")], b"hello"),
            Plain {
                has: vec![("content-length", "5")],
                lacks: vec!["transfer-encoding"],
                ..forward("POST", "/", b"hello")
            },
        );
        right("a body without", self.post(&[], b"hello"), forward("POST", "/", b"hello"));
        right("an empty body with a length", self.post(&[("content-length", "0")], b""), forward("POST", "/", b""));
        right("an empty body without", self.post(&[], b""), forward("POST", "/", b""));
        right(
            "no body and a length of 0",
            self.whole(&[(":method", "POST")], &[("content-length", "0")]),
            forward("POST", "/", b""),
        );
        for method in ["GET", "DELETE", "OPTIONS"] {
            let sized =
                [headers(&self.block(method, "/", &[("content-length", "5")]), false), data(b"hello", true)].concat();
            right(&format!("{method} with a length"), sized, forward(method, "/", b"hello"));
            let open = [headers(&self.block(method, "/", &[]), false), data(b"hel", false), data(b"lo", true)].concat();
            right(&format!("{method} with a body"), open, forward(method, "/", b"hello"));
        }
        let open = headers(&self.block("POST", "/", &[]), false);
        right(
            "DATA in crumbs",
            [open.clone(), b"hello".iter().flat_map(|byte| data(&[*byte], false)).collect(), data(b"", true)].concat(),
            forward("POST", "/", b"hello"),
        );
        right(
            "padded DATA",
            [open.clone(), frame(DATA, END_STREAM | PADDED, 1, b"\x03hello\0\0\0")].concat(),
            forward("POST", "/", b"hello"),
        );
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x-end", "1"), ("x-sum", "2")]));
        right(
            "trailers",
            [open.clone(), data(b"hello", false), trailers.clone()].concat(),
            Plain { trailers: vec![("x-end", "1"), ("x-sum", "2")], ..forward("POST", "/", b"hello") },
        );
        right(
            "trailers without a body",
            [open, trailers].concat(),
            Plain { trailers: vec![("x-end", "1"), ("x-sum", "2")], ..forward("POST", "/", b"") },
        );
        let whole = self.block("GET", "/", &[("x", "y")]);
        let (first, rest) = whole.split_at(20);
        right(
            "a head in pieces",
            [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, rest)].concat(),
            Plain { has: vec![("x", "y")], ..get() },
        );
        right("a large body", self.post(&[], &[b'x'; 16_000]), forward("POST", "/", &[b'x'; 16_000]));
        all
    }
}
