//! Forwarding: choose a server, take a connection, send, and send again only where that is safe.
//!
//! A request that could not be connected for goes to another server, whatever it is: nothing was sent. One sent on a
//! kept connection that ended without a byte of an answer goes out again on a fresh one, if its body was not begun or is
//! still there, for then the server had closed it before. Everything else is decided in `again`.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use etna_store::object::{OnClientAbort, ProxyVersion};
use futures_util::FutureExt as _;
use http::header::{CONNECTION, HeaderValue, SET_COOKIE, UPGRADE};
use http::request::Parts;
use http::{Method, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::again::{self, Again, Ended, is_idempotent};
use super::body::{BodyError, RequestBody, ResponseBody, Upstream};
use super::headers::{self, Outbound};
use super::incoming::Incoming;
use super::tunnel::Tunnel;
use super::waiting::{Choose, InLine};
use crate::backend::balance::Ask;
use crate::backend::health::Outcome;
use crate::backend::place::Place;
use crate::backend::pool::{self, Keep};
use crate::backend::sending::Sending;
use crate::backend::wire::{self, Announced, Broken, Connection};
use crate::backend::{Backend, InFlight, Live, sticky};
use crate::error::Error;
use crate::failover::Predicate;
use crate::listener::conn::Client;
use crate::listener::serving::Serving;
use crate::middleware::{self, Response};
use crate::proxy_protocol::Origin;
use crate::table::Route;

/// Sends a request to a server of its route and brings the answer back.
pub async fn forward(client: Rc<Client>, route: Route, request: middleware::Request) -> Result<Response, Error> {
    match route.frontend.spec.on_client_abort {
        OnClientAbort::Cancel => exchange(client, route, request).await,
        // In a task of its own it goes on when the client's connection is dropped, and a drain waits for it.
        OnClientAbort::Continue => {
            let serving = Serving::begin(&client.worker);
            let task = tokio::task::spawn_local(exchange(client, route, request).inspect(move |_| drop(serving)));
            task.await.unwrap_or(Err(Error::Upstream))
        }
    }
}

async fn exchange(client: Rc<Client>, route: Route, request: middleware::Request) -> Result<Response, Error> {
    let mut backend = route.serving().cloned().ok_or(Error::NoServer)?;

    let middleware::Request { head, body, client: _ } = request;
    let spec = &route.frontend.spec.settings;
    let websocket = head.version == http::Version::HTTP_11 && headers::wants_websocket(&head.headers);
    let expect = body.is_held() && !body.has_begun();
    let body = request_body(body, spec.limits.max_body_bytes, route.elsewhere.is_some()).await?;
    let believe = spec.trust_forward_header || client.worker.trusted.contains(client.peer.address);
    let cookie = route.frontend.cookie.as_ref().or(backend.cookie.as_ref());
    let stuck = cookie.and_then(|cookie| sticky::find(&backend, cookie, &head.headers, Instant::now));
    let stuck_to = stuck.map(|at| backend.servers[usize::from(at)].live.number);
    let framing = framing(&head, &body);
    let mut outgoing = Outgoing {
        framing,
        head,
        believe,
        server_name: spec.hostname.as_deref(),
        pass_host: spec.pass_host_header,
        websocket,
        expect,
        alone: route.frontend.spec.on_client_abort == OnClientAbort::Continue,
        body: Sending::new(body, framing == headers::Framing::Chunked, expect),
        failover: route.frontend.failover.as_deref(),
    };

    if let Some(total) = backend.spec.timeouts.total {
        client.watch.ends_within(total);
    }
    let mut answered = send(&client, &route, Route::serving, &mut backend, stuck, &mut outgoing).await?;
    let cookie = route.frontend.cookie.as_ref().or(backend.cookie.as_ref());
    let mut second = None;
    if let (Some((statuses, _)), Some(elsewhere)) = (&route.frontend.elsewhere, &route.elsewhere)
        && statuses.contains(&answered.head.status.as_u16())
        && !elsewhere.schedule.is_empty()
        && outgoing.body.rewind()
    {
        drop(answered);
        let second = second.insert(elsewhere.clone());
        answered =
            Box::pin(send(&client, &route, |route| route.elsewhere.as_ref(), second, None, &mut outgoing)).await?;
    }
    let set_cookie = cookie.filter(|_| stuck_to != Some(answered.live.number));
    let set_cookie = set_cookie.and_then(|cookie| {
        let secure = client.peer.is_secure(&outgoing.head.headers, believe);
        sticky::set_cookie(cookie, &answered.live, secure)
    });
    deliver(&client, second.as_ref().unwrap_or(&backend), answered, outgoing.body, websocket, set_cookie)
}

/// A request as servers get it. Nothing of it is used up by sending it, but the body.
struct Outgoing<'a> {
    head: Parts,
    framing: headers::Framing,
    /// Whether the client's forwarding fields are believed.
    believe: bool,
    server_name: Option<&'a str>,
    /// Whether servers see the client's `Host` or their own.
    pass_host: bool,
    websocket: bool,
    /// Whether its body waits to be asked for.
    expect: bool,
    /// Whether it runs in a task of its own, which the worker's look at its connections does not wake.
    alone: bool,
    body: Sending,
    /// When it goes to another server, where the frontend says so itself.
    failover: Option<&'a Predicate>,
}

