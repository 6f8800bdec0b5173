//! The body of a request as it arrives on a stream. What is taken may come again: no sooner, so that what a slow server
//! does not take stays with the client.

use std::cell::RefCell;
use std::io;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;

use super::CONNECTION_WINDOW;
use super::unsent::Piece;
use crate::backend::framing::may_trail;
use crate::listener::watch::{Waiting, Watch};
use crate::traffic::body::BodyError;

/// A stream's way to the client; its request's body needs it, too, to ask for itself.
pub(super) type Respond = Rc<RefCell<SendResponse<Piece>>>;

/// The body of a request, as it arrives.
pub struct Upload {
    stream: Rc<RefCell<RecvStream>>,
    /// Bytes still to come, where the client said.
    left: Option<u64>,
    part: Part,
    /// Asks for the body, where the client waits to be asked.
    ask: Option<Respond>,
    watch: Rc<Watch>,
    uploads: Rc<Uploads>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Data,
    Trailers,
    Done,
}

impl Upload {
    /// What arrives on a stream: `length` bytes, where its head says so. With `ask` the client waits to be asked.
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        ask: Option<Respond>,
        watch: Rc<Watch>,
        uploads: Rc<Uploads>,
    ) -> Upload {
        let part = if stream.is_end_stream() { Part::Done } else { Part::Data };
        let stream = Rc::new(RefCell::new(stream));
        if part == Part::Data {
            uploads.add(&stream);
        }
        Upload { stream, left: length, part, ask, watch, uploads }
    }

    /// Whether the client waits to be told to send it.
    pub(in crate::traffic) fn is_held(&self) -> bool {
        self.ask.is_some() && !self.is_whole()
    }

    /// Whether some of it has arrived and was not taken.
    pub(in crate::traffic) fn has_begun(&self) -> bool {
        self.stream.borrow_mut().flow_control().used_capacity() > 0
    }

    /// Whether all of it was taken.
    pub(in crate::traffic) fn is_whole(&self) -> bool {
        self.part == Part::Done || self.stream.borrow().is_end_stream()
    }

    /// How much is still to come, where that is known.
    pub(in crate::traffic) fn left(&self) -> Option<u64> {
        if self.is_whole() { Some(0) } else { self.left }
    }

    /// Reads on.
    pub(in crate::traffic) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ask.is_some() {
            let begun = self.has_begun();
            if let Some(ask) = self.ask.take().filter(|_| !begun) {
                let mut go_on = Response::new(());
                *go_on.status_mut() = StatusCode::CONTINUE;
                // One that can no longer be sent is not needed: what became of the stream is told below.
                let _ = ask.borrow_mut().send_informational(go_on);
            }
        }
        match self.poll_part(cx) {
            Poll::Pending if self.watch.is_slow() && !self.uploads.fill_the_window() => {
                Poll::Ready(Some(Err(BodyError::Slow)))
            }
            Poll::Pending => {
                if self.watch.is_slow() {
                    self.watch.forgive();
                }
                self.watch.waits_for(Waiting::Body);
                Poll::Pending
            }
            Poll::Ready(frame) => Poll::Ready(frame.transpose()),
        }
    }

    /// Reads on in what has no trailers; `None` at its end.
    pub(super) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.poll_part(cx).map(|part| match part {
            Ok(frame) => Ok(frame.and_then(|frame| frame.into_data().ok())),
            Err(error) => Err(io::Error::other(error)),
        })
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BodyError>> {
        let stream = &mut *self.stream.borrow_mut();
        loop {
            match self.part {
                Part::Data => match stream.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => {
                        self.watch.moved(data.len(), Waiting::Body);
                        stream.flow_control().release_capacity(data.len()).map_err(broken)?;
                        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                        if !data.is_empty() {
                            return Poll::Ready(Ok(Some(Frame::data(data))));
                        }
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(error))),
                    Poll::Ready(None) => self.part = Part::Trailers,
                    Poll::Pending => return Poll::Pending,
                },
                Part::Trailers => match stream.poll_trailers(cx) {
                    Poll::Ready(Ok(trailers)) => {
                        self.watch.waits_no_more(Waiting::Body);
                        self.part = Part::Done;
                        let trailers = trailers.map(fit_to_trail).filter(|trailers| !trailers.is_empty());
                        return Poll::Ready(Ok(trailers.map(Frame::trailers)));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(broken(error))),
                    Poll::Pending => return Poll::Pending,
                },
                Part::Done => return Poll::Ready(Ok(None)),
            }
        }
    }
}

/// The bodies that arrive on a connection: they share its window.
#[derive(Debug, Default)]
pub(super) struct Uploads(RefCell<Vec<Weak<RefCell<RecvStream>>>>);

impl Uploads {
    fn add(&self, stream: &Rc<RefCell<RecvStream>>) {
        let mut all = self.0.borrow_mut();
        all.retain(|one| one.strong_count() > 0);
        all.push(Rc::downgrade(stream));
    }

    /// Whether what servers have not taken may keep the client from sending anything: what they took is only told to it
    /// when it is half of the window.
    fn fill_the_window(&self) -> bool {
        let all = self.0.borrow();
        let untaken = |stream: Rc<RefCell<RecvStream>>| stream.borrow_mut().flow_control().used_capacity();
        all.iter().filter_map(Weak::upgrade).map(untaken).sum::<usize>() >= CONNECTION_WINDOW as usize / 2
    }
}

/// What of trailers may be forwarded as such.
pub(super) fn fit_to_trail(trailers: HeaderMap) -> HeaderMap {
    if trailers.keys().all(|name| may_trail(name.as_str())) {
        return trailers;
    }
    let mut fit = HeaderMap::new();
    for (name, value) in &trailers {
        if may_trail(name.as_str()) {
            fit.append(name.clone(), value.clone());
        }
    }
    fit
}

fn broken(error: h2::Error) -> BodyError {
    BodyError::Broken(io::Error::other(error))
}
