//! Etna, the load balancer.
//!
//! Two walks lead through this crate. *A request*: `listener` (accept) → `traffic::service` → `table` (find the
//! frontend) → `middleware` → `backend` (choose a server, take a connection) → `traffic::forward`. *A change*:
//! `control` (snapshot, watch) → the store's model → `table::compile` → `table::LiveTable::publish` → `listener`
//! follows.
//!
//! Invariants:
//! * One table, one swap, one publisher: only `control` publishes. A request takes its route out of one table, once,
//!   and looks nothing up by name after that.
//! * The table is rebuilt from the model; events are never replayed into something that serves.
//! * Compiling is total: a bad object keeps its last good version, matches nothing, or its frontend answers 503; a
//!   middleware is never skipped.
//! * Living state (counters, buckets, requests in flight, connections) is carried over by identity.
//! * The accept loop never ends by an error and never waits for a client.
//! * `rule`, `router`, `failover`, `backend::{balance, hash, sticky}`, `proxy_protocol`, `message` are pure: no clock, no I/O.
//! * Nothing on the request path blocks, holds a lock across an await, or works per frontend.
//!
//! Absent on purpose: spelling of keys and decoding of values (the store's), any way to publish from elsewhere.

pub mod access;
pub mod acme;
pub mod admin;
pub mod announce;
pub mod backend;
pub mod config;
pub mod control;
pub mod error;
pub mod failover;
pub mod handover;
pub mod health;
pub mod listener;
pub mod message;
pub mod middleware;
pub mod proxy_protocol;
mod pulse;
pub mod router;
pub mod rule;
mod run;
mod signals;
pub mod spare;
pub mod splice;
pub mod stats;
mod systemd;
pub mod table;
pub mod tls;
pub mod traffic;

pub use run::{run, serve};
