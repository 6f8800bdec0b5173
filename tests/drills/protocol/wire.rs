//! A client that sends bytes as they are and reads answers strictly: what hyper would mend or refuse is seen here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;

/// A connection.
pub(crate) struct Wire {
    reader: OwnedReadHalf,
    writer: Arc<Mutex<OwnedWriteHalf>>,
    buffer: Vec<u8>,
}

/// An answer, whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Fields after the body.
    pub(crate) trailers: Vec<(String, String)>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The other side closed, with nothing unread.
    Closed,
    /// It closed inside an answer.
    Cut,
    /// It reset the connection.
    Reset,
    /// Nothing came for so long.
    Quiet,
    /// What came is no answer.
    Malformed(String),
}

impl Reply {
    /// A field's value; empty if it is not there.
    pub(crate) fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.as_str())
    }

    /// Whether nothing follows on the connection.
    pub(crate) fn closes(&self) -> bool {
        self.field("connection").eq_ignore_ascii_case("close")
    }
}

impl Wire {
    /// Connects.
    pub(crate) async fn open(to: SocketAddr) -> Wire {
        Wire::open_from(to, None, None).await.expect("connect")
    }

    /// Connects from an address of one's own choice, with a receive buffer of so many bytes.
    pub(crate) async fn open_from(to: SocketAddr, from: Option<IpAddr>, window: Option<u32>) -> std::io::Result<Wire> {
        let socket = TcpSocket::new_v4()?;
        if let Some(from) = from {
            socket.bind((from, 0).into())?;
        }
        if let Some(window) = window {
            socket.set_recv_buffer_size(window)?;
        }
        let stream = socket.connect(to).await?;
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        Ok(Wire { reader, writer: Arc::new(Mutex::new(writer)), buffer: Vec::new() })
    }

