//! Drills: servers that die, hang, flap and talk nonsense.

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[];
