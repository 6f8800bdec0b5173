//! The sidekick's parsers: what Docker answers, and what becomes of it.

pub mod containers;
pub mod docker;
pub mod events;

use super::seeds::Check;

/// Every check of this crate, by the name of its target.
pub const CHECKS: &[Check] = &[("containers", containers::check), ("docker", docker::check), ("events", events::check)];
