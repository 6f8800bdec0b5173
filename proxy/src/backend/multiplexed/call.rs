//! One request on a connection of HTTP/2, and its answer.
//!
//! Whoever lets go of a call before its end cancels it: the server is told, and the connection serves the others on.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{Method, StatusCode};
use http_body::{Frame, SizeHint};

use super::connection::{Multiplexed, State};
use super::request;
use crate::backend::InFlight;
use crate::backend::framing::{Framing, Malformed, may_trail};
use crate::backend::sending::{Outflow, Sending};
use crate::backend::wire::{Broken, Head, MOST_INTERIM, is_for_the_proxy};
use crate::message::fields::Fields;
use crate::traffic::interim::Interim;

/// A place on a connection, and once a request was sent on it, what that holds.
pub struct Call {
    sender: SendRequest<Bytes>,
    place: Place,
    is_encrypted: bool,
    /// Whether the connection had answered before and nobody else was on it: then the server may just have closed it.
    is_reused: Cell<bool>,
    outflow: Option<Outflow>,
    answer: Option<RecvStream>,
}

/// One of a connection's requests: counted as long as this value lives.
struct Place(Rc<State>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

impl Call {
    pub(super) fn on(connection: &Multiplexed) -> Call {
        let state = connection.state.clone();
        let others = state.active.replace(state.active.get() + 1);
        state.idle.set(0);
        Call {
            sender: connection.sender.clone(),
            is_encrypted: connection.terms.is_some(),
            is_reused: Cell::new(others == 0 && state.served.get()),
            place: Place(state),
            outflow: None,
            answer: None,
        }
    }

    /// Whether the server may have closed the connection without our knowing yet.
    pub(super) fn is_reused(&self) -> bool {
        self.is_reused.get()
    }

    /// Sends a request whose head was written for HTTP/1.1, and reads the head of the answer, as `wire` does.
    pub async fn exchange(
        &mut self,
        method: &Method,
        head: &[u8],
        sending: &mut Sending,
        progress: &Cell<u64>,
        to: &Interim,
    ) -> Result<Head, Broken> {
        // Nobody has to be asked: what a server does not want, it refuses on the stream.
        sending.release();
        let request = request::of_written(head, self.is_encrypted).ok_or(Malformed::Head)?;
        let has_body = !sending.is_done();
        let (is_reused, state) = (&self.is_reused, &self.place.0);
        let fault = |error: h2::Error, consumed| {
            // A stream that was broken says that the connection was there.
            is_reused.set(is_reused.get() && error.is_io() && !state.is_dead.get());
            fault(&error, consumed)
        };
        poll_fn(|cx| self.sender.poll_ready(cx)).await.map_err(|error| fault(error, false))?;
        let sent = self.sender.send_request(request, !has_body).map_err(|error| fault(error, false))?;
        let (mut response, stream) = sent;
        let mut outflow = has_body.then(|| Outflow::new(stream));
        let mut interim = 0;
        let answer = poll_fn(|cx| {
            if let Some(outflow) = &mut outflow {
                let sent = sending.poll_into(outflow, cx);
                progress.set(sending.written());
                if let Poll::Ready(Err(error)) = sent {
                    return Poll::Ready(Err(error.into()));
                }
            }
            while let Poll::Ready(Some(Ok(head))) = response.poll_informational(cx) {
                interim += 1;
                if interim > MOST_INTERIM {
                    return Poll::Ready(Err(Malformed::TooLong.into()));
                }
                let (head, ()) = head.into_parts();
                to.relay(head.status, Fields::from(&without_hop(head.headers, false)), cx);
            }
            Pin::new(&mut response).poll(cx).map_err(|error| fault(error, has_body))
        })
        .await?;
        self.place.0.served.set(true);
        self.outflow = outflow;
        let (head, answer) = answer.into_parts();
        let head = read(head.status, head.headers, method, answer.is_end_stream());
        self.answer = Some(answer);
        head
    }

    /// The answer's body, once there is a head.
    pub fn receiving(self, head: &Head, sending: Sending, in_flight: InFlight) -> Receiving {
        let Call { place, outflow, answer, .. } = self;
        let left = match head.framing {
            Framing::Done => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked(_) | Framing::UntilClose => None,
        };
        let sending = outflow.filter(|_| !sending.is_done()).map(|outflow| (outflow, sending));
        Receiving { answer, sending, taken: 0, in_trailers: false, left, _place: place, _in_flight: in_flight }
    }
}

/// An answer's body as it comes.
pub struct Receiving {
    answer: Option<RecvStream>,
    /// The request's body, where the answer came before all of it was sent.
    sending: Option<(Outflow, Sending)>,
    /// Bytes given out and not used up yet: the server may send as many more once they are.
    taken: usize,
    in_trailers: bool,
    /// Bytes still to come, where that is known.
    left: Option<u64>,
    _place: Place,
    _in_flight: InFlight,
}

impl Receiving {
    /// Goes on sending the request's body.
    pub fn poll_sending(&mut self, cx: &mut Context<'_>) {
        if let Some((outflow, sending)) = &mut self.sending
            && let Poll::Ready(_) = sending.poll_into(outflow, cx)
        {
            // What is wrong shows in the answer; a body that broke off is cancelled by letting go of it.
            self.sending = None;
        }
    }

    /// Reads on. Who asks for more has used up what he got.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.poll_sending(cx);
        let Some(answer) = &mut self.answer else { return Poll::Ready(None) };
        let taken = std::mem::take(&mut self.taken);
        if taken > 0 {
            // It fails where the stream has ended: then nothing more comes anyway.
            let _ = answer.flow_control().release_capacity(taken);
        }
        let polled = if self.in_trailers { None } else { ready!(answer.poll_data(cx)) };
        let frame = match polled {
            Some(Ok(data)) => {
                self.taken = data.len();
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Some(Err(error)) => Some(Err(broken_off(error))),
            None => {
                self.in_trailers = true;
                match ready!(answer.poll_trailers(cx)) {
                    Ok(trailers) => trailers.and_then(fit_to_trail).map(|trailers| Ok(Frame::trailers(trailers))),
                    Err(error) => Some(Err(broken_off(error))),
                }
            }
        };
        self.answer = None;
        self.left = Some(0);
        Poll::Ready(frame)
    }

    /// Whether nothing more comes.
    pub fn is_end(&self) -> bool {
        self.answer.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    /// How much more comes.
    pub fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// What of trailers may be forwarded as such, if anything.
fn fit_to_trail(mut trailers: HeaderMap) -> Option<HeaderMap> {
    let unfit: Vec<_> = trailers.keys().filter(|name| !may_trail(name.as_str())).cloned().collect();
    for name in unfit {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then_some(trailers)
}

fn broken_off(error: h2::Error) -> io::Error {
    if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    } else {
        io::Error::other(error)
    }
}

/// The head as the rest of the proxy knows it.
fn read(status: StatusCode, fields: HeaderMap, method: &Method, ended: bool) -> Result<Head, Broken> {
    // Only HTTP/1.1 switches protocols (RFC 9113 section 8.6).
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Malformed::Head.into());
    }
    let length = fields.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let informative = *method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    let fields = without_hop(fields, informative);
    let framing = match length {
        _ if ended => Framing::Done,
        Some(length) if !informative => Framing::Length(length),
        _ => Framing::UntilClose,
    };
    Ok(Head { status, fields: Fields::from(&fields), framing, reusable: true, keep_alive: None })
}

/// Fields without those of one hop; with a length only where it informs.
fn without_hop(mut fields: HeaderMap, informative: bool) -> HeaderMap {
    let hop: Vec<_> =
        fields.keys().filter(|name| is_for_the_proxy(name.as_str().as_bytes(), informative)).cloned().collect();
    for name in hop {
        fields.remove(name);
    }
    fields
}

/// What went wrong before there was an answer.
fn fault(error: &h2::Error, consumed: bool) -> Broken {
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    if error.is_remote() && (is_refused || error.is_go_away()) {
        // Only streams that the server says it has not begun end so (RFC 9113 sections 6.8 and 8.7).
        return Broken::Refused { consumed };
    }
    if error.is_library() && !error.is_io() {
        return Malformed::Head.into();
    }
    Broken::Unanswered { consumed, source: io::Error::other(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_length_frames_or_informs() {
        let answer = fields(&[("content-length", "10"), ("te", "trailers"), ("x-a", "1")]);
        let get = read(StatusCode::OK, answer.clone(), &Method::GET, false).unwrap();
        assert!(matches!(get.framing, Framing::Length(10)));
        assert_eq!(get.fields.len(), 1);
        let head = read(StatusCode::OK, answer.clone(), &Method::HEAD, true).unwrap();
        assert!(matches!(head.framing, Framing::Done));
        assert_eq!(head.fields.get("content-length"), Some(&b"10"[..]));
        assert!(matches!(
            read(StatusCode::OK, HeaderMap::new(), &Method::GET, false).unwrap().framing,
            Framing::UntilClose
        ));
        assert!(read(StatusCode::SWITCHING_PROTOCOLS, answer, &Method::GET, false).is_err());
    }

    #[test]
    fn what_the_server_did_not_begin_may_be_sent_again() {
        assert!(matches!(fault(&Reason::INTERNAL_ERROR.into(), true), Broken::Unanswered { consumed: true, .. }));
    }
}
