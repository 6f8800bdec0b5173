//! Tasks that serve streams, one after the other, for all connections of a worker.
//!
//! The state of a request on its way is some kilobytes, and a task made for each would move it several times, from its
//! making to its end. So a task that is done waits for another stream, of whatever connection. A panic ends its task
//! alone.

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use super::stream::{self, Begun};
use crate::spare::Spare;

/// A worker's tasks that wait for a stream.
pub struct Seats(Spare<Rc<Seat>>);

impl Default for Seats {
    fn default() -> Seats {
        Seats(Spare::new(MOST_IDLE))
    }
}

/// A connection's streams that are being served. With this value they end.
pub(super) struct Streams {
    seats: Rc<Seats>,
    taken: Rc<Taken>,
}

/// The seats of one connection.
#[derive(Default)]
struct Taken {
    seats: RefCell<Vec<Rc<Seat>>>,
    /// The connection's task.
    connection: RefCell<Option<Waker>>,
}

/// What a task and those who use it share.
#[derive(Default)]
struct Seat {
    next: RefCell<Option<(Begun, Rc<Taken>)>>,
    /// Where it is among its connection's.
    at: Cell<usize>,
    /// Whether what it serves, or would, is to end.
    ends: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

/// A stream that is served, as long as this value lives.
struct Sitting<'s> {
    seat: &'s Seat,
    taken: Rc<Taken>,
}

impl Seats {
    /// Ends those that were not needed since it was called last.
    pub fn sweep(&self) {
        self.0.sweep().iter().for_each(|seat| seat.end());
    }

    /// One that serves nothing.
    fn take(self: &Rc<Seats>) -> Rc<Seat> {
        self.0.take().unwrap_or_else(|| {
            let seat = Rc::<Seat>::default();
            tokio::task::spawn_local(sit(seat.clone(), Rc::downgrade(self)));
            seat
        })
    }
}

impl Streams {
    /// None yet.
    pub(super) fn new(seats: Rc<Seats>) -> Streams {
        Streams { seats, taken: Rc::default() }
    }

    /// Has one served.
    pub(super) fn serve(&self, begun: Begun) {
        let seat = self.seats.take();
        let mut seats = self.taken.seats.borrow_mut();
        seat.at.set(seats.len());
        seats.push(seat.clone());
        drop(seats);
        seat.next.replace(Some((begun, self.taken.clone())));
        seat.wake();
    }

    /// Whether none is being served.
    pub(super) fn is_empty(&self) -> bool {
        self.taken.seats.borrow().is_empty()
    }

    /// Has the task of `cx` polled when one ends.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        let mut connection = self.taken.connection.borrow_mut();
        if !connection.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *connection = Some(cx.waker().clone());
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.taken.seats.borrow().iter().for_each(|seat| seat.end());
    }
}

impl Seat {
    /// Ends what it serves; itself, where that is nothing.
    fn end(&self) {
        self.ends.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// The next stream; `None` where it is to end.
    fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<(Begun, Rc<Taken>)>> {
        // Not taken unless it is there: it is large.
        if self.next.borrow().is_some() || self.ends.get() {
            return Poll::Ready(self.next.take());
        }
        let mut task = self.task.borrow_mut();
        if task.is_none() {
            *task = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Sitting<'_> {
    fn drop(&mut self) {
        let mut seats = self.taken.seats.borrow_mut();
        let at = self.seat.at.get();
        if at < seats.len() {
            seats.swap_remove(at);
        }
        if let Some(moved) = seats.get(at) {
            moved.at.set(at);
        }
        if let Some(connection) = &*self.taken.connection.borrow() {
            connection.wake_by_ref();
        }
    }
}

/// A seat's task.
async fn sit(seat: Rc<Seat>, seats: Weak<Seats>) {
    while let Some((begun, taken)) = poll_fn(|cx| seat.poll_next(cx)).await {
        let sitting = Sitting { seat: &seat, taken };
        {
            let mut serving = pin!(stream::serve(begun));
            poll_fn(|cx| if seat.ends.get() { Poll::Ready(()) } else { serving.as_mut().poll(cx) }).await;
        }
        drop(sitting);
        seat.ends.set(false);
        if seats.upgrade().is_none_or(|seats| seats.0.give(seat.clone()).is_err()) {
            return;
        }
    }
}

/// Tasks of a worker that wait for a stream: with fewer than are in use at once, many are made and ended all the time.
/// Those that a burst has left go within two seconds.
const MOST_IDLE: usize = 1024;
