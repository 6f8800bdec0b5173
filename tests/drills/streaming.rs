//! Drills: long, slow and half-open bodies.

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[];
