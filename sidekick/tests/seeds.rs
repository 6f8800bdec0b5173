//! The seeds of the fuzz targets (`fuzz/`), through the same checks, in every test run.

// Helpers of tests are tests too.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../../fuzz/src/sidekick/mod.rs"]
mod checks;
#[path = "../../fuzz/src/seeds.rs"]
mod seeds;
#[path = "../../fuzz/src/socket.rs"]
mod socket;

use std::path::Path;

#[test]
fn what_was_found_once_is_not_found_again() {
    seeds::replay(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz")), checks::CHECKS);
}
