//! Drills: what happens to the proxy itself: changes, replacement, drain, restart.

use std::time::Duration;

use crate::bed::{Bed, Rate};
use crate::drill::{Drill, Length, Outcome};
use crate::{lifecycle_changes as changes, lifecycle_end as end, lifecycle_upgrade as upgrade};

pub(crate) const DRILLS: &[Drill] = &[
    Drill { id: "A0", what: "nothing: the bed itself", quick: true, run: |length| Box::pin(nothing(length)) },
    Drill { id: "A1", what: "1,000 routing changes/s", quick: true, run: |length| Box::pin(changes::routing(length)) },
    Drill {
        id: "A2",
        what: "servers replaced every 100 ms",
        quick: true,
        run: |length| Box::pin(changes::servers(length)),
    },
    Drill { id: "A4", what: "binary upgraded 10 times", quick: true, run: |length| Box::pin(upgrade::often(length)) },
    Drill {
        id: "A5",
        what: "upgrade to a broken binary",
        quick: true,
        run: |length| Box::pin(upgrade::broken(length)),
    },
    Drill { id: "A7", what: "SIGTERM", quick: true, run: |length| Box::pin(end::terminated(length)) },
    Drill {
        id: "A8",
        what: "kill -9, restart without etcd",
        quick: false,
        run: |length| Box::pin(end::killed(length)),
    },
];

/// Shows that the bed holds its load, so that what fails elsewhere is the drill's doing.
async fn nothing(length: Length) -> Outcome {
    let bed = Bed::start("a0", length).await;
    let load = bed.load(Rate::L5k).await;
    load.go_on(length.pick(Duration::from_secs(10), Duration::from_secs(1))).await;
    let traffic = bed.finish(load).await;
    traffic.outcome(traffic.report.summary(), true)
}
