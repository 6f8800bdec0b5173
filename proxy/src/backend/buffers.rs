//! What servers' answers are read into: a worker's buffers, which go from one connection to the next.
//!
//! A connection has one from the first bytes of an answer to its last, and none while it waits. Knows nothing of
//! messages.

use bytes::BytesMut;

use crate::spare::Spare;

/// A worker's buffers that nobody reads into.
#[derive(Debug)]
pub struct Buffers(Spare<BytesMut>);

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers(Spare::new(MOST_SPARE))
    }
}

impl Buffers {
    /// An empty one with room for [`ROOM`] bytes.
    pub(super) fn take(&self) -> BytesMut {
        if let Some(mut buffer) = self.0.take()
            // What was read last may still be on its way to a client.
            && buffer.try_reclaim(ROOM)
        {
            return buffer;
        }
        BytesMut::with_capacity(ROOM)
    }

    /// Takes one back whose bytes were used or are nobody's any more, unless it is none or a long one.
    pub(super) fn give(&self, mut buffer: BytesMut) {
        if matches!(buffer.capacity(), 1..=ROOM) {
            buffer.clear();
            let _ = self.0.give(buffer);
        }
    }

    /// Frees those that were not needed since it was called last.
    pub(super) fn sweep(&self) {
        drop(self.0.sweep());
    }
}

/// Bytes that are read at once: a head, and with it most bodies.
pub(super) const ROOM: usize = 16 * 1024;
/// Buffers that are kept for the next answers.
const MOST_SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_used_next() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(b"an answer");
        let first = buffer.split_to(2).as_ptr();
        buffers.give(buffer);
        let mut buffer = buffers.take();
        assert!(buffer.is_empty() && buffer.capacity() >= ROOM);
        buffer.extend_from_slice(b"b");
        assert_eq!(buffer.as_ptr(), first);
    }

    #[test]
    fn what_somebody_still_has_is_not_written_over() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(b"an answer");
        let kept = buffer.split_to(9).freeze();
        buffers.give(buffer);
        let mut buffer = buffers.take();
        assert!(buffer.is_empty() && buffer.capacity() >= ROOM);
        buffer.extend_from_slice(&[b'x'; ROOM]);
        assert_eq!(kept, &b"an answer"[..]);
    }

    #[test]
    fn what_is_none_is_not_kept() {
        let buffers = Buffers::default();
        buffers.give(BytesMut::new());
        buffers.give(BytesMut::with_capacity(4 * ROOM));
        assert!(buffers.0.take().is_none());
    }
}
