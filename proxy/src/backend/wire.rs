//! HTTP/1.1 on one upstream connection: a request out, a response head in, then the body.
//!
//! A narrow path of our own: the request is written from the client's head in one piece, nothing is built in between,
//! and it is known exactly whether a byte of an answer was seen. The response's framing is `framing.rs`.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use etna_store::object::ProxyVersion;
use http::{Method, StatusCode, Version};
use http_body::Frame;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::poll_read_buf;

use super::framing::{self, Framing, Malformed, Step};
use super::sending::Sending;
use super::stream::Stream;
use crate::message::fields::{Fields, Flaw, Found, line_end, text_length};
use crate::proxy_protocol::Origin;
use crate::tls::servers::ServerTls;
use crate::traffic::body::BodyError;

/// An upstream connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// Read and not used yet.
    buffer: BytesMut,
    /// Whether it answered a request before: then the server may have closed it without our knowing yet.
    pub reused: bool,
    /// What it began with: it is for requests of that origin alone.
    pub announced: Option<Box<Announced>>,
}

/// What a connection tells its server first: whose it is (the PROXY protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// How that is written.
    pub version: ProxyVersion,
    /// Whose it is.
    pub origin: Origin,
}

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

/// Why an exchange broke.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection ended before a byte of an answer; `consumed` says whether the request's body was begun.
    #[error("the connection ended before the answer: {source}")]
    Unanswered {
        /// Whether the body can no longer be sent again.
        consumed: bool,
        /// The cause.
        source: io::Error,
    },
    /// The server says that it has not begun with the request (HTTP/2); `consumed` as above.
    #[error("the server has not begun with the request")]
    Refused {
        /// Whether the body can no longer be sent again.
        consumed: bool,
    },
    /// It ended inside the head.
    #[error("the connection ended inside the response's head")]
    Truncated,
    /// The response cannot be understood.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The request's body could not be read to its end.
    #[error("the request's body: {0}")]
    Request(#[from] BodyError),
}

impl Connection {
    /// A connection that just came to stand.
    pub fn new(stream: Stream) -> Connection {
        Connection { stream, buffer: BytesMut::new(), reused: false, announced: None }
    }

    /// Whether everything that was read from it was used.
    pub fn is_drained(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether it can still be used: open, and the server sent nothing that nobody asked for. Costs a system call only
    /// when something has arrived.
    pub fn is_usable(&mut self) -> bool {
        self.buffer.is_empty() && self.stream.is_silent()
    }

    /// Whether it was made on these terms; `None`: in the clear.
    pub fn is_of(&self, terms: Option<&Arc<ServerTls>>) -> bool {
        self.stream.is_of(terms)
    }

    /// Whether ALPN settled on HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.stream.protocol() == Some(b"h2")
    }

    /// Whether the server has not closed it, as the kernel knows at this moment. Always costs a system call.
    pub fn is_open(&self) -> bool {
        self.stream.is_open()
    }

    /// Sends a request, head first, and reads the head of the answer. When the answer comes before the body has been
    /// sent, `sending` is left where it is, to be sent on while the answer is read. `progress` counts the bytes of the
    /// body that were sent: as long as it grows, the server is not late.
    pub async fn exchange(
        &mut self,
        method: &Method,
        head: &[u8],
        sending: &mut Sending,
        progress: &Cell<u64>,
    ) -> Result<Head, Broken> {
        let unanswered = |source| Broken::Unanswered { consumed: false, source };
        self.stream.write_all(head).await.map_err(unanswered)?;
        if let Stream::Tls(_) = self.stream {
            self.stream.flush().await.map_err(unanswered)?;
        }
        let has_body = !sending.is_done();
        let mut interim = 0;
        // A server that knows nothing of expectations would wait for the body as long as we for its word.
        let mut silence = sending.is_held().then(|| Box::pin(tokio::time::sleep(MOST_SILENCE)));
        poll_fn(|cx| {
            if let Some(timer) = &mut silence
                && (interim > 0 || timer.as_mut().poll(cx).is_ready())
            {
                sending.release();
                silence = None;
            }
            if has_body {
                // A write that fails is not the end: the server may have answered before it stopped listening.
                let sent = sending.poll(&mut self.stream, cx);
                progress.set(sending.written());
                if let Poll::Ready(Err(error)) = sent {
                    return Poll::Ready(Err(error.into()));
                }
            }
            let before = interim;
            let head = self.poll_head(method, &mut interim, cx);
            if interim > before && silence.is_some() {
                cx.waker().wake_by_ref();
            }
            head
        })
        .await
        .map_err(|error| if has_body { consumed(error) } else { error })
    }

    /// Goes on sending a request's body.
    pub fn poll_send(&mut self, sending: &mut Sending, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        sending.poll(&mut self.stream, cx)
    }

