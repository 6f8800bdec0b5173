//! HTTP/2 to servers: many requests on one connection.
//!
//! Read in this order: `connection` (one, and the task that drives it), `shared` (those of a worker, and who gets
//! which), `request` (a head as HTTP/2 has it), `call` (one request and its answer). How a request's body is sent is
//! `super::sending`. Frames, flow control and header compression are the crate `h2`'s. Not here: WebSockets, which go
//! over HTTP/1.1, and what is pushed, which nobody asked for.

mod call;
mod connection;
mod request;
mod shared;

pub use call::{Call, Receiving};
pub use shared::Shared;

use super::wire::Connection;

/// What a request is sent on.
pub enum Link {
    /// A connection of its own.
    Http1(Connection),
    /// A stream of a connection that others use, too.
    Http2(Box<Call>),
}

impl Link {
    /// Whether the server may have closed it without our knowing yet.
    pub fn is_reused(&self) -> bool {
        match self {
            Link::Http1(connection) => connection.reused,
            Link::Http2(call) => call.is_reused(),
        }
    }
}
