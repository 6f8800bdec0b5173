//! The proxy's parsers: rules, failover predicates, HTTP in both directions, cookies, the PROXY protocol, and the admin API's
//! bodies; and its table, which is made of what was parsed, and kept on disk.

pub mod admin;
pub mod asked;
#[path = "../store/changes.rs"]
pub mod changes;
pub mod chunks;
pub mod cookie;
pub mod disk;
pub mod predicate;
pub mod proxy_protocol;
pub mod request;
pub mod response;
pub mod rule;
pub mod table;

use super::seeds::Check;

/// Every check of this crate, by the name of its target.
pub const CHECKS: &[Check] = &[
    ("admin", admin::check),
    ("cookie", cookie::check),
    ("disk", disk::check),
    ("predicate", predicate::check),
    ("proxy_protocol", proxy_protocol::check),
    ("request", request::check),
    ("response", response::check),
    ("rule", rule::check),
    ("table", table::check),
];
