//! Drills: HTTP/2 with clients and with servers, and what becomes of it where one of both speaks HTTP/1.1.

mod grpc;
mod million;
mod oracle;
mod smuggling;
mod trailers;
mod vectors;

use crate::drill::Drill;

pub(crate) const DRILLS: &[Drill] = &[
    Drill { id: "D3", what: "HTTP/2 that becomes another request", quick: true, run: |_| Box::pin(smuggling::run()) },
    Drill { id: "F4", what: "trailers and gRPC, all ways", quick: true, run: |length| Box::pin(trailers::run(length)) },
    Drill { id: "H1", what: "a million requests of HTTP/2", quick: true, run: |length| Box::pin(million::run(length)) },
];
