//! The command line of `etna`: one file a command.

mod check;
mod demo;
mod healthcheck;
mod logging;
mod serve;
mod stand_in;
mod times;

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
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
    /// Ask a running etna whether it can serve, as Docker's HEALTHCHECK wants it.
    Healthcheck(healthcheck::Flags),
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
            if let Some(variable) = variable_of(&error, std::env::args()) {
                let _ = writeln!(std::io::stderr(), "\nIt is the value of the environment variable {variable}.");
            }
            return if failed { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Command::Serve(flags) => serve::run(*flags),
        Command::Check(flags) => check::run(*flags),
        Command::Healthcheck(flags) => healthcheck::run(flags),
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

/// The variable whose value an error is about, where no flag on the command line gave one.
fn variable_of(error: &clap::Error, mut line: impl Iterator<Item = String>) -> Option<String> {
    let ContextValue::String(shown) = error.get(ContextKind::InvalidArg)? else { return None };
    let flag = shown.split_whitespace().next()?;
    let name = flag.strip_prefix("--")?;
    if line.any(|word| word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))) {
        return None;
    }
    let all = Cli::command();
    let argument = all.get_subcommands().flat_map(clap::Command::get_arguments).find(|a| a.get_long() == Some(name))?;
    Some(argument.get_env()?.to_string_lossy().into_owned())
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
    clap_mangen::Man::new(shown.clone()).source(SOURCE).render(&mut page).map_err(|error| error.to_string())?;
    Ok(page)
}

const SOURCE: &str = concat!("etna ", env!("CARGO_PKG_VERSION"));
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
    fn every_command_shows_an_example_of_itself() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let own = format!("  etna {}", command.get_name());
            assert!(text.lines().any(|line| line.starts_with(&own)), "{own}: {text:?}");
        }
    }

    #[test]
    fn an_error_names_the_variable_it_is_about() {
        let wrong = ["etna", "serve", "--workers", "x"];
        let error = Cli::try_parse_from(wrong).err().unwrap();
        let variable = |line: &[&str]| variable_of(&error, line.iter().map(ToString::to_string));
        assert_eq!(variable(&["etna", "serve"]).as_deref(), Some("ETNA_WORKERS"));
        assert_eq!(variable(&wrong), None);
        assert_eq!(variable(&["etna", "serve", "--workers=x"]), None);
    }

    #[test]
    fn every_command_has_its_page() {
        let text = |command| String::from_utf8(page(command).unwrap()).unwrap();
        assert!(text(None).contains("etna\\-serve(1)"));
        assert!(text(Some("serve")).contains(".TH etna-serve 1") && text(Some("serve")).contains("\\-\\-listen"));
        assert!(page(Some("frob")).is_err());
    }
}
