//! What a client's connection shares with its worker: what it is doing and since when, what it waits for, what it is
//! told to do.
//!
//! No timer is set per request: a worker looks over its connections once a second and tells those that are late.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// What a client's connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a request.
    Idle,
    /// A request's head has begun to arrive.
    Head,
    /// A request is being answered.
    Busy,
}

/// What a worker may tell a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Finish what runs, then close.
    Finish,
    /// Close now.
    Close,
}

/// What a connection that is busy waits for from its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// More of the request's body.
    Body,
    /// That it reads the response.
    Reader,
}

/// A connection's state as its worker sees it. Times are the worker's seconds.
#[derive(Debug)]
pub struct Watch {
    clock: Rc<Cell<u32>>,
    /// Phase in the upper half, since when in the lower.
    state: Cell<u64>,
    order: Cell<u32>,
    /// Whether its task is to look at what it is told, or at its deadline.
    news: Cell<bool>,
    /// That task.
    task: RefCell<Option<Waker>>,
    /// What the client is waited for: one bit for each [`Waiting`].
    waiting: Cell<u32>,
    /// Seconds in which it was waited for, since `moved` was last looked at.
    waited: Cell<u32>,
    /// Of these, since a byte came or went.
    still: Cell<u32>,
    /// Bytes that came or went since then.
    moved: Cell<u32>,
    /// Whether it turned out to be too slow.
    slow: Cell<u32>,
    /// The second after which waiting for a server is too long; `u32::MAX` while nobody waits.
    deadline: Cell<u32>,
    /// The second after which the whole exchange has taken too long; `u32::MAX` where it may take any time.
    last: Cell<u32>,
}

impl Watch {
    /// A connection that was just accepted.
    pub fn new(clock: Rc<Cell<u32>>) -> Watch {
        let watch = Watch {
            clock,
            state: Cell::new(0),
            order: Cell::new(0),
            news: Cell::new(false),
            task: RefCell::default(),
            waiting: Cell::new(0),
            waited: Cell::new(0),
            still: Cell::new(0),
            moved: Cell::new(0),
            slow: Cell::new(0),
            deadline: Cell::new(u32::MAX),
            last: Cell::new(u32::MAX),
        };
        // A client that connects and says nothing is as slow as one that stops in the middle of a head.
        watch.enter(Phase::Head);
        watch
    }

    /// The worker's second.
    pub fn now(&self) -> u32 {
        self.clock.get()
    }

    /// Enters a phase now.
    pub fn enter(&self, phase: Phase) {
        let phase = match phase {
            Phase::Idle => 0,
            Phase::Head => 1,
            Phase::Busy => 2u64,
        };
        self.state.set(phase << 32 | u64::from(self.clock.get()));
    }

    /// What it is doing, and for how many seconds.
    pub fn phase(&self) -> (Phase, u32) {
        let state = self.state.get();
        let phase = match state >> 32 {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Busy,
        };
        (phase, self.clock.get().wrapping_sub(state as u32))
    }

    /// From now on the client is waited for.
    pub fn waits_for(&self, what: Waiting) {
        self.waiting.set(self.waiting.get() | bit(what));
    }

    /// It has done what it was waited for.
    pub fn waits_no_more(&self, what: Waiting) {
        self.waiting.set(self.waiting.get() & !bit(what));
    }

    /// Whether it is waited for.
    pub fn is_waiting_for(&self, what: Waiting) -> bool {
        self.waiting.get() & bit(what) != 0
    }

