//! A client of HTTP/2 that writes its frames by hand, so that it can send what no client should; and listeners for it.
//!
//! It reads of responses what tells them apart: frames, error codes, statuses. What a whole exchange carries is asked
//! for with the `h2` crate's client.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::proxy::Proxy;
use crate::scene::Scene;
use crate::wait::eventually;

/// What a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame type (RFC 9113 section 6).
pub const DATA: u8 = 0;
/// A frame type (RFC 9113 section 6).
pub const HEADERS: u8 = 1;
/// A frame type (RFC 9113 section 6).
pub const PRIORITY: u8 = 2;
/// A frame type (RFC 9113 section 6).
pub const RST_STREAM: u8 = 3;
/// A frame type (RFC 9113 section 6).
pub const SETTINGS: u8 = 4;
/// A frame type (RFC 9113 section 6).
pub const PUSH_PROMISE: u8 = 5;
/// A frame type (RFC 9113 section 6).
pub const PING: u8 = 6;
/// A frame type (RFC 9113 section 6).
pub const GOAWAY: u8 = 7;
/// A frame type (RFC 9113 section 6).
pub const WINDOW_UPDATE: u8 = 8;
/// A frame type (RFC 9113 section 6).
pub const CONTINUATION: u8 = 9;

/// A flag (RFC 9113 section 6).
pub const END_STREAM: u8 = 1;
/// A flag (RFC 9113 section 6).
pub const ACK: u8 = 1;
/// A flag (RFC 9113 section 6).
pub const END_HEADERS: u8 = 4;
/// A flag (RFC 9113 section 6).
pub const PADDED: u8 = 8;
/// A flag (RFC 9113 section 6).
pub const WITH_PRIORITY: u8 = 0x20;

/// An error code (RFC 9113 section 7).
pub const NO_ERROR: u32 = 0;
/// An error code (RFC 9113 section 7).
pub const PROTOCOL_ERROR: u32 = 1;
/// An error code (RFC 9113 section 7).
pub const FLOW_CONTROL_ERROR: u32 = 3;
/// An error code (RFC 9113 section 7).
pub const STREAM_CLOSED: u32 = 5;
/// An error code (RFC 9113 section 7).
pub const FRAME_SIZE_ERROR: u32 = 6;
/// An error code (RFC 9113 section 7).
pub const REFUSED_STREAM: u32 = 7;
/// An error code (RFC 9113 section 7).
pub const COMPRESSION_ERROR: u32 = 9;
/// An error code (RFC 9113 section 7).
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A listener that understands HTTP/2 in the clear.
pub fn listener() -> Value {
    let address = json!({ "Network": "tcp", "Address": "127.0.0.1:0" });
    json!({ "Protocol": "http", "Address": address, "Settings": { "H2C": true } })
}

/// Opens such a listener, and says where it is.
pub async fn open(scene: &Scene, proxy: &Proxy) -> SocketAddr {
    scene.put("listeners/h2c", listener()).await;
    eventually("the listener is open", PATIENCE, async || {
        let status = proxy.json("/v3/status").await;
        let address = status["listeners"]["h2c"].as_str().and_then(|text| text.parse().ok());
        address.ok_or_else(|| status["listeners"].to_string())
    })
    .await
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// The stream it belongs to.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a GOAWAY or RST_STREAM.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            GOAWAY => 4,
            RST_STREAM => 0,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }

    /// The status of a HEADERS frame whose sender was told to keep no table of fields.
    pub fn status(&self) -> Option<u16> {
        if self.kind != HEADERS {
            return None;
        }
        let start = self.payload.iter().position(|byte| *byte != 0x20)?;
        let block = &self.payload[start..];
        const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        match block[0] {
            index @ 0x88..=0x8e => Some(INDEXED[usize::from(index - 0x88)]),
            0x08 | 0x18 | 0x48 => digits(block.get(1..)?),
            _ => None,
        }
    }
}

/// A number as HPACK writes it: plain, or by Huffman's code, in which digits are 5 or 6 bits long.
fn digits(text: &[u8]) -> Option<u16> {
    let length = usize::from(text[0] & 0x7f);
    let bytes = text.get(1..=length)?;
    if text[0] & 0x80 == 0 {
        return std::str::from_utf8(bytes).ok()?.parse().ok();
    }
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut number = 0;
    for _ in 0..3 {
        let five = (0..5).try_fold(0, |code, _| Some(code << 1 | bits.next()?))?;
        let digit = if five <= 2 { five } else { (five << 1 | bits.next()?) - 0x19 + 3 };
        number = number * 10 + u16::from(digit);
    }
    Some(number)
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One field, written out: no table, no Huffman's code.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    raw_field(name.as_bytes(), value.as_bytes())
}

/// The same of any bytes.
pub fn raw_field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &length(name.len()), name, &length(value.len()), value].concat()
}

/// An integer with a prefix of 7 bits (RFC 7541 section 5.1).
fn length(mut n: usize) -> Vec<u8> {
    if n < 127 {
        return vec![n as u8];
    }
    let mut bytes = vec![127];
    n -= 127;
    while n >= 128 {
        bytes.push((n % 128) as u8 | 0x80);
        n /= 128;
    }
    bytes.push(n as u8);
    bytes
}

/// A block of fields.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The block of a request without more than it needs.
pub fn request(method: &str, host: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":authority", host), (":path", path)])
}

