//! Manual pages, one a command, and the usage that errors show: both from the command line itself.

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue};

use crate::cli::Cli;
use crate::failure::Failure;

/// The page of `etnactl`, or of one of its commands: `server upsert`.
pub(crate) fn page(words: &[String]) -> Result<String, Failure> {
    let mut all = Cli::command();
    all.build();
    let mut command = &all;
    for word in words {
        command = command.find_subcommand(word).ok_or_else(|| {
            let known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
            Failure::usage(format!("there is no command {word} in {}: {}", command.get_name(), known.join(", ")))
        })?;
    }
    let mut page = Vec::new();
    let written = clap_mangen::Man::new(command.clone()).source(SOURCE).render(&mut page);
    written.map_err(|error| Failure::unread(format!("cannot write the manual page: {error}")))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

const SOURCE: &str = concat!("etnactl ", env!("CARGO_PKG_VERSION"));

/// An error that shows the command's own usage. clap's would name what came from the environment as if it were
/// required.
pub(crate) fn with_plain_usage(mut error: clap::Error) -> clap::Error {
    if error.get(ContextKind::Usage).is_none() {
        return error;
    }
    let mut all = Cli::command();
    all.build();
    let mut command = &all;
    for word in std::env::args().skip(1).filter(|word| !word.starts_with('-')) {
        command = command.find_subcommand(&word).unwrap_or(command);
    }
    let usage = command.clone().render_usage();
    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    error
}
