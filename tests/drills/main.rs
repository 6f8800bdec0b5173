//! The drills: what must not lose a request, tried on the real binaries under a load that checks every answer.
//!
//! `make drills` runs them all at full length on release builds and writes `RESULTS.md`; `make test` runs those that
//! are quick, shortened. One line each: id, load, requests, failed, figure, pass. A drill never tries again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "what goes wrong fails a drill")]

mod backends;
mod backends_gone;
mod backends_ill;
mod backends_lies;
mod backends_sticky;
mod bed;
mod control;
mod denial;
mod drill;
mod edge;
mod floods;
mod http2;
mod lifecycle;
mod lifecycle_changes;
mod lifecycle_end;
mod lifecycle_upgrade;
mod load;
mod load_shape;
mod protocol;
mod results;
mod robustness;
mod servers;
mod servers_handle;
mod servers_liar;
mod streaming;
mod surface;
mod websocket;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

use drill::{Drill, Length, Outcome};
use futures_util::FutureExt as _;
use results::Line;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((servers::COMMAND, rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return servers::serve(rest);
    }
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let short = arguments.iter().any(|argument| argument == "--short");
    let record = arguments.iter().any(|argument| argument == "--record");
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let drills: Vec<&Drill> = drills()
        .filter(|drill| wanted.is_empty() || wanted.iter().any(|id| id.eq_ignore_ascii_case(drill.id)))
        .filter(|drill| !short || drill.quick || !wanted.is_empty())
        .collect();
    if drills.is_empty() {
        println!("no such drill; there are: {}", self::drills().map(|drill| drill.id).collect::<Vec<_>>().join(" "));
        return ExitCode::from(64);
    }
    let length = if short { Length::Short } else { Length::Full };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("{}", results::heading());
    let mut lines = Vec::new();
    for drill in drills {
        let began = Instant::now();
        let outcome = runtime.block_on(AssertUnwindSafe((drill.run)(length)).catch_unwind()).unwrap_or_else(broken);
        let line = Line { id: drill.id, what: drill.what, took: began.elapsed(), outcome };
        println!("{line}");
        if record {
            results::write(&line);
        }
        lines.push(line);
    }
    let failed = lines.iter().filter(|line| !line.outcome.pass).count();
    println!("\n{} drills, {failed} failed", lines.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn drills() -> impl Iterator<Item = &'static Drill> {
    [
        lifecycle::DRILLS,
        backends::DRILLS,
        control::DRILLS,
        protocol::DRILLS,
        denial::DRILLS,
        streaming::DRILLS,
        robustness::DRILLS,
        surface::DRILLS,
        edge::DRILLS,
        http2::DRILLS,
        websocket::DRILLS,
        floods::DRILLS,
    ]
    .into_iter()
    .flatten()
}

/// A drill that panicked has failed, and says where.
fn broken(cause: Box<dyn std::any::Any + Send>) -> Outcome {
    let text = cause.downcast_ref::<String>().cloned();
    let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Outcome::fail(text.unwrap_or_else(|| "panicked".into()))
}

const HELP: &str = "\
Drills Etna: kills, freezes, changes and attacks everything under a load that checks every answer.

usage: drills [--short] [--record] [ID ...]

  --short    shortened, and without IDs only those that are quick
  --record   write each line into tests/drills/RESULTS.md
  ID         a drill, as B4; all if none is named

ETNA_DRILLS_SOAK_SECONDS, ETNA_DRILLS_IDLE_SECONDS and ETNA_DRILLS_FUZZ_SECONDS change how long G8, F5 and G1 take,
ETNA_DRILLS_AUTOBAHN which cases D11 goes through.";
