//! Drills: what happens to the proxy itself: changes, replacement, drain, restart.

use std::time::Duration;

use crate::bed::{Bed, Rate};
use crate::drill::{Drill, Length, Outcome};

pub(crate) const DRILLS: &[Drill] =
    &[Drill { id: "A0", what: "nothing: the bed itself", quick: true, run: |length| Box::pin(nothing(length)) }];

/// Shows that the bed holds its load, so that what fails elsewhere is the drill's doing.
async fn nothing(length: Length) -> Outcome {
    let bed = Bed::start("a0", length).await;
    let load = bed.load(Rate::L5k).await;
    load.go_on(length.pick(Duration::from_secs(10), Duration::from_secs(1))).await;
    let traffic = bed.finish(load).await;
    traffic.outcome(traffic.report.summary(), true)
}
