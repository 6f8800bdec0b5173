//! A request's body on a stream of HTTP/2: never more of it in our hands than the server has room for.

use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::SendStream;
use http::HeaderMap;

use super::{SendState, Sending};
use crate::traffic::body::BodyError;

/// The stream, and what waits for room.
pub(in crate::backend) struct Outflow {
    stream: SendStream<Bytes>,
    chunk: Bytes,
}

impl Outflow {
    /// A stream on which nothing of the body was sent.
    pub(in crate::backend) fn new(stream: SendStream<Bytes>) -> Outflow {
        Outflow { stream, chunk: Bytes::new() }
    }

    /// Gives on what there is room for, until nothing is left; `Err` where the server takes no more.
    fn poll_room(&mut self, written: &mut u64, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.chunk.is_empty() {
            self.stream.reserve_capacity(self.chunk.len());
            let mut room = self.stream.capacity();
            if room == 0 {
                room = match ready!(self.stream.poll_capacity(cx)) {
                    Some(room) => room?,
                    None => return Poll::Ready(Err(h2::Reason::CANCEL.into())),
                };
            }
            let piece = self.chunk.split_to(room.min(self.chunk.len()));
            *written += piece.remaining() as u64;
            self.stream.send_data(piece, false)?;
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), h2::Error> {
        match trailers {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        }
    }
}

impl Sending {
    /// Sends what can be sent. `Err` is the client's fault; a server that takes no more is left alone.
    pub(in crate::backend) fn poll_into(
        &mut self,
        outflow: &mut Outflow,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BodyError>> {
        loop {
            if self.is_done() || self.state == SendState::Refused {
                return Poll::Ready(Ok(()));
            }
            if ready!(outflow.poll_room(&mut self.written, cx)).is_err() {
                self.state = SendState::Refused;
                continue;
            }
            self.state = SendState::Begun;
            let ended = match ready!(self.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        outflow.chunk = data;
                        continue;
                    }
                    Err(frame) => outflow.end(frame.into_trailers().ok()),
                },
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => outflow.end(None),
            };
            self.state = if ended.is_ok() { SendState::Ended } else { SendState::Refused };
        }
    }
}
