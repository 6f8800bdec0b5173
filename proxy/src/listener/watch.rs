//! What a client's connection shares with its worker: what it is doing and since when, what it waits for, what it is
//! told to do.
//!
//! No timer is set per request: a worker looks over its connections once a second and tells those that are late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;

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
    clock: Arc<AtomicU32>,
    /// Phase in the upper half, since when in the lower.
    state: AtomicU64,
    order: AtomicU32,
    told: Notify,
    /// What the client is waited for: one bit for each [`Waiting`].
    waiting: AtomicU32,
    /// Seconds in which it was waited for, since `moved` was last looked at.
    waited: AtomicU32,
    /// Of these, since a byte came or went.
    still: AtomicU32,
    /// Bytes that came or went since then.
    moved: AtomicU32,
    /// Whether it turned out to be too slow.
    slow: AtomicU32,
    /// The second after which waiting for a server is too long; `u32::MAX` while nobody waits.
    deadline: AtomicU32,
    /// The second after which the whole exchange has taken too long; `u32::MAX` where it may take any time.
    last: AtomicU32,
}

impl Watch {
    /// A connection that was just accepted.
    pub fn new(clock: Arc<AtomicU32>) -> Watch {
        let watch = Watch {
            clock,
            state: AtomicU64::new(0),
            order: AtomicU32::new(0),
            told: Notify::new(),
            waiting: AtomicU32::new(0),
            waited: AtomicU32::new(0),
            still: AtomicU32::new(0),
            moved: AtomicU32::new(0),
            slow: AtomicU32::new(0),
            deadline: AtomicU32::new(u32::MAX),
            last: AtomicU32::new(u32::MAX),
        };
        // A client that connects and says nothing is as slow as one that stops in the middle of a head.
        watch.enter(Phase::Head);
        watch
    }

    /// The worker's second.
    pub fn now(&self) -> u32 {
        self.clock.load(Relaxed)
    }

    /// Enters a phase now.
    pub fn enter(&self, phase: Phase) {
        let phase = match phase {
            Phase::Idle => 0,
            Phase::Head => 1,
            Phase::Busy => 2u64,
        };
        self.state.store(phase << 32 | u64::from(self.clock.load(Relaxed)), Relaxed);
    }

    /// What it is doing, and for how many seconds.
    pub fn phase(&self) -> (Phase, u32) {
        let state = self.state.load(Relaxed);
        let phase = match state >> 32 {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Busy,
        };
        (phase, self.clock.load(Relaxed).wrapping_sub(state as u32))
    }

    /// From now on the client is waited for.
    pub fn waits_for(&self, what: Waiting) {
        self.waiting.store(self.waiting.load(Relaxed) | bit(what), Relaxed);
    }

    /// It has done what it was waited for.
    pub fn waits_no_more(&self, what: Waiting) {
        self.waiting.store(self.waiting.load(Relaxed) & !bit(what), Relaxed);
    }

    /// Whether it is waited for.
    pub fn is_waiting_for(&self, what: Waiting) -> bool {
        self.waiting.load(Relaxed) & bit(what) != 0
    }

    /// Bytes came from the client or went to it, so that it is not waited for.
    pub fn moved(&self, bytes: usize, what: Waiting) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.moved.store(self.moved.load(Relaxed).saturating_add(bytes), Relaxed);
        self.still.store(0, Relaxed);
        self.waits_no_more(what);
    }

    /// Called every second: whether the client, in 20 seconds in which it was waited for, moved too little, or nothing
    /// since the last of its bytes.
    /// Seconds in which a server was waited for do not count.
    pub fn second_passed(&self) -> Option<Waiting> {
        let waiting = self.waiting.load(Relaxed);
        if waiting == 0 {
            return None;
        }
        let (waited, still) = (self.waited.load(Relaxed) + 1, self.still.load(Relaxed) + 1);
        self.still.store(still, Relaxed);
        self.waited.store(waited % WINDOW, Relaxed);
        let trickles = waited == WINDOW && self.moved.swap(0, Relaxed) < WINDOW * SLOWEST;
        if !trickles && still < WINDOW {
            return None;
        }
        self.slow.store(1, Relaxed);
        Some(if waiting & bit(Waiting::Reader) != 0 { Waiting::Reader } else { Waiting::Body })
    }

    /// Whether the client turned out to be too slow.
    pub fn is_slow(&self) -> bool {
        self.slow.load(Relaxed) != 0
    }

    /// It was too slow for want of something of ours: it is judged anew.
    pub fn forgive(&self) {
        self.slow.store(0, Relaxed);
        self.still.store(0, Relaxed);
    }

    /// An exchange is over, and with it what was waited for.
    pub fn waits_for_nothing(&self) {
        self.waiting.store(0, Relaxed);
        self.deadline.store(u32::MAX, Relaxed);
        self.last.store(u32::MAX, Relaxed);
    }

    /// Limits a whole exchange, rounded up to the next second.
    pub fn ends_within(&self, limit: Duration) {
        let seconds = u32::try_from(limit.as_secs() + 1).unwrap_or(u32::MAX);
        self.last.store(self.clock.load(Relaxed).saturating_add(seconds), Relaxed);
    }

    /// Begins to wait for a server for at most so long, rounded up to the next second.
    pub fn wait_at_most(&self, limit: Duration) {
        let seconds = u32::try_from(limit.as_secs() + 1).unwrap_or(u32::MAX);
        self.deadline.store(self.clock.load(Relaxed).saturating_add(seconds), Relaxed);
    }

    /// Ends waiting.
    pub fn waited(&self) {
        self.deadline.store(u32::MAX, Relaxed);
    }

    /// Whether waiting has taken too long.
    pub fn is_overdue(&self) -> bool {
        self.clock.load(Relaxed) > self.deadline.load(Relaxed).min(self.last.load(Relaxed))
    }

    /// Has the connection's task look at its deadline.
    pub fn nudge(&self) {
        self.told.notify_one();
    }

    /// Whether the connection was told to finish.
    pub fn is_finishing(&self) -> bool {
        self.order.load(Relaxed) != 0
    }

    /// Tells the connection's task what to do.
    pub fn order(&self, order: Order) {
        let code = match order {
            Order::Finish => 1,
            Order::Close => 2,
        };
        self.order.fetch_max(code, Relaxed);
        self.told.notify_one();
    }

    /// Waits to be told something: an order, or `None` to look at the deadline.
    pub async fn told(&self) -> Option<Order> {
        self.told.notified().await;
        match self.order.load(Relaxed) {
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
        let watch = Watch::new(Arc::default());
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
