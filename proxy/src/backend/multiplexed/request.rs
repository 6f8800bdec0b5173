//! A request's head as HTTP/2 has it, made of the one that was written for HTTP/1.1. Pure.
//!
//! So there is one place where it is decided what servers see (`traffic/headers.rs`). What frames a message or is for
//! one hop in HTTP/1.1 does not exist here (RFC 9113 section 8.2.2).

use bytes::BytesMut;
use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};

use crate::message::fields::Fields;
use crate::message::found::{Ending, Found};

/// Reads a written head; `None` where there is something in it that HTTP/2 cannot say.
pub(super) fn of_written(head: &[u8], is_encrypted: bool) -> Option<Request<()>> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let (method, rest) = split_at_space(line)?;
    let (target, _) = split_at_space(rest)?;
    let mut section = BytesMut::from(head.get(line.len() + 2..)?);
    let found = Found::read(&mut section, MOST_FIELDS, Ending::Strict).ok()??;
    let fields = Fields::new(section, found);
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = Method::from_bytes(method).ok()?;
    let mut authority = None;
    let headers = request.headers_mut();
    headers.reserve(fields.len());
    for field in fields.iter() {
        match field.name() {
            b"host" => authority = Some(Authority::try_from(field.value()).ok()?),
            b"connection" | b"transfer-encoding" | b"upgrade" | b"expect" => {}
            name => {
                headers.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(field.value()).ok()?);
            }
        }
    }
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(if is_encrypted { Scheme::HTTPS } else { Scheme::HTTP });
    uri.authority = authority;
    uri.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    Some(request)
}

fn split_at_space(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == b' ')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// More than any client may send and we add.
const MOST_FIELDS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_frames_goes_and_the_rest_stays() {
        let head = b"POST /a?b=c HTTP/1.1\r\nhost: a.test:80\r\ncookie: a=1\r\ncookie: b=2\r\nte: trailers\r\n\
            expect: 100-continue\r\ntransfer-encoding: chunked\r\nx-forwarded-for: 192.0.2.7\r\n\r\n";
        let request = of_written(head, false).unwrap();
        assert_eq!(request.uri().to_string(), "http://a.test:80/a?b=c");
        assert_eq!((request.method().as_str(), request.headers().len()), ("POST", 4));
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(of_written(b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", true).unwrap().uri().path(), "*");
        for bad in [&b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n"[..], b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
            assert!(of_written(bad, true).is_none(), "{bad:?}");
        }
    }
}
