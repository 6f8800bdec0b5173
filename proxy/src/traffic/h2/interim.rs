//! Interim responses on a stream, as `traffic::interim` hands them over.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use h2::server::SendResponse;
use http::{Response, StatusCode};

use super::calm::Calm;
use super::unsent::Piece;
use super::upload::Respond;
use crate::listener::watch::Waiting;
use crate::message::fields::Fields;

/// A stream whose answer has not begun.
#[derive(Clone)]
pub struct Stream {
    respond: Weak<RefCell<SendResponse<Piece>>>,
    calm: Rc<Calm>,
}

impl Stream {
    pub(super) fn new(respond: &Respond, calm: &Rc<Calm>) -> Stream {
        Stream { respond: Rc::downgrade(respond), calm: calm.clone() }
    }

    /// Sends an interim head, unless the connection's client does not read: what waits for it then is what was given
    /// before that showed, no more.
    pub(in crate::traffic) fn relay(&self, status: StatusCode, fields: &Fields) {
        if self.calm.watch().is_waiting_for(Waiting::Reader) {
            return;
        }
        if let Some(respond) = self.respond.upgrade() {
            let mut head = Response::new(());
            *head.status_mut() = status;
            *head.headers_mut() = fields.to_map();
            // One that can no longer be sent is not needed.
            let _ = respond.borrow_mut().send_informational(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;

    use bytes::Bytes;
    use http::Request;
    use http::header::{HeaderValue, LINK};

    use crate::listener::watch::Watch;
    use crate::traffic::h2::meter::Meter;
    use crate::traffic::h2::settings;

    fn hint() -> Fields {
        let mut fields = Fields::default();
        fields.append(&LINK, &HeaderValue::from_str(&"x".repeat(8000)).unwrap());
        fields
    }

    #[tokio::test]
    async fn who_does_not_read_gets_what_was_given_before_that_showed() {
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let calm = Rc::new(Calm::new(Rc::new(Watch::new(Rc::default()))));
        let meter = Meter::new(Rc::new(RefCell::new(ours)), Bytes::new(), calm.clone());
        let (server, client) = tokio::join!(settings().handshake(meter), h2::client::handshake(theirs));
        let (mut server, (client, mut reading)) = (server.unwrap(), client.unwrap());
        let mut client = client.ready().await.unwrap();
        let (mut answer, _) = client.send_request(Request::get("http://a.test/").body(()).unwrap(), true).unwrap();
        let respond = tokio::select! {
            _ = &mut reading => panic!("it ends"),
            accepted = server.accept() => Rc::new(RefCell::new(accepted.unwrap().unwrap().1)),
        };

        // The server writes as far as it can, and the client reads nothing.
        let stream = Stream::new(&respond, &calm);
        for _ in 0..100 {
            stream.relay(StatusCode::EARLY_HINTS, &hint());
            assert!(poll_fn(|cx| Poll::Ready(server.poll_accept(cx).is_pending())).await);
        }
        assert!(calm.watch().is_waiting_for(Waiting::Reader));
        respond.borrow_mut().send_response(Response::new(()), true).unwrap();
        let read = async {
            let mut hints = 0;
            while let Some(hint) = poll_fn(|cx| answer.poll_informational(cx)).await {
                assert_eq!(hint.unwrap().status(), 103);
                hints += 1;
            }
            (hints, answer.await.unwrap().status().as_u16())
        };
        let (hints, status) = tokio::select! {
            _ = &mut reading => panic!("it ends"),
            _ = server.accept() => panic!("nobody asks for more"),
            read = read => read,
        };
        assert!((1..10).contains(&hints), "{hints}");
        assert_eq!(status, 200);
    }
}
