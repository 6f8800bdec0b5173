//! How the access log stands: for `/metrics` and the problems.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use etna_store::Problem;

use crate::stats::Counter;

/// The access log, as everybody may see it.
#[derive(Debug)]
pub struct Status {
    target: String,
    /// Lines that were written.
    pub lines: Counter,
    /// Lines that were lost because the writer was too far behind.
    pub slow: Counter,
    /// Lines that were lost because they could not be written.
    pub unwritten: Counter,
    reopen: AtomicBool,
    /// Whether problems have changed since that was asked last.
    changed: AtomicBool,
    trouble: Mutex<Trouble>,
}

/// Why it is not written as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failing {
    pub(super) error: String,
    /// Whether the file that was open before takes what comes.
    pub(super) goes_on: bool,
}

#[derive(Debug, Default)]
struct Trouble {
    error: Option<Failing>,
    /// When lines were last lost although they could be written.
    lagged: Option<Instant>,
}

impl Status {
    pub(super) fn new(target: String) -> Status {
        Status {
            target,
            lines: Counter::default(),
            slow: Counter::default(),
            unwritten: Counter::default(),
            reopen: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// Has the file opened anew, within a second: another one may lie there now.
    pub fn reopen(&self) {
        self.reopen.store(true, Relaxed);
    }

    pub(super) fn take_reopen(&self) -> bool {
        self.reopen.swap(false, Relaxed)
    }

    /// Whether the file is to be opened anew.
    pub(super) fn is_to_reopen(&self) -> bool {
        self.reopen.load(Relaxed)
    }

    pub(super) fn too_slow(&self, lines: u64) {
        self.slow.add(lines);
    }

    /// Why it cannot be written as wanted, or that it can; whether that is news.
    pub(super) fn tell(&self, error: Option<Failing>) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = trouble.error != error;
        if is_news {
            trouble.error = error;
            self.changed.store(true, Relaxed);
        }
        is_news
    }

    /// Whether lines were lost a short while ago for want of speed; whether that is news.
    pub(super) fn lags(&self, lags: bool, now: Instant) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let did = trouble.lagged.is_some();
        match trouble.lagged {
            _ if lags => trouble.lagged = Some(now),
            Some(at) if now.saturating_duration_since(at) >= RECENT => trouble.lagged = None,
            Some(_) | None => {}
        }
        let is_news = did != trouble.lagged.is_some();
        if is_news {
            self.changed.store(true, Relaxed);
        }
        is_news
    }

    /// Whether problems have changed since this was asked last.
    pub(crate) fn take_changed(&self) -> bool {
        self.changed.swap(false, Relaxed)
    }

    /// What is wrong with it.
    pub fn problem(&self) -> Option<Problem> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = |reason: String, hint: &str| Problem {
            key: format!("--access-log {}", self.target),
            reason,
            hint: hint.into(),
            line: None,
            column: None,
            effect: "requests are answered, but lines of the access log are lost (etna_access_log_dropped_total)"
                .into(),
        };
        match (&trouble.error, trouble.lagged) {
            (Some(Failing { error, goes_on: true }), _) => Some(Problem {
                effect: "the file that was open before takes its lines".into(),
                ..problem(
                    format!("the access log cannot be opened anew: {error}"),
                    "let the proxy write there; it tries again every second",
                )
            }),
            (Some(Failing { error, goes_on: false }), _) => Some(problem(
                format!("the access log cannot be written: {error}"),
                "make room, or let the proxy write there; it tries again every second",
            )),
            (None, Some(_)) => Some(problem(
                "the access log is written more slowly than requests come".into(),
                "give it a faster disk, or whoever reads it from the pipe more time",
            )),
            (None, None) => None,
        }
    }
}

/// For how long lines that were lost are a problem.
const RECENT: Duration = Duration::from_secs(60);
