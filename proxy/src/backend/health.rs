//! Whether a server should be given requests, as its checks and its answers say.
//!
//! Three things speak against a server: it is new and was not checked yet, its checks fail, or it was ejected because
//! requests to it failed. Who serves is one load; who chooses (`balance.rs`) passes over the others as long as any serves.
//! Checks are believed to the last server; answers never take out more than half of a backend's servers, for a bad
//! answer may be the request's fault. With nobody left all are asked: that is panic, and shown.
//!
//! Not here: asking (`crate::health`), choosing, and connections that the server closed while they were idle.

mod checked;
mod ejection;
mod reason;
mod saved;

use std::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use etna_store::object::HealthCheck;
use http::StatusCode;

pub use checked::{Checked, Finding, State};
use ejection::{Ejection, Probed};
pub use reason::Reason;

use super::{Backend, Server};

/// A server's health, shared by all workers.
#[derive(Debug)]
pub struct Health {
    /// What speaks against it ([`EJECTED`], [`DOWN`], [`STARTING`]), and above that its latest failures in a row.
    word: AtomicU32,
    born: Instant,
    ejection: Ejection,
    /// Never touched by a worker.
    checked: Mutex<Checked>,
}

/// What became of one request at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Answered(StatusCode),
    /// No connection could be made.
    Unreachable,
    /// One could be made, but TLS could not be agreed upon.
    Unsecured,
    /// The connection broke, or the answer was no HTTP.
    Broken,
    /// It did not answer in time, which is so long.
    Late(Duration),
}

/// A server's health, for people.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Whether it is given requests as long as others are.
    pub serving: bool,
    /// In a word: `unchecked`, `up`, `starting`, `down`, `ejected` or `probed`.
    pub word: &'static str,
    /// Why.
    pub reason: Reason,
    /// Why, in a sentence.
    pub detail: String,
    /// Since when.
    pub since: Option<Duration>,
    /// When it was checked last.
    pub checked: Option<Duration>,
    /// How often it was ejected.
    pub ejections: u64,
}

/// How a backend's servers are, those that take new clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub all: usize,
    /// Those that serve.
    pub serving: usize,
    /// Those that are ill or ejected, and not just new.
    pub ill: usize,
}

impl Tally {
    /// Whether none serves and all are asked rather than none.
    pub fn is_panic(self) -> bool {
        self.all > 0 && self.serving == 0 && self.ill > 0
    }
}

impl Default for Health {
    fn default() -> Health {
        Health {
            word: AtomicU32::new(0),
            born: Instant::now(),
            ejection: Ejection::default(),
            checked: Mutex::default(),
        }
    }
}

impl Health {
    /// Whether it takes requests as long as others do.
    pub fn is_serving(&self) -> bool {
        let word = self.word.load(Relaxed);
        word & AGAINST == 0 || self.may_be_tried(word)
    }

    /// Whether its checks or requests speak against it; one that is new is not ill.
    pub fn is_ill(&self) -> bool {
        self.word.load(Relaxed) & (DOWN | EJECTED) != 0
    }

    /// An ejected server is tried by one request at a time once it has been left alone for long enough.
    #[cold]
    fn may_be_tried(&self, word: u32) -> bool {
        word & AGAINST == EJECTED && self.ejection.may_probe(self.now())
    }

    /// A request is on its way to it.
    pub(super) fn asked(&self) {
        if self.word.load(Relaxed) & EJECTED != 0 {
            self.ejection.probing(self.now());
        }
    }

    /// Its clock: milliseconds since it came to be.
    pub fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// It is new to a backend with a check: it is used only where nobody is well, until a check finds it well.
    pub fn expect_check(&self) {
        *self.lock() = Checked::starting();
        self.word.fetch_or(STARTING, Relaxed);
    }

    /// Nobody checks it any more.
    pub fn forget_checks(&self) {
        if self.word.load(Relaxed) & (DOWN | STARTING) != 0 || self.state() != State::Unchecked {
            *self.lock() = Checked::default();
            self.word.fetch_and(!(DOWN | STARTING), Relaxed);
        }
    }

