//! What is on its way to a client: short pieces copied together, long ones as they came.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};

use super::wire::Wire;

/// Bytes on their way out, with those before them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Heads, chunk sizes and short bodies.
    pub(super) flat: Vec<u8>,
    /// How much of it is written.
    sent: usize,
    /// What follows.
    pub(super) body: Bytes,
    /// What comes after that.
    tail: &'static [u8],
}

impl Outbox {
    /// Nothing, in a buffer that was used before.
    pub(super) fn new(flat: Vec<u8>) -> Outbox {
        Outbox { flat, sent: 0, body: Bytes::new(), tail: b"" }
    }

    /// Has a body follow, and then `tail`.
    pub(super) fn follow(&mut self, body: Bytes, tail: &'static [u8]) {
        self.body = body;
        self.tail = tail;
    }

    /// Whether everything was written.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.flat.len() && self.body.is_empty() && self.tail.is_empty()
    }

    /// Writes until everything is written.
    pub(super) fn poll_flush(&mut self, wire: &Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.flat.len() || !self.body.is_empty() {
            let written = ready!(wire.poll_write(&self.flat[self.sent..], &self.body, cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_flat = written.min(self.flat.len() - self.sent);
            self.sent += of_flat;
            self.body.advance(written - of_flat);
        }
        // Not until now: TLS may still hold what TCP has had no room for.
        ready!(wire.poll_flush(cx))?;
        self.flat.clear();
        self.flat.extend_from_slice(std::mem::take(&mut self.tail));
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}
