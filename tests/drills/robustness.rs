//! Drills: the proxy's own faults and its machine's.

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[];
