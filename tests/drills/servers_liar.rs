//! Servers whose answers are not what HTTP means by one; in the drills' own process.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::load_shape::{self, ASKED_HOST, DIGEST, ID};

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The connection is reset within the body.
    ResetInBody,
    /// The body is shorter than its `Content-Length`.
    Short,
    /// The status line is none.
    Garbage,
    /// The header has a mebibyte.
    HugeHeader,
    /// A thousand interim responses come before the final one.
    Interim,
    /// `Content-Length` and `Transfer-Encoding` say different things.
    BothLengths,
    /// Every third answer is right, and followed by another one that nobody asked for, in the same packet.
    Poison,
}

/// A running liar.
pub(crate) struct Liar {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    accepting: JoinHandle<()>,
}

struct Inner {
    name: String,
    lie: Lie,
    asked: AtomicU64,
    lied: AtomicU64,
    trusted: AtomicU64,
    executed: Mutex<Vec<u64>>,
}

impl Liar {
    /// Starts one that calls itself by a name.
    pub(crate) async fn start(name: &str, lie: Lie) -> Liar {
        let listener = TcpListener::bind("127.0.1.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            lie,
            asked: AtomicU64::new(0),
            lied: AtomicU64::new(0),
            trusted: AtomicU64::new(0),
            executed: Mutex::default(),
        });
        let shared = inner.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(shared.clone().serve(stream));
            }
        });
        Liar { address, inner, accepting }
    }

    /// Requests it got.
    pub(crate) fn asked(&self) -> u64 {
        self.inner.asked.load(Relaxed)
    }

    /// Lies it told.
    pub(crate) fn lied(&self) -> u64 {
        self.inner.lied.load(Relaxed)
    }

    /// Requests it got on connections on which it had lied.
    pub(crate) fn trusted(&self) -> u64 {
        self.inner.trusted.load(Relaxed)
    }

    /// The ids of the requests it got.
    pub(crate) fn executed(&self) -> Vec<u64> {
        self.inner.executed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Inner {
    async fn serve(self: Arc<Inner>, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let (mut buffer, mut has_lied) = (Vec::new(), false);
        while let Some((head, body)) = request(&mut stream, &mut buffer).await {
            let number = self.asked.fetch_add(1, Relaxed);
            self.trusted.fetch_add(u64::from(has_lied), Relaxed);
            let id = field(&head, ID).and_then(|id| id.parse().ok()).unwrap_or(0);
            self.executed.lock().unwrap_or_else(PoisonError::into_inner).push(id);
            let host = field(&head, "host").unwrap_or_default();
            let right = right(&self.name, id, host, &body);
            let (answer, lies) = match self.lie {
                Lie::ResetInBody | Lie::Short => {
                    (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it".to_vec(), true)
                }
                Lie::Garbage => (b"HTTP/1.1 fine thanks\r\nContent-Length: 2\r\n\r\nok".to_vec(), true),
                Lie::HugeHeader => {
                    let line = format!("X-Huge: {}\r\n", "h".repeat(1000));
                    (format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", line.repeat(1050)).into_bytes(), true)
                }
                Lie::Interim => ([b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000), right].concat(), true),
                Lie::BothLengths => {
                    let head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
                    (format!("{head}6\r\nchunks\r\n0\r\n\r\n").into_bytes(), true)
                }
                Lie::Poison if number.is_multiple_of(3) => {
                    ([right, self::right(&self.name, id ^ 1, host, b"")].concat(), true)
                }
                Lie::Poison => (right, false),
            };
            has_lied |= lies;
            self.lied.fetch_add(u64::from(lies), Relaxed);
            if stream.write_all(&answer).await.is_err() {
                return;
            }
            match self.lie {
                Lie::ResetInBody => {
                    let _ = stream.set_zero_linger();
                    return;
                }
                Lie::Short => return,
                _ => {}
            }
        }
    }
}

/// What the request with this id must be answered, as it goes over the wire.
fn right(name: &str, id: u64, host: &str, body: &[u8]) -> Vec<u8> {
    let reply = load_shape::reply(id);
    let digest = load_shape::digest(body);
    let head = format!(
        "HTTP/1.1 200 OK\r\nX-Backend: {name}\r\n{ID}: {id}\r\n{ASKED_HOST}: {host}\r\n{DIGEST}: {digest}\r\n\
         Content-Length: {}\r\n\r\n",
        reply.len()
    );
    [head.as_bytes(), &reply].concat()
}

/// The next request, its head as text; bodies have a `Content-Length` or none.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length = field(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            while buffer.len() < end + 4 + length {
                more(stream, buffer).await?;
            }
            let body = buffer[end + 4..end + 4 + length].to_vec();
            buffer.drain(..end + 4 + length);
            return Some((head, body));
        }
        more(stream, buffer).await?;
    }
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    stream.read_buf(buffer).await.ok().filter(|read| *read > 0).map(drop)
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
