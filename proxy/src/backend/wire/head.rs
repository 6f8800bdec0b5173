//! A response's head, read off a connection. Pure: bytes in, a head or a fault out.
//!
//! As strict as RFC 9112 section 4 asks, but for what servers have always sent: lines that end with a line feed alone, a
//! status line without a reason, empty lines before it.

use bytes::{Buf as _, BytesMut};
use http::{Method, StatusCode, Version};

use crate::backend::framing::{Framing, Malformed, Said};
use crate::message::fields::Fields;
use crate::message::found::{Ending, Flaw, Found, text_length, tokens};
use crate::message::is_for_one_hop;

/// A response's head.
#[derive(Debug)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// Its fields, without those that are for one hop.
    pub fields: Fields,
    /// How its body is framed.
    pub framing: Framing,
    /// Whether another request may follow on the connection once the body has ended.
    pub reusable: bool,
    /// For how many seconds the server says that it keeps the connection.
    pub keep_alive: Option<u32>,
}

/// Takes a response's head off the front of `buffer`, if it is all there; interim ones (1xx) too. Pure. `method` is the
/// request's, for it decides how the body is framed.
pub fn parse(buffer: &mut BytesMut, method: &Method) -> Result<Option<Head>, Malformed> {
    let Some((version, status, begin)) = status_line(buffer)? else { return Ok(None) };
    let found = match Found::read(&mut buffer[begin..], MAX_FIELDS, Ending::LineFeed) {
        Ok(Some(found)) if begin + found.end <= MAX_HEAD => found,
        Ok(None) => return Ok(None),
        Ok(Some(_)) | Err(Flaw::TooMany) => return Err(Malformed::TooLong),
        Err(Flaw::Malformed) => return Err(Malformed::Head),
    };
    let mut head = buffer.split_to(begin + found.end);
    head.advance(begin);
    let mut fields = Fields::new(head, found);
    // The length of a body that is not sent is information, not framing (RFC 9110 section 8.6).
    let informative = *method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    let mut length = Ok(Said::default());
    let mut close = version == Version::HTTP_10;
    let mut keep_alive = None;
    let mut nominated: Vec<Vec<u8>> = Vec::new();
    fields.retain(|field| {
        match field.name() {
            b"content-length" => length = length.and_then(|said| said.length(field.value())),
            b"transfer-encoding" => length = length.and_then(|said| said.coding(field.value())),
            b"connection" => {
                for token in tokens(field.value()) {
                    match token {
                        _ if token.eq_ignore_ascii_case(b"keep-alive") => {}
                        _ if token.eq_ignore_ascii_case(b"close") => close = true,
                        other => nominated.push(other.to_ascii_lowercase()),
                    }
                }
            }
            b"keep-alive" => keep_alive = keep_alive_timeout(field.value()),
            _ => {}
        }
        !is_for_the_proxy(field.name(), informative)
    });
    if !nominated.is_empty() {
        fields.retain(|field| !nominated.iter().any(|nominated| nominated == field.name()));
    }
    let framing = length?.framing(method, status)?;
    let reusable = !close && !matches!(framing, Framing::UntilClose);
    Ok(Some(Head { status, fields, framing, reusable, keep_alive }))
}

/// The version, the status, and where the fields begin; `None` where the line has not come. Empty lines before it are
/// passed over.
fn status_line(bytes: &[u8]) -> Result<Option<(Version, StatusCode, usize)>, Malformed> {
    let mut begin = 0;
    while let Some(end) = Ending::LineFeed.of(&bytes[begin..]) {
        begin += end;
    }
    let line = &bytes[begin..];
    // What speaks something else is not waited for.
    if !VERSION.starts_with(&line[..line.len().min(VERSION.len())]) && line != b"\r" {
        return Err(Malformed::Head);
    }
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let text = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
    let (minor, code, reason) = match text.strip_prefix(VERSION) {
        Some([minor @ (b'0' | b'1'), b' ', a, b, c, reason @ ..]) => (*minor, [*a, *b, *c], reason),
        _ => return Err(Malformed::Head),
    };
    if !matches!(reason, [] | [b' ', ..]) || text_length(reason) < reason.len() {
        return Err(Malformed::Head);
    }
    let version = if minor == b'1' { Version::HTTP_11 } else { Version::HTTP_10 };
    let status = StatusCode::from_bytes(&code).map_err(|_| Malformed::Head)?;
    Ok(Some((version, status, begin + end + 1)))
}

