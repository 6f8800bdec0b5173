//! The body of a request as it arrives from a client, whatever the client speaks.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body::BodyError;
use super::h1::wire::Wire;
use super::h2::upload::Upload;
use crate::access::record::Recorder;
use crate::splice::Pipe;

/// The body of a request, as it arrives.
#[derive(Debug)]
pub struct Incoming {
    source: Source,
    /// Counts it for the access log.
    access: Option<Rc<Recorder>>,
}

enum Source {
    Nothing,
    H1(Rc<Wire>),
    H2(Box<Upload>),
}

impl Incoming {
    fn of(source: Source) -> Incoming {
        Incoming { source, access: None }
    }

    /// The same, counted for the access log.
    pub(super) fn counted(self, access: &Rc<Recorder>) -> Incoming {
        Incoming { access: Some(access.clone()), ..self }
    }

    /// No body at all.
    pub fn nothing() -> Incoming {
        Incoming::of(Source::Nothing)
    }

    /// The body of the wire's current request.
    pub fn h1(wire: Rc<Wire>) -> Incoming {
        Incoming::of(Source::H1(wire))
    }

    /// The body of a stream of HTTP/2.
    pub fn h2(upload: Upload) -> Incoming {
        Incoming::of(Source::H2(Box::new(upload)))
    }

    /// Whether the client waits to be told to send it.
    pub fn is_held(&self) -> bool {
        match &self.source {
            Source::Nothing => false,
            Source::H1(wire) => wire.is_held(),
            Source::H2(upload) => upload.is_held(),
        }
    }

    /// Whether some of it has arrived, asked for or not.
    pub fn has_begun(&self) -> bool {
        match &self.source {
            Source::Nothing => false,
            Source::H1(wire) => wire.has_more(),
            Source::H2(upload) => upload.has_begun(),
        }
    }
}

impl Incoming {
    /// How much is still to come that can be moved inside the kernel.
    pub(super) fn bulk(&self) -> u64 {
        match &self.source {
            Source::H1(wire) => wire.bulk(),
            Source::Nothing | Source::H2(_) => 0,
        }
    }

    /// A pipe for it.
    pub(super) fn pipe(&self) -> Option<Pipe> {
        match &self.source {
            Source::H1(wire) => wire.pipe(),
            Source::Nothing | Source::H2(_) => None,
        }
    }

    /// Moves some of that into an empty pipe, and says how much.
    pub(super) fn poll_into(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        let Source::H1(wire) = &self.source else {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::Unsupported).into()));
        };
        let came = ready!(wire.poll_body_into(pipe, cx))?;
        if let Some(access) = &self.access {
            access.received(came);
        }
        Poll::Ready(Ok(came))
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Nothing => f.write_str("Nothing"),
            Source::H1(wire) => f.debug_tuple("H1").field(&wire.left()).finish(),
            Source::H2(upload) => f.debug_tuple("H2").field(&upload.left()).finish(),
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.source {
            Source::Nothing => Poll::Ready(None),
            Source::H1(wire) => wire.poll_body(cx),
            Source::H2(upload) => upload.poll_body(cx),
        };
        if let (Some(access), Poll::Ready(Some(Ok(frame)))) = (&self.access, &polled) {
            access.received(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Nothing => true,
            Source::H1(wire) => wire.is_request_whole(),
            Source::H2(upload) => upload.is_whole(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let left = match &self.source {
            Source::Nothing => Some(0),
            Source::H1(wire) => wire.left(),
            Source::H2(upload) => upload.left(),
        };
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
