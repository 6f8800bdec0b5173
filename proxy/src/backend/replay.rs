//! The beginning of a request's body, kept while it is sent, so that it can be sent again.
//!
//! Pieces are shared with what is on its way, not copied. What becomes longer than 64 KiB is let go: then the request
//! cannot be sent again.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use crate::traffic::body::{BodyError, RequestBody};

/// What was taken from a body so far.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pieces: Vec<Bytes>,
    /// How many of them were given out since the beginning.
    given: usize,
    bytes: usize,
    /// Whether the body has come to its end.
    ended: bool,
    /// Whether not all is there any more.
    lost: bool,
}

impl Replay {
    /// Whether all that was taken from the body is there.
    pub(super) fn is_whole(&self) -> bool {
        !self.lost
    }

    /// Whether there is anything to be given out again.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Goes back to the beginning, if all is there.
    pub(super) fn rewind(&mut self) -> bool {
        self.given = 0;
        self.is_whole()
    }

    /// The next piece: one that was kept, or one of the body.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut RequestBody,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.pieces.get(self.given) {
            self.given += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => self.keep(data),
                // Trailers come once.
                None => self.lose(),
            },
            Some(Err(_)) => self.lose(),
            None => self.ended = true,
        }
        Poll::Ready(frame)
    }

    fn keep(&mut self, piece: &Bytes) {
        self.bytes = self.bytes.saturating_add(piece.len());
        if self.bytes > MOST {
            self.lose();
        } else if !self.lost {
            self.pieces.push(piece.clone());
            self.given = self.pieces.len();
        }
    }

    fn lose(&mut self) {
        self.lost = true;
        self.pieces = Vec::new();
        self.given = 0;
    }
}

/// Longest body that is kept, in bytes.
const MOST: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn take(replay: &mut Replay, body: &mut RequestBody) -> Option<Bytes> {
        match replay.poll_frame(body, &mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            Poll::Ready(None) => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_taken_comes_again_and_then_the_rest() {
        let mut replay = Replay::default();
        let mut body = RequestBody::whole(Bytes::from_static(b"abc"));
        for _ in 0..3 {
            assert_eq!(take(&mut replay, &mut body).unwrap(), "abc");
            assert!(replay.rewind());
        }
        assert_eq!(take(&mut replay, &mut body).unwrap(), "abc");
        assert_eq!(take(&mut replay, &mut body), None);
        assert_eq!(take(&mut replay, &mut body), None);
        assert!(replay.is_whole());
    }

    #[test]
    fn what_is_too_long_is_let_go() {
        let mut replay = Replay::default();
        let mut body = RequestBody::whole(Bytes::from(vec![0; MOST + 1]));
        assert_eq!(take(&mut replay, &mut body).unwrap().len(), MOST + 1);
        assert!(!replay.is_whole() && replay.is_empty());
        assert_eq!(take(&mut replay, &mut body), None);
    }
}
