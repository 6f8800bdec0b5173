//! One request: find the frontend, run its middlewares, choose a server, forward, and answer.
//!
//! Read in this order: `h1` and `h2` (a client's connection), `incoming` (a request's body), `service` (the walk),
//! `forward` (servers), `outgoing` and `connecting` (what is sent, and on what), `waiting` (for a server's place),
//! `again` (retries), `headers` (what is changed on the way), `trust` (whom to believe),
//! `secure` (who should come over TLS), `tunnel` (after a 101), `respond` (our own answers), `body` (streams and what
//! ends with them), `recorded` (what the access log is told).

mod again;
pub mod body;
mod connecting;
pub mod forward;
pub mod h1;
pub mod h2;
pub mod headers;
pub mod incoming;
mod outgoing;
mod recorded;
pub mod respond;
pub(crate) mod secure;
pub mod service;
pub mod trust;
pub(crate) mod tunnel;
mod waiting;
