//! `explain`: what would be done about a container, and every rule that was looked at. And the plan of `--dry-run`.

use std::io::{self, Write};
use std::process::ExitCode;

use etna_store::Op;

use crate::classify::{Claim, Decision, Reason, classify};
use crate::cli::Settings;
use crate::docker::Container;
use crate::follow::answers;
use crate::register::{Step, record};

/// Explains one container: exit status 0 if it is ours, 1 if not.
pub(super) async fn run(settings: &Settings, name: &str) -> anyhow::Result<ExitCode> {
    let (docker, policy, machine) = (settings.docker()?, settings.policy()?, settings.machine()?);
    let Some(container) = docker.inspect(name).await? else {
        anyhow::bail!("Docker on {} knows no container {name:?}", docker.describe());
    };
    let (text, ours) = match classify(&container, &policy) {
        Decision::NotOurs { why, .. } => {
            (format!("{}\n{} is not ours: nothing is registered\n", table(&why), container.short_name()), false)
        }
        Decision::Ours(claim) => {
            let answer = match (container.runs(), claim.address, claim.hosts.first()) {
                (true, Some(address), Some(host)) => Some(answers(address, host).await),
                _ => None,
            };
            let keys = claim.role.backends(&claim.site).into_iter();
            let keys = keys.map(|backend| record::server_key(&backend, &machine.server_id(&container.id, claim.port)));
            (format!("{}\n{}", table(&claim.why), verdict(&container, &claim, answer, keys)), true)
        }
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(if ours { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what would be written.
pub(super) fn print_plan(steps: &[Step]) -> io::Result<()> {
    let writes = steps.iter().flat_map(|step| step.txn.ops.iter().zip(&step.notes));
    let rows = writes.map(|(op, (note, key))| {
        let value = match op {
            Op::Put(_, value, _) => String::from_utf8_lossy(value).into_owned(),
            Op::Delete(_) => String::new(),
        };
        [(*note).to_owned(), key.clone(), value]
    });
    let mut text = columns(rows.collect());
    if steps.is_empty() {
        text.push_str("nothing to write: the store is as it should be\n");
    }
    io::stdout().lock().write_all(text.as_bytes())
}

fn table(why: &[Reason]) -> String {
    let head = ["RULE".to_owned(), "SAW".to_owned(), "SO".to_owned()];
    let rows = why.iter().map(|reason| [reason.rule.to_owned(), reason.saw.clone(), reason.then.clone()]);
    columns([head].into_iter().chain(rows).collect())
}

fn verdict(container: &Container, claim: &Claim, answer: Option<bool>, keys: impl Iterator<Item = String>) -> String {
    let mut rows = vec![
        ["site".to_owned(), record::site_key(&claim.site), format!("hosts {}", claim.hosts.join(", "))],
        ["role".to_owned(), claim.role.name().to_owned(), String::new()],
    ];
    let server = match (container.runs(), claim.address, answer) {
        (false, ..) => "not registered: it does not run".to_owned(),
        (true, None, _) => "not registered: it is reached nowhere".to_owned(),
        (true, Some(address), Some(true)) => format!("http://{address}, weight {}", claim.weight),
        (true, Some(address), _) => {
            format!("http://{address}, which does not answer HTTP now: registered once it does")
        }
    };
    rows.extend(keys.map(|key| ["server".to_owned(), key, server.clone()]));
    rows.extend(claim.held.iter().map(|held| ["held".to_owned(), held.clone(), "weight 0 for now".to_owned()]));
    rows.extend(claim.warnings.iter().map(|warning| ["warning".to_owned(), warning.clone(), String::new()]));
    columns(rows)
}

/// Aligns all columns but the last. What came from a container is shown without control characters.
fn columns(rows: Vec<[String; 3]>) -> String {
    let rows: Vec<[String; 3]> = rows.into_iter().map(|row| row.map(|cell| printable(&cell))).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0).min(60);
    let (first, second) = (width(0), width(1));
    let line = |[a, b, c]: &[String; 3]| format!("{a:first$}  {b:second$}  {c}").trim_end().to_owned() + "\n";
    rows.iter().map(line).collect()
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_harmless() {
        let row = |a: &str, b: &str, c: &str| [a.to_owned(), b.to_owned(), c.to_owned()];
        let text = columns(vec![row("a", "long one", "x"), row("bcd", "\x1b[31m", "")]);
        assert_eq!(text, "a    long one  x\nbcd  ?[31m\n");
    }
}
