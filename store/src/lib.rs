//! The keyspace of Etna, stated once: how keys are spelled, what their values mean, and the engines that keep them.
//!
//! Invariants:
//! * Nobody but [`key`] spells a key; nobody but [`model`] decodes a value.
//! * Engines move bytes. They never look into a value, and the keys they yield are relative to the prefix.
//! * Decoding is total: bytes from a store become an object or a [`Problem`], never a panic.
//! * Order does not matter: the same keys give the same [`Model`], however their changes were ordered and grouped.
//!
//! Absent on purpose: sockets of the data plane, compiled rules, living state. They belong to the proxy.

pub mod dump;
pub mod duration;
pub mod engine;
pub mod file;
mod json;
pub mod key;
pub mod lease;
pub mod model;
pub mod object;
pub mod pace;
pub mod pem;
pub mod problem;
pub mod seal;
pub mod wordpress;

pub use engine::{Batch, Change, Compare, Engine, Error, Item, LeaseId, Op, Revision, Txn, open, with_causes};
pub use key::Key;
pub use model::{Delta, Model};
pub use object::{Backend, Frontend, Host, Id, Listener, Middleware, Server, Site};
pub use problem::Problem;
