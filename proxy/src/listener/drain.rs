//! The end of a worker: accepting for a while more, telling clients to go, closing what stays idle one by one, and
//! cutting what is left when the time is over.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use etna_store::object::Id;

use super::accept::Accepting;
use super::worker::Worker;

/// How to drain.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// How long connections are still accepted.
    pub grace: Duration,
    /// How long it may take, the grace included.
    pub limit: Duration,
    /// How long connections that wait for a request are left open after the grace.
    pub quiet: Duration,
    /// Within how long after that they are closed, one by one.
    pub spread: Duration,
    /// Whether another process accepts on the same sockets: what waits in their queues is its business then.
    pub handed_over: bool,
}

/// Waits until every connection has ended, first by being told to go with its next response, at last by being cut.
pub(super) async fn finish(worker: &Rc<Worker>, accepting: HashMap<Id, Accepting>, drain: Drain) {
    let started = Instant::now();
    tokio::time::sleep(drain.grace.min(drain.limit)).await;
    worker.handed_over.set(drain.handed_over);
    for Accepting { stop, tasks } in accepting.into_values() {
        stop.cancel();
        for task in tasks {
            let _ = task.await;
        }
    }
    let rest = drain.limit.saturating_sub(started.elapsed());
    let (quiet, spread) = (drain.quiet.min(rest / 2), drain.spread.min(rest / 4));
    let stopped = Instant::now();
    let mut tick = tokio::time::interval(FINISH_TICK);
    let mut dismissed = 0.0;
    while worker.is_serving() && started.elapsed() < drain.limit {
        tick.tick().await;
        let past = stopped.elapsed();
        if past >= quiet {
            let until = (past - quiet).as_secs_f64() / spread.as_secs_f64().max(f64::MIN_POSITIVE);
            worker.dismiss(dismissed..until);
            dismissed = until;
        }
    }
    worker.cut_all();
}

/// When a connection is dismissed, as a share of the time for all: spread evenly, whatever the numbers are.
pub(super) fn turn(number: u64) -> f64 {
    // Fibonacci hashing; 32 bits fit into the fraction of an f64.
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as f64 / (1u64 << 32) as f64
}

/// How often a drain looks whether it is over.
const FINISH_TICK: Duration = Duration::from_millis(20);
