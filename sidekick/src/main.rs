//! `etna-sidekick`: the command line to an exit status; nothing else.

use std::process::ExitCode;

use clap::Parser;
use etna_sidekick::cli::{Cli, Usage};
use etna_sidekick::commands;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let status = if error.use_stderr() { ExitCode::from(commands::USAGE) } else { ExitCode::SUCCESS };
            return if error.print().is_ok() { status } else { ExitCode::FAILURE };
        }
    };
    match commands::run(cli).await {
        Ok(status) => status,
        Err(error) => {
            let usage = error.downcast_ref::<Usage>().is_some();
            // The log may not have been started; this line is for whoever typed the command.
            let said = etna_store::with_causes(&*error);
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("etna-sidekick: {said}\n"));
            if usage { ExitCode::from(commands::USAGE) } else { ExitCode::FAILURE }
        }
    }
}
