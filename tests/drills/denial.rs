//! Drills: clients that want the proxy down.

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[];
