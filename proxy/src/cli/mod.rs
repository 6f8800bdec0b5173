//! The command line of `etna`: one file a command.

mod check;
mod demo;
mod logging;
mod serve;
mod stand_in;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// Etna, a programmable HTTP load balancer whose configuration lives in a store.
#[derive(Parser)]
#[command(name = "etna", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve: follow the store and balance.
    Serve(Box<serve::Flags>),
    /// Check whether what is stored, or an export, would be served as written.
    Check(Box<check::Flags>),
    /// Try it: a proxy, two public containers and an admin container, until Ctrl-C.
    Demo(demo::Flags),
    /// Stand in for a WordPress container (what the demo starts).
    #[command(hide = true)]
    StandIn(stand_in::Flags),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  etna completions bash > /usr/share/bash-completion/completions/etna")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of a command.
    #[command(after_help = "Examples:\n  etna man | man -l -\n  etna man serve | man -l -    # etna-serve(1)")]
    Man {
        /// The command.
        command: Option<String>,
    },
}

/// Runs the command that was asked for.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let failed = error.use_stderr();
            let _ = error.print();
            return if failed { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Command::Serve(flags) => serve::run(*flags),
        Command::Check(flags) => check::run(*flags),
        Command::Demo(flags) => demo::run(flags),
        Command::StandIn(flags) => stand_in::run(flags),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "etna", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Man { command } => match page(command.as_deref()) {
            Ok(page) => std::io::stdout().write_all(&page).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
            Err(unknown) => {
                let _ = writeln!(std::io::stderr(), "etna: {unknown}");
                ExitCode::from(USAGE)
            }
        },
    }
}

/// The manual page of `etna`, or of one of its commands.
fn page(command: Option<&str>) -> Result<Vec<u8>, String> {
    let mut all = Cli::command();
    all.build();
    let shown = match command {
        Some(word) => {
            all.find_subcommand(word).ok_or_else(|| format!("there is no command {word}: see etna --help"))?
        }
        None => &all,
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(shown.clone()).render(&mut page).map_err(|error| error.to_string())?;
    Ok(page)
}

/// Wrong usage, as `sysexits.h` numbers it.
const USAGE: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_can_be_pasted_from_a_narrow_terminal() {
        for command in Cli::command().get_subcommands() {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines().filter(|line| line.starts_with("  ")) {
                assert!(line.chars().count() < 80, "{}: {line}", command.get_name());
            }
        }
    }

    #[test]
    fn every_command_has_its_page() {
        let text = |command| String::from_utf8(page(command).unwrap()).unwrap();
        assert!(text(None).contains("etna\\-serve(1)"));
        assert!(text(Some("serve")).contains(".TH etna-serve 1") && text(Some("serve")).contains("\\-\\-listen"));
        assert!(page(Some("frob")).is_err());
    }
}
