//! Interim responses on a stream, as `traffic::interim` hands them over.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use h2::server::SendResponse;
use http::Response;

use super::calm::Calm;
use super::unsent::Piece;
use super::upload::Respond;
use crate::listener::watch::Waiting;

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
    pub(in crate::traffic) fn relay(&self, head: Response<()>) {
        if self.calm.watch().is_waiting_for(Waiting::Reader) {
            return;
        }
        if let Some(respond) = self.respond.upgrade() {
            // One that can no longer be sent is not needed.
            let _ = respond.borrow_mut().send_informational(head);
        }
    }
}
