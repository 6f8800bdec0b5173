//! `etna check`: would everything be served as written? Decodes and compiles as a proxy does, and serves nothing.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use etna_proxy::acme::names::CERTIFICATES;
use etna_proxy::table::compile::Compiler;
use etna_proxy::table::{Table, is_for_want_of_seal_keys};
use etna_store::seal::Keyring;
use etna_store::{Backend, Batch, Model, Problem, dump};
use serde_json::json;

use super::serve::{StoreFlags, seal_key_file};

/// Flags of `etna check`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    etna check --store etcd://10.0.0.1:2379/vulcand\n  \
    etna check --store http://127.0.0.1:8182\n  \
    etna check backup.jsonl --seal-key /etc/etna/seal-key\n\n\
    Exit codes: 0 all is served as written, 1 there are problems, 2 could not read, 64 wrong usage.")]
pub(super) struct Flags {
    /// An export to check instead of a store; - for stdin.
    file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreFlags,
    /// File with the seal keys of the proxies: what is sealed is opened with them and judged, too [default: the systemd
    /// credential seal-key, if there is one].
    #[arg(long, env = "ETNA_SEAL_KEY_FILE", value_name = "FILE")]
    seal_key: Option<PathBuf>,
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
    let keyring = match seal_key_file(flags.seal_key).map(|file| Keyring::read(&file)).transpose() {
        Ok(keyring) => keyring.map(Arc::new),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "etna: {}", shown(&error.to_string()));
            return ExitCode::from(UNREAD);
        }
    };
    let found = Found::new(&snapshot, keyring);
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let name = match &flags.file {
        Some(path) if path.as_os_str() == "-" => "stdin".into(),
        Some(path) => path.display().to_string(),
        None => flags.store.url(),
    };
    let text = if flags.json {
        format!("{:#}\n", found.json())
    } else {
        format!("{}{}: {}", found.told(colour), shown(&name), found.summary(colour))
    };
    // A reader that has left (`| head`) is no problem of what was checked.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if found.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What was found out about a snapshot.
