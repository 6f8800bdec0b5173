//! How long a message is, and where its chunks end. Pure: bytes in, bytes out.
//!
//! Strict, because a length that two parties read differently lets one response be taken for another: whatever is
//! ambiguous breaks the exchange (RFC 9112 sections 6 and 7).

use bytes::{Bytes, BytesMut};
use http::header::HeaderMap;
use http::{Method, StatusCode};

use crate::message::fields::Fields;
use crate::message::found::{Ending, Found};

/// What is left of a message's body.
#[derive(Debug)]
pub enum Framing {
    /// Nothing.
    Done,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// Everything until the server closes.
    UntilClose,
}

impl Framing {
    /// So many bytes have come of a body whose length is known.
    pub fn came(&mut self, bytes: usize) {
        if let Framing::Length(left) = self {
            *left = left.saturating_sub(bytes as u64);
            if *left == 0 {
                *self = Framing::Done;
            }
        }
    }
}

/// Why a response cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Its length is ambiguous or not a number.
    #[error("the response's length is ambiguous")]
    Length,
    /// A chunk is not one.
    #[error("a chunk is malformed")]
    Chunk,
    /// Its head is not HTTP/1.
    #[error("the response's head is malformed")]
    Head,
    /// Its head is longer than accepted.
    #[error("the response's head is too long")]
    TooLong,
}

/// What a response's fields say of its length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    length: Option<u64>,
    chunked: bool,
}

impl Said {
    /// It has a `Content-Length`.
    pub fn length(self, value: &[u8]) -> Result<Said, Malformed> {
        match self.length {
            None => Ok(Said { length: Some(parse_length(value).ok_or(Malformed::Length)?), ..self }),
            Some(_) => Err(Malformed::Length),
        }
    }

    /// It has a `Transfer-Encoding`.
    pub fn coding(self, value: &[u8]) -> Result<Said, Malformed> {
        let is_chunked = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
        if is_chunked && !self.chunked { Ok(Said { chunked: true, ..self }) } else { Err(Malformed::Length) }
    }

    /// How that frames it.
    pub fn framing(self, method: &Method, status: StatusCode) -> Result<Framing, Malformed> {
        let no_body = *method == Method::HEAD
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Malformed::Length),
            (false, Some(0)) => Ok(Framing::Done),
            _ if no_body => Ok(Framing::Done),
            (true, None) => Ok(Framing::Chunked(Chunks::default())),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::UntilClose),
        }
    }
}

/// `1*DIGIT` without leading zeros, as everybody writes it (RFC 9110 section 8.6).
pub fn parse_length(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if !matches!(digits, [b'0'] | [b'1'..=b'9', ..]) {
        return None;
    }
    digits.iter().try_fold(0u64, |length, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

/// A decoder of chunks.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    /// Bytes of chunk extensions so far.
    extensions: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// Before a chunk's size line.
    #[default]
    Size,
    /// Inside a chunk, so many bytes before its end.
    Data(u64),
    /// Before the line end after a chunk.
    DataEnd,
    /// After the last chunk.
    Trailers,
}

/// What a decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Bytes of the body.
    Data(Bytes),
    /// It needs more bytes.
    More,
    /// The body has ended, with these trailers.
    End(HeaderMap),
}

impl Chunks {
    /// Takes what can be taken from the front of `buffer`.
    pub fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, Malformed> {
        loop {
            match self.state {
                State::Size => {
                    let Some(end) = line_end(buffer, MAX_SIZE_LINE)? else { return Ok(Step::More) };
                    let line = buffer.split_to(end + 2);
                    let line = &line[..end];
                    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                    let (size, extension) = line.split_at(digits);
                    self.extensions += extension.len();
                    let named = extension.trim_ascii_start();
                    let plain = named.is_empty() || named[0] == b';';
                    if digits == 0 || digits > 15 || !plain || self.extensions > MAX_EXTENSIONS {
                        return Err(Malformed::Chunk);
                    }
                    if extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
                        return Err(Malformed::Chunk);
                    }
                    let size = size.iter().fold(0u64, |size, digit| size << 4 | u64::from(hex(*digit)));
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Step::More);
                    }
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let left = left - here as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data(buffer.split_to(here).freeze()));
                }
                State::DataEnd => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        let _ = buffer.split_to(2);
                        self.state = State::Size;
                    }
                    Some(_) => return Err(Malformed::Chunk),
                    None => return Ok(Step::More),
                },
                State::Trailers => return trailers(buffer),
            }
        }
    }
}

