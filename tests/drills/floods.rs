//! Drills: clients of HTTP/2 that send what costs them little and others much.
//!
//! Each writes its frames by hand, over several connections at once. Beside each attack others go on through the same
//! listener, over HTTP/1.1 on new connections and over HTTP/2 on kept ones, and must not notice.

mod bombs;
mod continuations;
mod empty;
mod frames;
mod ground;
mod mistakes;
mod pour;
mod resets;
mod standing;
mod unread;

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[
    Drill { id: "E4", what: "requests taken back at once", quick: true, run: |length| Box::pin(resets::run(length)) },
    Drill { id: "E5", what: "mistakes that make us reset", quick: true, run: |length| Box::pin(mistakes::run(length)) },
    Drill {
        id: "E6",
        what: "heads that go on and on",
        quick: true,
        run: |length| Box::pin(continuations::run(length)),
    },
    Drill { id: "E7", what: "small heads that become large", quick: true, run: |length| Box::pin(bombs::run(length)) },
    Drill {
        id: "E9",
        what: "frames that carry nothing, answers unread",
        quick: true,
        run: |length| Box::pin(frames::run(length)),
    },
    Drill { id: "E10", what: "data that is none", quick: true, run: |length| Box::pin(empty::run(length)) },
];