/// A server's answer, and what holds it.
struct Answered {
    head: wire::Head,
    connection: Connection,
    in_flight: InFlight,
    live: Arc<Live>,
}

/// Sends a request to a server of a backend that `choose` took from its route. While it waits for one, the backend may
/// change; then `backend` is what it went to.
async fn send(
    client: &Client,
    route: &Route,
    choose: Choose,
    backend: &mut Arc<Backend>,
    stuck: Option<u16>,
    outgoing: &mut Outgoing<'_>,
) -> Result<Answered, Error> {
    let worker = &client.worker;
    let mut began = Instant::now();
    let mut ask = ask_at(client, backend, outgoing, began);
    let mut again = Again::new(ask.turn, began);
    let mut line = InLine::new(&worker.live, route, choose);
    let mut stuck = stuck;
    // Whether the request goes out as it came: it waited for no place and no connection.
    let mut at_once = true;
    // The place of a server whose kept connection had been closed: it is asked again on a fresh one.
    let mut fresh: Option<(u16, InFlight)> = None;
    let idempotent = is_idempotent(&outgoing.head.method);
    if idempotent || outgoing.failover.is_some() {
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
                        ask = ask_at(client, backend, outgoing, began);
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
        let announced = backend.spec.proxy_protocol.map(|version| Box::new(announced(client, outgoing, version)));
        let kept = if kept_closed { None } else { worker.pool.take(live.number, announced.as_deref(), worker.now()) };
        // What cannot be sent twice is not entrusted to a connection that is closed by now.
        let kept = kept.filter(|kept| idempotent || kept.is_open());
        let mut connection = match kept {
            Some(connection) => connection,
            // Boxed: connecting is rare, and its state would otherwise be moved with every request.
            None => match Box::pin(pool::connect(live, announced, again.connect_limit(backend, at, &ask))).await {
                Ok(connection) => {
                    at_once = false;
                    worker.process.upstream_connections.add(1);
                    connection
                }
                Err(error) => {
                    tracing::debug!(backend = %backend.id, server = %server.spec.id, %error, "connect failed");
                    live.connect_errors.add(1);
                    backend.observe(at, Outcome::Unreachable);
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
                    authority: live.authority.as_bytes(),
                    websocket: outgoing.websocket,
                    expect: outgoing.expect,
                    framing: outgoing.framing,
                };
                headers::write(out, &outgoing.head, &how);
            });
            let progress = Cell::new(0);
            let exchange = connection.exchange(&outgoing.head.method, &written, &mut outgoing.body, &progress);
            within(client, backend.spec.timeouts.answer(), outgoing.alone, &progress, exchange).await
        };
        let ended = match answer {
            Some(Ok(head)) => {
                live.requests.record(head.status, began.elapsed());
                backend.observe(at, Outcome::Answered(head.status));
                again::measure(backend, live, began, false);
                let ended = Ended::Answered(head.status);
                let Outgoing { failover, head: Parts { method, .. }, body, .. } = outgoing;
                if failover.is_none() || !again.may(backend, (at, ended), *failover, method, body, &ask) {
                    return Ok(Answered { head, connection, in_flight, live: live.clone() });
                }
                ended
            }
            Some(Err(Broken::Request(error))) => return Err(body_fault(&error)),
            // The server closed a kept connection as we used it: that says nothing about the server, and the request
            // was not taken up.
            Some(Err(Broken::Unanswered { consumed, .. })) if connection.reused => {
                if consumed && !outgoing.body.rewind() {
                    return Err(Error::Upstream);
                }
                worker.process.retries.closed.add(1);
                fresh = Some((at, in_flight));
                continue;
            }
            other => {
                live.request_errors.add(1);
                again::measure(backend, live, began, true);
                let ended = match other {
                    None => Ended::Late,
                    Some(Err(Broken::Unanswered { .. })) => Ended::Unanswered,
                    Some(_) => Ended::Nonsense,
                };
                tracing::debug!(backend = %backend.id, server = %server.spec.id, ?ended, "no answer");
                backend.observe(at, if ended == Ended::Late { Outcome::Late } else { Outcome::Broken });
                let Outgoing { failover, head: Parts { method, .. }, body, .. } = outgoing;
                if !again.may(backend, (at, ended), *failover, method, body, &ask) {
                    return Err(ended.error());
                }
                ended
            }
        };
        again::count(&worker.process.retries, ended);
    }
}

