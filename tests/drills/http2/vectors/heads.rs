//! Fields that hold more than one, and hosts that are not the one.

use etna_tests::h2::block;

use super::{Expect, SMUGGLED, Vector, With, headers, vector};

impl With {
    pub(super) fn injections(self) -> Vec<Vector> {
        let hidden = format!("a\r\n\r\n{SMUGGLED}");
        let values: [(&str, &[u8]); 11] = [
            ("CR LF and a coding", b"a\r\ntransfer-encoding: chunked"),
            ("CR LF and a host", b"a\r\nhost: b.test"),
            ("an end and a request", hidden.as_bytes()),
            ("LF", b"a\nx-injected: 1"),
            ("two LF and a request", b"a\n\nGET /smuggled HTTP/1.1\nHost: a.test\n\n"),
            ("CR", b"a\rx-injected: 1"),
            ("CR at its end", b"a\r"),
            ("NUL", b"a\0b"),
            ("a control", b"a\x01b"),
            ("DEL", b"a\x7fb"),
            ("a vertical tab", b"a\x0bb"),
        ];
        let mut all: Vec<Vector> = values
            .into_iter()
            .map(|(what, value)| vector(format!("a value with {what}"), self.raw(b"x", value), Expect::Refuse))
            .collect();
        let names: [(&str, &[u8]); 11] = [
            ("CR LF and a coding", b"x: a\r\ntransfer-encoding"),
            ("CR LF and a request", b"x\r\n\r\nGET /smuggled HTTP/1.1\r\nhost"),
            ("LF", b"x\ny"),
            ("CR", b"x\ry"),
            ("a colon", b"transfer-encoding: chunked\r\nx"),
            ("a colon alone", b"host:b"),
            ("a space", b"x y"),
            ("a space at its end", b"host "),
            ("NUL", b"x\0"),
            ("nothing", b""),
            ("capitals", b"Host"),
        ];
        all.extend(
            names
                .into_iter()
                .map(|(what, name)| vector(format!("a name with {what}"), self.raw(name, b"chunked"), Expect::Refuse)),
        );
        all
    }

    pub(super) fn hosts(self) -> Vec<Vector> {
        let alone = |host: &str| {
            headers(&block(&[(":method", "GET"), (":scheme", self.scheme), (":path", "/"), ("host", host)]), true)
        };
        let mut all = vec![
            vector("another host than :authority", self.whole(&[], &[("host", "b.test")]), Expect::Bad),
            vector(
                "another :authority than host",
                self.whole(&[(":authority", "b.test")], &[("host", "a.test")]),
                Expect::Bad,
            ),
            vector("another port than :authority", self.whole(&[], &[("host", "a.test:81")]), Expect::Bad),
            vector("an empty host", self.whole(&[], &[("host", "")]), Expect::Bad),
            vector("two hosts", self.whole(&[], &[("host", "a.test"), ("host", "b.test")]), Expect::Bad),
            vector("a host twice", self.whole(&[], &[("host", "a.test"), ("host", "a.test")]), Expect::Bad),
            vector("hosts in a list", self.whole(&[], &[("host", "a.test, b.test")]), Expect::Refuse),
            vector(
                "neither",
                headers(&block(&[(":method", "GET"), (":scheme", self.scheme), (":path", "/")]), true),
                Expect::Refuse,
            ),
        ];
        for host in ["a.test b.test", "a.test/smuggled", "b.test@a.test", "a.test\tb", "a.test:99999"] {
            all.push(vector(format!("no :authority, host {host:?}"), alone(host), Expect::Refuse));
        }
        all
    }
}