fn trailers(buffer: &mut BytesMut) -> Result<Step, Malformed> {
    if buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
        return Ok(Step::End(HeaderMap::new()));
    }
    let Some(length) = trailers_end(buffer)? else { return Ok(Step::More) };
    let mut section = buffer.split_to(length);
    let Ok(Some(found)) = Found::read(&mut section, MAX_TRAILERS, Ending::Strict) else {
        return Err(Malformed::Chunk);
    };
    let mut trailers = Fields::new(section, found);
    trailers.retain(|field| may_trail(&String::from_utf8_lossy(field.name())));
    Ok(Step::End(trailers.to_map()))
}

/// What frames, routes, authenticates or says who the client is must not come after the body, where what looked at the
/// head does not see it (RFC 9110 section 6.5.1); nor what CGI takes for the same.
pub fn may_trail(name: &str) -> bool {
    let name = name.replace('_', "-");
    let begins = ["x-forwarded-", "x-accel-", "proxy-", "sec-"].iter().any(|with| name.starts_with(with));
    let is = matches!(
        &*name,
        "host"
            | "connection"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "content-length"
            | "upgrade"
            | "http2-settings"
            | "expect"
            | "forwarded"
            | "x-real-ip"
            | "proxy"
            | "authorization"
            | "cookie"
            | "set-cookie"
            | "content-encoding"
            | "content-type"
            | "content-range"
            | "location"
            | "cache-control"
    );
    !begins && !is
}

/// Where trailers end, the empty line included; what follows them is not looked at. A bare LF is refused as soon as it
/// is seen.
fn trailers_end(buffer: &[u8]) -> Result<Option<usize>, Malformed> {
    for at in memchr::memchr_iter(b'\n', &buffer[..buffer.len().min(MAX_TRAILER_BYTES)]) {
        if at == 0 || buffer[at - 1] != b'\r' {
            return Err(Malformed::Chunk);
        }
        if buffer[..at - 1].ends_with(b"\r\n") {
            return Ok(Some(at + 1));
        }
    }
    if buffer.len() >= MAX_TRAILER_BYTES { Err(Malformed::TooLong) } else { Ok(None) }
}

/// Where the first line ends; a bare LF or CR does not end one.
fn line_end(buffer: &[u8], longest: usize) -> Result<Option<usize>, Malformed> {
    match buffer.iter().position(|byte| *byte == b'\n') {
        Some(at) if at > longest => Err(Malformed::TooLong),
        Some(at) if at > 0 && buffer[at - 1] == b'\r' => Ok(Some(at - 1)),
        Some(_) => Err(Malformed::Chunk),
        None if buffer.len() > longest => Err(Malformed::TooLong),
        None => Ok(None),
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.to_ascii_lowercase().wrapping_sub(b'a') + 10,
    }
}

