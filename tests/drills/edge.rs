//! Drills: TLS at the edge. Certificates change under handshakes, clients shake hands badly or never finish, sessions
//! go on elsewhere.

mod arrivals;
mod flood;
mod ground;
mod hello;
mod hellos;
mod pieces;
mod rotation;
mod scanners;
mod sessions;
mod standing;

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[
    Drill {
        id: "A3",
        what: "a live name's certificate replaced",
        quick: true,
        run: |length| Box::pin(rotation::run(length)),
    },
    Drill {
        id: "D12",
        what: "hellos that are none, scanners",
        quick: true,
        run: |length| Box::pin(hellos::run(length)),
    },
    Drill { id: "E13", what: "handshakes without end", quick: true, run: |length| Box::pin(flood::run(length)) },
    Drill { id: "T1", what: "sessions go on elsewhere", quick: true, run: |length| Box::pin(sessions::run(length)) },
];
