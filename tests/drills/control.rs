//! Drills: the store that fails in every way it can.

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[];