struct Found {
    problems: BTreeSet<Problem>,
    counts: [(&'static str, usize); 6],
    /// Sealed key pairs that nobody here could look into.
    unopened: usize,
}

impl Found {
    fn new(snapshot: &Batch, keyring: Option<Arc<Keyring>>) -> Found {
        let mut model = Model::default();
        let delta = model.replace(snapshot);
        let unopened = if keyring.is_some() { 0 } else { sealed(&model) };
        let mut compiler = Compiler::new(None, keyring);
        let table = compiler.compile(&model, &delta, &Table::default());
        let servers = model.backends().map(|backend| model.servers(&backend.id).count()).sum();
        let judged = compiler.problems().filter(|problem| unopened == 0 || !is_for_want_of_seal_keys(problem));
        let mut problems: BTreeSet<Problem> = model.problems().chain(judged).cloned().collect();
        problems.extend(table.ending(SystemTime::now()));
        Found {
            problems,
            unopened,
            counts: [
                ("frontends", table.router.len()),
                ("backends", table.backends.iter().flatten().count()),
                ("servers", servers),
                ("listeners", table.listeners.len()),
                ("hosts", model.hosts().count()),
                ("sites", model.sites().count()),
            ],
        }
    }

    fn json(&self) -> serde_json::Value {
        let counts: serde_json::Map<String, serde_json::Value> =
            self.counts.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
        json!({ "problems": self.problems, "counts": counts, "unopened": self.unopened })
    }

    fn told(&self, colour: bool) -> String {
        self.problems.iter().map(|problem| describe(problem, colour)).collect()
    }

    fn summary(&self, colour: bool) -> String {
        let count = |(name, count): &(&'static str, usize)| match count {
            1 => format!("1 {}", name.strip_suffix('s').unwrap_or(name)),
            count => format!("{count} {name}"),
        };
        let counts = self.counts.iter().map(count).collect::<Vec<_>>().join(", ");
        let unopened = match self.unopened {
            0 => String::new(),
            1 => format!("1 sealed key pair was {UNOPENED}\n"),
            n => format!("{n} sealed key pairs were {UNOPENED}\n"),
        };
        match self.problems.len() {
            0 => format!("{}: {counts}\n{unopened}", toned("32", "ok", colour)),
            1 => format!("1 problem in {counts}\n{unopened}"),
            n => format!("{n} problems in {counts}\n{unopened}"),
        }
    }
}

/// How many sealed key pairs there are.
fn sealed(model: &Model) -> usize {
    let of_hosts = model.hosts().filter(|host| host.key_pair.is_some()).count();
    let of_backend = |backend: &&Arc<Backend>| backend.tls.as_ref().is_some_and(|tls| tls.key_pair.is_some());
    of_hosts + model.backends().filter(of_backend).count() + model.shared(CERTIFICATES).count()
}

fn describe(problem: &Problem, colour: bool) -> String {
    let place: String = [problem.line, problem.column].into_iter().flatten().map(|n| format!(":{n}")).collect();
    let head = format!("{}{place}", shown(&problem.key));
    let line = |name: &str, text: &str| format!("  {name:<7} {}\n", shown(text));
    format!(
        "{}\n{}{}{}\n",
        toned("31", &head, colour),
        line("what", &problem.reason),
        line("remedy", &problem.hint),
        line("until", &problem.effect)
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

const UNOPENED: &str = "not opened, so nobody knows whether they can be used: give the seal keys with --seal-key FILE";
const UNREAD: u8 = 2;
const LONGEST_READ: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use etna_store::seal::{KeyPair, SealKey};

    use super::*;

    fn found(export: &str) -> Found {
        Found::new(&dump::read(export).unwrap(), None)
    }

    #[test]
    fn what_is_well_is_counted() {
        let found = found(
            r#"{"backends/b/servers/s":{"URL":"http://10.0.0.1:80"},
                "frontends/f/frontend":{"Type":"http","BackendId":"b","Route":"Host(\"a.test\")"}}"#,
        );
        assert_eq!(found.summary(false), "ok: 1 frontend, 1 backend, 1 server, 0 listeners, 0 hosts, 0 sites\n");
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
        let text = found.told(false) + &found.summary(false);
        assert!(text.contains("frontends/bad/frontend:"), "{text}");
        assert!(text.contains("\n  what ") && text.contains("\n  remedy ") && text.contains("3 problems in"), "{text}");
        assert!(!text.contains('\u{1b}') && found.told(true).contains("\u{1b}[31m"));
        assert_eq!(found.json()["problems"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn what_is_sealed_is_judged_with_the_seal_keys() {
        let ring = || Keyring::new(SealKey::generate().unwrap());
        let (ours, strange) = (ring(), ring());
        let key = rcgen::KeyPair::generate().unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let certificate = |year| {
            let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            params.self_signed(&key).unwrap().pem().into_bytes()
        };
        let pem = |key: &rcgen::KeyPair| key.serialize_pem().into_bytes();
        let export = |pair: &KeyPair| {
            let sealed = STANDARD.encode(ours.seal(pair).unwrap());
            let ca = json!(String::from_utf8(certificate(2100)).unwrap());
            let text = format!(
                r#"{{"hosts/a.test/host":{{"Settings":{{"KeyPair":"{sealed}"}}}},
                    "listeners/l":{{"Protocol":"https","Address":{{"Network":"tcp","Address":"127.0.0.1:443"}}}},
                    "backends/b/servers/s":{{"URL":"https://10.0.0.1:443"}},
                    "backends/b/backend":{{"Type":"http","Settings":{{"TLS":{{"CA":{ca},"KeyPair":"{sealed}"}}}}}}}}"#
            );
            dump::read(&text).unwrap()
        };
        let good = export(&KeyPair::new(certificate(2100), pem(&key)));
        let found = Found::new(&good, None);
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        assert_eq!(found.json()["unopened"], 2);
        let said = found.summary(false);
        assert!(said.contains("1 server,") && said.contains("2 sealed key pairs were not opened"), "{said}");

        let with = |snapshot: &Batch, ring: &Keyring| {
            let found = Found::new(snapshot, Some(Arc::new(ring.clone())));
            assert!(!found.summary(false).contains("sealed"));
            found.problems.iter().map(|problem| format!("{} {}", problem.key, problem.reason)).collect::<Vec<_>>()
        };
        assert_eq!(with(&good, &ours), [""; 0]);
        for (snapshot, ring, reason) in [
            (&good, &strange, "no key of the seal key file opens it"),
            (&export(&KeyPair::new(certificate(2100), pem(&other))), &ours, "the key cannot be used"),
            (&export(&KeyPair::new(certificate(2001), pem(&key))), &ours, "ended"),
        ] {
            let told = with(snapshot, ring);
            for key in ["hosts/a.test/host", "backends/b/backend"] {
                assert!(told.iter().any(|told| told.starts_with(key) && told.contains(reason)), "{reason}: {told:?}");
            }
        }
    }
}
