//! One request of a connection: answered, sent, and over.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, StatusCode, Version};
use http_body::Body as _;

use super::calm::{Calm, Held};
use super::duplex::Duplex;
use super::interim::Stream;
use super::unsent::{Piece, Unsent};
use super::upload::{Respond, Upload, fit_to_trail};
use super::{answer, head};
use crate::access::record::Broken;
use crate::error::Error;
use crate::listener::conn::Client;
use crate::listener::watch::{Order, Phase, Waiting};
use crate::middleware::Response;
use crate::stats::Process;
use crate::traffic::body::ResponseBody;
use crate::traffic::h1::answer::{Asked, Delimiter};
use crate::traffic::incoming::Incoming;
use crate::traffic::interim::Interim;
use crate::traffic::recorded::{self, Recorded};
use crate::traffic::tunnel::Tunnel;
use crate::traffic::{respond, service};

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// With a whole response.
    Answered,
    /// The client took its request back.
    TakenBack,
    /// We broke it off, or the connection did.
    Broken,
}

/// A stream, counted as long as this value lives.
struct Open(Arc<Process>);

impl Open {
    fn new(process: &Arc<Process>) -> Open {
        process.http2.open.up();
        Open(process.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panics.add(1);
        }
        self.0.http2.open.down();
    }
}

/// A request of a connection, for whose head there is room.
pub(super) struct Begun {
    pub(super) connection: Rc<Client>,
    pub(super) calm: Rc<Calm>,
    pub(super) held: Held,
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Piece>,
}

/// Answers one request of a connection.
pub(super) async fn serve(begun: Begun) {
    let Begun { connection, calm, held, request, respond } = begun;
    let _open = Open::new(&connection.worker.process);
    let watched = connection.worker.watched();
    let watch = watched.watch().clone();
    watch.enter(Phase::Busy);
    let access = connection.worker.access.as_ref().map(|lines| lines.recorder(true));
    let respond = Rc::new(RefCell::new(respond));
    let interim = Interim::of_stream(Stream::new(&respond, &calm));
    let client = Rc::new(Client { watch: watch.clone(), access, interim, ..(*connection).clone() });
    let _recorded = Recorded(&client);
    let ended = {
        let mut exchanging = pin!(exchange(&client, &calm, held, request, &respond));
        loop {
            tokio::select! {
                biased;
                ended = exchanging.as_mut() => break ended,
                told = watch.told() => if told == Some(Order::Close) {
                    // It does not read its response, or a drain's time is over.
                    respond.borrow_mut().send_reset(Reason::CANCEL);
                    break Ended::Broken;
                },
            }
        }
    };
    match ended {
        Ended::Answered => {
            if let Some(access) = &client.access {
                access.ended(None);
            }
            calm.answered();
        }
        Ended::TakenBack => {
            client.worker.process.http2.resets.add(1);
            calm.taken_back();
        }
        Ended::Broken => {}
    }
}

async fn exchange(
    client: &Rc<Client>,
    calm: &Rc<Calm>,
    held: Held,
    request: Request<RecvStream>,
    respond: &Respond,
) -> Ended {
    // A request that was taken back before it was looked at costs nobody anything more.
    if let Poll::Ready(reason) = poll_fn(|cx| Poll::Ready(respond.borrow_mut().poll_reset(cx))).await {
        return gone(&reason);
    }
    let (parts, stream) = request.into_parts();
    let asked = Asked { method: parts.method.clone(), version: Version::HTTP_2 };
    let process = &client.worker.process;
    let mut upload = None;
    let mut websocket = false;
    let mut response = match head::read(parts, || client.worker.random()) {
        Ok(head) => {
            websocket = head.websocket;
            let body = if stream.is_end_stream() && !websocket {
                Incoming::nothing()
            } else {
                let ask = head.expects_continue.then(|| respond.clone());
                let body = Upload::new(stream, head.length, ask, client.watch.clone(), calm.uploads());
                if websocket {
                    upload = Some(body);
                    Incoming::nothing()
                } else {
                    Incoming::h2(body)
                }
            };
            let mut answering = pin!(service::handle(client.clone(), Rc::new(head.head), body));
            let answered = poll_fn(|cx| match answering.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(Ok(response)),
                Poll::Pending => respond.borrow_mut().poll_reset(cx).map(|reason| Err(gone(&reason))),
            });
            match answered.await {
                Ok(response) => response,
                Err(ended) => return ended,
            }
        }
        Err(error) => {
            process.errors.add(1);
            process.refused.add(1);
            recorded::begin_nothing(client);
            if let Some(access) = &client.access {
                access.failed(&error);
            }
            respond::error(error, false)
        }
    };
    drop(held);
    if let Some(upload) = upload {
        if let Some(tunnel) = response.body.take_tunnel() {
            return join(client, calm, response, tunnel, upload, respond).await;
        }
        // To the client, success would be the WebSocket itself.
        if response.status.is_success() {
            process.errors.add(1);
            response = respond::error(Error::Upstream, false);
        }
    }
    debug_assert!(websocket || response.status != StatusCode::SWITCHING_PROTOCOLS, "nobody asked to switch");
    deliver(client, calm, response, &asked, respond).await
}

