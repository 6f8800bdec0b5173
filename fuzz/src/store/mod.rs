//! The store's parsers: keys, values, JSON, durations, export files, sealed envelopes, and what two
//! processes say to each other.

pub mod changes;
pub mod dump;
pub mod duration;
pub mod json;
pub mod key;
pub mod remote;
pub mod seal;
pub mod value;
pub mod wire;

use super::seeds::Check;

/// Every check of this crate, by the name of its target.
pub const CHECKS: &[Check] = &[
    ("dump", dump::check),
    ("duration", duration::check),
    ("json", json::check),
    ("key", key::check),
    ("remote", remote::check),
    ("seal", seal::check),
    ("value", value::check),
    ("wire", wire::check),
];
