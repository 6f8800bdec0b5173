//! Drills: WebSockets through the proxy, by HTTP/1.1 and as streams of HTTP/2.

mod autobahn;
mod bridge;

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[Drill {
    id: "D11",
    what: "Autobahn's cases, through and direct",
    // It needs Python 2.7, and a package index.
    quick: false,
    run: |length| Box::pin(autobahn::run(length)),
}];