/// What is not for the client: a length does not inform where a body is framed anew.
pub(in crate::backend) fn is_for_the_proxy(name: &[u8], length_informs: bool) -> bool {
    is_for_one_hop(name) || name == b"content-length" && !length_informs
}

/// `Keep-Alive: timeout=5, max=100`; with `max=0` the server is about to close.
fn keep_alive_timeout(value: &[u8]) -> Option<u32> {
    let mut timeout = None;
    for part in std::str::from_utf8(value).ok()?.split(',').map(str::trim) {
        if part.eq_ignore_ascii_case("max=0") {
            return Some(0);
        }
        if let Some(seconds) = part.strip_prefix("timeout=") {
            timeout = seconds.trim().parse().ok();
        }
    }
    timeout
}

const VERSION: &[u8] = b"HTTP/1.";
/// Header fields of a response.
const MAX_FIELDS: usize = 200;
/// Longest response head, in bytes.
pub(super) const MAX_HEAD: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(wire: &str, method: Method) -> Result<Option<Head>, Malformed> {
        parse(&mut BytesMut::from(wire), &method)
    }

    #[test]
    fn fields_for_one_hop_stay_there() {
        let wire = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5, max=100\r\n\
                    Content-Length: 2\r\nX-End: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nok";
        let head = read(wire, Method::GET).unwrap().unwrap();
        assert!(head.reusable);
        assert_eq!(head.keep_alive, Some(5));
        assert_eq!(head.fields.len(), 3);
        assert_eq!(head.fields.get("x-end"), Some(&b"1"[..]));
        assert_eq!(head.fields.get_all("set-cookie").count(), 2);
    }

    #[test]
    fn a_length_is_kept_only_where_it_frames_nothing() {
        let wire = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
        assert_eq!(read(wire, Method::HEAD).unwrap().unwrap().fields.get("content-length"), Some(&b"10"[..]));
        assert!(read(wire, Method::GET).unwrap().unwrap().fields.is_empty());
    }

    #[test]
    fn a_server_that_will_close_is_not_used_again() {
        assert!(
            !read("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", Method::GET)
                .unwrap()
                .unwrap()
                .reusable
        );
        assert!(!read("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Method::GET).unwrap().unwrap().reusable);
        assert!(!read("HTTP/1.1 200 OK\r\n\r\n", Method::GET).unwrap().unwrap().reusable);
    }

    #[test]
    fn garbage_is_refused_and_a_beginning_waited_for() {
        assert!(read("SSH-2.0-OpenSSH\r\n\r\n", Method::GET).is_err());
        assert!(read("HTTP/1.1 200 OK\r\nA: b\r\n", Method::GET).unwrap().is_none());
        assert!(read("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Method::GET).is_err());
        assert!(read("HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", Method::GET).is_err());
    }

    proptest! {
        #[test]
        fn status_lines_are_read_as_httparse_reads_them(
            line in "(\r\n|\n|\r){0,2}H?TTP/1\\.[0-2] ?[0-9]{2,4}[ a]?[ -~\t\u{80}\u{0}\u{7f}\r]{0,6}(\r\n|\n)"
        ) {
            let wire = format!("{line}A: b\r\n\r\n");
            let mut room = [httparse::EMPTY_HEADER; 1];
            let mut theirs = httparse::Response::new(&mut room);
            let is_whole = theirs.parse(wire.as_bytes()).is_ok_and(|parsed| parsed.is_complete());
            // Below 100 is no status, also there.
            let code = theirs.code.filter(|code| is_whole && *code >= 100);
            let ours = read(&wire, Method::GET).ok().flatten().map(|head| head.status.as_u16());
            prop_assert_eq!(ours, code);
        }

        #[test]
        fn arbitrary_bytes_never_panic(wire in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&mut BytesMut::from(&wire[..]), &Method::GET);
            let mut wire_with_line = b"HTTP/1.1 200 OK\r\n".to_vec();
            wire_with_line.extend(wire);
            let _ = parse(&mut BytesMut::from(&wire_with_line[..]), &Method::GET);
        }
    }
}
