//! Bodies and trailers that go on, break off or claim what heads say; and what is for one hop.

use etna_tests::h2::{DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, block, field, frame};

use super::{Expect, Plain, SMUGGLED, Then, Vector, With, data, giving_up, headers, post, vector};

impl With {
    pub(super) fn bodies(self) -> Vec<Vector> {
        let open = headers(&self.block("POST", "/", &[]), false);
        let end = |fields: &[u8], flags| frame(HEADERS, flags, 1, fields);
        let trailers =
            |fields: &[u8]| [open.clone(), data(b"hello", false), end(fields, END_HEADERS | END_STREAM)].concat();
        let cut = || Expect::Cut(None);
        let begun = [open.clone(), data(b"hello", false)].concat();
        let sized = headers(&self.block("POST", "/", &[("content-length", "45")]), false);
        let get = |bytes: &[u8]| [headers(&self.block("GET", "/", &[]), false), data(bytes, true)].concat();
        let ended = [b"0\r\n\r\n", SMUGGLED.as_bytes()].concat();
        let plain = |method, body: &[u8]| Expect::Forward(Plain { method, body: body.to_vec(), ..post(b"") });
        vec![
            vector("GET with a request for a body", get(SMUGGLED.as_bytes()), plain("GET", SMUGGLED.as_bytes())),
            vector("GET with a last chunk and a request", get(&ended), plain("GET", &ended)),
            vector("a body that ends in chunks", self.post(&[], &ended), plain("POST", &ended)),
            vector(
                "DATA after the end",
                [self.post(&[], b"hello"), data(SMUGGLED.as_bytes(), true)].concat(),
                Expect::Cut(Some(post(b"hello"))),
            ),
            vector(
                "HEADERS after the end",
                [self.post(&[], b"hello"), self.whole(&[(":path", "/smuggled")], &[])].concat(),
                Expect::Cut(Some(post(b"hello"))),
            ),
            giving_up("a body that is reset", begun.clone(), Then::Resets),
            giving_up(
                "a body with a length that is reset",
                [sized.clone(), data(b"hello", false)].concat(),
                Then::Resets,
            ),
            giving_up("a client that leaves inside a body", begun, Then::Leaves),
            giving_up(
                "a client that leaves inside a body with a length",
                [sized, data(b"hello", false)].concat(),
                Then::Leaves,
            ),
            vector(
                "trailers that do not end",
                [
                    open.clone(),
                    data(b"hello", false),
                    end(&block(&[("x-end", "1")]), END_HEADERS),
                    data(SMUGGLED.as_bytes(), true),
                ]
                .concat(),
                cut(),
            ),
            vector("trailers with CR LF", trailers(&field("x-end", &format!("1\r\n\r\n{SMUGGLED}"))), cut()),
            vector("trailers with capitals", trailers(&field("X-End", "1")), cut()),
            vector("trailers with a space in a name", trailers(&field("x end", "1")), cut()),
            vector(
                "trailers with a request in a name",
                trailers(&field("x\r\n\r\nGET /smuggled HTTP/1.1\r\nx", "1")),
                cut(),
            ),
            vector(
                "trailers with a coding",
                trailers(&field("transfer-encoding", "chunked")),
                Expect::Cut(Some(post(b"hello"))),
            ),
            vector(
                "trailers with a connection",
                trailers(&field("connection", "x-end")),
                Expect::Cut(Some(post(b"hello"))),
            ),
            vector(
                "trailers with pseudo-header fields",
                trailers(&block(&[(":path", "/smuggled"), ("x-end", "1")])),
                Expect::Cut(Some(Plain { trailers: vec![("x-end", "1")], ..post(b"hello") })),
            ),
            vector(
                "trailers that claim what heads say",
                trailers(&block(&[
                    ("content-length", "0"),
                    ("host", "b.test"),
                    ("trailer", "x"),
                    ("x-forwarded-for", "10.0.0.1"),
                    ("authorization", "Basic eA=="),
                    ("cookie", "a=1"),
                    ("expect", "100-continue"),
                    ("x_forwarded_for", "1"),
                    ("x-end", "1"),
                ])),
                Expect::Forward(Plain { trailers: vec![("x-end", "1")], ..post(b"hello") }),
            ),
            vector(
                "padding that is a request",
                {
                    let padding = SMUGGLED.as_bytes();
                    let padded = [&[padding.len() as u8][..], b"hello", padding].concat();
                    [open, frame(DATA, END_STREAM | PADDED, 1, &padded)].concat()
                },
                plain("POST", b"hello"),
            ),
        ]
    }

    pub(super) fn hops(self) -> Vec<Vector> {
        let mut all = Vec::new();
        for (name, value) in [
            ("connection", "close"),
            ("connection", "x-forwarded-for, host"),
            ("connection", "upgrade"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("upgrade", "websocket"),
        ] {
            all.push(vector(format!("{name}: {value}"), self.whole(&[], &[(name, value)]), Expect::Refuse));
        }
        all.push(vector("expect: y", self.whole(&[], &[("expect", "y 100-continue")]), Expect::Refuse));
        for (name, value) in [
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("proxy", "evil.test"),
            ("proxy-authorization", "Basic eA=="),
            ("x-accel-redirect", "/smuggled"),
            ("x_forwarded_for", "10.0.0.1"),
            ("x-forwarded-prefix", "/smuggled"),
            ("client-cert", ":eA==:"),
        ] {
            let plain = Plain { method: "GET", lacks: vec![name], ..post(b"") };
            all.push(vector(format!("{name}: {value}"), self.whole(&[], &[(name, value)]), Expect::Forward(plain)));
        }
        let plain = Plain { method: "GET", has: vec![("x-forwarded-for", "127.0.0.1")], ..post(b"") };
        all.push(vector(
            "x-forwarded-for",
            self.whole(&[], &[("x-forwarded-for", "10.0.0.1")]),
            Expect::Forward(plain),
        ));
        all
    }
}
