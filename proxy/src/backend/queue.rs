//! Where requests wait when every server of a backend has as many as it is given: first come, first served, bounded.
//!
//! One queue a backend, across workers. Whoever leaves a server, and every change of the backend, lets the schedule
//! choose for those who wait, in their order and among the servers of now; only who got a place is woken. Who is dropped
//! leaves the queue, and a place it was handed meanwhile goes on to the next. The lock is held for a look at each who
//! waits and never across an await, and nobody takes it while nobody waits, but for a change. How long is `place.rs`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::oneshot;

use super::balance::Ask;
use super::place::Place;
use super::{Backend, InFlight};
use crate::stats::Counter;

/// A backend's queue.
#[derive(Debug, Default)]
pub struct Queue {
    line: Mutex<Line>,
    /// Its length, for looking at it without the lock.
    waiting: AtomicUsize,
    /// Requests that waited.
    pub waited: Counter,
    /// Requests that found it full.
    pub overflowed: Counter,
    /// Requests that waited for too long.
    pub expired: Counter,
}

#[derive(Debug, Default)]
struct Line {
    waiters: VecDeque<Waiter>,
    tickets: u64,
    /// The backend in the newest version that was seen: what those who wait choose from.
    backend: Weak<Backend>,
    /// That one's number.
    newest: u64,
    /// Whether the backend was deleted.
    closed: bool,
}

/// A request that waits, and what its choice depends on. Its servers are named by number, which every version of the
/// backend knows, and by where they stand in the newest one.
#[derive(Debug)]
struct Waiter {
    ticket: u64,
    stuck: Option<u64>,
    stuck_at: Option<u16>,
    tried: Box<[u64]>,
    tried_at: Vec<u16>,
    ask: Ask<'static>,
    hand: oneshot::Sender<Handed>,
}

/// A server's place, and the version of the backend that server is in.
#[derive(Debug)]
pub struct Handed {
    /// The backend.
    pub backend: Arc<Backend>,
    /// Where the server stands in it.
    pub at: u16,
    /// The place.
    pub place: InFlight,
}

