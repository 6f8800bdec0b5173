//! Forwarding: choose a server, take a connection, send, and send again only where that is safe.
//!
//! A request that could not be connected for goes to another server, whatever it is: nothing was sent. One sent on a
//! kept connection that ended without a byte of an answer goes out again on a fresh one, if its body was not begun or is
//! still there, for then the server had closed it before. Everything else is decided in `again`.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use etna_store::object::OnClientAbort;
use futures_util::FutureExt as _;
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue, SET_COOKIE, UPGRADE};

use super::again::{self, Again, Ended, is_idempotent};
use super::body::{RequestBody, ResponseBody, Upstream};
use super::connecting::Wanted;
use super::headers::{self, Outbound};
use super::outgoing::{Outgoing, announced, body_fault, client_address, framing, request_body};
use super::tunnel::Tunnel;
use super::waiting::{Choose, InLine};
use crate::backend::balance::Ask;
use crate::backend::health::Outcome;
use crate::backend::multiplexed::Link;
use crate::backend::place::Place;
use crate::backend::pool::{self, Keep};
use crate::backend::sending::Sending;
use crate::backend::wire::{self, Broken};
use crate::backend::{Backend, InFlight, sticky};
use crate::error::Error;
use crate::listener::conn::Client;
use crate::listener::serving::Serving;
use crate::middleware::{self, Response};
use crate::table::Route;

/// [`exchange`], and to its end even if the client leaves: in a task of its own it goes on when the client's connection
/// is dropped, and a drain waits for it.
pub async fn exchange_to_the_end(
    client: Rc<Client>,
    route: Route,
    request: middleware::Request,
) -> Result<Response, Error> {
    let serving = Serving::begin(&client.worker);
    let task = tokio::task::spawn_local(exchange(client, route, request).inspect(move |_| drop(serving)));
    task.await.unwrap_or(Err(Error::Upstream))
}

/// Sends a request to a server of its route and brings the answer back.
pub async fn exchange(client: Rc<Client>, route: Route, request: middleware::Request) -> Result<Response, Error> {
    let mut backend = route.serving().cloned().ok_or(Error::NoServer)?;

    let middleware::Request { head, body, client: _, since } = request;
    let frontend = &route.frontend;
    let websocket = head.version == http::Version::HTTP_11 && headers::wants_websocket(&head.fields);
    let expect = body.is_held() && !body.has_begun();
    let body = request_body(body, frontend.max_body_bytes(), route.elsewhere.is_some()).await?;
    // A body that was read before took its time.
    let since = if matches!(body, RequestBody::Whole { .. }) { Instant::now() } else { since };
    let believe = frontend.digest.trust_forward_header || client.worker.trusted.contains(client.peer.address);
    let cookie = frontend.cookie.as_ref().or(backend.cookie.as_ref());
    let stuck = cookie.and_then(|cookie| sticky::find(&backend, cookie, &head.fields, || since));
    let stuck_to = stuck.map(|at| backend.servers[usize::from(at)].live.number);
    let framing = framing(&head, &body);
    let mut outgoing = Outgoing {
        framing,
        head,
        believe,
        server_name: frontend.server_name(),
        pass_host: frontend.digest.pass_host_header,
        websocket,
        expect,
        alone: frontend.digest.on_client_abort == OnClientAbort::Continue,
        body: Sending::new(body, framing == headers::Framing::Chunked, expect),
        failover: frontend.failover.as_deref(),
    };

    if let Some(total) = backend.spec.timeouts.total {
        client.watch.ends_within(total);
    }
    let mut answered = send(&client, (&route, Route::serving), &mut backend, stuck, &mut outgoing, since).await?;
    let cookie = frontend.cookie.as_ref().or(backend.cookie.as_ref());
    let mut second = None;
    if let (Some((statuses, _)), Some(elsewhere)) = (frontend.elsewhere.as_deref(), &route.elsewhere)
        && statuses.contains(&answered.head.status.as_u16())
        && !elsewhere.schedule.is_empty()
        && outgoing.body.rewind()
    {
        drop(answered);
        let second = second.insert(elsewhere.clone());
        let way: (_, Choose) = (&route, |route| route.elsewhere.as_ref());
        answered = Box::pin(send(&client, way, second, None, &mut outgoing, Instant::now())).await?;
    }
    let set_cookie = cookie.filter(|_| stuck_to != Some(answered.in_flight.live().number));
    let set_cookie = set_cookie.and_then(|cookie| {
        let secure = client.peer.is_secure(&outgoing.head.fields, believe);
        sticky::set_cookie(cookie, answered.in_flight.live(), secure)
    });
    deliver(&client, second.as_ref().unwrap_or(&backend), answered, outgoing.body, websocket, set_cookie)
}