    /// Takes what a check found into account that began at `began` of its clock; the state before, if that changed.
    pub fn record(&self, began: u64, finding: Finding, check: &HealthCheck) -> Option<State> {
        let now = self.now();
        if finding.well && self.word.load(Relaxed) & EJECTED != 0 {
            self.ejection.checked_well(began, now, check.rise);
        }
        let mut checked = self.lock();
        let before = checked.record(now, finding, check);
        if before.is_some() {
            self.show(checked.state());
        }
        before
    }

    /// How long to wait until it is checked again.
    pub fn pause(&self, check: &HealthCheck) -> Duration {
        self.lock().pause(self.now(), check)
    }

    /// What its checks say.
    pub fn state(&self) -> State {
        self.lock().state()
    }

    /// Whether there is anything to say about it.
    pub fn is_known(&self) -> bool {
        self.word.load(Relaxed) & AGAINST != 0 || self.state() != State::Unchecked || self.ejections() > 0
    }

    /// How often it was ejected.
    pub fn ejections(&self) -> u64 {
        self.ejection.history().2
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let now = self.now();
        let ago = |then: u64| Duration::from_millis(now.saturating_sub(then));
        let word = self.word.load(Relaxed);
        let checked = self.lock().clone();
        let (_, ejected_for, ejections) = self.ejection.history();
        let ejected = word & EJECTED != 0 && word & (DOWN | STARTING) == 0;
        let finding = checked.finding();
        Standing {
            serving: word & AGAINST == 0,
            word: match (ejected, checked.state()) {
                (true, _) if self.ejection.is_probed(now) => "probed",
                (true, _) => "ejected",
                (false, State::Unchecked) => "unchecked",
                (false, State::Starting) => "starting",
                (false, State::Up) => "up",
                (false, State::Down) => "down",
            },
            reason: if ejected { ejected_for } else { finding.reason },
            detail: match ejected {
                true if self.ejection.is_probed(now) => "requests are let through one at a time".into(),
                true => format!("left alone for {} s more", self.ejection.left(now).div_ceil(1000)),
                false => finding.detail.clone(),
            },
            since: if ejected {
                self.ejection.since(now).map(Duration::from_millis)
            } else {
                checked.changed().map(ago)
            },
            checked: checked.last().map(ago),
            ejections,
        }
    }

    fn show(&self, state: State) {
        let flag = match state {
            State::Unchecked | State::Up => 0,
            State::Starting => STARTING,
            State::Down => DOWN,
        };
        let _ = self.word.fetch_update(Relaxed, Relaxed, |word| Some(word & !(DOWN | STARTING) | flag));
    }

    fn lock(&self) -> MutexGuard<'_, Checked> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend {
    /// Tells what became of one request at the server in this place. While all is well, that is one load.
    pub fn observe(&self, at: u16, outcome: Outcome) {
        let Some(server) = self.servers.get(usize::from(at)) else { return };
        let failed = match outcome {
            Outcome::Answered(
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT,
            ) => Reason::Gateway,
            Outcome::Answered(_) => {
                if server.live.health.word.load(Relaxed) != 0 {
                    self.answered(at, server, server.live.health.now());
                }
                return;
            }
            Outcome::Unreachable => Reason::Unreachable,
            Outcome::Unsecured => Reason::Tls,
            Outcome::Broken => Reason::Broken,
            Outcome::Late(_) => Reason::Timeout,
        };
        let waited = if let Outcome::Late(limit) = outcome { limit } else { Duration::ZERO };
        self.failed(at, server, (failed, waited), server.live.health.now());
    }

