//! Requests of HTTP/2 that would be another request, or two, once they are written as HTTP/1.1.
//!
//! `GET /smuggled` lies where a server would find it that takes the other view. After RFC 9113 section 8, and what is
//! known of such attacks; the set is our own.

mod bodies;
mod framing;
mod heads;
mod pseudo;
mod valid;

use etna_tests::h2::{DATA, END_HEADERS, END_STREAM, HEADERS, block, field, frame, raw_field};

/// What a client sends on stream 1, after its preface.
pub(super) struct Vector {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) expect: Expect,
    pub(super) then: Then,
}

/// What a client does after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It waits for an answer.
    Waits,
    /// It resets the stream as soon as a server has seen the beginning.
    Resets,
    /// It leaves as soon as a server has seen the beginning.
    Leaves,
}

/// What must come of it.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    /// 4xx, or the stream or the connection is reset; nothing of it reaches a server.
    Refuse,
    /// The same by status 405.
    Method,
    /// The same by status 400.
    Bad,
    /// The fault comes late: a server may see the beginning, or, where it is given, this whole request before it.
    Cut(Option<Plain>),
    /// A server sees exactly this.
    Forward(Plain),
    /// It asks for a WebSocket and a server does not give it one: that sees the request alone, and the client no 200.
    Alone,
}

/// A request as a server must see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Plain {
    pub(super) method: &'static str,
    pub(super) target: String,
    pub(super) body: Vec<u8>,
    /// Fields with exactly these values, once.
    pub(super) has: Vec<(&'static str, &'static str)>,
    /// Fields that it has not.
    pub(super) lacks: Vec<&'static str>,
    /// All its trailers.
    pub(super) trailers: Vec<(&'static str, &'static str)>,
}

/// A request that lies where another would begin.
pub(super) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// All that are wrong, or look as if they were; for listeners of one scheme.
pub(super) fn attacks(scheme: &'static str) -> Vec<Vector> {
    let with = With { scheme };
    [with.lengths(), with.codings(), with.injections(), with.pseudo(), with.hosts(), with.bodies(), with.hops()]
        .into_iter()
        .flatten()
        .collect()
}

/// What is right, and must arrive as it is.
pub(super) fn controls(scheme: &'static str) -> Vec<Vector> {
    With { scheme }.controls()
}

/// What all have.
#[derive(Clone, Copy)]
struct With {
    scheme: &'static str,
}

type Fields<'a> = &'a [(&'a str, &'a str)];

impl With {
    /// The block of a request with these fields.
    fn block(self, method: &str, path: &str, fields: Fields<'_>) -> Vec<u8> {
        self.pseudo_block(&[(":method", method), (":path", path)], fields)
    }

    /// The same, its own `:method` and so on in place of the usual, which stand after them.
    fn pseudo_block(self, own: Fields<'_>, fields: Fields<'_>) -> Vec<u8> {
        let usual = [(":method", "GET"), (":scheme", self.scheme), (":authority", "a.test"), (":path", "/")];
        let usual = usual.into_iter().filter(|(name, _)| !own.iter().any(|(known, _)| known == name));
        [block(own), usual.flat_map(|(name, value)| field(name, value)).collect(), block(fields)].concat()
    }

    /// A POST with a body.
    fn post(self, fields: Fields<'_>, body: &[u8]) -> Vec<u8> {
        [headers(&self.block("POST", "/", fields), false), data(body, true)].concat()
    }

    /// A whole request without a body.
    fn whole(self, own: Fields<'_>, fields: Fields<'_>) -> Vec<u8> {
        headers(&self.pseudo_block(own, fields), true)
    }

    /// A whole GET with a field of any bytes.
    fn raw(self, name: &[u8], value: &[u8]) -> Vec<u8> {
        headers(&[self.block("GET", "/", &[]), raw_field(name, value)].concat(), true)
    }
}

fn vector(name: impl Into<String>, bytes: Vec<u8>, expect: Expect) -> Vector {
    Vector { name: name.into(), bytes, expect, then: Then::Waits }
}

fn giving_up(name: &str, bytes: Vec<u8>, then: Then) -> Vector {
    Vector { then, ..vector(name, bytes, Expect::Cut(None)) }
}

fn post(body: &[u8]) -> Plain {
    Plain { method: "POST", target: "/".into(), body: body.to_vec(), ..Plain::default() }
}

fn headers(block: &[u8], ends: bool) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | if ends { END_STREAM } else { 0 }, 1, block)
}

fn data(bytes: &[u8], ends: bool) -> Vec<u8> {
    frame(DATA, if ends { END_STREAM } else { 0 }, 1, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_vectors_are_the_same() {
        let mut seen = std::collections::BTreeSet::new();
        for vector in attacks("http").into_iter().chain(controls("http")).filter(|vector| vector.then == Then::Waits) {
            assert!(seen.insert(vector.bytes), "{}", vector.name);
        }
    }
}
