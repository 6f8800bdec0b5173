//! Where requests wait when every server of a backend has as many as it is given: first come, first served, bounded.
//!
//! One queue a backend, across workers. Who leaves a server hands its place to the first who may have it; who waits and
//! is dropped leaves the queue, and a place it was handed meanwhile goes on to the next. The lock is held for some
//! instructions and never across an await, and nobody takes it while nobody waits. Who may wait, and for how long, is
//! `place.rs`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{InFlight, Live};
use crate::stats::Counter;

/// A backend's queue.
#[derive(Debug, Default)]
pub struct Queue {
    line: Mutex<VecDeque<Waiter>>,
    /// Its length, for looking at it without the lock.
    waiting: AtomicUsize,
    tickets: AtomicU64,
    /// Requests that waited.
    pub waited: Counter,
    /// Requests that found it full.
    pub overflowed: Counter,
    /// Requests that waited for too long.
    pub expired: Counter,
}

/// Which servers' places someone waits for.
#[derive(Debug)]
pub(super) enum Wants {
    /// This one's: a client that is stuck to it.
    Only(u64),
    /// Any that takes new clients.
    Any {
        /// But for those it has tried.
        tried: Vec<u64>,
        /// And for those that it does not know yet.
        newest: u64,
        /// Also of those that are ill: all are.
        ill_too: bool,
    },
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    wants: Wants,
    hand: oneshot::Sender<InFlight>,
}

/// A place in the queue: left when this value is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    queue: Arc<Queue>,
    ticket: u64,
    /// Gets the server's place.
    pub(super) handed: oneshot::Receiver<InFlight>,
}

impl Queue {
    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a place at the end; `None` if so many wait already. Whoever takes one must look once more for a free server
    /// before waiting: one that became free before is not handed to anybody.
    pub(super) fn enter(self: &Arc<Queue>, wants: Wants, most: usize) -> Option<Waiting> {
        // Cheap where it matters most.
        if self.len() >= most {
            self.overflowed.add(1);
            return None;
        }
        let (hand, handed) = oneshot::channel();
        let mut line = self.line();
        if line.len() >= most {
            drop(line);
            self.overflowed.add(1);
            return None;
        }
        // Under the lock, so that tickets are in the order of the line.
        let ticket = self.tickets.fetch_add(1, SeqCst);
        line.push_back(Waiter { ticket, wants, hand });
        self.waiting.store(line.len(), SeqCst);
        drop(line);
        self.waited.add(1);
        Some(Waiting { queue: self.clone(), ticket, handed })
    }

    /// Hands free places of a server to those who wait for one.
    pub(super) fn serve(&self, live: &Arc<Live>) {
        loop {
            let (waiter, place) = {
                let mut line = self.line();
                let Some(at) = line.iter().position(|waiter| waiter.wants.takes(live)) else { return };
                let Some(place) = InFlight::enter_within(live) else { return };
                let waiter = line.remove(at);
                self.waiting.store(line.len(), SeqCst);
                (waiter, place)
            };
            // Outside the lock: a place that nobody takes is given back by being dropped, which serves again.
            if waiter.is_none_or(|waiter| waiter.hand.send(place).is_err()) {
                return;
            }
        }
    }

    fn leave(&self, ticket: u64) {
        let mut line = self.line();
        if let Ok(at) = line.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            line.remove(at);
            self.waiting.store(line.len(), SeqCst);
        }
    }

    fn line(&self) -> MutexGuard<'_, VecDeque<Waiter>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wants {
    fn takes(&self, live: &Live) -> bool {
        match self {
            Wants::Only(number) => *number == live.number,
            Wants::Any { tried, newest, ill_too } => {
                live.takes_new()
                    && live.number <= *newest
                    && (*ill_too || live.health.is_serving())
                    && !tried.contains(&live.number)
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // What was handed over and not taken is dropped after this, and handed on.
        self.queue.leave(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::test;

    fn any() -> Wants {
        Wants::Any { tried: Vec::new(), newest: u64::MAX, ill_too: false }
    }

    #[test]
    fn first_come_first_served_and_who_left_is_passed_over() {
        let server = test::limited(1, 1);
        let queue = server.live.queue.clone();
        let held = InFlight::enter_within(&server.live).unwrap();
        assert!(InFlight::enter_within(&server.live).is_none());
        let mut line: Vec<Waiting> = (0..3).map(|_| queue.enter(any(), 3).unwrap()).collect();
        assert!(queue.enter(any(), 3).is_none());
        assert_eq!(queue.overflowed.get(), 1);
        drop(line.remove(0));
        drop(held);
        assert_eq!(server.live.in_flight(), 1);
        let second = line[0].handed.try_recv().unwrap();
        assert!(line[1].handed.try_recv().is_err());
        drop(second);
        // Handed over, and dropped without having been taken: it goes back.
        assert_eq!(queue.len(), 0);
        drop(line);
        assert_eq!(server.live.in_flight(), 0);
    }

    #[test]
    fn a_place_is_handed_to_who_wants_that_server() {
        let (a, b) = (test::limited(1, 1), test::limited(2, 1));
        let queue = a.live.queue.clone();
        let held = InFlight::enter_within(&a.live).unwrap();
        let mut stuck = queue.enter(Wants::Only(b.live.number), 9).unwrap();
        let tried = Wants::Any { tried: vec![a.live.number], newest: 9, ill_too: false };
        let mut tried = queue.enter(tried, 9).unwrap();
        let mut young = queue.enter(Wants::Any { tried: vec![], newest: 0, ill_too: false }, 9).unwrap();
        let mut fits = queue.enter(any(), 9).unwrap();
        drop(held);
        assert!(
            stuck.handed.try_recv().is_err() && tried.handed.try_recv().is_err() && young.handed.try_recv().is_err()
        );
        assert!(fits.handed.try_recv().is_ok());
    }

    #[test]
    fn no_wakeup_is_lost_among_threads() {
        let server = test::limited(1, 2);
        let done = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let place = InFlight::enter_within(&server.live).or_else(|| {
                            let waiting = server.live.queue.enter(any(), 100).unwrap();
                            match InFlight::enter_within(&server.live) {
                                Some(place) => Some(place),
                                // Blocks for ever if nobody hands a place over.
                                None => blocking(waiting),
                            }
                        });
                        assert!(server.live.in_flight() <= 2);
                        drop(place.unwrap());
                        done.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!(done.load(SeqCst), 4000);
        assert_eq!((server.live.in_flight(), server.live.queue.len()), (0, 0));
    }

    fn blocking(mut waiting: Waiting) -> Option<InFlight> {
        loop {
            match waiting.handed.try_recv() {
                Ok(place) => return Some(place),
                Err(oneshot::error::TryRecvError::Empty) => std::thread::yield_now(),
                Err(oneshot::error::TryRecvError::Closed) => return None,
            }
        }
    }
}
