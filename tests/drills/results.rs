//! The lines of a run, on the terminal and in `RESULTS.md`.

use std::collections::BTreeMap;
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

/// Puts a drill's last result in the place of its former one, in the file beside the drills.
pub(crate) fn write(line: &Line) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/drills/RESULTS.md");
    let former = std::fs::read_to_string(path).unwrap_or_default();
    let mut rows: BTreeMap<(char, u32), String> = former
        .lines()
        .filter_map(|row| Some((place(row.strip_prefix("| ")?.split(' ').next()?)?, row.to_owned())))
        .collect();
    if let Some(place) = place(line.id) {
        rows.insert(place, row(line));
    }
    let mut text = String::from(HEAD);
    for row in rows.values() {
        let _ = writeln!(text, "{row}");
    }
    std::fs::write(path, text).expect("the results can be written");
}

fn row(Line { id, what, took, outcome }: &Line) -> String {
    let Outcome { load, requests, failed, figure, pass } = outcome;
    let figure = figure.replace('|', "\\|").replace('\n', " · ");
    let pass = if *pass { "pass" } else { "**fail**" };
    format!("| {id} | {what} | {load} | {requests} | {failed} | {figure} | {} s | {pass} |", took.as_secs())
}

/// Where a drill stands among the others.
fn place(id: &str) -> Option<(char, u32)> {
    let letter = id.chars().next().filter(char::is_ascii_uppercase)?;
    Some((letter, id[1..].parse().ok()?))
}

const HEAD: &str = "# Drills: the last results\n\nWritten by `make drills`, on release builds at full length. *Failed* counts \
    every request whose answer was not exactly right; no client tries again.\n\n| id | drill | load | requests | failed | \
    figure | took | |\n|---|---|---|--:|--:|---|--:|---|\n";
