//! The log: one JSON line per event, or lines for people on a terminal.
//!
//! Written by a thread of its own from a queue with a bound: whoever reads the log may stop reading, and then lines are
//! lost and counted, but nobody waits.

use std::io::IsTerminal as _;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// A log that was begun. What was logged until this value is dropped is written.
pub(super) struct Log {
    _writer: WorkerGuard,
    /// Counts lines that were lost.
    pub(super) lost: ErrorCounter,
}

/// Begins to log to stderr at a level (`info`, or a filter such as `etna_proxy=debug`).
pub(super) fn start(level: &str) -> Result<Log, String> {
    let filter = EnvFilter::try_new(format!("{QUIET},{level}")).map_err(|error| format!("--log {level}: {error}"))?;
    let (queue, writer) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(MOST_LINES).finish(std::io::stderr());
    let lost = queue.error_counter();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(queue);
    let started = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    };
    started.map(|()| Log { _writer: writer, lost }).map_err(|error| error.to_string())
}

/// What says a line for each wrong frame of anybody's, unless it is asked for by name.
const QUIET: &str = "h2=error";
/// Lines that wait to be written.
const MOST_LINES: usize = 512;