    /// Reads a response's head; `interim` counts the 1xx answers before it.
    fn poll_head(&mut self, method: &Method, interim: &mut u32, cx: &mut Context<'_>) -> Poll<Result<Head, Broken>> {
        loop {
            if let Some(head) = parse(&mut self.buffer, method)? {
                // 100 and its like say nothing to a client that was already told to go on.
                if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(head));
                }
                *interim += 1;
                if *interim > MOST_INTERIM {
                    return Poll::Ready(Err(Malformed::TooLong.into()));
                }
                continue;
            }
            if self.buffer.len() > MAX_HEAD {
                return Poll::Ready(Err(Malformed::TooLong.into()));
            }
            if self.buffer.capacity() - self.buffer.len() < LEAST_ROOM {
                self.buffer.reserve(SMALL_READ);
            }
            let nothing_yet = self.buffer.is_empty() && *interim == 0;
            let ended = match ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.buffer)) {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => continue,
                Err(error) => error,
            };
            return Poll::Ready(Err(if nothing_yet {
                Broken::Unanswered { consumed: false, source: ended }
            } else {
                Broken::Truncated
            }));
        }
    }

    /// Reads on in the body.
    pub fn poll_body(&mut self, framing: &mut Framing, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match framing {
                Framing::Done => return Poll::Ready(None),
                Framing::Length(left) if !self.buffer.is_empty() => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
                    *left -= here as u64;
                    if *left == 0 {
                        *framing = Framing::Done;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(self.buffer.split_to(here).freeze()))));
                }
                Framing::UntilClose if !self.buffer.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(self.buffer.split().freeze()))));
                }
                Framing::Chunked(chunks) => match chunks.step(&mut self.buffer) {
                    Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Step::End(trailers)) => {
                        *framing = Framing::Done;
                        if trailers.is_empty() {
                            return Poll::Ready(None);
                        }
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                    Ok(Step::More) => {}
                    Err(error) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                },
                Framing::Length(_) | Framing::UntilClose => {}
            }
            let more = match framing {
                Framing::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX).clamp(SMALL_READ, LARGE_READ),
                _ => LARGE_READ / 4,
            };
            self.buffer.reserve(more);
            let read = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.buffer));
            match read {
                Ok(0) if matches!(framing, Framing::UntilClose) => *framing = Framing::Done,
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// The stream, and what was read from it already, once it no longer speaks HTTP.
    pub fn into_tunnel(self) -> (Stream, Bytes) {
        (self.stream, self.buffer.freeze())
    }
}

fn consumed(error: Broken) -> Broken {
    match error {
        Broken::Unanswered { source, .. } => Broken::Unanswered { consumed: true, source },
        other => other,
    }
}

/// Takes a response's head off the front of `buffer`, if it is all there; interim ones (1xx) too. Pure. `method` is the
/// request's, for it decides how the body is framed.
pub fn parse(buffer: &mut BytesMut, method: &Method) -> Result<Option<Head>, Malformed> {
    let Some((version, status, begin)) = status_line(buffer)? else { return Ok(None) };
    let found = match Found::read(buffer, begin, MAX_FIELDS) {
        Ok(Some(found)) if found.end <= MAX_HEAD => found,
        Ok(None) => return Ok(None),
        Ok(Some(_)) | Err(Flaw::TooMany) => return Err(Malformed::TooLong),
        Err(Flaw::Malformed) => return Err(Malformed::Head),
    };
    let mut fields = Fields::new(buffer.split_to(found.end), found);
    let framing = framing::of_response(method, status, fields.iter().map(|field| (field.name(), field.value())))?;
    let mut close = version == Version::HTTP_10;
    let mut keep_alive = None;
    let mut nominated: Vec<Vec<u8>> = Vec::new();
    for field in fields.iter() {
        match field.name() {
            b"connection" => {
                for token in field.value().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    close |= token.eq_ignore_ascii_case(b"close");
                    if !token.eq_ignore_ascii_case(b"close") && !token.eq_ignore_ascii_case(b"keep-alive") {
                        nominated.push(token.to_ascii_lowercase());
                    }
                }
            }
            b"keep-alive" => keep_alive = keep_alive_timeout(field.value()),
            _ => {}
        }
    }
    // The length of a body that is not sent is information, not framing (RFC 9110 section 8.6).
    let informative = *method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    fields.retain(|field| {
        !is_for_one_hop(field.name(), informative) && !nominated.iter().any(|nominated| nominated == field.name())
    });
    let reusable = !close && !matches!(framing, Framing::UntilClose);
    Ok(Some(Head { status, fields, framing, reusable, keep_alive }))
}

/// The version, the status, and where the fields begin; `None` where the line has not come. Empty lines before it are
/// passed over.
fn status_line(bytes: &[u8]) -> Result<Option<(Version, StatusCode, usize)>, Malformed> {
    let mut begin = 0;
    while let Some(end) = line_end(&bytes[begin..]) {
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

/// RFC 9110 section 7.6.1, and the framing, which is written anew for the client.
pub(super) fn is_for_one_hop(name: &[u8], length_informs: bool) -> bool {
    match name {
        b"connection"
        | b"keep-alive"
        | b"proxy-connection"
        | b"proxy-authenticate"
        | b"proxy-authorization"
        | b"te"
        | b"transfer-encoding"
        | b"upgrade" => true,
        b"content-length" => !length_informs,
        _ => false,
    }
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
const MAX_HEAD: usize = 128 * 1024;
/// 1xx answers before the one that counts.
pub(super) const MOST_INTERIM: u32 = 8;
/// How long a server may take to say whether it wants a body.
const MOST_SILENCE: Duration = Duration::from_millis(500);
/// Room for a head and a body of some kilobytes: with less, they would take two reads. Room is had again at no cost once
/// the answer before has gone out.
const LEAST_ROOM: usize = 12 * 1024;
/// A head, and with it most bodies.
const SMALL_READ: usize = 16 * 1024;
const LARGE_READ: usize = 64 * 1024;

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
