//! Drills: bytes nobody meant, bugs of our own, a full disk, time.
//!
//! No lock-free structure is our own beyond counters, so no model checker is run; what is shared is `arc-swap`'s.

mod heads;
mod lookups;
mod machine;
mod programs;
mod soak;

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[
    Drill { id: "G1", what: "what fuzzing found, and its seeds", quick: false, run: |_| Box::pin(programs::fuzz()) },
    Drill { id: "G2", what: "a million heads, two judges", quick: true, run: |length| Box::pin(heads::run(length)) },
    Drill { id: "G4", what: "dependencies, unsafe code", quick: false, run: |_| Box::pin(programs::dependencies()) },
    Drill { id: "G5", what: "panics where there are none", quick: false, run: |_| Box::pin(programs::panics()) },
    Drill {
        id: "G6",
        what: "1,000 requests under valgrind",
        quick: false,
        run: |length| Box::pin(programs::valgrind(length)),
    },
    Drill {
        id: "G7",
        what: "a full disk, a log nobody reads",
        quick: true,
        run: |length| Box::pin(machine::run(length)),
    },
    Drill { id: "G8", what: "a steady load", quick: false, run: |length| Box::pin(soak::run(length)) },
    Drill {
        id: "G9",
        what: "10,000 routes cost what ten do",
        quick: true,
        run: |length| Box::pin(lookups::run(length)),
    },
];
