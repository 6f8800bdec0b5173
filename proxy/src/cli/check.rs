//! `etna check`: would everything be served as written? Decodes and compiles as a proxy does, and serves nothing.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use etna_proxy::table::Table;
use etna_proxy::table::compile::Compiler;
use etna_store::{Batch, Model, Problem, dump};
use serde_json::json;

use super::serve::StoreFlags;

/// Flags of `etna check`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    etna check --store etcd://10.0.0.1:2379/vulcand\n  \
    etna check --store http://127.0.0.1:8182\n  \
    etna check backup.jsonl\n\n\
    Exit codes: 0 all is served as written, 1 there are problems, 2 could not read, 64 wrong usage.")]
pub(super) struct Flags {
    /// An export to check instead of a store; - for stdin.
    file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreFlags,
    /// Write JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Checks, and tells.
pub(super) fn run(flags: Flags) -> ExitCode {
    let read = match &flags.file {
        Some(path) => read_file(path),
        None => match etna_store::engine::check_url(&flags.store.url()) {
            Ok(()) => read_store(&flags.store),
            Err(reason) => {
                let _ = writeln!(std::io::stderr(), "etna: the store {}", shown(&reason));
                return ExitCode::from(super::USAGE);
            }
        },
    };
    let snapshot = match read {
        Ok(snapshot) => snapshot,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "etna: {}", shown(&message));
            return ExitCode::from(UNREAD);
        }
    };
    let found = Found::new(&snapshot);
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let text = if flags.json { format!("{:#}\n", found.json()) } else { found.text(colour) };
    // A reader that has left (`| head`) is no problem of what was checked.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if found.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What was found out about a snapshot.
struct Found {
    problems: BTreeSet<Problem>,
    counts: [(&'static str, usize); 5],
}

impl Found {
    fn new(snapshot: &Batch) -> Found {
        let mut model = Model::default();
        let delta = model.replace(snapshot);
        let mut compiler = Compiler::default();
        let table = compiler.compile(&model, &delta, &Table::default());
        let servers = table.backends.iter().flatten().map(|backend| backend.servers.len()).sum();
        Found {
            problems: model.problems().chain(compiler.problems()).cloned().collect(),
            counts: [
                ("frontends", table.frontends.len()),
                ("backends", table.backends.iter().flatten().count()),
                ("servers", servers),
                ("listeners", table.listeners.len()),
                ("sites", model.sites().count()),
            ],
        }
    }

    fn json(&self) -> serde_json::Value {
        let counts: serde_json::Map<String, serde_json::Value> =
            self.counts.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
        json!({ "problems": self.problems, "counts": counts })
    }

    fn text(&self, colour: bool) -> String {
        let mut text: String = self.problems.iter().map(|problem| describe(problem, colour)).collect();
        let counts = self.counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ");
        text.push_str(&match self.problems.len() {
            0 => format!("{}: {counts}\n", toned("32", "ok", colour)),
            1 => format!("1 problem in {counts}\n"),
            n => format!("{n} problems in {counts}\n"),
        });
        text
    }
}

fn describe(problem: &Problem, colour: bool) -> String {
    let place = match (problem.line, problem.column) {
        (None, None) => String::new(),
        (line, column) => format!(":{}:{}", line.unwrap_or(1), column.unwrap_or(1)),
    };
    let head = format!("{}{place}", shown(&problem.key));
    let line = |name: &str, text: &str| format!("  {name:<7} {}\n", shown(text));
    format!(
        "{}\n{}{}{}\n",
        toned("31", &head, colour),
        line("reason", &problem.reason),
        line("hint", &problem.hint),
        line("effect", &problem.effect)
    )
}

fn toned(code: &str, text: &str, colour: bool) -> String {
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// What was stored cannot control the terminal it is shown on.
fn shown(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if harmful(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

fn read_file(path: &Path) -> Result<Batch, String> {
    let stdin = path.as_os_str() == "-";
    let name = if stdin { "stdin".to_owned() } else { path.display().to_string() };
    let text = if stdin { std::io::read_to_string(std::io::stdin().lock()) } else { std::fs::read_to_string(path) };
    let text = text.map_err(|error| format!("cannot read {name}: {error}"))?;
    dump::read(&text).map_err(|error| format!("{name} is not an export of `etnactl export`: {error}"))
}

fn read_store(flags: &StoreFlags) -> Result<Batch, String> {
    let url = flags.url();
    if let Some(dir) = url.strip_prefix("embedded:")
        && !Path::new(dir).exists()
    {
        // Opening it would create it.
        return Err(format!("there is no store at {dir}: name one with --store URL, or an export file"));
    }
    let remedy = "is it running, and reachable from here? Name another store with --store URL; where etna runs on the \
                  embedded one, ask it: --store http://127.0.0.1:8182";
    let failed = |error: &etna_store::Error| {
        let text = format!("cannot read the store {url}: {}", etna_store::with_causes(error));
        match error {
            etna_store::Error::Unavailable { .. } => format!("{text}; {remedy}"),
            // What answers is running, and says itself what to do.
            _ => text,
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(async {
        let reading = async {
            let engine = etna_store::open(&url, &flags.options()).await.map_err(|error| failed(&error))?;
            engine.snapshot().await.map_err(|error| failed(&error))
        };
        match tokio::time::timeout(LONGEST_READ, reading).await {
            Ok(read) => read,
            Err(_) => Err(format!("the store {url} did not answer within {} s; {remedy}", LONGEST_READ.as_secs())),
        }
    })
}

const UNREAD: u8 = 2;
const LONGEST_READ: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn found(export: &str) -> Found {
        Found::new(&dump::read(export).unwrap())
    }

    #[test]
    fn what_is_well_is_counted() {
        let found = found(
            r#"{"backends/b/servers/s":{"URL":"http://10.0.0.1:80"},
                "frontends/f/frontend":{"Type":"http","BackendId":"b","Route":"Host(\"a.test\")"}}"#,
        );
        assert_eq!(found.text(false), "ok: 1 frontends, 1 backends, 1 servers, 0 listeners, 0 sites\n");
    }

    #[test]
    fn problems_name_key_place_reason_and_remedy() {
        let found = found(
            r#"{"backends/b/backend":{"Type":"http"},
                "frontends/bad/frontend":{"Type":"http","BackendId":"b","Route":"Host(\"a.test\") && Pth(\"/\")"},
                "frontends/f/frontend":{"Type":"http","BackendId":"missing","Route":"Host(\"a.test\")"},
                "backends/b/servers/s":"{\"URL\":"}"#,
        );
        let keys: Vec<&str> = found.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["backends/b/servers/s", "frontends/bad/frontend", "frontends/f/frontend"]);
        let text = found.text(false);
        assert!(text.contains("frontends/bad/frontend:1:"), "{text}");
        assert!(text.contains("\n  reason ") && text.contains("\n  hint ") && text.contains("3 problems in"), "{text}");
        assert!(!text.contains('\u{1b}') && found.text(true).contains("\u{1b}[31m"));
        assert_eq!(found.json()["problems"].as_array().unwrap().len(), 3);
    }
}
