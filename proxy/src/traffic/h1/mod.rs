//! HTTP/1.1 towards clients: one request after the other on a connection, until it ends.
//!
//! Our own, because what frames a message must be strict and exact here (`head.rs`), and because one task and one
//! buffer a connection are enough: a request's body is read where it is sent on, its response written where it comes
//! from. Which server answers is not known here; `service.rs` does the rest.

pub mod answer;
pub mod head;
mod outbox;
pub mod wire;

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body as _;

use super::body::ResponseBody;
use super::incoming::Incoming;
use super::recorded::{self, Recorded};
use super::{respond, service, tunnel};
use crate::access::record::{Broken, Recorder};
use crate::error::Error;
use crate::listener::conn::Client;
use crate::listener::watch::Phase;
use crate::middleware::Response;
use crate::splice::{self, Pipe};
use answer::{Asked, Delimiter};
use head::Head;
use outbox::Outbox;
use wire::Wire;

/// What follows a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The next request.
    Next,
    /// The end, with nothing unread.
    Close,
    /// The end, once the client has had the time to read the response although it still sends.
    Linger,
}

/// Serves a connection until it ends.
pub async fn serve(client: Rc<Client>, wire: Rc<Wire>) {
    client.interim.goes_to(Rc::downgrade(&wire));
    loop {
        let head = poll_fn(|cx| wire.poll_head(cx)).await;
        let then = {
            let _recorded = Recorded(&client);
            match head {
                // Boxed, so that a connection without a request takes little memory.
                Ok(Some(head)) => match Box::pin(exchange(&client, &wire, head)).await {
                    Ok(Ok(then)) => then,
                    Ok(Err(tunnel)) => return Box::pin(tunnel.run(&client, wire)).await,
                    Err(()) => return,
                },
                Ok(None) => return part(&wire).await,
                Err(error) => Box::pin(refuse(&client, &wire, error)).await,
            }
        };
        match then {
            Then::Next => client.watch.enter(Phase::Idle),
            Then::Close => return part(&wire).await,
            Then::Linger => return Box::pin(linger(&wire)).await,
        }
    }
}

/// Answers one request. `Err` when the client has left or was cut off.
async fn exchange(client: &Rc<Client>, wire: &Rc<Wire>, head: Head) -> Result<Result<Then, tunnel::Tunnel>, ()> {
    let Head { parts, framing, keep_alive, expects_continue } = head;
    wire.begin(framing, expects_continue, parts.version);
    let asked = Asked { method: parts.method.clone(), version: parts.version };
    let body = Incoming::h1(wire.clone());
    let mut response = {
        let mut answering = pin!(service::handle(client.clone(), parts, body));
        poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Ok(response)),
            Poll::Pending => wire.poll_gone(cx).map(Err),
        })
        .await?
    };
    if response.status == StatusCode::SWITCHING_PROTOCOLS
        && let Some(tunnel) = response.body.take_tunnel()
    {
        deliver(client, wire, response, &asked, true).await?;
        return Ok(Err(tunnel));
    }
    let keep = keep_alive && !client.worker.is_draining() && !client.watch.is_finishing();
    deliver(client, wire, response, &asked, keep).await.map(Ok)
}

/// Sends a response and says what follows.
async fn deliver(
    client: &Rc<Client>,
    wire: &Rc<Wire>,
    response: Response,
    asked: &Asked,
    keep: bool,
) -> Result<Then, ()> {
    let Response { status, fields, body, ends_connection: ends, .. } = response;
    let length = body.size_hint().exact();
    let delimiter = Delimiter::of(asked, status, length);
    // A client that has much of its body still to send, or waits to be told to, is not listened to for that long.
    let unread = !wire.is_request_whole();
    let tolerable = !unread || (!wire.is_held() && wire.left().is_some_and(|left| left <= MOST_DRAINED));
    let keep = keep && !ends && tolerable && delimiter != Delimiter::Close;
    wire.answer();
    if let Some(access) = &client.access {
        access.status(status);
    }

    let mut outbox = Outbox::new(client.worker.take_buffer());
    outbox.flat.append(&mut wire.take_begun());
    answer::write(&mut outbox.flat, (status, &fields), asked, delimiter, keep, &client.worker.date());
    let access = client.access.clone();
    let sending = Sending { body, delimiter, outbox, pipe: None, ended: false, silent: false, broken: false, access };
    let mut sending = pin!(sending);
    let sent = poll_fn(|cx| sending.as_mut().poll(wire, cx)).await;
    let Sending { outbox, broken, body, .. } = &mut *sending;
    client.worker.give_buffer(std::mem::take(&mut outbox.flat));
    // What it held, a connection to a server above all, is free for others now.
    drop(std::mem::replace(body, ResponseBody::whole(Bytes::new())));
    client.watch.waits_for_nothing();
    if *broken && delimiter == Delimiter::Close {
        wire.reset();
    }
    if let Some(access) = &client.access
        && (sent.is_ok() || *broken)
    {
        access.ended(broken.then_some(Broken::Server));
    }
    sent?;
    if keep && unread && !wire.is_request_whole() {
        return Ok(if Box::pin(drained(wire)).await { Then::Next } else { Then::Linger });
    }
    Ok(match (keep, wire.is_request_whole() && !wire.has_more()) {
        (true, _) => Then::Next,
        (false, true) if !ends => Then::Close,
        (false, _) => Then::Linger,
    })
}