/// A server's answer, and what holds it.
struct Answered {
    head: wire::Head,
    link: Link,
    in_flight: InFlight,
    /// When it was there.
    at: Instant,
}

/// Sends a request to a server of a backend that `choose` took from its route. While it waits for one, the backend may
/// change; then `backend` is what it went to.
async fn send(
    client: &Client,
    (route, choose): (&Route, Choose),
    backend: &mut Arc<Backend>,
    stuck: Option<u16>,
    outgoing: &mut Outgoing<'_>,
    mut began: Instant,
) -> Result<Answered, Error> {
    let worker = &client.worker;
    let mut ask = ask_at(client, route, backend, outgoing, began);
    let mut again = Again::new(ask.turn, began);
    let mut line = InLine::new(&worker.live, route, choose);
    let mut stuck = stuck;
    // Whether the request goes out as it came: it waited for no place and no connection.
    let mut at_once = true;
    // The place of a server whose kept connection had been closed: it is asked again on a fresh one.
    let mut fresh: Option<(u16, InFlight)> = None;
    let mut refused = 0;
    let idempotent = is_idempotent(&outgoing.head.method);
    if idempotent || outgoing.failover.is_some() || outgoing.goes_by_http2(backend) {
        outgoing.body.keep();
    }
    loop {
        let kept_closed = fresh.is_some();
        let wanted = stuck.take();
        let (at, in_flight) = match fresh.take() {
            Some(place) => place,
            // Counted before connecting, so that a server that is slow to accept looks as busy as it is.
            None => match backend.place(wanted, &Ask { tried: again.tried(), ..ask }) {
                Place::At(at, in_flight) => (at, in_flight),
                Place::Nobody => return Err(again.failure()),
                Place::Full => {
                    at_once = false;
                    let left = backend.clone();
                    let waits = Ask { tried: again.tried(), ..ask };
                    let place = Box::pin(line.wait(wanted, &waits, backend)).await?;
                    if !Arc::ptr_eq(&left.live, &backend.live) {
                        ask = ask_at(client, route, backend, outgoing, began);
                    }
                    again.goes_on_at(backend, &left, ask.turn);
                    match place {
                        Some(place) => place,
                        None => continue,
                    }
                }
            },
        };
        let server = &backend.servers[usize::from(at)];
        let live = &server.live;
        if let Some(access) = &client.access {
            access.tries(&backend.id, &server.spec.id);
        }
        let announced = backend.spec.proxy_protocol.map(|version| Box::new(announced(client, outgoing, version)));
        let wanted = Wanted { server, http2: outgoing.goes_by_http2(backend), announced };
        let mut link = match wanted.kept(worker, kept_closed, idempotent) {
            Some(link) => link,
            // Boxed: connecting is rare, and its state would otherwise be moved with every request.
            None => match Box::pin(wanted.open(worker, again.connect_limits(backend, at, &ask))).await {
                Ok(link) => {
                    at_once = false;
                    link
                }
                Err(error) => {
                    tracing::debug!(backend = %backend.id, server = %server.spec.id, %error, "connect failed");
                    live.connect_errors.add(1);
                    backend.observe(at, error.outcome());
                    again.unreachable(at)?;
                    worker.process.retries.connect.add(1);
                    at_once = false;
                    continue;
                }
            },
        };
        if !at_once {
            began = Instant::now();
        }
        at_once = false;
        let answer = {
            let written = worker.write_head(|out| {
                let how = Outbound {
                    peer: &client.peer,
                    believe: outgoing.believe,
                    trusted: worker.trusted.contains(client.peer.address),
                    certificate: client.secured.as_ref().and_then(|secured| secured.client.as_deref()),
                    server_name: outgoing.server_name,
                    host: if outgoing.pass_host { None } else { Some(live.authority.as_bytes()) },
                    mark: worker.mark.line(),
                    authority: live.authority.as_bytes(),
                    websocket: outgoing.websocket,
                    expect: outgoing.expect,
                    framing: outgoing.framing,
                };
                headers::write(out, &outgoing.head, &how);
            });
            let progress = Cell::new(0);
            let limit = answer_limit(route, backend);
            let (method, body) = (&outgoing.head.method, &mut outgoing.body);
            match &mut link {
                Link::Http1(connection) => {
                    let exchange = pin!(connection.exchange(method, &written, body, &progress, &client.interim));
                    within(client, limit, outgoing.alone, &progress, exchange).await
                }
                Link::Http2(call) => {
                    let exchange = Box::pin(call.exchange(method, &written, body, &progress, &client.interim));
                    within(client, limit, outgoing.alone, &progress, exchange).await
                }
            }
        };
        let ended = match answer {
            Some(Ok(head)) => {
                let answered = Instant::now();
                let took = answered.saturating_duration_since(began);
                live.requests.record(head.status, took);
                if let Some(access) = &client.access {
                    access.answered(took);
                }
                backend.observe(at, Outcome::Answered(head.status));
                again::measure(backend, live, began, false);
                let ended = Ended::Answered(head.status);
                let (failover, method, body) = (outgoing.failover, &outgoing.head.method, &mut outgoing.body);
                if failover.is_none() || !again.may(backend, (at, ended), failover, method, body, &ask) {
                    return Ok(Answered { head, link, in_flight, at: answered });
                }
                ended
            }
            Some(Err(Broken::Request(error))) => return Err(body_fault(&error)),
            // The server closed a kept connection as we used it: that says nothing about the server, and the request
            // was not taken up.
            Some(Err(Broken::Unanswered { consumed, .. })) if link.is_reused() => {
                if consumed && !outgoing.body.rewind() {
                    return Err(Error::Upstream);
                }
                worker.process.retries.closed.add(1);
                fresh = Some((at, in_flight));
                continue;
            }
            // It says that it has not begun with it: that is as safe as if nothing had been sent, whatever the request.
            Some(Err(Broken::Refused { consumed })) => {
                refused += 1;
                if consumed && !outgoing.body.rewind() {
                    return Err(Error::Upstream);
                }
                worker.process.retries.refused.add(1);
                if refused < MOST_REFUSED {
                    fresh = Some((at, in_flight));
                } else {
                    live.request_errors.add(1);
                    backend.observe(at, Outcome::Broken);
                    again.unreachable(at)?;
                    refused = 0;
                }
                continue;
            }
            other => {
                live.request_errors.add(1);
                again::measure(backend, live, began, true);
                let ended = match &other {
                    None => Ended::Late,
                    Some(Err(Broken::Unanswered { .. })) => Ended::Unanswered,
                    Some(_) => Ended::Nonsense,
                };
                let error = other.and_then(Result::err);
                tracing::debug!(backend = %backend.id, server = %server.spec.id, ?ended, ?error, "no answer");
                let late = Outcome::Late(answer_limit(route, backend));
                backend.observe(at, if ended == Ended::Late { late } else { Outcome::Broken });
                let (failover, method, body) = (outgoing.failover, &outgoing.head.method, &mut outgoing.body);
                if !again.may(backend, (at, ended), failover, method, body, &ask) {
                    return Err(ended.error());
                }
                ended
            }
        };
        again::count(&worker.process.retries, ended);
    }
}

