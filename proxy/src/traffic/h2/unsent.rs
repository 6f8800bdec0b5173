//! What streams gave to their connection and the client has not taken: bounded for all of them together, so that who
//! does not read fills no more memory with many requests than with a few.
//!
//! The `h2` crate bounds it for each stream alone. It keeps what it is given until it has written it, or the stream is
//! reset; so each piece says itself when it is gone. Heads of responses are not counted.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

/// Counts a connection's bytes that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    bytes: Cell<usize>,
    /// Streams that wait for room.
    waiting: RefCell<Vec<Waker>>,
}

impl Unsent {
    /// How much more may be given; pending as long as that is nothing.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        match MOST_UNSENT.checked_sub(self.bytes.get()) {
            Some(room @ 1..) => Poll::Ready(room),
            Some(0) | None => {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// What may be given to the connection. Short ones are copied: they would keep all that they were read into.
    pub(super) fn piece(self: &Rc<Unsent>, bytes: Bytes) -> Piece {
        let bytes = if bytes.len() <= SHORT { Bytes::copy_from_slice(&bytes) } else { bytes };
        let counted = bytes.len();
        self.bytes.set(self.bytes.get() + counted);
        Piece { bytes, counted, unsent: self.clone() }
    }
}

/// Bytes of a response, counted until they are written or will never be.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    counted: usize,
    unsent: Rc<Unsent>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let left = self.unsent.bytes.get() - self.counted;
        self.unsent.bytes.set(left);
        // Not one by one: what is left keeps the connection busy until they have given more.
        if left <= MOST_UNSENT / 2 {
            self.unsent.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// Bytes of a connection's responses that wait to be written.
const MOST_UNSENT: usize = 512 * 1024;
/// A quarter of what is read at once from a server.
const SHORT: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn all_streams_share_the_room() {
        let unsent = Rc::new(Unsent::default());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let large = || unsent.piece(Bytes::from(vec![0; MOST_UNSENT / 4]));
        assert_eq!(unsent.poll_room(&mut cx), Poll::Ready(MOST_UNSENT));
        let mut pieces: Vec<Piece> = (0..4).map(|_| large()).collect();
        for _ in 0..3 {
            assert_eq!(unsent.poll_room(&mut cx), Poll::Pending);
        }
        // What is half written is still held.
        pieces[0].advance(1000);
        assert_eq!((pieces[0].remaining(), unsent.poll_room(&mut cx)), (MOST_UNSENT / 4 - 1000, Poll::Pending));
        pieces.pop();
        assert_eq!((woken.0.load(Relaxed), unsent.poll_room(&mut cx)), (0, Poll::Ready(MOST_UNSENT / 4)));
        pieces.pop();
        assert_eq!(woken.0.load(Relaxed), 1, "once, however often it asked");
        drop(pieces);
        assert_eq!(unsent.poll_room(&mut cx), Poll::Ready(MOST_UNSENT));
        assert_eq!(woken.0.load(Relaxed), 1);
    }
}
