//! Discovery: what runs on this host, kept true in Etna's keyspace under a lease.
//!
//! The walk of one container: Docker's event → [`follow`] inspects → [`classify`] decides (pure) → [`wanted`] is the
//! whole set → [`register`] makes the store equal to it, under one lease per host. Nothing here reads the proxy.
//!
//! Invariants:
//! * [`classify`], [`follow::Tracker`] and [`register::plan`] do no I/O; what they need to know is an argument.
//! * [`register`] knows nothing of Docker: another source of [`wanted::Wanted`] stands beside [`docker`].
//! * What did not change is never written again; keep-alives are the only steady traffic.
//! * Only GETs go to Docker. A failed read of Docker or of the store changes nothing.
//! * Labels and names come from strangers: validated here, before anything is built of them.

pub mod classify;
pub mod cli;
pub mod commands;
pub mod docker;
pub mod follow;
pub mod notify;
pub mod register;
pub mod wanted;
