//! `etnactl export` and `etnactl import`: everything that is stored, as a file, from one store to another.
//!
//! An import is written in transactions, ordered so that nothing half is ever served: servers before the frontends
//! that lead to them, middlewares before the frontends they protect, and what has to go last.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use etna_store::{Batch, Key, Op, Txn, dump, key};

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::{complain_softly, print};
use crate::store;

/// Flags of `etnactl export`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    etnactl export backup.jsonl\n  \
    etnactl export | etnactl --store etcd://10.0.0.1:2379/vulcand import")]
pub(crate) struct Export {
    /// Where to; stdout if not given.
    file: Option<PathBuf>,
}

/// Flags of `etnactl import`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    etnactl import backup.jsonl\n  \
    etnactl --store etcd://10.0.0.1:2379/vulcand import --replace backup.jsonl")]
pub(crate) struct Import {
    /// Where from; stdin if not given.
    file: Option<PathBuf>,
    /// Delete every key that the file does not have.
    #[arg(long)]
    replace: bool,
}

/// Writes everything.
pub(crate) async fn export(cli: &Cli, flags: &Export) -> Result<ExitCode, Failure> {
    let engine = store::open_to_read(cli).await?;
    let snapshot = engine.snapshot().await.map_err(|error| store::failed(&*engine, "cannot read", &error))?;
    let text = dump::write(&snapshot);
    match &flags.file {
        None => print(&text),
        Some(path) => write_whole(path, &text)
            .map_err(|error| Failure::unread(format!("cannot write {}: {error}", path.display())))?,
    }
    complain_softly(&format!("{} keys at revision {} exported", snapshot.changes.len(), snapshot.revision.0));
    Ok(ExitCode::SUCCESS)
}

/// Puts what a file holds.
pub(crate) async fn import(cli: &Cli, flags: &Import) -> Result<ExitCode, Failure> {
    let (name, text) = read(flags.file.as_deref())?;
    let wanted = dump::read(&text).map_err(|error| Failure::refused(format!("{name}, {error}")))?;
    let engine = store::open(cli).await?;
    let present = engine.snapshot().await.map_err(|error| store::failed(&*engine, "cannot read", &error))?;
    let plan = Plan::new(&name, &wanted, &present, flags.replace)?;
    let mut done = 0;
    let mut progress = Progress::new(plan.ops.len());
    for ops in chunks(&plan.ops) {
        let txn = Txn { compares: Vec::new(), ops: ops.to_vec() };
        engine.commit(txn).await.map_err(|error| {
            let doing = format!(
                "{done} of {} keys are written; run it again when this is solved. Cannot write to",
                plan.ops.len()
            );
            store::failed(&*engine, &doing, &error)
        })?;
        done += ops.len();
        progress.show(done);
    }
    progress.end();
    let Plan { puts, deletes, unchanged, .. } = plan;
    complain_softly(&format!("{puts} keys put, {deletes} deleted, {unchanged} were as they should be"));
    Ok(ExitCode::SUCCESS)
}

/// What an import has to do.
struct Plan {
    ops: Vec<Op>,
    puts: usize,
    deletes: usize,
    unchanged: usize,
}

impl Plan {
    fn new(name: &str, wanted: &Batch, present: &Batch, replace: bool) -> Result<Plan, Failure> {
        // One key is written at most once: of several lines the last counts, as if they were put one after the other.
        let mut last: HashMap<&str, Option<&Bytes>> = HashMap::new();
        for change in &wanted.changes {
            let text = std::str::from_utf8(&change.key).map_err(|_| {
                let shown = key::show(&change.key);
                Failure::refused(format!("{name}: the key {shown} is not UTF-8; remove its line"))
            })?;
            last.insert(text, change.value.as_ref());
        }
        let mut now: HashMap<&[u8], &Bytes> =
            present.changes.iter().filter_map(|change| Some((&*change.key, change.value.as_ref()?))).collect();
        let (mut puts, mut deletes, mut unchanged) = (Vec::new(), Vec::new(), 0);
        for (key, value) in last {
            match (value, now.remove(key.as_bytes())) {
                (Some(value), old) if old == Some(value) => unchanged += 1,
                (Some(value), _) => puts.push((key.to_owned(), value.clone())),
                (None, Some(_)) => deletes.push(key.to_owned()),
                (None, None) => unchanged += 1,
            }
        }
        if replace {
            deletes.extend(
                now.into_keys()
                    .filter(|key| !is_shared(key))
                    .filter_map(|key| std::str::from_utf8(key).ok().map(str::to_owned)),
            );
        }
        puts.sort_by(|a, b| (rank(&a.0), &a.0).cmp(&(rank(&b.0), &b.0)));
        deletes.sort_by(|a, b| (rank(b), b).cmp(&(rank(a), a)));
        let (put, deleted) = (puts.len(), deletes.len());
        let puts = puts.into_iter().map(|(key, value)| Op::Put(key, value, None));
        let ops = puts.chain(deletes.into_iter().map(Op::Delete)).collect();
        Ok(Plan { ops, puts: put, deletes: deleted, unchanged })
    }
}

/// What proxies share with each other is theirs: an import adds to it and never clears it.
fn is_shared(raw: &[u8]) -> bool {
    matches!(Key::parse(raw), Ok(Key::Shared(_)))
}

