//! What comes out: an aligned table to read, the same as Markdown into the results' file, every sample as JSON beside.

use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cli::Plan;
use crate::process;
use crate::rounds::{Done, Measured};
use crate::scenario::About;
use crate::statistics::Spread;
use crate::verdict::{against, ratios, values, verdicts};
use crate::{chart, growth_chart};

/// Prints the tables and writes the files. Fails, after that, if a peer failed.
pub(crate) fn hand_over(plan: &Plan, done: &Done) -> anyhow::Result<()> {
    let tables: String = done.scenarios.iter().map(|measured| table(measured) + "\n").collect();
    std::io::stdout().write_all(format!("\n{tables}").as_bytes())?;
    if let Some(path) = &plan.results {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        record(path, &section(plan, done, &date(now), &tables))?;
        let beside = path.with_extension("json");
        let text = serde_json::to_string_pretty(&samples(plan, done, now))? + "\n";
        std::fs::write(&beside, text).with_context(|| format!("cannot write {}", beside.display()))?;
        let said = format!("{}; {}", date(now), machine());
        draw(&path.with_extension("svg"), chart::draw(done, &said))?;
        draw(&path.with_extension("growth.svg"), growth_chart::draw(done, &said))?;
        writeln!(std::io::stdout(), "recorded in {}, as .json and as .svg beside", path.display())?;
    }
    let failed = done.scenarios.iter().flat_map(|measured| &measured.rows).flat_map(|row| &row.samples);
    let failed = failed.filter(|sample| sample.is_err()).count();
    anyhow::ensure!(failed == 0, "{failed} measurements failed: see above");
    Ok(())
}

/// Writes a chart if there is something in it.
fn draw(path: &Path, chart: Option<String>) -> anyhow::Result<()> {
    let Some(chart) = chart else { return Ok(()) };
    std::fs::write(path, chart).with_context(|| format!("cannot write {}", path.display()))
}

/// A scenario as lines of aligned columns, and what was to come out.
fn table(measured: &Measured) -> String {
    let about = measured.scenario.about();
    let mut lines: Vec<Vec<String>> = vec![head(&about)];
    for row in &measured.rows {
        let mut cells = vec![row.entrant.name.to_owned()];
        for (number, figure) in about.figures.iter().enumerate() {
            cells.extend(shown(Spread::of(values(row, number).into_iter().flatten()), figure.digits));
            if figure.compared {
                cells.extend(shown(Spread::of(ratios(measured, row, number)), 2));
            }
        }
        lines.push(cells);
    }
    let verdicts: String = verdicts(measured).iter().map(|verdict| format!("target: {verdict}\n")).collect();
    format!("{}: {}\n{}{verdicts}", about.id.to_uppercase(), about.title, aligned(&lines))
}

fn head(about: &About) -> Vec<String> {
    let mut cells = vec![String::new()];
    for figure in about.figures {
        cells.extend([figure.name.to_owned(), "min–max".to_owned()]);
        if figure.compared {
            cells.extend([format!("÷ {}", against(about)), "min–max".to_owned()]);
        }
    }
    cells
}

fn shown(spread: Option<Spread>, digits: usize) -> [String; 2] {
    match spread {
        Some(Spread { median, least, most }) => {
            [format!("{median:.digits$}"), format!("{least:.digits$}–{most:.digits$}")]
        }
        None => ["-".to_owned(), "-".to_owned()],
    }
}

/// The first column to the left, the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, width))| {
                    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn section(plan: &Plan, done: &Done, date: &str, tables: &str) -> String {
    let versions: String = done.peers.iter().map(|(peer, version)| format!("- {}: {version}\n", peer.name())).collect();
    format!(
        "## {date}\n\n{}; {} rounds of {} s a measurement.\n\n{versions}\n```text\n{}```\n",
        machine(),
        plan.rounds,
        plan.seconds,
        tables.trim_end().to_owned() + "\n"
    )
}

/// Puts a section above the older ones.
fn record(path: &Path, section: &str) -> anyhow::Result<()> {
    let old = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    std::fs::write(path, with_section(&old, section)).with_context(|| format!("cannot write {}", path.display()))
}

/// The introduction, the section, and those that were there.
fn with_section(old: &str, section: &str) -> String {
    let rest = old.find("\n## ").map_or("", |at| &old[at..]);
    format!("{INTRODUCTION}\n{section}{rest}")
}

fn samples(plan: &Plan, done: &Done, now: u64) -> Value {
    let scenario = |measured: &Measured| {
        let rows = measured.rows.iter().map(|row| {
            let samples: Vec<Value> = row
                .samples
                .iter()
                .map(|sample| match sample {
                    Ok(values) => json!(values),
                    Err(error) => json!({ "error": error }),
                })
                .collect();
            (row.entrant.name.to_owned(), Value::from(samples))
        });
        let about = measured.scenario.about();
        json!({
            "id": about.id,
            "title": about.title,
            "figures": about.figures.iter().map(|figure| figure.name).collect::<Vec<_>>(),
            "samples": rows.collect::<serde_json::Map<_, _>>(),
            "targets": verdicts(measured).iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    };
    json!({
        "date": date(now),
        "machine": machine(),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "peers": done.peers.iter().map(|(peer, version)| (peer.name().to_owned(), json!(version)))
            .collect::<serde_json::Map<_, _>>(),
        "scenarios": done.scenarios.iter().map(scenario).collect::<Vec<_>>(),
    })
}

fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = process::version("uname", "-sr").unwrap_or_default();
    format!("{model}, {cores} cores, {kernel}")
}

/// The day in UTC, `YYYY-MM-DD`, by the proleptic Gregorian calendar (Hinnant's `civil_from_days`).
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    format!("{:04}-{month:02}-{day:02}", year + era * 400 + u64::from(month <= 2))
}

const INTRODUCTION: &str = "\
# Side by side

What `make bench` measured, newest first. README.md says how; the samples of the newest whole run are in RESULTS.json,
and drawn here. Only figures of one run compare with each other.

![Etna beside the best of HAProxy, nginx and Caddy, and beside its targets](RESULTS.svg)

![What a request costs as things grow](RESULTS.growth.svg)
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_798_761_599), "2026-12-31");
    }

    #[test]
    fn columns_stand_under_each_other() {
        let lines = [vec!["a".to_owned(), "µs".to_owned()], vec!["long".to_owned(), "1234".to_owned()]];
        assert_eq!(aligned(&lines), "a       µs\nlong  1234\n");
    }

    #[test]
    fn the_newest_section_comes_first() {
        let once = with_section("", "## b\n\ntable\n");
        assert_eq!(once, format!("{INTRODUCTION}\n## b\n\ntable\n"));
        let twice = with_section(&once.replace("What", "Formerly"), "## c\n");
        assert_eq!(twice, format!("{INTRODUCTION}\n## c\n\n## b\n\ntable\n"));
    }
}
