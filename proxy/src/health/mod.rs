//! Health checks: servers are asked whether they are well, on the control runtime, never by a worker.
//!
//! One keeper follows the table and asks every server of a backend with a check, a bounded number at a time. What is
//! found goes into the server's own [`Health`](crate::backend::health::Health), so it outlives tables, and the keeper
//! too: one that breaks is started again. Each proxy asks by its own clock, at moments of its own.
//!
//! Not here: what follows from a finding (`backend::health`) and what requests themselves show (`Backend::observe`).

mod http2;
mod keeper;
mod probe;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::backend::health::Reason;
use crate::control::State;
use crate::stats::Counter;
use keeper::Keeper;

/// What health checks count in the process as a whole.
#[derive(Debug, Default)]
pub struct Totals {
    found: [Counter; Reason::ALL.len()],
    /// Checks that could not be made for a reason of our own: too many open files, and the like.
    pub not_made: Counter,
    /// Times the keeper broke and was started again.
    pub restarts: Counter,
}

impl Totals {
    /// Checks by what they found.
    pub fn found(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.found.iter().map(Counter::get))
    }

    fn add(&self, reason: Reason) {
        if let Some(counter) = self.found.get(usize::from(reason.number())) {
            counter.add(1);
        }
    }
}

/// Checks servers for as long as the process runs.
pub async fn run(state: Arc<State>) {
    loop {
        let keeper = AbortOnDropHandle::new(tokio::spawn(Keeper::new(state.clone()).run()));
        match keeper.await {
            Err(error) if error.is_panic() => {
                state.health.restarts.add(1);
                tracing::error!(%error, "health checks broke and are started again");
                tokio::time::sleep(PAUSE).await;
            }
            _ => return,
        }
    }
}

const PAUSE: Duration = Duration::from_millis(500);
