//! Requests that are not what they seem, and what must come of each.
//!
//! `GET /smuggled` lies where a reader who takes the other view of a request would find the next one. What differs in
//! one value only stands as a list of values.

mod chunks;
mod fields;
mod framing;
mod lines;
mod valid;

/// One request, or what looks like one.
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expect: Expect,
}

/// What must come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// 4xx, 501 or 505, or nothing; the connection closes, and nothing of it reaches a server.
    Refuse,
    /// The same, but the connection may stay: it is clear where the request ends.
    Deny,
    /// Like `Refuse`, but a server may see its beginning: the fault lies in the body.
    Cut,
    /// A server sees exactly this request.
    Forward(Plain),
    /// Either is right: refused, or this request.
    Either(Plain),
}

/// A request as a server must see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) body: Vec<u8>,
}

/// All of D1's that are not valid, or not quite.
pub(crate) fn all() -> Vec<Vector> {
    let mut all = framing::lengths();
    all.extend(framing::codings());
    all.extend(framing::both());
    all.extend(chunks::all());
    all.extend(lines::all());
    all.extend(fields::all());
    all.extend(fields::hosts());
    all.extend(fields::hops());
    all
}

pub(crate) use valid::controls;

fn vector(name: impl Into<String>, bytes: impl AsRef<[u8]>, expect: Expect) -> Vector {
    Vector { name: name.into(), bytes: bytes.as_ref().to_vec(), expect }
}

fn get(target: &str) -> Plain {
    plain("GET", target, b"")
}

fn post(body: &[u8]) -> Plain {
    plain("POST", "/", body)
}

fn plain(method: &'static str, target: &str, body: &[u8]) -> Plain {
    Plain { method, target: target.into(), body: body.to_vec() }
}

/// What must never be taken for a request of its own; 40 bytes.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::strict;

    #[test]
    fn the_strict_reader_reads_what_is_right_as_it_is_meant() {
        for control in controls() {
            let Expect::Forward(plain) = &control.expect else { panic!("{}", control.name) };
            let (request, length) =
                strict::request(&control.bytes).unwrap().unwrap_or_else(|| panic!("{}", control.name));
            assert_eq!(length, control.bytes.len(), "{}", control.name);
            assert_eq!((request.method.as_str(), &request.body), (plain.method, &plain.body), "{}", control.name);
            assert_eq!(request.target, plain.target, "{}", control.name);
        }
    }

    #[test]
    fn the_strict_reader_takes_nothing_that_must_be_refused() {
        for vector in all().into_iter().filter(|vector| matches!(vector.expect, Expect::Refuse | Expect::Cut)) {
            let read = strict::request(&vector.bytes);
            // What is too long is right as far as grammar goes, and an end that never comes is no end.
            let long = vector.bytes.len() > 4096 || vector.name.contains("HTTP/1.0 with");
            assert!(long || !matches!(read, Ok(Some(_))), "{}: {read:?}", vector.name);
        }
    }

    #[test]
    fn no_two_vectors_are_the_same() {
        let mut seen = std::collections::BTreeSet::new();
        for vector in all() {
            assert!(seen.insert(vector.bytes), "{}", vector.name);
        }
    }
}
