//! What a drill is, and what comes out of it.

use std::pin::Pin;

use etna_tests::load::Report;

/// One drill.
pub(crate) struct Drill {
    /// Letter and number.
    pub(crate) id: &'static str,
    /// The fault, in a few words.
    pub(crate) what: &'static str,
    /// Whether `make test` runs it, shortened to a few seconds.
    pub(crate) quick: bool,
    /// Runs it.
    pub(crate) run: fn(Length) -> Running,
}

/// A drill at work.
pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// How long a drill may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// As long as it is written.
    Full,
    /// Seconds.
    Short,
}

impl Length {
    /// One of two values.
    pub(crate) fn pick<T>(self, full: T, short: T) -> T {
        match self {
            Length::Full => full,
            Length::Short => short,
        }
    }

    /// Whether what was measured is fast enough. Shortened, a drill runs unoptimised programs beside tests: there speed
    /// is told, and not judged.
    pub(crate) fn fast(self, enough: bool) -> bool {
        enough || self == Length::Short
    }
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// The load, e.g. `2000/s, 80 connections`.
    pub(crate) load: String,
    /// Requests sent.
    pub(crate) requests: u64,
    /// Requests not answered as they must be.
    pub(crate) failed: u64,
    /// What else was measured against what it must be, or why it failed.
    pub(crate) figure: String,
    /// Whether the drill is passed.
    pub(crate) pass: bool,
}

impl Outcome {
    /// Of a load during which nothing may fail; `figure` and `pass` say the rest.
    pub(crate) fn of(load: &str, report: &Report, figure: impl Into<String>, pass: bool) -> Outcome {
        let failed = report.wrong.len() as u64;
        let mut figure = figure.into();
        if let Some((number, after, why)) = report.wrong.first() {
            figure.push_str(&format!("; first failure #{number} after {after:.1?}: {why}"));
        }
        Outcome { load: load.into(), requests: report.sent, failed, figure, pass: pass && failed == 0 }
    }

    /// It could not be gone through.
    pub(crate) fn fail(why: impl Into<String>) -> Outcome {
        Outcome { figure: why.into(), ..Outcome::default() }
    }
}
