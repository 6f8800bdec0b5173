//! `make guard`: what a request costs, counted where a clock would only guess, against what it cost when it was last
//! recorded (`benches/INSTRUCTIONS`).
//!
//! A release build runs under valgrind and answers fixed scripts of requests, most of them one after the other. Counted
//! are the worker's instructions in our own program (libc picks its code by processor), its allocations and its system
//! calls.
//! Not here: how long anything takes (`side_by_side`, `micro.rs`).

mod callgrind;
mod figures;
mod h2;
mod proxy;
mod script;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use figures::Figures;
use proxy::Proxy;
use script::{SCRIPTS, Server};

/// Counts what a request costs, and fails where that has grown.
#[derive(Parser)]
struct Flags {
    /// The program, built for use.
    #[arg(long, default_value = "target/release/etna")]
    etna: PathBuf,
    /// What requests cost when it was last recorded.
    #[arg(long, default_value = "benches/INSTRUCTIONS")]
    figures: PathBuf,
    /// Requests of each script that are counted.
    #[arg(long, default_value_t = 1000)]
    requests: u32,
    /// Writes the figures down instead of comparing them.
    #[arg(long)]
    record: bool,
    /// Shows the functions in which most of a script's instructions are, so many of them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    functions: usize,
    /// Only this script.
    #[arg(long)]
    only: Option<String>,
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("guard: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing has grown.
fn run(flags: &Flags) -> anyhow::Result<bool> {
    let known = if flags.record { Vec::new() } else { figures::read(&flags.figures)? };
    let server = Server::start()?;
    let mut found = Vec::new();
    let mut good = true;
    say(&figures::head());
    for script in SCRIPTS.iter().filter(|script| flags.only.as_deref().is_none_or(|only| only == script.name)) {
        let counted = Proxy::start(&flags.etna, script, server.address)
            .and_then(|mut proxy| proxy.count(script, flags.requests))
            .with_context(|| format!("the script {}", script.name))?;
        let figures = Figures::of(script.name, &counted, flags.requests);
        let before = known.iter().find(|known| known.name == script.name);
        say(&figures.shown(before));
        for function in counted.functions.iter().take(flags.functions) {
            say(&format!("    {:>10.1}  {}", function.1 as f64 / f64::from(flags.requests), function.0));
        }
        let judged = if flags.record { Vec::new() } else { figures.judged(before) };
        for wrong in &judged {
            say(&format!("  FAIL {}: {wrong}", script.name));
        }
        good &= judged.is_empty();
        found.push(figures);
    }
    if flags.record {
        figures::write(&flags.figures, &found)?;
        say(&format!("written to {}", flags.figures.display()));
    } else if !good {
        say(
            "Remove what was added (--functions 40 shows where it is), or record why it is worth it: make guard-record",
        );
    }
    Ok(good)
}

#[expect(clippy::print_stdout, reason = "what it is for")]
fn say(line: &str) {
    println!("{line}");
}
