//! What a worker counts as long as a value lives: connections, requests of many on one, those that are turned away.

use std::rc::Rc;

use super::Worker;
use crate::listener::watch::Watch;

/// What a worker watches: known to it as long as this value lives.
pub struct Watched {
    worker: Rc<Worker>,
    number: u64,
    watch: Rc<Watch>,
}

/// A connection of a worker: watched, and counted, as long as this value lives.
pub struct Running(Watched);

/// A connection that is being turned away: counted as long as this value lives.
pub(in crate::listener) struct TurningAway<'w>(&'w Worker);

impl Drop for TurningAway<'_> {
    fn drop(&mut self) {
        self.0.turning_away.set(self.0.turning_away.get() - 1);
    }
}

impl Worker {
    /// Makes one more connection known.
    pub fn running(self: &Rc<Worker>) -> Running {
        self.process.connections.up();
        Running(self.watched())
    }

    /// Watches one more connection, or one request of many on a connection.
    pub fn watched(self: &Rc<Worker>) -> Watched {
        let number = self.next_connection.get();
        self.next_connection.set(number + 1);
        let watch = Rc::new(Watch::new(self.clock.clone()));
        self.connections.borrow_mut().insert(number, watch.clone());
        Watched { worker: self.clone(), number, watch }
    }

    /// Takes one of the few places of connections that are told that there is no room.
    pub(in crate::listener) fn turn_away(&self) -> Option<TurningAway<'_>> {
        let others = self.turning_away.get();
        (others < MOST_TURNED_AWAY).then(|| {
            self.turning_away.set(others + 1);
            TurningAway(self)
        })
    }
}

impl Watched {
    /// What the worker watches of it.
    pub fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(&self.number);
    }
}

impl Running {
    /// What the worker watches of it.
    pub fn watch(&self) -> &Rc<Watch> {
        self.0.watch()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.worker.process.connections.down();
    }
}

/// Connections of a worker that are told that there is no room; more than these are closed without a word.
const MOST_TURNED_AWAY: u32 = 128;
