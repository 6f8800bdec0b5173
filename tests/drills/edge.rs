//! Drills: TLS at the edge. Certificates change under handshakes, clients shake hands badly or never finish, sessions
//! go on elsewhere.

mod arrivals;
mod ground;
mod rotation;

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[Drill {
    id: "A3",
    what: "a live name's certificate replaced",
    quick: true,
    run: |length| Box::pin(rotation::run(length)),
}];
