//! Drills: the control surface.

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[];
