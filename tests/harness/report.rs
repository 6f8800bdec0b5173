//! What the summary of a test run counts: which tests ran on which real part, and which could not.
//!
//! The file that `ETNA_TEST_REPORT` names gets a line a test, `ran PART` or `skipped PART`, and what was `measured`;
//! `make test` adds them up and shows them.

use std::io::Write as _;

/// This test runs on a real part: `etcd`, `docker`, `wordpress`.
pub fn ran(part: &str) {
    append(&format!("ran {part}\n"));
}

/// This test cannot run here. On CI that is a failure; elsewhere it is said where nobody overhears it.
pub fn skipped(part: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{part} is missing on CI: {why}");
    append(&format!("skipped {part}\n"));
    // Not through the macros, whose output of a test that passes is swallowed.
    let _ = writeln!(std::io::stderr(), "\nNOT TESTED: this machine has no {part}: {why}\n");
}

/// A figure that a test came to; shown also when the test passes.
pub fn measured(text: &str) {
    append(&format!("measured {text}\n"));
    let _ = writeln!(std::io::stderr(), "measured: {text}");
}

fn append(line: &str) {
    let Some(path) = std::env::var_os("ETNA_TEST_REPORT") else { return };
    let mut file =
        std::fs::OpenOptions::new().create(true).append(true).open(&path).expect("ETNA_TEST_REPORT is writable");
    file.write_all(line.as_bytes()).expect("ETNA_TEST_REPORT is writable");
}