/// A place in the queue: left when this value is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    queue: Arc<Queue>,
    ticket: u64,
    /// Gets the server's place; an error once there is nothing left to wait for.
    pub(super) handed: oneshot::Receiver<Handed>,
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

    /// Takes a place at the end; `None` if so many wait already. Whoever takes one must have the queue served once
    /// before waiting: what became free before was not handed to anybody.
    pub(super) fn enter(
        self: &Arc<Queue>,
        backend: &Arc<Backend>,
        stuck: Option<u16>,
        ask: &Ask<'_>,
        most: usize,
    ) -> Option<Waiting> {
        // Cheap where it matters most.
        if self.len() >= most {
            self.overflowed.add(1);
            return None;
        }
        let (hand, handed) = oneshot::channel();
        let mut waiter = Waiter::new(backend, stuck, ask, hand);
        let mut line = self.line();
        if line.waiters.len() >= most {
            drop(line);
            self.overflowed.add(1);
            return None;
        }
        // Its table may be another one than the queue was last told about.
        if backend.number < line.newest {
            line.backend.upgrade().inspect(|newer| waiter.find(newer));
        } else if line.backend.as_ptr() != Arc::as_ptr(backend) {
            line.choose_from(backend);
        }
        // Under the lock, so that tickets are in the order of the line.
        let ticket = line.tickets;
        line.tickets += 1;
        if !line.closed {
            line.waiters.push_back(Waiter { ticket, ..waiter });
        }
        self.waiting.store(line.waiters.len(), SeqCst);
        drop(line);
        self.waited.add(1);
        Some(Waiting { queue: self.clone(), ticket, handed })
    }

    /// The backend changed: those who wait choose from what it is now. `None`: it was deleted, and they are let go.
    pub(crate) fn follow(&self, backend: Option<&Arc<Backend>>) {
        let Some(backend) = backend else {
            let mut line = self.line();
            line.closed = true;
            let gone = std::mem::take(&mut line.waiters);
            self.waiting.store(0, SeqCst);
            drop(line);
            // They are woken outside the lock.
            drop(gone);
            return;
        };
        self.line().choose_from(backend);
        if !self.is_empty() {
            self.serve();
        }
    }

    /// Hands free places to those who wait, and lets go those for whom there is no server any more.
    pub(super) fn serve(&self) {
        while let Some((waiter, handed)) = self.next() {
            // Outside the lock: a place that nobody takes is given back by being dropped, which serves again.
            if let Some(handed) = handed {
                drop(waiter.hand.send(handed));
            }
        }
    }

    /// The first whose waiting is over, and the place it gets, if any.
    fn next(&self) -> Option<(Waiter, Option<Handed>)> {
        let mut line = self.line();
        // None: the table was replaced a moment ago, of which the queue is being told.
        let backend = line.backend.upgrade()?;
        let now = Instant::now();
        let mut full = false;
        let mut found = None;
        for (nth, waiter) in line.waiters.iter().enumerate() {
            if full && waiter.is_plain() {
                continue;
            }
            match backend.place(waiter.stuck_at, &waiter.ask(now)) {
                Place::At(at, place) => found = Some((nth, Some((at, place)))),
                Place::Nobody => found = Some((nth, None)),
                Place::Full => full |= waiter.is_plain(),
            }
            if found.is_some() {
                break;
            }
        }
        let (nth, place) = found?;
        let waiter = line.waiters.remove(nth);
        self.waiting.store(line.waiters.len(), SeqCst);
        drop(line);
        Some((waiter?, place.map(|(at, place)| Handed { backend, at, place })))
    }

    fn leave(&self, ticket: u64) {
        let mut line = self.line();
        if let Ok(nth) = line.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            line.waiters.remove(nth);
            self.waiting.store(line.waiters.len(), SeqCst);
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn choose_from(&mut self, backend: &Arc<Backend>) {
        self.backend = Arc::downgrade(backend);
        self.newest = backend.number;
        for waiter in &mut self.waiters {
            waiter.find(backend);
        }
    }
}

impl Waiter {
    fn new(backend: &Backend, stuck: Option<u16>, ask: &Ask<'_>, hand: oneshot::Sender<Handed>) -> Waiter {
        let number = |at: u16| backend.servers.get(usize::from(at)).map(|server| server.live.number);
        Waiter {
            ticket: 0,
            stuck: stuck.and_then(number),
            stuck_at: stuck,
            tried: ask.tried.iter().filter_map(|at| number(*at)).collect(),
            tried_at: ask.tried.to_vec(),
            ask: Ask {
                turn: ask.turn,
                random: ask.random,
                key: ask.key,
                now: ask.now,
                ramping: ask.ramping,
                tried: &[],
            },
            hand,
        }
    }

    /// Finds its servers again in another version of the backend. Who is stuck to one that is gone takes any.
    fn find(&mut self, backend: &Backend) {
        self.stuck_at = self.stuck.and_then(|number| backend.at(number));
        let keeps = |at: &u16| backend.servers.get(usize::from(*at)).is_some_and(|server| server.spec.weight > 0);
        self.stuck_at = self.stuck_at.filter(keeps);
        self.tried_at.clear();
        self.tried_at.extend(self.tried.iter().filter_map(|number| backend.at(*number)));
    }

    /// Whether it waits for what everybody else waits for.
    fn is_plain(&self) -> bool {
        self.stuck_at.is_none() && self.tried_at.is_empty()
    }

    fn ask(&self, now: Instant) -> Ask<'_> {
        Ask { now, tried: &self.tried_at, ..self.ask }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // What was handed over and not taken is dropped after this, and handed on.
        self.queue.leave(self.ticket);
    }
}

#[cfg(test)]
mod tests;
