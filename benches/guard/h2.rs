//! A client of HTTP/2 in the clear that knows beforehand what the proxy speaks: as much of it as a script needs.
//!
//! It asks many things at a time on one connection, as load generators do, so that what is done once for all of them is
//! counted so. But for the first, a request's fields are all out of the table (RFC 7541).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, ensure};

/// A connection.
struct Client {
    stream: TcpStream,
    /// The next request's stream.
    next: u32,
    /// Read and not looked at.
    read: Vec<u8>,
}

/// Asks so many times on one connection, and sees to it that every answer is 200 with that body.
pub(crate) fn ask(to: SocketAddr, times: u32, body: &[u8]) -> anyhow::Result<()> {
    let mut client = Client::open(to)?;
    let mut left = times;
    while left > 0 {
        let together = left.min(TOGETHER);
        client.ask(together, body)?;
        left -= together;
    }
    Ok(())
}

impl Client {
    fn open(to: SocketAddr) -> anyhow::Result<Client> {
        let mut stream = super::script::connect(to)?;
        let wide = frame(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes());
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &wide].concat())?;
        Ok(Client { stream, next: 1, read: Vec::new() })
    }

    /// Sends so many requests in one piece, and reads their answers.
    fn ask(&mut self, together: u32, body: &[u8]) -> anyhow::Result<()> {
        let mut requests = Vec::new();
        for _ in 0..together {
            let fields = if self.next == 1 { FIRST } else { LATER };
            requests.extend(frame(HEADERS, END_STREAM | END_HEADERS, self.next, fields));
            self.next += 2;
        }
        self.stream.write_all(&requests)?;
        let mut answered = 0;
        while answered < together {
            let (kind, flags, payload) = self.frame()?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
                SETTINGS | WINDOW_UPDATE => {}
                HEADERS => ensure!(payload.first() == Some(&STATUS_200), "not answered 200: {payload:?}"),
                DATA => {
                    ensure!(payload == body && flags & END_STREAM != 0, "{}", String::from_utf8_lossy(&payload));
                    answered += 1;
                }
                _ => anyhow::bail!("a frame of kind {kind}: {payload:?}"),
            }
        }
        Ok(())
    }

    /// The next frame: its kind, its flags and its payload.
    fn frame(&mut self) -> anyhow::Result<(u8, u8, Vec<u8>)> {
        loop {
            if let Some((&[a, b, c, kind, flags, ..], rest)) = self.read.split_first_chunk::<HEAD>() {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if let Some(payload) = rest.get(..length).map(<[u8]>::to_vec) {
                    self.read.drain(..HEAD + length);
                    return Ok((kind, flags, payload));
                }
            }
            let mut buffer = [0; 64 * 1024];
            let read = self.stream.read(&mut buffer).context("no answer")?;
            ensure!(read > 0, "the proxy closed");
            self.read.extend_from_slice(&buffer[..read]);
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Requests at a time: as many as are let in.
const TOGETHER: u32 = 100;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET`, `http`; `:authority`, `:path` and `user-agent`, to be remembered.
const FIRST: &[u8] = b"\x82\x86\x41\x10www.example.test\x44\x05/bare\x40\x0auser-agent\x0eh2load nghttp2";
/// The same, as they were remembered: what came last is the first.
const LATER: &[u8] = b"\x82\x86\xc0\xbf\xbe";
/// A head's first byte.
const STATUS_200: u8 = 0x88;
/// Bytes of a frame's head.
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
