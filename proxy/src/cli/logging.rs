//! The log: one JSON line per event, or lines for people on a terminal.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Begins to log to stderr at a level (`info`, or a filter such as `etna_proxy=debug`).
pub(super) fn start(level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| format!("--log {level}: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    };
    started.map_err(|error| error.to_string())
}
