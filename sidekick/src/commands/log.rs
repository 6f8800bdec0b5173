//! The log: one JSON object a line where a program reads it, plain lines where a human does. Always on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::{LogFormat, Settings, Usage};

/// Starts logging; once a process.
pub(super) fn start(settings: &Settings) -> Result<(), Usage> {
    let wrong = |error| Usage(format!("--log {}: {error}", settings.log));
    // What libraries say is of interest only when something is wrong.
    let filter = match settings.log.contains(['=', ',']) {
        true => EnvFilter::try_new(&settings.log),
        false => EnvFilter::try_new(format!("warn,etna_sidekick={0},etna_store={0}", settings.log)),
    }
    .map_err(wrong)?;
    let terminal = std::io::stderr().is_terminal();
    let format = settings.log_format.unwrap_or(if terminal { LogFormat::Human } else { LogFormat::Json });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start in one process (tests) keeps the first.
    let _ = match format {
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        LogFormat::Human => log.with_ansi(terminal).try_init(),
    };
    Ok(())
}
