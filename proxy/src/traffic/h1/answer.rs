//! A response's head as a client gets it, and how its body is framed for it. Pure.

use http::{Method, StatusCode, Version};

use crate::message::fields::Fields;

/// What of a request decides how its response is written.
#[derive(Clone, Debug)]
pub struct Asked {
    /// A HEAD is answered without a body.
    pub method: Method,
    /// HTTP/1.0 knows no chunks.
    pub version: Version,
}

/// How a response's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delimiter {
    /// There is none, and none can be.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks,
    /// The connection's end.
    Close,
}

impl Delimiter {
    /// How a body of this length, or of one that is not known yet, is framed (RFC 9112 section 6.3).
    pub fn of(asked: &Asked, status: StatusCode, length: Option<u64>) -> Delimiter {
        let never = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        match length {
            _ if never || asked.method == Method::HEAD => Delimiter::Nothing,
            Some(length) => Delimiter::Length(length),
            None if asked.version == Version::HTTP_10 => Delimiter::Close,
            None => Delimiter::Chunks,
        }
    }
}

/// Writes a response's head. `date` is for those that come without one (RFC 9110 section 6.6.1).
pub fn write(
    out: &mut Vec<u8>,
    (status, fields): (StatusCode, &Fields),
    asked: &Asked,
    delimiter: Delimiter,
    keep: bool,
    date: &str,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut dated = status.is_informational();
    for field in fields.iter() {
        match field.name() {
            // A length that frames is written below; that of a body which is not sent is information.
            b"content-length" if delimiter != Delimiter::Nothing => continue,
            b"date" => dated = true,
            _ => {}
        }
        field.write(out);
    }
    if !dated {
        field(out, "date", date.as_bytes());
    }
    match delimiter {
        Delimiter::Nothing | Delimiter::Close => {}
        Delimiter::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(digits(length, &mut [0; 20]));
            out.extend_from_slice(b"\r\n");
        }
        Delimiter::Chunks => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    if status != StatusCode::SWITCHING_PROTOCOLS {
        match (keep, asked.version) {
            (false, _) => out.extend_from_slice(b"connection: close\r\n"),
            (true, Version::HTTP_10) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (true, _) => {}
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes one field of a head or of trailers.
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes what stands before a chunk.
pub fn chunk_size(out: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(size >> (4 * digit)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// A number's digits, at the end of `room`.
pub fn digits(mut number: u64, room: &mut [u8; 20]) -> &[u8] {
    let mut at = room.len();
    loop {
        at -= 1;
        room[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &room[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method, version: Version) -> Asked {
        Asked { method, version }
    }

    fn written(status: u16, fields: &[(&str, &str)], asked: &Asked, length: Option<u64>, keep: bool) -> String {
        let mut response = http::Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let (head, ()) = response.body(()).unwrap().into_parts();
        let fields = Fields::from(&head.headers);
        let mut out = Vec::new();
        write(&mut out, (head.status, &fields), asked, Delimiter::of(asked, head.status, length), keep, "now");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_length_that_is_sent_is_the_one_that_is_said() {
        let get = asked(Method::GET, Version::HTTP_11);
        let text = written(200, &[("content-length", "7"), ("a", "b")], &get, Some(1_234_567), true);
        assert_eq!(text, "HTTP/1.1 200 OK\r\na: b\r\ndate: now\r\ncontent-length: 1234567\r\n\r\n");
        let text = written(200, &[("date", "then")], &get, None, false);
        assert_eq!(text, "HTTP/1.1 200 OK\r\ndate: then\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
        let text = written(299, &[], &get, Some(0), true);
        assert_eq!(text, "HTTP/1.1 299 \r\ndate: now\r\ncontent-length: 0\r\n\r\n");
    }

    #[test]
    fn what_has_no_body_has_no_framing() {
        let head = asked(Method::HEAD, Version::HTTP_11);
        let text = written(200, &[("content-length", "7")], &head, Some(0), true);
        assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ndate: now\r\n\r\n");
        let get = asked(Method::GET, Version::HTTP_11);
        assert_eq!(written(204, &[], &get, Some(0), true), "HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n");
        assert_eq!(written(101, &[], &get, Some(0), true), "HTTP/1.1 101 Switching Protocols\r\n\r\n");
    }

    #[test]
    fn an_old_client_gets_the_connections_end_for_chunks() {
        let old = asked(Method::GET, Version::HTTP_10);
        assert_eq!(Delimiter::of(&old, StatusCode::OK, None), Delimiter::Close);
        assert!(written(200, &[], &old, Some(1), true).ends_with("connection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn chunk_sizes() {
        for (size, text) in [(0usize, "0\r\n"), (1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (65536, "10000\r\n")] {
            let mut out = Vec::new();
            chunk_size(&mut out, size);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