/// A request that asks a backend for a server for the first time.
fn ask_at(client: &Client, route: &Route, backend: &Backend, outgoing: &Outgoing<'_>, now: Instant) -> Ask<'static> {
    let session = route.frontend.session(&outgoing.head.fields);
    let hashed = || backend.hash.as_ref()?.of(&outgoing.head, client_address(client, outgoing));
    Ask {
        turn: backend.live.turn.fetch_add(1, Relaxed),
        random: client.worker.random(),
        key: session.or_else(hashed),
        now,
        ramping: backend.is_ramping(now),
        tried: &[],
    }
}

/// How long a server has to begin its answer.
fn answer_limit(route: &Route, backend: &Backend) -> Duration {
    backend.spec.timeouts.answer(route.frontend.answer_within())
}

/// Waits for an answer, or gives up when for so long nothing of the request could be sent either. Long limits are
/// watched by the worker once a second and cost no timer.
async fn within<T>(
    client: &Client,
    limit: Duration,
    alone: bool,
    progress: &Cell<u64>,
    mut answer: impl Future<Output = T> + Unpin,
) -> Option<T> {
    let mut timer = (limit < COARSE || alone).then(|| Box::pin(tokio::time::sleep(limit)));
    client.watch.wait_at_most(limit);
    let mut seen = 0;
    let result = poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.poll_unpin(cx) {
            return Poll::Ready(Some(answer));
        }
        let moved = progress.get() != seen;
        seen = progress.get();
        let late = match &mut timer {
            Some(timer) => {
                if moved {
                    timer.as_mut().reset(tokio::time::Instant::now() + limit);
                }
                timer.as_mut().poll(cx).is_ready()
            }
            None => {
                if moved {
                    client.watch.wait_at_most(limit);
                }
                client.watch.is_overdue()
            }
        };
        if late { Poll::Ready(None) } else { Poll::Pending }
    })
    .await;
    client.watch.waited();
    result
}

