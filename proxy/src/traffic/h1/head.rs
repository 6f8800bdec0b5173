//! A request's head, read strictly. Pure: bytes in, a request or a refusal out.
//!
//! Whatever two parties could read in two ways is refused here, before anything is matched or forwarded (RFC 9112
//! sections 2, 3, 5 and 6): bare line feeds, folded fields, more than one length, a length beside chunks, codings
//! other than `chunked`. What a field is, is in `message/found.rs`.

use std::ops::Range;
use std::rc::Rc;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, Uri, Version};

use crate::backend::framing::{Chunks, Framing, parse_length};
use crate::error::Error;
use crate::message::RequestHead;
use crate::message::fields::Fields;
use crate::message::found::{Ending, Flaw, Found, tokens};

/// A request's head.
#[derive(Debug)]
pub struct Head {
    /// Method, target, version and fields.
    pub parts: Rc<RequestHead>,
    /// How its body is framed; never until the connection's end.
    pub framing: Framing,
    /// Whether the client keeps the connection open for another request.
    pub keep_alive: bool,
    /// Whether it waits for `100 Continue` before it sends its body.
    pub expects_continue: bool,
}

/// Takes a request's head off the front of `buffer`, if it is all there. `scanned` is where the search for its end
/// goes on when more has arrived; 0 for a new request.
pub fn read(buffer: &mut BytesMut, scanned: &mut usize) -> Result<Option<Head>, Error> {
    // A client may end a body with an empty line that nobody asked for (RFC 9112 section 2.2); of the first of them half
    // may have been there before.
    while *scanned < 2 && buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
        *scanned = 0;
    }
    // Most come whole, and nothing after them.
    if !buffer.ends_with(b"\r\n\r\n") && !is_whole(buffer, scanned)? {
        return Ok(None);
    }
    *scanned = 0;
    parse(buffer)?.ok_or(MALFORMED_HEAD).map(Some)
}

/// Whether the head's end is there. A bare line feed is refused as soon as it is seen.
fn is_whole(buffer: &[u8], scanned: &mut usize) -> Result<bool, Error> {
    let from = *scanned;
    for at in memchr::memchr_iter(b'\n', &buffer[from..]).map(|at| at + from) {
        if at == 0 || buffer[at - 1] != b'\r' {
            return Err(BARE);
        }
        if buffer[..at - 1].ends_with(b"\r\n") {
            return Ok(true);
        }
    }
    if buffer.len() > MAX_LINE && memchr::memchr(b'\n', &buffer[..MAX_LINE]).is_none() {
        return Err(Error::TargetTooLong);
    }
    if buffer.len() >= MAX_HEAD {
        return Err(Error::HeadTooLarge);
    }
    *scanned = buffer.len();
    Ok(false)
}

fn parse(buffer: &mut BytesMut) -> Result<Option<Head>, Error> {
    let Some(feed) = memchr::memchr(b'\n', buffer) else { return Ok(None) };
    let (method, target, version) = request_line(&buffer[..=feed])?;
    let found = match Found::read(&mut buffer[feed + 1..], MAX_FIELDS, Ending::Strict) {
        Ok(Some(found)) if feed + 1 + found.end <= MAX_HEAD => found,
        Ok(None) => return Ok(None),
        Ok(Some(_)) | Err(Flaw::TooMany) => return Err(Error::HeadTooLarge),
        Err(Flaw::Malformed) => return Err(MALFORMED_HEAD),
    };
    let mut line = buffer.split_to(feed + 1);
    line.truncate(target.end);
    line.advance(target.start);
    let fields = Fields::new(buffer.split_to(found.end), found);
    let said = said(&fields, version)?;
    let uri = uri(&method, line.freeze())?;
    Ok(Some(Head {
        parts: Rc::new(RequestHead { method, uri, version, fields }),
        framing: said.framing(),
        keep_alive: if version == Version::HTTP_11 { !said.close } else { said.keep_alive && !said.close },
        expects_continue: said.expects_continue && version == Version::HTTP_11,
    }))
}

