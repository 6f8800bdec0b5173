//! A long request body in the clear on both sides, as the kernel moves it by itself. Never what may have to be sent again.

use std::io::ErrorKind;
use std::task::{Context, Poll, ready};

use super::{SendState, Sending};
use crate::backend::stream::Stream;
use crate::splice;
use crate::traffic::body::BodyError;

impl Sending {
    /// Whether so much of the body is still to come, as it is to be sent, that the kernel should move it.
    pub(super) fn is_bulk(&self, stream: &Stream) -> bool {
        matches!(stream, Stream::Plain(_))
            && !self.chunked
            && self.state == SendState::Begun
            && self.replay.as_ref().is_none_or(|kept| !kept.is_whole())
            && self.body.bulk() >= splice::WORTHWHILE
    }

    /// Whether [`Sending::poll_spliced`] is next.
    pub(super) fn is_spliced(&self, stream: &Stream) -> bool {
        self.pipe.is_some() || (self.pending.is_empty() && self.is_bulk(stream))
    }

    /// Has the kernel move a piece of the body, and adds its bytes to `moved`; `false`: the body has to be read after
    /// all, or the server takes no more. `Err` is the client's fault.
    pub(super) fn poll_spliced(
        &mut self,
        stream: &Stream,
        moved: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, BodyError>> {
        if *moved >= MOST_A_TURN {
            // Other connections have their turn.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let pipe = self.pipe.take().or_else(|| self.body.pipe());
        let (Some(mut pipe), Stream::Plain(to)) = (pipe, stream) else { return Poll::Ready(Ok(false)) };
        if pipe.is_empty() {
            match ready!(self.body.poll_into(&mut pipe, cx)) {
                Ok(came) => *moved += came,
                Err(BodyError::Broken(error)) if error.kind() == ErrorKind::Unsupported => {
                    return Poll::Ready(Ok(false));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        while !pipe.is_empty() {
            match pipe.poll_drain(to, cx) {
                Poll::Ready(Ok(written)) => self.written += written as u64,
                Poll::Ready(Err(_)) => {
                    self.state = SendState::Refused;
                    return Poll::Ready(Ok(false));
                }
                Poll::Pending => {
                    self.pipe = Some(pipe);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(true))
    }
}

/// So many bytes are moved for one connection before others have their turn.
const MOST_A_TURN: usize = 1024 * 1024;