/// A whole request without a body.
pub fn get(stream: u32, host: &str, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", host, path))
}

/// One setting.
pub fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// What came of something sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The connection was ended, for this reason.
    GoAway(u32),
    /// The stream was, for this reason.
    Reset(u32),
    /// It was answered.
    Status(u16),
    /// The connection was closed without a word.
    Closed,
    /// Nothing in time.
    Silence,
}

/// A connection.
pub struct Wire<S = TcpStream> {
    stream: S,
    buffer: Vec<u8>,
}

impl Wire {
    /// Connects, and says nothing.
    pub async fn connect(to: SocketAddr) -> Wire {
        let stream = TcpStream::connect(to).await.expect("the proxy accepts");
        stream.set_nodelay(true).expect("a TCP stream");
        Wire { stream, buffer: Vec::new() }
    }

    /// Connects and begins; the other side is told to keep no table of fields.
    pub async fn open(to: SocketAddr) -> Wire {
        let mut wire = Wire::connect(to).await;
        wire.begin().await;
        wire
    }

    /// The same, and acknowledges what the other side says of itself, so that it is in force.
    pub async fn acknowledged(to: SocketAddr) -> Wire {
        let mut wire = Wire::open(to).await;
        wire.until("SETTINGS", |frame| frame.kind == SETTINGS && frame.flags & ACK == 0).await;
        wire.send(&frame(SETTINGS, ACK, 0, &[])).await.expect("the proxy reads");
        wire
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Begins on a stream that agreed on HTTP/2.
    pub async fn over(stream: S) -> Wire<S> {
        let mut wire = Wire { stream, buffer: Vec::new() };
        wire.begin().await;
        wire
    }

    async fn begin(&mut self) {
        self.send(&[PREFACE, &frame(SETTINGS, 0, 0, &setting(1, 0))].concat()).await.expect("the proxy reads");
    }

    /// Sends any bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Sends as much of these requests' bodies as it may, until for a while it may send no more. Only once, after
    /// [`Wire::acknowledged`].
    pub async fn fill(&mut self, streams: &[u32]) {
        const PIECE: i64 = 16_384;
        let mut windows: BTreeMap<u32, i64> = streams.iter().map(|stream| (*stream, 256 * 1024)).collect();
        windows.insert(0, 65_535);
        let mut sent = 0;
        loop {
            for stream in streams {
                while windows[stream].min(windows[&0]) >= PIECE {
                    let piece = frame(DATA, 0, *stream, &[7; PIECE as usize]);
                    self.send(&piece).await.expect("the proxy reads");
                    for id in [stream, &0] {
                        *windows.get_mut(id).expect("it is one of them") -= PIECE;
                    }
                    sent += PIECE;
                    assert!(sent < 50_000_000, "it goes on and on");
                }
            }
            let Ok(Some(frame)) = self.next(Instant::now() + ENOUGH).await else { return };
            assert_eq!(frame.code(), None, "{frame:?}");
            if frame.kind == WINDOW_UPDATE
                && let Some(window) = windows.get_mut(&frame.stream)
            {
                *window += i64::from(u32::from_be_bytes(frame.payload[..4].try_into().expect("a window")));
            }
        }
    }

    /// The stream itself.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// The next frame; `None` at the end, an error where none comes in time.
    pub async fn next(&mut self, until: Instant) -> Result<Option<Frame>, tokio::time::error::Elapsed> {
        loop {
            if let Some(head) = self.buffer.get(..9) {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if self.buffer.len() >= 9 + length {
                    let payload = self.buffer[9..9 + length].to_vec();
                    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
                    let frame = Frame { kind: head[3], flags: head[4], stream, payload };
                    self.buffer.drain(..9 + length);
                    return Ok(Some(frame));
                }
            }
            let mut room = [0; 4096];
            match tokio::time::timeout_at(until, self.stream.read(&mut room)).await? {
                Ok(0) | Err(_) => return Ok(None),
                Ok(n) => self.buffer.extend_from_slice(&room[..n]),
            }
        }
    }

    /// The next frame that a test waits for.
    pub async fn until(&mut self, what: &str, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
        let until = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(Some(frame)) = self.next(until).await {
            if wanted(&frame) {
                return frame;
            }
            seen.push(frame);
        }
        panic!("{what} did not come, but {seen:?}");
    }

    /// What comes of a stream.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        self.outcome_within(stream, PATIENCE).await
    }

    /// The same with another patience.
    pub async fn outcome_within(&mut self, stream: u32, within: Duration) -> Outcome {
        let until = Instant::now() + within;
        loop {
            let Ok(frame) = self.next(until).await else { return Outcome::Silence };
            let Some(frame) = frame else { return Outcome::Closed };
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => {
                    let _ = self.send(&self::frame(SETTINGS, ACK, 0, &[])).await;
                }
                GOAWAY => return Outcome::GoAway(frame.code().unwrap_or(u32::MAX)),
                RST_STREAM if frame.stream == stream => return Outcome::Reset(frame.code().unwrap_or(u32::MAX)),
                HEADERS if frame.stream == stream => match frame.status() {
                    Some(100..=199) => {}
                    status => return Outcome::Status(status.unwrap_or(0)),
                },
                _ => {}
            }
        }
    }
}

/// Until what must come has come, on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing comes until nothing more is expected.
const ENOUGH: Duration = Duration::from_secs(5);
