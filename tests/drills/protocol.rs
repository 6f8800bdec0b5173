//! Drills: requests and responses that are not what they seem.

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[];
