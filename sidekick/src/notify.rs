//! What the service manager is told: ready, one line of status, and the watchdog's beat.
//!
//! The beat is given only while both loops turn: a sidekick whose Docker or store loop hangs is restarted, one whose
//! Docker or store is away is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::watch;

/// What is shown of the sidekick's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// In a word.
    pub docker: String,
    /// In a word.
    pub store: String,
    /// Registered from this machine.
    pub servers: usize,
}

/// Where both loops write their part of the status.
#[derive(Clone, Debug)]
pub struct Board(Arc<watch::Sender<Status>>);

impl Default for Board {
    fn default() -> Board {
        let waiting = "not asked yet".to_owned();
        Board(Arc::new(watch::Sender::new(Status { docker: waiting.clone(), store: waiting, servers: 0 })))
    }
}

impl Board {
    /// What Docker does.
    pub fn docker(&self, state: &str) {
        self.change(|status| status.docker = state.to_owned());
    }

    /// What the store does.
    pub fn store(&self, state: &str) {
        self.change(|status| status.store = state.to_owned());
    }

    /// How many servers are registered.
    pub fn servers(&self, servers: usize) {
        self.change(|status| status.servers = servers);
    }

    fn change(&self, change: impl FnOnce(&mut Status)) {
        self.0.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }
}

/// A loop's sign of life.
#[derive(Clone, Debug)]
pub struct Beat {
    start: Instant,
    last: Arc<AtomicU64>,
}

impl Default for Beat {
    fn default() -> Beat {
        Beat { start: Instant::now(), last: Arc::default() }
    }
}

impl Beat {
    /// It turns.
    pub fn now(&self) {
        self.last.store(self.start.elapsed().as_secs(), Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_secs(self.last.load(Ordering::Relaxed)))
    }
}

/// Tells the service manager for ever; does nothing where there is none.
pub async fn run(board: Board, beats: [Beat; 2]) {
    let mut status = board.0.subscribe();
    status.mark_changed();
    // Half the limit, as sd_watchdog_enabled(3) advises.
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    let mut tick = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3600)).max(Duration::from_millis(100)));
    loop {
        tokio::select! {
            changed = status.changed() => {
                if changed.is_err() { return }
                let line = {
                    let now = status.borrow_and_update();
                    format!("Docker {} · store {} · {} servers registered", now.docker, now.store, now.servers)
                };
                tell(&[NotifyState::Status(&line)]);
            }
            _ = tick.tick() => {
                if watchdog.is_some() && beats.iter().all(|beat| beat.age() < HANGS) {
                    tell(&[NotifyState::Watchdog]);
                }
            }
        }
    }
}

/// Says that the sidekick has started; whether Docker and the store answer is the status' part.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that the sidekick is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// A loop that has not turned for this long hangs: everything either waits for has a shorter limit.
const HANGS: Duration = Duration::from_secs(120);

fn tell(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(event = "notify-failed", %error, "the service manager was not told");
    }
}
