//! Middlewares: steps around forwarding.
//!
//! A kind is one file and one line in [`KINDS`]. Chains are decided at run time, so a step is a trait object and its
//! future is boxed; a frontend without middlewares pays nothing. A middleware's living state stays as long as its
//! settings do.

mod connlimit;
mod ratelimit;
mod variable;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::message::RequestHead;
use crate::message::fields::Fields;
use crate::table::Step;
use crate::traffic::body::ResponseBody;
use crate::traffic::incoming::Incoming;

/// A request on its way to a server.
pub struct Request {
    /// Method, target and fields.
    pub head: Rc<RequestHead>,
    /// The body, unread.
    pub body: Incoming,
    /// The client's address.
    pub client: IpAddr,
    /// When it was taken up.
    pub since: Instant,
}

/// A response on its way to the client.
pub struct Response {
    /// How it went.
    pub status: StatusCode,
    /// Everything else about it, but what frames it.
    pub fields: Fields,
    /// What follows.
    pub body: ResponseBody,
    /// Whether nothing that comes on the client's connection after it can be taken for a request.
    pub ends_connection: bool,
    /// When a server's answer was there, where one answered.
    pub answered: Option<Instant>,
}

impl Response {
    /// One without fields.
    pub fn new(status: StatusCode, body: ResponseBody) -> Response {
        Response { status, fields: Fields::default(), body, ends_connection: false, answered: None }
    }
}

/// The answer of a step or of the forwarding itself. Stays on its worker, so it need not be `Send`.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response, Error>> + 'a>>;

/// A step around forwarding. It may answer itself, or ask `next` and look at the answer.
pub trait Middleware: Send + Sync {
    /// Handles one request.
    fn handle<'a>(&'a self, request: Request, next: Next<'a>) -> Answer<'a>;
}

/// What comes after a step.
pub struct Next<'a> {
    rest: &'a [Step],
    end: Box<dyn FnOnce(Request) -> Answer<'a> + 'a>,
}

impl<'a> Next<'a> {
    /// A chain that ends with `end`.
    pub fn new(chain: &'a [Step], end: impl FnOnce(Request) -> Answer<'a> + 'a) -> Next<'a> {
        Next { rest: chain, end: Box::new(end) }
    }

    /// Goes on with the next step, or forwards.
    pub fn run(self, request: Request) -> Answer<'a> {
        match self.rest.split_first() {
            Some((step, rest)) => step.middleware.handle(request, Next { rest, end: self.end }),
            None => (self.end)(request),
        }
    }
}

/// Why a middleware's settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct BadSettings {
    /// What is wrong.
    pub reason: String,
    /// What to write instead.
    pub hint: String,
}

/// A kind of middleware.
pub struct Kind {
    /// Its name in the store.
    pub name: &'static str,
    /// Makes one of its stored settings.
    pub build: fn(&RawValue) -> Result<Arc<dyn Middleware>, BadSettings>,
}

/// Every kind there is.
pub const KINDS: &[Kind] = &[ratelimit::KIND, connlimit::KIND];

/// Builds a middleware from what is stored of it.
pub fn build(spec: &etna_store::Middleware) -> Result<Arc<dyn Middleware>, BadSettings> {
    match KINDS.iter().find(|kind| kind.name == spec.kind) {
        Some(kind) => (kind.build)(&spec.settings),
        None => Err(BadSettings {
            reason: format!("middleware of type {:?} is not known", spec.kind),
            hint: format!("use one of: {}", KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")),
        }),
    }
}
