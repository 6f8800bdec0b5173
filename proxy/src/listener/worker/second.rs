//! What a worker does every second: it goes on in time, gives back what a burst has left, and looks over its
//! connections. There is no timer for each of them: what they wait for may be a second late.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use super::Worker;
use crate::listener::watch::{Order, Phase, Waiting, Watch};

/// What a connection is told that is late.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// To do so.
    Order(Order),
    /// To do so if that is what it still does when its turn comes.
    While(Phase, Order),
    /// To look how late it is.
    Look,
}

impl Worker {
    /// A second has passed.
    pub(super) fn second_passed(&self) {
        self.clock.set(self.clock.get() + 1);
        self.beat.fetch_add(1, Relaxed);
        self.date.replace(super::now());
        self.pool.sweep(self.now());
        self.seats.sweep();
        drop(self.buffers.sweep());
        if let Some(access) = &self.access {
            access.flush();
        }
        let late = self.late();
        let mut telling = self.telling.borrow_mut();
        if !late.is_empty() && telling.as_ref().is_none_or(|telling| telling.is_finished()) {
            *telling = Some(tokio::task::spawn_local(tell(late)));
        }
    }

    /// Connections that have waited, or been waited for, for too long.
    fn late(&self) -> Vec<(Rc<Watch>, Told)> {
        let (head, idle) =
            if self.admission.is_crowded() { (CROWDED_SECONDS, CROWDED_SECONDS) } else { (HEAD_SECONDS, IDLE_SECONDS) };
        let mut late = Vec::new();
        for watch in self.connections.borrow().values() {
            let slow = match watch.second_passed() {
                // The request is answered 408.
                Some(Waiting::Body) => Some(Told::Look),
                // Whoever does not read cannot be told.
                Some(Waiting::Reader) => Some(Told::Order(Order::Close)),
                None => None,
            };
            let waits = match watch.phase() {
                (Phase::Head, seconds) if seconds > head => Some(Told::While(Phase::Head, Order::Close)),
                (Phase::Idle, seconds) if seconds > idle => Some(Told::While(Phase::Idle, Order::Finish)),
                _ if watch.is_overdue() => Some(Told::Look),
                _ => None,
            };
            late.extend(slow.into_iter().chain(waits).map(|told| (watch.clone(), told)));
        }
        late
    }
}

/// Tells them, some at a time: thousands that end in the same moment would have everybody else wait.
async fn tell(late: Vec<(Rc<Watch>, Told)>) {
    for some in late.chunks(AT_ONCE) {
        for (watch, told) in some {
            match told {
                Told::While(phase, _) if watch.phase().0 != *phase => {}
                Told::Order(order) | Told::While(_, order) => watch.order(*order),
                Told::Look => watch.nudge(),
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Connections that are told before others have their turn: half a millisecond's work.
const AT_ONCE: usize = 32;
/// Seconds a request's head may take, from its first byte or from the connection's start.
const HEAD_SECONDS: u32 = 10;
/// Seconds a connection may wait for its next request.
const IDLE_SECONDS: u32 = 75;
/// Seconds for either when connections are nearly used up.
const CROWDED_SECONDS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    #[tokio::test]
    async fn others_have_their_turn_while_many_are_told() {
        let watches: Vec<Rc<Watch>> = (0..3 * AT_ONCE).map(|_| Rc::new(Watch::new(Rc::default()))).collect();
        let late = watches.iter().map(|watch| (watch.clone(), Told::While(Phase::Head, Order::Close))).collect();
        let told = || watches.iter().filter(|watch| watch.is_finishing()).count();
        let others = async {
            let telling = spawn_local(tell(late));
            let mut turns = Vec::new();
            // The last of them has its request after all.
            watches[watches.len() - 1].enter(Phase::Busy);
            while !telling.is_finished() {
                yield_now().await;
                turns.push(told());
            }
            turns
        };
        let turns = LocalSet::new().run_until(others).await;
        assert!(turns.contains(&AT_ONCE) && turns.contains(&(2 * AT_ONCE)), "{turns:?}");
        assert_eq!(told(), watches.len() - 1);
    }
}
