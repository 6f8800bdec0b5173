//! `etna`: flags → settings → run. Exit codes: 0 done, 1 failed (for `check`: there are problems), 2 could not read,
//! 64 wrong usage.

mod cli;

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
