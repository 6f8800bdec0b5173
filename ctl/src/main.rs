//! `etnactl`, the operator's command line: asks and programs a running `etna`, or its store directly.
//!
//! Exit codes: 0 done, 1 refused or not found (with `problems --fail`: there are some), 2 not reached or not read,
//! 64 wrong usage. Results go to stdout, everything else to stderr.

mod cli;
mod client;
mod explain;
mod failure;
mod key;
mod man;
mod noun;
mod output;
mod pair;
mod reseal;
mod status;
mod store;
mod stored;
mod transfer;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command};
use client::Client;
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let error = man::with_plain_usage(error);
            let failed = error.use_stderr();
            let _ = error.print();
            return if failed { ExitCode::from(failure::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            output::complain(&failure.to_string());
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    store::refuse_unused(&cli)?;
    match cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "etnactl", &mut script);
            output::print(&String::from_utf8_lossy(&script));
            return Ok(ExitCode::SUCCESS);
        }
        Command::Man { command } => {
            output::print(&man::page(&command)?);
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::unread(format!("cannot start: {error}")))?;
    runtime.block_on(ask(cli))
}

async fn ask(cli: Cli) -> Result<ExitCode, Failure> {
    let output = Output::new(cli.output);
    let client = || Client::new(&cli.admin, cli.token_file.as_deref());
    match &cli.command {
        Command::Status => status::status(&client()?, &output).await,
        Command::Problems { fail } => status::problems(&client()?, &output, *fail).await,
        Command::Suspects { release } => status::suspects(&client()?, &output, *release).await,
        Command::Explain(flags) => explain::run(&client()?, &output, flags).await,
        Command::Backend(verb) => noun::backend::run(&client()?, &output, verb).await,
        Command::Server(verb) => noun::server::run(&client()?, &output, verb).await,
        Command::Frontend(verb) => noun::frontend::run(&client()?, &output, verb).await,
        Command::Middleware(verb) => noun::middleware::run(&client()?, &output, verb).await,
        Command::Ratelimit(verb) => noun::middleware::run(&client()?, &output, &verb.verb()).await,
        Command::Connlimit(verb) => noun::middleware::run(&client()?, &output, &verb.verb()).await,
        Command::Listener(verb) => noun::listener::run(&client()?, &output, verb).await,
        Command::Host(verb) => noun::host::run(&client()?, &output, verb).await,
        Command::Secret(verb) => noun::secret::run(&cli, &output, verb).await,
        Command::Site(verb) => noun::site::run(&client()?, &output, verb).await,
        Command::Proxies(verb) => noun::proxies::run(&cli, &output, verb).await,
        Command::Export(flags) => transfer::export(&cli, flags).await,
        Command::Import(flags) => transfer::import(&cli, flags).await,
        Command::Key(verb) => key::run(&cli, verb).await,
        // Done without a runtime.
        Command::Completions { .. } | Command::Man { .. } => Ok(ExitCode::SUCCESS),
    }
}