    /// Bytes came from the client or went to it, so that it is not waited for.
    pub fn moved(&self, bytes: usize, what: Waiting) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.moved.set(self.moved.get().saturating_add(bytes));
        self.still.set(0);
        self.waits_no_more(what);
    }

    /// Called every second: whether the client, in 20 seconds in which it was waited for, moved too little, or nothing
    /// since the last of its bytes.
    /// Seconds in which a server was waited for do not count.
    pub fn second_passed(&self) -> Option<Waiting> {
        let waiting = self.waiting.get();
        if waiting == 0 {
            return None;
        }
        let (waited, still) = (self.waited.get() + 1, self.still.get() + 1);
        self.still.set(still);
        self.waited.set(waited % WINDOW);
        let trickles = waited == WINDOW && self.moved.replace(0) < WINDOW * SLOWEST;
        if !trickles && still < WINDOW {
            return None;
        }
        self.slow.set(1);
        Some(if waiting & bit(Waiting::Reader) != 0 { Waiting::Reader } else { Waiting::Body })
    }

    /// Whether the client turned out to be too slow.
    pub fn is_slow(&self) -> bool {
        self.slow.get() != 0
    }

    /// It was too slow for want of something of ours: it is judged anew.
    pub fn forgive(&self) {
        self.slow.set(0);
        self.still.set(0);
    }

    /// An exchange is over, and with it what was waited for.
    pub fn waits_for_nothing(&self) {
        self.waiting.set(0);
        self.deadline.set(u32::MAX);
        self.last.set(u32::MAX);
    }

    /// Limits a whole exchange, rounded up to the next second.
    pub fn ends_within(&self, limit: Duration) {
        let seconds = u32::try_from(limit.as_secs() + 1).unwrap_or(u32::MAX);
        self.last.set(self.clock.get().saturating_add(seconds));
    }

    /// Begins to wait for a server for at most so long, rounded up to the next second.
    pub fn wait_at_most(&self, limit: Duration) {
        let seconds = u32::try_from(limit.as_secs() + 1).unwrap_or(u32::MAX);
        self.deadline.set(self.clock.get().saturating_add(seconds));
    }

    /// Ends waiting.
    pub fn waited(&self) {
        self.deadline.set(u32::MAX);
    }

    /// Whether waiting has taken too long.
    pub fn is_overdue(&self) -> bool {
        self.clock.get() > self.deadline.get().min(self.last.get())
    }

    /// Has the connection's task look at its deadline.
    pub fn nudge(&self) {
        self.news.set(true);
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Whether the connection was told to finish.
    pub fn is_finishing(&self) -> bool {
        self.order.get() != 0
    }

    /// Tells the connection's task what to do.
    pub fn order(&self, order: Order) {
        let code = match order {
            Order::Finish => 1,
            Order::Close => 2,
        };
        self.order.set(self.order.get().max(code));
        self.nudge();
    }

    /// Waits to be told something: an order, or `None` to look at the deadline. For one task at a time.
    pub async fn told(&self) -> Option<Order> {
        poll_fn(|cx| {
            if self.news.take() {
                return Poll::Ready(());
            }
            let mut task = self.task.borrow_mut();
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
        match self.order.get() {
            0 => None,
            1 => Some(Order::Finish),
            _ => Some(Order::Close),
        }
    }
}

fn bit(what: Waiting) -> u32 {
    match what {
        Waiting::Body => 1,
        Waiting::Reader => 2,
    }
}

/// Seconds of waiting for a client after which it is judged.
const WINDOW: u32 = 20;
/// Bytes a second that a client sends or reads at least.
const SLOWEST: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn judged_after(seconds: u32, mut each: impl FnMut(&Watch)) -> Option<(u32, Waiting)> {
        let watch = Watch::new(Rc::default());
        (1..=seconds).find_map(|second| {
            each(&watch);
            watch.second_passed().map(|waiting| (second, waiting))
        })
    }

    #[test]
    fn a_client_that_trickles_is_found_out_and_one_that_sends_enough_is_not() {
        let trickle = |bytes: usize| {
            move |watch: &Watch| {
                watch.moved(bytes, Waiting::Body);
                watch.waits_for(Waiting::Body);
            }
        };
        assert_eq!(judged_after(60, trickle(1)), Some((WINDOW, Waiting::Body)));
        assert_eq!(judged_after(60, trickle(500)), None);
        let mut second = 0;
        let stops_after_much = move |watch: &Watch| {
            second += 1;
            if second < 15 {
                watch.moved(100_000, Waiting::Body);
            }
            watch.waits_for(Waiting::Body);
        };
        assert_eq!(judged_after(60, stops_after_much), Some((14 + WINDOW - 1, Waiting::Body)));
    }

    #[test]
    fn only_seconds_in_which_the_client_was_waited_for_count() {
        assert_eq!(judged_after(100, |_| {}), None);
        assert_eq!(judged_after(60, |watch| watch.waits_for(Waiting::Reader)), Some((WINDOW, Waiting::Reader)));
        let mut even = false;
        let every_other = move |watch: &Watch| {
            even = !even;
            if even { watch.waits_for(Waiting::Body) } else { watch.moved(1, Waiting::Body) }
        };
        assert_eq!(judged_after(60, every_other), Some((2 * WINDOW - 1, Waiting::Body)));
    }
}
