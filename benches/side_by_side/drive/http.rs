//! As much of HTTP/1.1 as loads and servers of ours need from each other and from peers that keep to it: heads of a few
//! fields, bodies of a stated length. Not for foreign bytes.

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// A connection's bytes as they arrive: heads are taken out of it, bodies are read over.
pub(crate) struct Incoming<S> {
    pub(crate) stream: S,
    bytes: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Incoming<S> {
    /// Nothing has arrived yet.
    pub(crate) fn new(stream: S) -> Incoming<S> {
        Incoming { stream, bytes: Vec::with_capacity(BUFFER) }
    }

    /// The next head, without the empty line; `None` where the other side has closed between two.
    pub(crate) async fn head(&mut self) -> anyhow::Result<Option<Head>> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.bytes[seen..].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let end = seen + at + 4;
                let head = std::str::from_utf8(&self.bytes[..end - 4]).context("a head that is no text")?.to_owned();
                self.bytes.drain(..end);
                return Ok(Some(Head(head)));
            }
            seen = self.bytes.len().saturating_sub(3);
            anyhow::ensure!(self.bytes.len() < BUFFER, "a head of {} bytes", self.bytes.len());
            if self.stream.read_buf(&mut self.bytes).await? == 0 {
                anyhow::ensure!(self.bytes.is_empty(), "closed within a head");
                return Ok(None);
            }
        }
    }

    /// Reads over `length` bytes; each piece is told.
    pub(crate) async fn skip(&mut self, length: u64, mut told: impl FnMut(u64)) -> anyhow::Result<()> {
        let there = length.min(self.bytes.len() as u64);
        self.bytes.drain(..there as usize);
        told(there);
        let mut left = length - there;
        let mut piece = Vec::new();
        if left > 0 {
            piece.resize(left.min(PIECE) as usize, 0);
        }
        while left > 0 {
            let most = left.min(PIECE) as usize;
            let read = self.stream.read(&mut piece[..most]).await?;
            anyhow::ensure!(read > 0, "closed {left} bytes before a body's end");
            left -= read as u64;
            told(read as u64);
        }
        Ok(())
    }

    /// Exactly so many bytes.
    pub(crate) async fn take(&mut self, bytes: &mut [u8]) -> anyhow::Result<()> {
        let there = bytes.len().min(self.bytes.len());
        bytes[..there].copy_from_slice(&self.bytes[..there]);
        self.bytes.drain(..there);
        self.stream.read_exact(&mut bytes[there..]).await?;
        Ok(())
    }
}

/// The head of a request or of an answer.
pub(crate) struct Head(String);

impl Head {
    /// A word of the first line, from 0.
    pub(crate) fn word(&self, number: usize) -> &str {
        self.0.split("\r\n").next().and_then(|line| line.split(' ').nth(number)).unwrap_or_default()
    }

    /// A field's value.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let fields = self.0.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// The length of what follows.
    pub(crate) fn length(&self) -> anyhow::Result<u64> {
        anyhow::ensure!(self.field("transfer-encoding").is_none(), "a body in chunks");
        self.field("content-length").map_or(Ok(0), |length| length.parse().context("a length that is no number"))
    }

    /// Fails on an answer that is not of this status.
    pub(crate) fn expect(&self, status: &str) -> anyhow::Result<()> {
        anyhow::ensure!(self.word(1) == status, "expected {status}, got {:?}", self.0.lines().next());
        Ok(())
    }
}

const BUFFER: usize = 8 * 1024;
const PIECE: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn heads_and_bodies_one_after_the_other() {
        let text = b"POST /a HTTP/1.1\r\nContent-Length: 5\r\nHost:  h \r\n\r\nhelloHTTP/1.1 204 No Content\r\n\r\n";
        let mut incoming = Incoming::new(&text[..]);
        let head = incoming.head().await.unwrap().unwrap();
        assert_eq!((head.word(0), head.word(1), head.field("host")), ("POST", "/a", Some("h")));
        let mut read = 0;
        incoming.skip(head.length().unwrap(), |bytes| read += bytes).await.unwrap();
        assert_eq!(read, 5);
        let head = incoming.head().await.unwrap().unwrap();
        assert!(head.expect("204").is_ok() && head.expect("200").is_err());
        assert!(incoming.head().await.unwrap().is_none());
    }
}
