//! Interim responses (1xx) from a server to its client, ahead of the answer (RFC 9110 section 15.2). 103 Early Hints above
//! all.
//!
//! They are written where they are read, so that a request without any costs nothing and one that runs in a task of its
//! own needs nothing more. No middleware sees them, nothing counts them, and nobody waits for a client to take one: what
//! it does not take at once is dropped. Not here: 100, which asks for a body (`h1::wire`, `h2::upload`), and 101.

use std::cell::OnceCell;
use std::rc::Weak;
use std::task::Context;

use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{Response, StatusCode};

use super::h1::wire::Wire;
use super::h2::interim::Stream;

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
    pub fn relay(&self, status: StatusCode, fields: HeaderMap, cx: &mut Context<'_>) {
        let (Some(way), Some(head)) = (self.0.get(), head(status, fields)) else { return };
        match way {
            Way::H1(wire) => {
                if let Some(wire) = wire.upgrade() {
                    wire.relay(&head.into_parts().0, cx);
                }
            }
            Way::H2(stream) => stream.relay(head),
        }
    }
}

/// What of a server's interim head is for the client; `None`: it is for us.
fn head(status: StatusCode, mut fields: HeaderMap) -> Option<Response<()>> {
    if matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
        return None;
    }
    // Kept for HEAD by whoever read it, and never to be sent here (RFC 9110 section 8.6).
    fields.remove(CONTENT_LENGTH);
    let mut head = Response::new(());
    *head.status_mut() = status;
    *head.headers_mut() = fields;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_asks_for_a_body_or_switches_is_not_for_the_client() {
        let mut fields = HeaderMap::new();
        fields.insert("link", HeaderValue::from_static("</a>; rel=preload"));
        fields.insert("content-length", HeaderValue::from_static("7"));
        for (status, goes) in [(100, false), (101, false), (102, true), (103, true), (199, true)] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(head(status, fields.clone()).is_some(), goes, "{status}");
        }
        let head = head(StatusCode::EARLY_HINTS, fields).unwrap();
        assert_eq!(
            (head.headers().len(), &head.headers()["link"]),
            (1, &HeaderValue::from_static("</a>; rel=preload"))
        );
    }
}
