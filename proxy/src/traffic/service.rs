//! The walk of one request: find the frontend, run its middlewares, forward, record.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use etna_store::object::OnClientAbort;
use http::{Method, StatusCode};

use super::body::ResponseBody;
use super::incoming::Incoming;
use super::recorded;
use super::{forward, respond, secure};
use crate::acme::challenge::PATH;
use crate::error::Error;
use crate::listener::conn::Client;
use crate::message::RequestHead;
use crate::middleware::{self, Next, Response};
use crate::rule::{Head, host_of};
use crate::table::{Frontend, Route};

/// Answers one request of a client's connection. Whatever happens, there is a response.
pub async fn handle(client: Rc<Client>, head: Rc<RequestHead>, body: Incoming) -> Response {
    let body = recorded::begin(&client, &head, body);
    if let Some(response) = challenge(&client, &head) {
        return response;
    }
    let started = Instant::now();
    let mut frontend = None;
    let result = answer(&client, head.clone(), body, started, &mut frontend).await;
    let response = result.unwrap_or_else(|error| {
        client.worker.process.errors.add(1);
        if let Some(access) = &client.access {
            access.failed(&error);
        }
        respond::error(error, respond::prefers_json(&head.fields))
    });
    match frontend {
        Some(frontend) => {
            let took = response.answered.unwrap_or_else(Instant::now).saturating_duration_since(started);
            frontend.requests().record(response.status, took);
        }
        None => client.worker.process.unrouted.add(1),
    }
    response
}

/// What an authority is answered that asks for a token (RFC 8555 section 8.3). A token that we do not have goes on as any
/// request does: a server may answer its own.
fn challenge(client: &Client, head: &RequestHead) -> Option<Response> {
    let path = head.uri.path();
    if !path.starts_with(PATH) || !matches!(head.method, Method::GET | Method::HEAD) {
        return None;
    }
    let host = head.host().ok()?;
    let token = client.worker.live.token(&host_of(host), path)?;
    let mut response = Response::new(StatusCode::OK, ResponseBody::whole(token));
    let kind = http::HeaderValue::from_static("application/octet-stream");
    response.fields.append(&http::header::CONTENT_TYPE, &kind);
    Some(response)
}

async fn answer(
    client: &Rc<Client>,
    head: Rc<RequestHead>,
    body: Incoming,
    since: Instant,
    chosen: &mut Option<Arc<Frontend>>,
) -> Result<Response, Error> {
    if client.worker.turns_away() {
        client.worker.process.shed_requests.add(1);
        return Err(Error::Overloaded);
    }
    let (route, client_ip) = route(client, &head)?;
    *chosen = Some(route.frontend.clone());
    if let Some(access) = &client.access {
        access.routed(&route.frontend.id);
    }
    if let Some(status) = route.frontend.deny {
        return Err(Error::Denied(status));
    }
    if route.frontend.broken {
        return Err(Error::Broken);
    }
    if let Some(redirect) = secure::redirect(client, client_ip, &route, &head) {
        return Ok(redirect);
    }
    let asked = secure::Asked::of(client, &route.frontend, &head);
    let request = middleware::Request { head, body, client: client_ip, since };
    // Straight on where nothing is around it: each function between would move the whole state of the request.
    let frontend = &route.frontend;
    let mut response = if frontend.chain.is_empty() && frontend.digest.on_client_abort == OnClientAbort::Cancel {
        forward::exchange(client.clone(), route, request).await?
    } else {
        Box::pin(run(client, route, request)).await?
    };
    if let Some(asked) = asked {
        asked.fit(&mut response);
    }
    Ok(response)
}

/// Through the frontend's middlewares to a server.
async fn run(client: &Rc<Client>, route: Route, request: middleware::Request) -> Result<Response, Error> {
    let chain = route.frontend.chain.clone();
    let end_client = client.clone();
    let end = move |request| -> middleware::Answer<'_> {
        // Middlewares may have let it wait.
        let request = middleware::Request { since: Instant::now(), ..request };
        match route.frontend.digest.on_client_abort {
            OnClientAbort::Cancel => Box::pin(forward::exchange(end_client, route, request)),
            OnClientAbort::Continue => Box::pin(forward::exchange_to_the_end(end_client, route, request)),
        }
    };
    Next::new(&chain, end).run(request).await
}

/// What the request is for. Everything is taken out of one table here, and nothing is looked up later.
fn route(client: &Client, head: &RequestHead) -> Result<(Route, std::net::IpAddr), Error> {
    if head.method == Method::CONNECT {
        return Err(Error::Method);
    }
    if client.worker.mark.is_in(&head.fields) {
        client.worker.process.loops.add(1);
        return Err(Error::Loop);
    }
    let host = head.host().map_err(Error::BadRequest)?;
    let host = host_of(host);
    let ip = client.worker.trusted.client(client.peer.address, &head.fields);
    let view = Head::new(&head.method, &host, head.uri.path(), head.uri.query(), &head.fields, ip);
    let asked = client.secured.as_ref().and_then(|secured| secured.name.as_deref()).filter(|name| *name != &*host);
    let route = client.worker.live.route(&client.listener, asked, &view)?;
    Ok((route, ip))
}