/// A response on its way out.
struct Sending {
    body: ResponseBody,
    delimiter: Delimiter,
    outbox: Outbox,
    /// What of a long body is moved inside the kernel and has not been sent: nothing else is sent before it.
    pipe: Option<Pipe>,
    /// Whether all of the body is in the outbox.
    ended: bool,
    /// Whether the server is waited for.
    silent: bool,
    /// Whether the body broke off.
    broken: bool,
    /// Counts it for the access log.
    access: Option<Rc<Recorder>>,
}

impl Sending {
    /// Ready when everything was sent; `Err` when it cannot be.
    fn poll(mut self: Pin<&mut Self>, wire: &Wire, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        let mut moved = 0;
        loop {
            if self.outbox.is_empty() && (self.pipe.is_some() || self.is_bulk(wire)) {
                if moved >= MOST_A_TURN {
                    // Other connections have their turn.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match self.poll_spliced(wire, cx) {
                    Poll::Ready(Some(Ok(bytes))) => {
                        moved += bytes;
                        continue;
                    }
                    Poll::Ready(Some(Err(()))) => return Poll::Ready(Err(())),
                    Poll::Ready(None) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
            // Short pieces go out together with the head; of what the kernel can move, no more is read.
            while !self.ended
                && self.outbox.body.is_empty()
                && self.outbox.flat.len() < FLAT
                && (self.outbox.is_empty() || !self.is_bulk(wire))
            {
                let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else { break };
                self.silent = false;
                self.take(frame);
            }
            if self.outbox.is_empty() && !self.ended {
                if self.is_too_silent(wire) {
                    continue;
                }
                return wire.poll_gone(cx).map(Err);
            }
            match self.outbox.poll_flush(wire, cx) {
                Poll::Ready(Ok(())) if self.ended => return Poll::Ready(if self.broken { Err(()) } else { Ok(()) }),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(())),
                Poll::Pending => {
                    // A client that sends all before it reads must be able to.
                    self.body.poll_sending(cx);
                    return Poll::Pending;
                }
            }
        }
    }

    /// While the server is waited for: whether that has taken too long, and the body broke off.
    fn is_too_silent(&mut self, wire: &Wire) -> bool {
        if !self.silent {
            self.silent = true;
            wire.watch.wait_at_most(self.body.longest_silence());
            return false;
        }
        let overdue = wire.watch.is_overdue();
        if overdue {
            self.take(Some(Err(ErrorKind::TimedOut.into())));
        }
        overdue
    }

    /// Whether so much of the body is still to come, as it is to be sent, that the kernel should move it.
    fn is_bulk(&self, wire: &Wire) -> bool {
        matches!(self.delimiter, Delimiter::Length(_)) && self.body.bulk() >= splice::WORTHWHILE && !wire.is_tls()
    }

    /// Has the kernel move a piece of the body, and says how much of it; `None`: it has to be read after all, or broke
    /// off.
    fn poll_spliced(&mut self, wire: &Wire, cx: &mut Context<'_>) -> Poll<Option<Result<usize, ()>>> {
        let Some(mut pipe) = self.pipe.take().or_else(|| wire.pipe()) else { return Poll::Ready(None) };
        let mut moved = 0;
        if pipe.is_empty() {
            match self.body.poll_into(&mut pipe, cx) {
                Poll::Ready(Ok(came)) => {
                    self.silent = false;
                    moved = came;
                    if let Some(access) = &self.access {
                        access.sent(came);
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == ErrorKind::Unsupported => return Poll::Ready(None),
                Poll::Ready(Err(error)) => {
                    self.take(Some(Err(error)));
                    return Poll::Ready(None);
                }
                Poll::Pending if self.is_too_silent(wire) => return Poll::Ready(None),
                Poll::Pending => return wire.poll_gone(cx).map(|()| Some(Err(()))),
            }
        }
        while !pipe.is_empty() {
            match wire.poll_drain(&mut pipe, cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Some(Err(()))),
                Poll::Pending => {
                    self.pipe = Some(pipe);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Some(Ok(moved)))
    }

    fn take(&mut self, frame: Option<std::io::Result<http_body::Frame<Bytes>>>) {
        let flat = &mut self.outbox.flat;
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() || self.delimiter == Delimiter::Nothing => {}
                Ok(data) => {
                    let chunks = self.delimiter == Delimiter::Chunks;
                    if let Some(access) = &self.access {
                        access.sent(data.len());
                    }
                    if chunks {
                        answer::chunk_size(flat, data.len());
                    }
                    if flat.len() + data.len() <= FLAT {
                        flat.extend_from_slice(&data);
                        if chunks {
                            flat.extend_from_slice(b"\r\n");
                        }
                    } else {
                        self.outbox.follow(data, if chunks { b"\r\n" } else { b"" });
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.end(&trailers);
                    }
                }
            },
            Some(Err(error)) => {
                tracing::debug!(%error, "a response broke off");
                self.ended = true;
                self.broken = true;
            }
            None if !self.ended => self.end(&HeaderMap::new()),
            None => {}
        }
    }

    fn end(&mut self, trailers: &HeaderMap) {
        self.ended = true;
        if self.delimiter == Delimiter::Chunks {
            let flat = &mut self.outbox.flat;
            flat.extend_from_slice(b"0\r\n");
            for (name, value) in trailers {
                answer::field(flat, name.as_str(), value.as_bytes());
            }
            flat.extend_from_slice(b"\r\n");
        }
    }
}

/// Answers what is no request.
async fn refuse(client: &Rc<Client>, wire: &Rc<Wire>, error: Error) -> Then {
    client.worker.process.errors.add(1);
    client.worker.process.refused.add(1);
    recorded::begin_nothing(client);
    if let Some(access) = &client.access {
        access.failed(&error);
    }
    let asked = Asked { method: http::Method::GET, version: http::Version::HTTP_11 };
    let response = respond::error(error, false);
    match deliver(client, wire, response, &asked, false).await {
        Ok(_) => Then::Linger,
        Err(()) => Then::Close,
    }
}

/// Reads what is left of a request's body, so that the next one can be found. Whether that was soon done.
async fn drained(wire: &Rc<Wire>) -> bool {
    let rest = poll_fn(|cx| {
        loop {
            match wire.poll_body(cx) {
                Poll::Ready(None) => return Poll::Ready(true),
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    tokio::time::timeout(DRAIN, rest).await.unwrap_or(false)
}

/// Ends a connection on which everything was said: inside TLS that has to be told, or the client cannot know whether
/// it has read everything (RFC 8446 section 6.1).
async fn part(wire: &Rc<Wire>) {
    if wire.is_tls() {
        let told = Box::pin(tokio::time::timeout(LINGER, poll_fn(|cx| wire.poll_shutdown(cx))));
        let _ = told.await;
    }
}

/// Ends a connection on which the client still sends: closed at once, the kernel would answer what comes with a reset,
/// and that takes an unread response with it (RFC 9112 section 9.6).
async fn linger(wire: &Rc<Wire>) {
    let rest = async {
        if poll_fn(|cx| wire.poll_shutdown(cx)).await.is_err() {
            return;
        }
        while let Ok(false) = tokio::time::timeout(LINGER_IDLE, poll_fn(|cx| wire.poll_discard(cx))).await {}
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// Up to so many bytes are copied together into one write.
const FLAT: usize = 16 * 1024;
/// So many bytes are moved inside the kernel for one connection before others have their turn.
const MOST_A_TURN: usize = 1024 * 1024;
/// Bytes of a body nobody wanted that are read for the sake of the next request.
const MOST_DRAINED: u64 = 64 * 1024;
const DRAIN: Duration = Duration::from_secs(1);
const LINGER: Duration = Duration::from_secs(10);
const LINGER_IDLE: Duration = Duration::from_secs(2);