/// Joins a stream and the server that opened a WebSocket on it.
async fn join(
    client: &Rc<Client>,
    calm: &Calm,
    response: Response,
    tunnel: Tunnel,
    upload: Upload,
    respond: &Respond,
) -> Ended {
    let head = answer::switched(&response.fields, &client.worker.date(), &client.worker.known);
    let sent = respond.borrow_mut().send_response(head, false);
    let Ok(send) = sent else { return Ended::TakenBack };
    if let Some(access) = &client.access {
        access.status(StatusCode::OK);
    }
    client.watch.waits_for_nothing();
    Box::pin(tunnel.run_over(client, Duplex::new(upload, send, calm.unsent().clone()))).await;
    Ended::Answered
}

/// Sends a response.
async fn deliver(client: &Rc<Client>, calm: &Calm, response: Response, asked: &Asked, respond: &Respond) -> Ended {
    let Response { status, fields, body, .. } = response;
    if let Some(access) = &client.access {
        access.status(status);
    }
    let delimiter = Delimiter::of(asked, status, body.size_hint().exact());
    let ends = matches!(delimiter, Delimiter::Nothing | Delimiter::Length(0));
    let head = answer::head(status, &fields, delimiter, &client.worker.date(), &client.worker.known);
    let sent = respond.borrow_mut().send_response(head, ends);
    let send = match sent {
        Ok(_) if ends => return Ended::Answered,
        Ok(send) => send,
        Err(error) => {
            tracing::debug!(%error, "a response could not be sent");
            return Ended::TakenBack;
        }
    };
    let mut sending = pin!(Sending { body, send, unsent: calm.unsent().clone(), piece: Bytes::new(), silent: false });
    poll_fn(|cx| sending.as_mut().poll(client, cx)).await
}

/// A response's body on its way out.
struct Sending {
    body: ResponseBody,
    send: SendStream<Piece>,
    unsent: Rc<Unsent>,
    /// Taken from the body and not sent yet.
    piece: Bytes,
    /// Whether the server is waited for.
    silent: bool,
}

impl Sending {
    /// Ready when everything was sent, or nothing more will be.
    fn poll(mut self: Pin<&mut Self>, client: &Client, cx: &mut Context<'_>) -> Poll<Ended> {
        let Sending { body, send, unsent, piece, silent } = &mut *self;
        if let Poll::Ready(reason) = send.poll_reset(cx) {
            return Poll::Ready(gone(&reason));
        }
        loop {
            while !piece.is_empty() {
                let mut capacity = send.capacity();
                if capacity == 0 {
                    send.reserve_capacity(piece.len());
                    capacity = send.capacity();
                }
                if capacity == 0 {
                    match send.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(_))) => continue,
                        Poll::Ready(_) => return Poll::Ready(Ended::TakenBack),
                        Poll::Pending => {
                            client.watch.waits_for(Waiting::Reader);
                            // A client that sends all before it reads must be able to.
                            body.poll_sending(cx);
                            return Poll::Pending;
                        }
                    }
                }
                let Poll::Ready(room) = unsent.poll_room(cx) else {
                    client.watch.waits_for(Waiting::Reader);
                    body.poll_sending(cx);
                    return Poll::Pending;
                };
                let here = piece.split_to(capacity.min(piece.len()).min(room));
                client.watch.moved(here.len(), Waiting::Reader);
                if let Some(access) = &client.access {
                    access.sent(here.len());
                }
                let ends = piece.is_empty() && body.is_end_stream();
                if send.send_data(unsent.piece(here), ends).is_err() {
                    return Poll::Ready(Ended::TakenBack);
                }
                if ends {
                    return Poll::Ready(Ended::Answered);
                }
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    *silent = false;
                    match frame.into_data() {
                        Ok(data) => *piece = data,
                        Err(frame) => {
                            let trailers = frame.into_trailers().map(fit_to_trail).unwrap_or_default();
                            return Poll::Ready(over(send.send_trailers(trailers)));
                        }
                    }
                }
                Poll::Ready(None) => return Poll::Ready(over(send.send_data(unsent.piece(Bytes::new()), true))),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "a response broke off");
                    broke_off(client);
                    send.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Ended::Broken);
                }
                Poll::Pending if !*silent => {
                    *silent = true;
                    client.watch.wait_at_most(body.longest_silence());
                    return Poll::Pending;
                }
                Poll::Pending if client.watch.is_overdue() => {
                    tracing::debug!("a response fell silent");
                    broke_off(client);
                    send.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Ended::Broken);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn broke_off(client: &Client) {
    if let Some(access) = &client.access {
        access.ended(Some(Broken::Server));
    }
}

/// How a stream ended that takes no response any more.
fn gone(reason: &Result<Reason, h2::Error>) -> Ended {
    if reason.is_ok() { Ended::TakenBack } else { Ended::Broken }
}

fn over(sent: Result<(), h2::Error>) -> Ended {
    if sent.is_ok() { Ended::Answered } else { Ended::TakenBack }
}