/// The method, where in the line the target lies, and the version.
fn request_line(line: &[u8]) -> Result<(Method, Range<usize>, Version), Error> {
    if !line.ends_with(b"\r\n") {
        return Err(BARE);
    }
    let word = |from: usize| Some(&line[from..from + memchr::memchr(b' ', &line[from..])?]);
    let method = word(0).ok_or(MALFORMED_LINE)?;
    let target = word(method.len() + 1).ok_or(MALFORMED_LINE)?;
    let version = &line[method.len() + 1 + target.len() + 1..];
    if target.len() > MAX_TARGET {
        return Err(Error::TargetTooLong);
    }
    if method.len() > MAX_METHOD {
        return Err(Error::BadRequest("the method is too long"));
    }
    let version = match version {
        b"HTTP/1.1\r\n" => Version::HTTP_11,
        b"HTTP/1.0\r\n" => Version::HTTP_10,
        _ => return Err(Error::BadRequest("not HTTP/1.0 or HTTP/1.1")),
    };
    let begin = method.len() + 1;
    let target = begin..begin + target.len();
    let method = Method::from_bytes(method).map_err(|_| Error::BadRequest("the method is malformed"))?;
    Ok((method, target, version))
}

/// What the fields say about the message itself.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Said {
    fn framing(&self) -> Framing {
        match (self.chunked, self.length) {
            (true, _) => Framing::Chunked(Chunks::default()),
            (false, None | Some(0)) => Framing::Done,
            (false, Some(length)) => Framing::Length(length),
        }
    }
}

fn said(fields: &Fields, version: Version) -> Result<Said, Error> {
    let mut said = Said::default();
    for field in fields.iter() {
        match field.name() {
            b"content-length" => {
                if said.length.is_some() {
                    return Err(Error::BadRequest("more than one Content-Length"));
                }
                let length = parse_length(field.value()).ok_or(Error::BadRequest("Content-Length is not a number"))?;
                said.length = Some(length);
            }
            b"transfer-encoding" => {
                if said.chunked || version != Version::HTTP_11 {
                    return Err(Error::BadRequest("Transfer-Encoding more than once, or in HTTP/1.0"));
                }
                if !field.value().eq_ignore_ascii_case(b"chunked") {
                    return Err(Error::NotImplemented);
                }
                said.chunked = true;
            }
            b"connection" => {
                for token in tokens(field.value()) {
                    said.close |= token.eq_ignore_ascii_case(b"close");
                    said.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            b"expect" => {
                if !field.value().eq_ignore_ascii_case(b"100-continue") {
                    return Err(Error::Expectation);
                }
                said.expects_continue = true;
            }
            _ => {}
        }
    }
    if said.chunked && said.length.is_some() {
        return Err(Error::BadRequest("both Content-Length and Transfer-Encoding"));
    }
    Ok(said)
}

/// The target: a path, or a whole `http` URL; `*` for OPTIONS alone. CONNECT is refused later, whatever it names.
fn uri(method: &Method, target: Bytes) -> Result<Uri, Error> {
    check_target(&target)?;
    match target.first() {
        Some(b'/') => {}
        Some(b'*') if target.len() == 1 && *method == Method::OPTIONS => {}
        Some(_) if *method == Method::CONNECT => {}
        Some(_) if target.len() > 7 && target[..7].eq_ignore_ascii_case(b"http://") => {}
        Some(_) if target.len() > 8 && target[..8].eq_ignore_ascii_case(b"https://") => {}
        Some(_) | None => return Err(MALFORMED),
    }
    let uri = Uri::from_maybe_shared(target).map_err(|_| MALFORMED)?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Error::BadRequest("the request target holds a user"));
    }
    Ok(uri)
}