/// A request that asks a backend for a server for the first time.
fn ask_at(client: &Client, backend: &Backend, outgoing: &Outgoing<'_>, now: Instant) -> Ask<'static> {
    Ask {
        turn: backend.live.turn.fetch_add(1, Relaxed),
        random: client.worker.random(),
        key: backend.hash.as_ref().and_then(|hash| hash.of(&outgoing.head, client_address(client, outgoing))),
        now,
        ramping: backend.is_ramping(now),
        tried: &[],
    }
}

/// The client's address, as trusted proxies tell it.
fn client_address(client: &Client, outgoing: &Outgoing<'_>) -> IpAddr {
    client.worker.trusted.client(client.peer.address, &outgoing.head.headers)
}

/// What a server that wants to know is told of a request: who its client is, as servers read it in `X-Forwarded-For`.
fn announced(client: &Client, outgoing: &Outgoing<'_>, version: ProxyVersion) -> Announced {
    let Client { peer, .. } = client;
    let address = client_address(client, outgoing);
    // Which port a client behind another proxy has is not known.
    let port = if address == peer.address { peer.from_port } else { 0 };
    // Version 1 cannot say so, and a connection is not to be lost to a difference that is not seen.
    let tls = version == ProxyVersion::V2 && peer.is_secure(&outgoing.head.headers, outgoing.believe);
    let from = SocketAddr::new(address, port);
    Announced { version, origin: Origin { from, to: peer.to, tls } }
}

/// Waits for an answer, or gives up when for so long nothing of the request could be sent either. Long limits are
/// watched by the worker once a second and cost no timer.
async fn within<T>(
    client: &Client,
    limit: Duration,
    alone: bool,
    progress: &Cell<u64>,
    answer: impl Future<Output = T>,
) -> Option<T> {
    let mut answer = pin!(answer);
    let mut timer = (limit < COARSE || alone).then(|| Box::pin(tokio::time::sleep(limit)));
    client.watch.wait_at_most(limit);
    let mut seen = 0;
    let result = poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
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
    let Answered { mut head, connection, in_flight, live } = answered;
    if let Some(set_cookie) = set_cookie {
        head.fields.append(SET_COOKIE, set_cookie);
    }
    let body = if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // A server that switches without having been asked is not speaking HTTP any more.
        if !websocket {
            return Err(Error::Upstream);
        }
        head.fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
        ResponseBody::tunnel(Tunnel::new(connection, in_flight))
    } else {
        let idle_seconds = head.keep_alive.map_or(pool::DEFAULT_IDLE, |seconds| seconds.saturating_sub(1));
        let keep = Keep {
            server: live.number,
            idle_seconds: if head.reusable { idle_seconds } else { 0 },
            at_most: backend.spec.keep_alive.max_idle,
        };
        let worker = client.worker.clone();
        let idle = backend.spec.timeouts.idle;
        ResponseBody::upstream(Upstream::new(connection, head.framing, sending, keep, worker, in_flight), idle)
    };
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.fields;
    Ok(response)
}

/// The body as it will be sent; read before when the request may have to be sent to a second backend.
async fn request_body(body: Incoming, limit: Option<u64>, twice: bool) -> Result<RequestBody, Error> {
    if body.is_end_stream() {
        return Ok(RequestBody::Empty);
    }
    let length = body.size_hint().exact();
    if let (Some(limit), Some(length)) = (limit, length)
        && length > limit
    {
        return Err(Error::TooLarge);
    }
    if twice && length.is_some_and(|length| length <= LONGEST_COPY) {
        let whole = Box::pin(body.collect()).await.map_err(|error| body_fault(&error))?;
        return Ok(RequestBody::whole(whole.to_bytes()));
    }
    Ok(match limit {
        Some(limit) => RequestBody::Limited(body, limit),
        None => RequestBody::Streamed(body),
    })
}

/// How the body that is really sent is framed.
fn framing(head: &Parts, body: &RequestBody) -> headers::Framing {
    match body.size_hint().exact() {
        // A body that could be there and is not is said to be empty.
        Some(0) if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => headers::Framing::Length(0),
        Some(0) => headers::Framing::None,
        Some(length) => headers::Framing::Length(length),
        None => headers::Framing::Chunked,
    }
}

/// The client's part in a request that broke while its body was being sent.
fn body_fault(error: &BodyError) -> Error {
    match error {
        BodyError::TooLarge => Error::TooLarge,
        BodyError::Broken(_) => Error::BadRequest("the body ended early"),
        BodyError::Malformed => Error::BadRequest("a chunk is malformed"),
        BodyError::Slow => Error::SlowClient,
    }
}

/// Limits from here on may be a second late.
const COARSE: Duration = Duration::from_secs(5);
/// Longest body kept for sending it twice, in bytes.
const LONGEST_COPY: u64 = 64 * 1024;
