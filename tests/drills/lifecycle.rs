//! Drills: what happens to the proxy itself: changes, replacement, drain, restart.

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[];
