//! Interim responses (1xx) from a server to its client, ahead of the answer (RFC 9110 section 15.2). 103 Early Hints above
//! all.
//!
//! They are written where they are read, so that a request without any costs nothing and one that runs in a task of its
//! own needs nothing more. No middleware sees them, nothing counts them, and nobody waits for a client to take one: what
//! it does not take at once is dropped. Not here: 100, which asks for a body (`h1::wire`, `h2::upload`), and 101.

use std::cell::OnceCell;
use std::rc::Weak;
use std::task::Context;

use http::StatusCode;

use super::h1::wire::Wire;
use super::h2::interim::Stream;
use crate::message::fields::Fields;

/// The way to a client for what comes before its answer.
#[derive(Clone, Default)]
pub struct Interim(OnceCell<Way>);

#[derive(Clone)]
enum Way {
    H1(Weak<Wire>),
    H2(Stream),
}

impl Interim {
    /// The way to a stream's client.
    pub(super) fn of_stream(stream: Stream) -> Interim {
        Interim(Way::H2(stream).into())
    }

    /// From now on it is the way to a connection's client.
    pub(super) fn goes_to(&self, wire: Weak<Wire>) {
        // A connection has one wire.
        let _ = self.0.set(Way::H1(wire));
    }

    /// Sends a server's interim head on, without the fields of one hop. Whoever calls it has no answer yet.
    pub fn relay(&self, status: StatusCode, mut fields: Fields, cx: &mut Context<'_>) {
        let Some(way) = self.0.get().filter(|_| is_for_clients(status)) else { return };
        // Kept for HEAD by whoever read it, and never to be sent here (RFC 9110 section 8.6).
        fields.retain(|field| field.name() != b"content-length");
        match way {
            Way::H1(wire) => {
                if let Some(wire) = wire.upgrade() {
                    wire.relay(status, &fields, cx);
                }
            }
            Way::H2(stream) => stream.relay(status, &fields),
        }
    }
}

/// Whether an interim head is for the client, not for us.
fn is_for_clients(status: StatusCode) -> bool {
    !matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_a_body_or_switches_is_not_for_the_client() {
        for (status, is) in [(100, false), (101, false), (102, true), (103, true), (199, true)] {
            assert_eq!(is_for_clients(StatusCode::from_u16(status).unwrap()), is, "{status}");
        }
    }
}
