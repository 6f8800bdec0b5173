//! The lines of a run, on the terminal and in `RESULTS.md`.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use crate::drill::Outcome;

/// One drill's line.
pub(crate) struct Line {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) took: Duration,
    pub(crate) outcome: Outcome,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { load, requests, failed, figure, pass } = &self.outcome;
        let pass = if *pass { "pass" } else { "FAIL" };
        let seconds = self.took.as_secs();
        let one_line = figure.replace('\n', " · ");
        write!(
            f,
            "{:<4} {:<44} {load:<26} {requests:>8} {failed:>6}  {pass}  {seconds:>4} s  {one_line}",
            self.id, self.what
        )
    }
}

/// What the columns are.
pub(crate) fn heading() -> String {
    format!(
        "{:<4} {:<44} {:<26} {:>8} {:>6}  {:<4}  {:>6}  figure",
        "id", "drill", "load", "requests", "failed", "", "took"
    )
}

/// Writes the results of a whole run beside the drills.
pub(crate) fn write(lines: &[Line]) {
    let mut text = String::from(
        "# Drills: the last whole run\n\nWritten by `make drills`. *Failed* counts every request whose answer was not \
         exactly right; no client tries again.\n\n| id | drill | load | requests | failed | figure | |\n|---|---|---|--:|--:|---|---|\n",
    );
    for Line { id, what, outcome, .. } in lines {
        let Outcome { load, requests, failed, figure, pass } = outcome;
        let figure = figure.replace('|', "\\|").replace('\n', " · ");
        let pass = if *pass { "pass" } else { "**fail**" };
        let _ = writeln!(text, "| {id} | {what} | {load} | {requests} | {failed} | {figure} | {pass} |");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/drills/RESULTS.md");
    std::fs::write(path, text).expect("the results can be written");
}