/// What no target may hold, whatever its form.
pub fn check_target(target: &[u8]) -> Result<(), Error> {
    if target.iter().fold(false, |bad, byte| bad | !byte.is_ascii_graphic() | (*byte == b'#')) {
        return Err(MALFORMED);
    }
    // Where a name ends at a NUL, it is another name than the one that was matched.
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    if memchr::memchr_iter(b'%', path).any(|at| path[at..].starts_with(b"%00")) {
        return Err(Error::BadRequest("the path holds a NUL"));
    }
    Ok(())
}

const BARE: Error = Error::BadRequest("a line does not end with CR LF");
const MALFORMED: Error = Error::BadRequest("the request target is malformed");
const MALFORMED_LINE: Error = Error::BadRequest("the request line is malformed");
const MALFORMED_HEAD: Error = Error::BadRequest("the request's head is malformed");
/// Header fields of a request.
pub const MAX_FIELDS: usize = 100;
/// Longest head, in bytes.
pub const MAX_HEAD: usize = 32 * 1024;
/// Longest request target, in bytes.
pub const MAX_TARGET: usize = 8 * 1024;
/// Longest method, in bytes.
pub const MAX_METHOD: usize = 32;
const MAX_LINE: usize = MAX_METHOD + MAX_TARGET + 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take(wire: &str) -> Result<Option<Head>, Error> {
        read(&mut BytesMut::from(wire), &mut 0)
    }

    fn ok(wire: &str) -> Head {
        take(wire).unwrap().unwrap()
    }

    #[test]
    fn a_head_is_taken_and_what_follows_is_left() {
        let mut buffer =
            BytesMut::from("\r\nPOST /a?b=c HTTP/1.1\r\nHost: a.test\r\nX-One:  1 \r\nContent-Length: 3\r\n\r\nabcGET");
        let head = read(&mut buffer, &mut 0).unwrap().unwrap();
        assert_eq!(head.parts.method, Method::POST);
        assert_eq!(head.parts.uri.path_and_query().unwrap(), "/a?b=c");
        assert_eq!(head.parts.fields.get("x-one"), Some(&b"1"[..]));
        assert!(matches!(head.framing, Framing::Length(3)));
        assert!(head.keep_alive && !head.expects_continue);
        assert_eq!(&buffer[..], b"abcGET");
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_scanned_once() {
        let wire = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut buffer = BytesMut::new();
        let mut scanned = 0;
        for (at, byte) in wire.iter().enumerate() {
            buffer.extend_from_slice(&[*byte]);
            let read = read(&mut buffer, &mut scanned).unwrap();
            assert_eq!(read.is_some(), at + 1 == wire.len());
            assert!(read.is_some() || scanned == at + 1);
        }
    }

    #[test]
    fn empty_lines_before_a_head_may_come_in_pieces() {
        let mut buffer = BytesMut::new();
        let mut scanned = 0;
        for byte in b"\r\n\r\nGET / HTTP/1.1\r\n\r" {
            buffer.extend_from_slice(&[*byte]);
            assert!(read(&mut buffer, &mut scanned).unwrap().is_none());
        }
        buffer.extend_from_slice(b"\n");
        assert!(read(&mut buffer, &mut scanned).unwrap().is_some() && buffer.is_empty());
    }

    #[test]
    fn connections_are_kept_as_the_version_says() {
        assert!(ok("GET / HTTP/1.1\r\n\r\n").keep_alive);
        assert!(!ok("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n").keep_alive);
        assert!(!ok("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(ok("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
    }

    #[test]
    fn expectations() {
        assert!(ok("PUT / HTTP/1.1\r\nExpect: 100-Continue\r\n\r\n").expects_continue);
        assert!(!ok("PUT / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expects_continue);
        assert_eq!(take("PUT / HTTP/1.1\r\nExpect: y\r\n\r\n").unwrap_err(), Error::Expectation);
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        let get = |fields: &str| take(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")).map(|_| ());
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1, 1",
            "Content-Length: 01",
            "Content-Length: +1",
            "Content-Length: ",
            "Content-Length: 0x1",
            "Content-Length: 99999999999999999999",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "A: b\r\n folded",
            "A : b",
            " A: b",
            ": b",
            "A",
            "A: b\nB: c",
            "A: b\rB: c",
            "A: \0",
            "A: \x07",
            "A\x0b: b",
        ] {
            assert!(matches!(get(fields), Err(Error::BadRequest(_))), "{fields:?}: {:?}", get(fields));
        }
        for coding in ["xchunked", "cow, chunked", ",chunked", "chunked,", "identity", "", "chunked;a", "\"chunked\""] {
            assert_eq!(get(&format!("Transfer-Encoding: {coding}")), Err(Error::NotImplemented), "{coding}");
        }
        assert!(take("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn request_lines() {
        for line in [
            "GET / HTTP/1.1\n",
            "GET /\r\n",
            "GET  / HTTP/1.1\r\n",
            "GET / HTTP/2.0\r\n",
            "GET / HTTP/1.2\r\n",
            "GET / http/1.1\r\n",
            "GET /a#b HTTP/1.1\r\n",
            "GET a HTTP/1.1\r\n",
            "GET * HTTP/1.1\r\n",
            "GET /\u{e9} HTTP/1.1\r\n",
            "GET http://u@a/ HTTP/1.1\r\n",
            "GET ftp://a/ HTTP/1.1\r\n",
            "GET /wp-admin%00.png HTTP/1.1\r\n",
            "G\x00T / HTTP/1.1\r\n",
            "G{T / HTTP/1.1\r\n",
            " GET / HTTP/1.1\r\n",
        ] {
            assert!(take(&format!("{line}Host: a\r\n\r\n")).is_err(), "{line:?}");
        }
        for line in ["OPTIONS * HTTP/1.1", "GET http://a.test/x HTTP/1.1", "PURGE //a/../%2f?x HTTP/1.1"] {
            assert!(take(&format!("{line}\r\nHost: a\r\n\r\n")).unwrap().is_some(), "{line}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let long = "a".repeat(MAX_TARGET + 1);
        assert_eq!(take(&format!("GET /{long} HTTP/1.1\r\n\r\n")).unwrap_err(), Error::TargetTooLong);
        assert_eq!(take(&format!("GET /{long}{long}")).unwrap_err(), Error::TargetTooLong);
        let field = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(MAX_HEAD));
        assert_eq!(take(&field).unwrap_err(), Error::HeadTooLarge);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        assert_eq!(take(&many).unwrap_err(), Error::HeadTooLarge);
        assert!(take(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS))).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn a_request_line_is_one_to_httparse_too(line in "([A-Z{ \t\u{0}]{0,3}) ?[/*a-z:%?# \t\u{80}]{0,9} HTTP/[12]\\.[012][ \r]?") {
            let wire = format!("{line}\r\nHost: a\r\n\r\n");
            let Ok(Some(ours)) = take(&wire) else { return Ok(()) };
            let mut room = [httparse::EMPTY_HEADER; 1];
            let mut theirs = httparse::Request::new(&mut room);
            prop_assert!(theirs.parse(wire.as_bytes()).is_ok_and(|parsed| parsed.is_complete()));
            prop_assert_eq!(theirs.method, Some(ours.parts.method.as_str()));
            prop_assert_eq!(theirs.path.map(str::to_owned), Some(ours.parts.uri.to_string()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(wire in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&mut BytesMut::from(&wire[..]), &mut 0);
            let mut lined = b"GET / HTTP/1.1\r\n".to_vec();
            lined.extend(wire);
            lined.extend(b"\r\n\r\n");
            let _ = read(&mut BytesMut::from(&lined[..]), &mut 0);
        }
    }
}
