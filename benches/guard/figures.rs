//! What requests cost, as it is written down: a line for each script, compared with some room.

use std::path::Path;

use anyhow::Context as _;

use crate::proxy::Counted;

/// What one request of a script costs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) name: String,
    /// In our own program.
    instructions: f64,
    allocations: f64,
    /// Without those that wait, or wake one's own thread.
    system_calls: f64,
    /// Waits for anything to happen.
    waits: f64,
    /// Readings of a clock.
    clocks: f64,
}

impl Figures {
    pub(crate) fn of(name: &str, counted: &Counted, requests: u32) -> Figures {
        let each = |count: u64| count as f64 / f64::from(requests);
        Figures {
            name: name.to_owned(),
            instructions: each(counted.functions.iter().map(|(_, count)| count).sum()),
            allocations: each(counted.allocations),
            system_calls: each(counted.system_calls),
            waits: each(counted.waits),
            clocks: each(counted.clocks),
        }
    }

    /// A line of the table.
    pub(crate) fn shown(&self, before: Option<&Figures>) -> String {
        let was = before.map_or_else(String::new, |before| {
            format!("{:+7.1} %", 100.0 * (self.instructions / before.instructions - 1.0))
        });
        let Figures { name, instructions, allocations, system_calls, waits, clocks } = self;
        format!(
            "{name:<12} {instructions:>12.0} {allocations:>12.2} {system_calls:>13.2} {waits:>6.2} {clocks:>7.2} {was}"
        )
    }

    /// What has grown by more than it may. Waits and clocks are shown only: they depend on how fast the machine is.
    pub(crate) fn judged(&self, before: Option<&Figures>) -> Vec<String> {
        let Some(before) = before else { return vec!["nothing is written down of it: make guard-record".into()] };
        let mut wrong = Vec::new();
        for (what, now, was, most) in [
            ("instructions", self.instructions, before.instructions, before.instructions * MORE),
            ("allocations", self.allocations, before.allocations, before.allocations + ALLOCATIONS_MORE),
            ("system calls", self.system_calls, before.system_calls, before.system_calls + CALLS_MORE),
        ] {
            if now > most {
                wrong.push(format!("{now:.2} {what} for each request, {was:.2} before, {most:.2} at most"));
            }
        }
        wrong
    }
}

/// The table's head.
pub(crate) fn head() -> String {
    format!(
        "{:<12} {:>12} {:>12} {:>13} {:>6} {:>7}",
        "script", "instructions", "allocations", "system calls", "waits", "clocks"
    )
}

/// Reads what was written down.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Figures>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    parse(&text).with_context(|| format!("{}", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Vec<Figures>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .skip(1)
        .map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| -> anyhow::Result<f64> {
                Ok(columns.get(at).with_context(|| format!("too few columns: {line}"))?.parse()?)
            };
            Ok(Figures {
                name: columns.first().copied().unwrap_or_default().to_owned(),
                instructions: number(1)?,
                allocations: number(2)?,
                system_calls: number(3)?,
                waits: number(4)?,
                clocks: number(5)?,
            })
        })
        .collect()
}

/// Writes them down.
pub(crate) fn write(path: &Path, all: &[Figures]) -> anyhow::Result<()> {
    let lines: Vec<String> = all.iter().map(|figures| figures.shown(None).trim_end().to_owned()).collect();
    std::fs::write(path, format!("{ABOUT}{}\n{}\n", head(), lines.join("\n")))?;
    Ok(())
}

const ABOUT: &str = "\
# What one request costs, counted by `make guard` on a release build, which fails where instructions have grown by more
# than a tenth, allocations or system calls by more than a part of one. Written by `make guard-record`.
";
/// As the compiler and the processor's extras (memchr) may make of the same code.
const MORE: f64 = 1.1;
const ALLOCATIONS_MORE: f64 = 0.5;
const CALLS_MORE: f64 = 0.2;

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(instructions: f64, allocations: f64, system_calls: f64) -> Figures {
        Figures { name: "a".into(), instructions, allocations, system_calls, waits: 2.5, clocks: 1.0 }
    }

    #[test]
    fn only_what_grew_is_told() {
        let before = figures(10_000.0, 9.0, 4.0);
        assert!(figures(10_900.0, 9.4, 4.1).judged(Some(&before)).is_empty());
        assert!(figures(1.0, 1.0, 1.0).judged(Some(&before)).is_empty());
        let worse = figures(11_100.0, 10.0, 5.0).judged(Some(&before));
        assert_eq!(worse.len(), 3);
        assert_eq!(worse[1], "10.00 allocations for each request, 9.00 before, 9.50 at most");
        assert_eq!(figures(1.0, 1.0, 1.0).judged(None).len(), 1);
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("figures");
        let all = [figures(12_345.0, 9.25, 4.0), Figures { name: "b".into(), ..figures(1.0, 0.0, 0.0) }];
        write(&path, &all).unwrap();
        assert_eq!(read(&path).unwrap(), all);
        assert!(parse("head\na 1 2\n").is_err() && parse("head\na 1 2 x 4 5\n").is_err());
    }
}
