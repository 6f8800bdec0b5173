//! The command line of `etna`: one file a command.

mod check;
mod demo;
mod logging;
mod serve;
mod stand_in;

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
    /// Print the manual page.
    #[command(after_help = "Example:\n  etna man | man -l -")]
    Man,
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
        Command::Man => match clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
    }
}

/// Wrong usage, as `sysexits.h` numbers it.
const USAGE: u8 = 64;