const MAX_SIZE_LINE: usize = 4 * 1024;
const MAX_EXTENSIONS: usize = 4 * 1024;
const MAX_TRAILERS: usize = 64;
const MAX_TRAILER_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framing(fields: &[(&str, &str)]) -> Result<Framing, Malformed> {
        let said = fields.iter().try_fold(Said::default(), |said, (name, value)| match *name {
            "content-length" => said.length(value.as_bytes()),
            _ => said.coding(value.as_bytes()),
        });
        said?.framing(&Method::GET, StatusCode::OK)
    }

    #[test]
    fn ambiguous_lengths_are_refused() {
        for bad in [
            &[("content-length", "5"), ("content-length", "5")][..],
            &[("content-length", "5"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "xchunked")],
            &[("content-length", "+5")],
            &[("content-length", "005")],
            &[("content-length", "5, 5")],
            &[("content-length", "")],
            &[("content-length", "99999999999999999999")],
        ] {
            assert!(framing(bad).is_err(), "{bad:?}");
        }
        assert!(matches!(framing(&[("content-length", "5")]), Ok(Framing::Length(5))));
        assert!(matches!(framing(&[("transfer-encoding", "Chunked")]), Ok(Framing::Chunked(_))));
        assert!(matches!(framing(&[]), Ok(Framing::UntilClose)));
    }

    #[test]
    fn answers_without_a_body_have_none_whatever_they_say() {
        let with = |method: Method, status: u16| {
            Said::default().length(b"5").unwrap().framing(&method, StatusCode::from_u16(status).unwrap())
        };
        assert!(matches!(with(Method::HEAD, 200), Ok(Framing::Done)));
        assert!(matches!(with(Method::GET, 204), Ok(Framing::Done)));
        assert!(matches!(with(Method::GET, 304), Ok(Framing::Done)));
        assert!(matches!(with(Method::GET, 200), Ok(Framing::Length(5))));
    }

    fn decode(wire: &[u8], cut: usize) -> Result<(Vec<u8>, HeaderMap, Vec<u8>), Malformed> {
        let mut chunks = Chunks::default();
        let mut buffer = BytesMut::new();
        let mut body = Vec::new();
        for piece in wire.chunks(cut) {
            buffer.extend_from_slice(piece);
            loop {
                match chunks.step(&mut buffer)? {
                    Step::Data(data) => body.extend_from_slice(&data),
                    Step::More => break,
                    Step::End(trailers) => return Ok((body, trailers, buffer.to_vec())),
                }
            }
        }
        Err(Malformed::Head)
    }

    #[test]
    fn chunks_are_decoded_however_they_are_cut() {
        let wire =
            b"5;a=b\r\nhello\r\n1\r\n \r\n05\r\nworld\r\n0\r\nx-sum: 7\r\nhost: evil\r\nX_Forwarded-For: 1\r\n\r\n";
        for cut in 1..wire.len() {
            let (body, trailers, rest) = decode(wire, cut).unwrap();
            assert_eq!(body, b"hello world");
            assert_eq!(trailers["x-sum"], "7");
            assert_eq!(trailers.len(), 1, "{trailers:?}");
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for bad in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"-5\r\nhello",
            b"0x5\r\nhello",
            b"5\r\nhelloX\r\n",
            b"\r\n",
            b"5 \x00\r\nhello\r\n",
            b"fffffffffffffffff\r\n",
        ] {
            assert!(matches!(decode(bad, 1), Err(Malformed::Chunk)), "{:?}", String::from_utf8_lossy(bad));
        }
        assert!(decode(&[b'a'; 9000], 100).is_err());
    }

    #[test]
    fn what_follows_trailers_is_not_looked_at() {
        let wire = b"0\r\na: b\r\n\r\nPOST / HTTP/1.1\r\n\r\n{\n}\n";
        for cut in [1, wire.len()] {
            let (_, trailers, _) = decode(wire, cut).unwrap();
            assert_eq!(trailers["a"], "b", "{cut}");
        }
        let most = format!("0\r\n{}\n", "a: b\r\n".repeat(MAX_TRAILERS));
        assert_eq!(decode(most.as_bytes(), 7), Err(Malformed::Chunk), "every line ends with CR LF");
    }

    #[test]
    fn long_trailers_are_refused_however_they_are_cut() {
        let wire = format!("0\r\na: {}\r\n\r\n", "b".repeat(MAX_TRAILER_BYTES));
        for cut in [wire.len(), 1000] {
            assert_eq!(decode(wire.as_bytes(), cut), Err(Malformed::TooLong), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(wire in proptest::collection::vec(any::<u8>(), 1..600), cut in 1usize..64) {
            let _ = decode(&wire, cut);
        }
    }
}