    /// How its servers are.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for server in self.servers.iter().filter(|server| server.takes_new()) {
            let word = server.live.health.word.load(Relaxed);
            tally.all += 1;
            tally.serving += usize::from(word & AGAINST == 0);
            tally.ill += usize::from(word & (DOWN | EJECTED) != 0);
        }
        tally
    }

    /// Whether any server serves.
    pub fn has_serving(&self) -> bool {
        self.servers.iter().any(|server| server.takes_new() && server.live.health.is_serving())
    }

    /// A server serves again; slowly at first.
    pub fn welcome(&self, at: u16, how: &str) {
        self.back(at, Instant::now());
        if let Some(server) = self.servers.get(usize::from(at)) {
            tracing::info!(backend = %self.id, server = %server.spec.id, how, "server is back");
        }
        self.wake();
    }

    /// Lets those who wait choose again: a server takes requests that took none.
    pub fn wake(&self) {
        if !self.live.queue.is_empty() {
            self.live.queue.serve();
        }
    }

    #[cold]
    fn answered(&self, at: u16, server: &Server, now: u64) {
        let health = &server.live.health;
        let word = health.word.load(Acquire);
        if word & EJECTED == 0 {
            // It failed before, and less often in a row than matters.
            health.word.fetch_and(AGAINST, Relaxed);
            return;
        }
        if health.ejection.answered(now) == Probed::Back {
            health.word.fetch_and(AGAINST & !EJECTED, Relaxed);
            self.welcome(at, "requests to it are answered");
        }
    }

    #[cold]
    fn failed(&self, at: u16, server: &Server, (reason, waited): (Reason, Duration), now: u64) {
        let health = &server.live.health;
        let word = health.word.load(Acquire);
        if word & (DOWN | STARTING) != 0 {
            // Nobody expected better of it.
            return;
        }
        if word & EJECTED != 0 {
            // What ran into its limit may have been asked long before the server was tried again.
            let asked = now.saturating_sub(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
            if health.ejection.is_probed(asked.saturating_add(SLACK)) {
                let length = health.ejection.eject_again(now, reason, fastrand::u64(..));
                tracing::debug!(backend = %self.id, server = %server.spec.id, reason = reason.word(), length, "still ill");
            }
            return;
        }
        let points = if matches!(reason, Reason::Unreachable | Reason::Tls) { 5 } else { 3 } * POINT;
        let before =
            health.word.fetch_update(Relaxed, Relaxed, |word| Some(word + if word < MOST { points } else { 0 }));
        let enough = before.is_ok_and(|before| before + points >= ENOUGH);
        if enough && !health.ejection.is_fresh(now) {
            self.eject(at, server, reason, now);
        }
    }

    /// Ejects a server that serves, if enough others do.
    fn eject(&self, at: u16, server: &Server, reason: Reason, now: u64) {
        // One at a time, so that they are counted right. Who comes second tries again with its next failure.
        if self.live.ejecting.swap(true, Acquire) {
            return;
        }
        let health = &server.live.health;
        let tally = self.tally();
        let left = if server.takes_new() { tally.serving.saturating_sub(1) } else { tally.serving };
        let may = left > 0 && left * 2 >= tally.all && health.word.load(Relaxed) & EJECTED == 0;
        if may {
            let length = health.ejection.eject(now, reason, fastrand::u64(..));
            // In this order: who sees that it is ejected sees for how long.
            let _ = health.word.fetch_update(Release, Relaxed, |word| Some(word & AGAINST | EJECTED));
            tracing::warn!(
                backend = %self.id, server = %server.spec.id, place = at, reason = reason.word(), seconds = length / 1000,
                serving = left, of = tally.all, "server ejected"
            );
        }
        self.live.ejecting.store(false, Release);
    }
}

/// Requests to it failed.
const EJECTED: u32 = 1;
/// Its checks fail.
const DOWN: u32 = 2;
/// It is new and was not checked yet.
const STARTING: u32 = 4;
const AGAINST: u32 = EJECTED | DOWN | STARTING;
/// A failure counts three points, one that cost only a connect five.
const POINT: u32 = 8;
/// Five failures in a row, or three refused connects.
const ENOUGH: u32 = 15 * POINT;
/// From here on they are not counted.
const MOST: u32 = 1000 * POINT;
/// How far clocks that are looked at one after the other are apart, in milliseconds.
const SLACK: u64 = 20;

#[cfg(test)]
mod tests;