/// Turns a server's answer into the client's.
fn deliver(
    client: &Client,
    backend: &Backend,
    answered: Answered,
    sending: Sending,
    websocket: bool,
    set_cookie: Option<HeaderValue>,
) -> Result<Response, Error> {
    let Answered { mut head, link, in_flight, at } = answered;
    if let Some(set_cookie) = set_cookie {
        head.fields.append(&SET_COOKIE, &set_cookie);
    }
    let idle = backend.spec.timeouts.idle;
    let body = match link {
        Link::Http1(connection) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
            // A server that switches without having been asked is not speaking HTTP any more.
            if !websocket {
                return Err(Error::Upstream);
            }
            head.fields.set(&CONNECTION, &HeaderValue::from_static("upgrade"));
            head.fields.set(&UPGRADE, &HeaderValue::from_static("websocket"));
            ResponseBody::tunnel(Tunnel::new(connection, in_flight))
        }
        Link::Http1(connection) => {
            let idle_seconds = head.keep_alive.map_or(pool::DEFAULT_IDLE, |seconds| seconds.saturating_sub(1));
            let keep = Keep {
                server: in_flight.live().number,
                idle_seconds: if head.reusable { idle_seconds } else { 0 },
                at_most: backend.spec.keep_alive.max_idle,
            };
            let worker = client.worker.clone();
            ResponseBody::upstream(Upstream::new(connection, head.framing, sending, keep, worker, in_flight), idle)
        }
        Link::Http2(call) => ResponseBody::multiplexed(call.receiving(&head, sending, in_flight), idle),
    };
    Ok(Response { fields: head.fields, answered: Some(at), ..Response::new(head.status, body) })
}

/// Limits from here on may be a second late.
const COARSE: Duration = Duration::from_secs(5);
/// How often one server may say that it has not begun with a request, until another one is asked.
const MOST_REFUSED: u32 = 4;
