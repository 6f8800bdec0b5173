//! The side-by-side bench: Etna, HAProxy, nginx, Caddy and a bare byte relay do the same work in turn on one machine.
//!
//! Read `rounds` first: which peer runs which scenario when. `peer` holds one file a peer (its best configuration and
//! how it starts), `scenario` one file a scenario; `bed` is what stands around them, `report` what comes out.
//! Not here: micro benches, and load from another machine.

mod bed;
mod chart;
mod cli;
mod drive;
mod etcd;
mod growth_chart;
mod h2load;
mod http;
mod limits;
mod load;
mod peer;
mod process;
mod report;
mod rounds;
mod scenario;
mod statistics;
mod stored;
mod svg;
mod tls;
mod verdict;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    limits::raise();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let result = match cli::Cli::parse() {
        cli::Cli { relay: Some(to), .. } => runtime.block_on(peer::floor::relay(to)),
        cli::Cli { shake: Some(order), .. } => runtime.block_on(tls::shake(&order)),
        cli::Cli { drive: Some(order), .. } => runtime.block_on(drive::drive(&order)),
        cli::Cli { serve: Some(number), .. } => runtime.block_on(drive::servers::serve(number)),
        cli => runtime.block_on(run(cli)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn run(cli: cli::Cli) -> anyhow::Result<()> {
    let plan = cli.plan()?;
    if !limits::go_first() {
        let _ = writeln!(std::io::stderr(), "side-by-side: not root: whatever else runs here will show in latencies");
    }
    tokio::select! {
        done = rounds::run(&plan) => report::hand_over(&plan, &done?),
        // What was started ends with the future that holds it.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "side-by-side: {error:#}");
    ExitCode::FAILURE
}