    /// Sends bytes. That the other side stopped listening is no error: it may have answered before.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.writer.lock().await.write_all(bytes).await;
    }

    /// Sends bytes while answers are read.
    pub(crate) fn send_beside(&mut self, bytes: Vec<u8>) -> tokio::task::JoinHandle<()> {
        self.send_beside_many(bytes, 1)
    }

    /// Sends bytes so many times while answers are read.
    pub(crate) fn send_beside_many(&mut self, bytes: Vec<u8>, times: u64) -> tokio::task::JoinHandle<()> {
        let writer = self.writer.clone();
        tokio::spawn(async move {
            let mut writer = writer.lock().await;
            for _ in 0..times {
                if writer.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        })
    }

    /// Ends the sending direction.
    pub(crate) async fn finish(&mut self) {
        let _ = self.writer.lock().await.shutdown().await;
    }

    /// The next final answer; interim ones are passed over. `head`: it has no body whatever it says.
    pub(crate) async fn reply(&mut self, head: bool, within: Duration) -> Result<Reply, Gone> {
        loop {
            let reply = self.any_reply(head, within).await?;
            if reply.status >= 200 || reply.status == 101 {
                return Ok(reply);
            }
        }
    }

    /// The next answer, interim ones too.
    pub(crate) async fn any_reply(&mut self, head: bool, within: Duration) -> Result<Reply, Gone> {
        let until = Instant::now() + within;
        let mut reply = self.head(until).await?;
        let length: Vec<&str> = named(&reply, "content-length");
        let chunked: Vec<&str> = named(&reply, "transfer-encoding");
        if length.len() + chunked.len() > 1 {
            return Err(Gone::Malformed(format!("framed twice: {:?}", reply.fields)));
        }
        if head || reply.status < 200 || matches!(reply.status, 204 | 304) {
            return Ok(reply);
        }
        if let [length] = length[..] {
            let canonical =
                length.bytes().all(|byte| byte.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
            let length = length.parse().ok().filter(|_| canonical);
            let length: usize = length.ok_or_else(|| Gone::Malformed("a length that is none".into()))?;
            self.fill(length, until).await?;
            reply.body = self.buffer.drain(..length).collect();
        } else if let [coding] = chunked[..] {
            if coding != "chunked" {
                return Err(Gone::Malformed(format!("transfer-encoding: {coding}")));
            }
            self.chunks(&mut reply, until).await?;
        } else {
            loop {
                match self.more(until).await {
                    Ok(()) => {}
                    Err(Gone::Closed | Gone::Cut) => break,
                    Err(gone) => return Err(gone),
                }
            }
            reply.body = std::mem::take(&mut self.buffer);
        }
        Ok(reply)
    }

    /// Reads an answer's head and leaves its body unread.
    pub(crate) async fn head(&mut self, until: Instant) -> Result<Reply, Gone> {
        let end = loop {
            match find(&self.buffer, b"\r\n\r\n") {
                Some(end) => break end,
                None => self.more(until).await?,
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head[..end]).into_owned();
        let malformed = |what: &str| Gone::Malformed(format!("{what}: {head:?}"));
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line.strip_prefix("HTTP/1.1 ").ok_or_else(|| malformed("no status line"))?;
        let status = status.split(' ').next().filter(|code| code.len() == 3).and_then(|code| code.parse().ok());
        let mut reply = Reply { status: status.ok_or_else(|| malformed("no status"))?, ..Reply::default() };
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(|| malformed("no field"))?;
            let plain = |byte: u8| byte >= b' ' && byte != 0x7f || byte == b'\t';
            if name.is_empty() || !name.bytes().all(is_token) || !value.bytes().all(plain) {
                return Err(malformed("a field with forbidden bytes"));
            }
            reply.fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
        }
        Ok(reply)
    }

    /// At least so many bytes of what comes, and whatever else is there.
    pub(crate) async fn take(&mut self, least: usize, within: Duration) -> Result<Vec<u8>, Gone> {
        self.fill(least, Instant::now() + within).await?;
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Whether the other side closes within a time, sending nothing more.
    pub(crate) async fn is_closed(&mut self, within: Duration) -> bool {
        let until = Instant::now() + within;
        self.buffer.is_empty() && matches!(self.more(until).await, Err(Gone::Closed | Gone::Reset))
    }

    async fn chunks(&mut self, reply: &mut Reply, until: Instant) -> Result<(), Gone> {
        loop {
            let line = self.line(until).await?;
            let size = usize::from_str_radix(&line, 16).map_err(|_| Gone::Malformed(format!("chunk size {line:?}")))?;
            if size == 0 {
                loop {
                    let line = self.line(until).await?;
                    if line.is_empty() {
                        return Ok(());
                    }
                    let field = line.split_once(':').ok_or_else(|| Gone::Malformed(format!("a trailer {line:?}")))?;
                    reply.trailers.push((field.0.to_ascii_lowercase(), field.1.trim_matches([' ', '\t']).to_owned()));
                }
            }
            self.fill(size + 2, until).await?;
            reply.body.extend(self.buffer.drain(..size));
            if self.buffer.drain(..2).ne(*b"\r\n") {
                return Err(Gone::Malformed("a chunk without an end".into()));
            }
        }
    }

    async fn line(&mut self, until: Instant) -> Result<String, Gone> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.more(until).await?;
        }
    }

    async fn fill(&mut self, length: usize, until: Instant) -> Result<(), Gone> {
        while self.buffer.len() < length {
            self.more(until).await?;
        }
        Ok(())
    }

    async fn more(&mut self, until: Instant) -> Result<(), Gone> {
        let mut piece = [0; 16 * 1024];
        match tokio::time::timeout_at(until.into(), self.reader.read(&mut piece)).await {
            Err(_) => Err(Gone::Quiet),
            Ok(Ok(0)) if self.buffer.is_empty() => Err(Gone::Closed),
            Ok(Ok(0)) => Err(Gone::Cut),
            Ok(Ok(n)) => {
                self.buffer.extend_from_slice(&piece[..n]);
                Ok(())
            }
            Ok(Err(_)) => Err(Gone::Reset),
        }
    }
}

fn named<'a>(reply: &'a Reply, name: &str) -> Vec<&'a str> {
    reply.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
}

/// Where `part` begins in `whole`.
pub(crate) fn find(whole: &[u8], part: &[u8]) -> Option<usize> {
    whole.windows(part.len()).position(|window| window == part)
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