/// What must be there first has the lower rank.
fn rank(raw: &str) -> u8 {
    match Key::parse(raw.as_bytes()).ok().and_then(|key| key.object()) {
        Some(Key::Backend(_) | Key::Server(..) | Key::Host(_)) => 0,
        Some(Key::Middleware(..)) => 1,
        Some(Key::Frontend(_) | Key::Site(_)) => 2,
        Some(Key::Listener(_)) => 3,
        _ => 0,
    }
}

/// Cuts writes into transactions that every store takes.
fn chunks(ops: &[Op]) -> impl Iterator<Item = &[Op]> {
    let mut rest = ops;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |op: &&Op| {
            bytes += match op {
                Op::Put(key, value, _) => key.len() + value.len(),
                Op::Delete(key) => key.len(),
            };
            bytes <= MOST_BYTES
        };
        let fitting = rest.iter().take(MOST_OPS).take_while(fits).count();
        let (chunk, after) = rest.split_at(fitting.max(1).min(rest.len()));
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn read(file: Option<&Path>) -> Result<(String, String), Failure> {
    let (name, mut text) = (file.map_or("stdin".into(), |path| path.display().to_string()), String::new());
    let read = match file {
        Some(path) => std::fs::File::open(path).and_then(|file| file.take(LONGEST_FILE + 1).read_to_string(&mut text)),
        None => std::io::stdin().lock().take(LONGEST_FILE + 1).read_to_string(&mut text),
    };
    match read {
        Ok(_) if text.len() as u64 > LONGEST_FILE => Err(Failure::unread(format!("{name} is longer than 2 GiB"))),
        Ok(_) => Ok((name, text)),
        Err(error) => Err(Failure::unread(format!("cannot read {name}: {error}"))),
    }
}

/// Whole or not at all, and for its owner alone: values may be secrets.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// How far a long import is: on terminals a line that is written over, elsewhere a line now and then.
struct Progress {
    all: usize,
    shown: usize,
    terminal: bool,
}

impl Progress {
    fn new(all: usize) -> Progress {
        Progress { all, shown: 0, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, done: usize) {
        let step = if self.terminal { MOST_OPS } else { SELDOM };
        if self.all < LONG || done - self.shown < step {
            return;
        }
        self.shown = done;
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r{done} of {} keys", self.all);
        } else {
            complain_softly(&format!("{done} of {} keys", self.all));
        }
    }

    fn end(&self) {
        if self.terminal && self.shown > 0 {
            let _ = writeln!(std::io::stderr());
        }
    }
}

const MOST_OPS: usize = 100;
/// etcd takes 1.5 MiB in one request, and the admin API 2 MiB with the values in base64.
const MOST_BYTES: usize = 1 << 20;
const LONGEST_FILE: u64 = 2 << 30;
/// An import of fewer keys shows nothing.
const LONG: usize = 1000;
const SELDOM: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use etna_store::{Change, Revision};

    fn batch(pairs: &[(&str, Option<&str>)]) -> Batch {
        let change = |(key, value): &(&str, Option<&str>)| Change {
            key: Bytes::from((*key).to_owned()),
            value: value.map(|value| Bytes::from(value.to_owned())),
        };
        Batch { revision: Revision(1), changes: pairs.iter().map(change).collect() }
    }

    fn keys(plan: &Plan) -> Vec<&str> {
        plan.ops
            .iter()
            .map(|op| match op {
                Op::Put(key, ..) | Op::Delete(key) => key.as_str(),
            })
            .collect()
    }

    #[test]
    fn what_others_need_is_put_first_and_what_goes_goes_last() {
        let wanted = batch(&[
            ("frontends/f/frontend", Some("{}")),
            ("frontends/f/middlewares/m", Some("{}")),
            ("backends/b/servers/s", Some("{}")),
            ("same", Some("x")),
        ]);
        let present = batch(&[
            ("same", Some("x")),
            ("backends/old/backend", Some("{}")),
            ("frontends/old", Some("{}")),
            ("acme/a", Some("")),
        ]);
        let plan = Plan::new("f", &wanted, &present, true).unwrap();
        assert_eq!(
            keys(&plan),
            [
                "backends/b/servers/s",
                "frontends/f/middlewares/m",
                "frontends/f/frontend",
                "frontends/old",
                "backends/old/backend",
            ]
        );
        assert_eq!((plan.puts, plan.deletes, plan.unchanged), (3, 2, 1));
        assert_eq!(Plan::new("f", &wanted, &present, false).unwrap().deletes, 0);
    }

    #[test]
    fn of_several_lines_of_a_key_the_last_counts() {
        let plan = Plan::new("f", &batch(&[("k", Some("1")), ("k", Some("2"))]), &Batch::default(), false).unwrap();
        assert_eq!(plan.ops, [Op::Put("k".into(), Bytes::from("2"), None)]);
    }

    #[test]
    fn transactions_are_bounded_in_number_and_size() {
        let put = |size: usize| Op::Put("k".into(), Bytes::from(vec![0; size]), None);
        let small: Vec<Op> = (0..250).map(|_| put(1)).collect();
        assert_eq!(chunks(&small).map(<[Op]>::len).collect::<Vec<_>>(), [100, 100, 50]);
        let large: Vec<Op> = (0..5).map(|_| put(400_000)).collect();
        assert_eq!(chunks(&large).map(<[Op]>::len).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(chunks(&[put(3 << 20)]).count(), 1);
        assert_eq!(chunks(&[]).count(), 0);
    }
}
