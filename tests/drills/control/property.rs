//! The incremental model and table beside those made from scratch.
//!
//! On the library: asking a process for its whole table a million times would measure the asking.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use etna_proxy::table::Table;
use etna_proxy::table::compile::Compiler;
use etna_store::{Batch, Change, Delta, Model, Problem, Revision};

use crate::drill::{Length, Outcome};

/// C15. A million random edits in random groups; compared every so many, in what is served and in what is wrong.
pub(super) async fn same(length: Length) -> Outcome {
    let edits = if cfg!(debug_assertions) { length.pick(100_000, 5_000) } else { length.pick(1_000_000, 20_000) };
    let began = Instant::now();
    let result = tokio::task::spawn_blocking(move || run(edits)).await.expect("it ends");
    let (compared, differing) = result;
    let figure = match &differing {
        None => format!("{edits} edits, {compared} comparisons, all equal, {:.0?}", began.elapsed()),
        Some(text) => format!("after {compared} comparisons: {text}"),
    };
    Outcome { load: "none, on the library".into(), requests: edits, figure, pass: differing.is_none(), failed: 0 }
}

/// How often it was compared, and the first difference.
fn run(edits: u64) -> (u64, Option<String>) {
    let mut random = fastrand::Rng::with_seed(0x9e37_79b9_7f4a_7c15);
    let keys = keys();
    let mut stored: BTreeMap<String, String> = BTreeMap::new();
    let mut followed = Followed::default();
    let (mut done, mut compared) = (0, 0);
    let every = (edits / if cfg!(debug_assertions) { 50 } else { 500 }).max(1);
    let mut due = every;
    while done < edits {
        let mut changes = Vec::new();
        for _ in 0..1 + random.usize(..4) {
            let key = &keys[random.usize(..keys.len())];
            let value = value(key, &mut random);
            match &value {
                Some(value) => stored.insert(key.clone(), value.clone()),
                None => stored.remove(key),
            };
            changes.push((key.clone(), value));
            done += 1;
        }
        followed.apply(&changes);
        // Now and then as after a resync: the whole, of which most is known.
        if random.usize(..5000) == 0 {
            followed.replace(&stored);
        }
        if done >= due {
            due += every;
            compared += 1;
            let mut fresh = Followed::default();
            fresh.replace(&stored);
            if let Some((ours, theirs)) = differ(&followed, &fresh) {
                return (compared, Some(format!("after {done} edits: {ours} but from scratch {theirs}")));
            }
        }
    }
    (compared, None)
}

#[derive(Default)]
struct Followed {
    model: Model,
    compiler: Compiler,
    table: Table,
    revision: i64,
}

impl Followed {
    fn apply(&mut self, changes: &[(String, Option<String>)]) {
        let batch = self.batch(changes.iter().map(|(key, value)| (key, value.as_ref())));
        let delta = self.model.apply(&batch);
        self.compile(&delta);
    }

    fn replace(&mut self, stored: &BTreeMap<String, String>) {
        let batch = self.batch(stored.iter().map(|(key, value)| (key, Some(value))));
        let delta = self.model.replace(&batch);
        self.compile(&delta);
    }

    fn batch<'a>(&mut self, pairs: impl Iterator<Item = (&'a String, Option<&'a String>)>) -> Batch {
        self.revision += 1;
        let change = |(key, value): (&String, Option<&String>)| Change {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        };
        Batch { revision: Revision(self.revision), changes: pairs.map(change).collect() }
    }

    fn compile(&mut self, delta: &Delta) {
        self.table = self.compiler.compile(&self.model, delta, &self.table);
    }

    /// What is served, and what is wrong, in lines.
    fn shown(&self) -> Vec<String> {
        let table = &self.table;
        let backend = |slot: u32| table.backends.get(slot as usize).and_then(|backend| backend.as_ref());
        let mut lines: Vec<String> = table
            .router
            .values()
            .map(|frontend| {
                let servers: Vec<String> = backend(frontend.backend.0)
                    .map(|backend| backend.servers.iter().map(|server| format!("{:?}", server.spec)).collect())
                    .unwrap_or_default();
                let chain: Vec<String> = frontend.chain.iter().map(|step| format!("{:?}", step.spec)).collect();
                let spec = &frontend.spec;
                format!("{:?} {spec:?} {chain:?} {:?} {} {servers:?}", frontend.id, frontend.deny, frontend.broken)
            })
            .collect();
        lines.extend(table.listeners.iter().map(|(id, listener)| format!("{id:?} {listener:?}")));
        let problem = |problem: &Problem| format!("{}: {} ({})", problem.key, problem.reason, problem.effect);
        lines.extend(self.model.problems().chain(self.compiler.problems()).map(problem));
        lines.sort_unstable();
        lines
    }
}

/// The first line that only one of them has.
fn differ(ours: &Followed, theirs: &Followed) -> Option<(String, String)> {
    let (ours, theirs) = (ours.shown(), theirs.shown());
    if ours == theirs {
        return None;
    }
    let only = |a: &[String], b: &[String]| {
        a.iter().find(|line| b.binary_search(line).is_err()).cloned().unwrap_or_else(|| "nothing".into())
    };
    Some((only(&ours, &theirs), only(&theirs, &ours)))
}

/// Few names, so that edits meet.
fn keys() -> Vec<String> {
    let mut keys = Vec::new();
    for n in 0..12 {
        keys.push(format!("frontends/f{n}/frontend"));
        keys.push(format!("frontends/f{n}/middlewares/m"));
        keys.push(format!("frontends/f{n}/middlewares/n"));
    }
    for n in 0..6 {
        keys.push(format!("backends/b{n}/backend"));
        keys.extend((0..5).map(|server| format!("backends/b{n}/servers/s{server}")));
    }
    keys.extend((0..4).map(|n| format!("sites/w{n}")));
    keys.extend((0..3).map(|n| format!("listeners/l{n}")));
    keys.extend((0..3).map(|n| format!("hosts/h{n}.test/host")));
    keys
}

/// A value for a key, or none. All can be served: of a bad one the last good version stays, which depends on what
/// came before, and is meant to.
fn value(key: &str, random: &mut fastrand::Rng) -> Option<String> {
    let (kind, n, host) = (random.usize(..10), random.usize(..6), random.usize(..8));
    if kind < 3 {
        return None;
    }
    Some(match key.split('/').next().unwrap_or_default() {
        "frontends" if key.contains("/middlewares/") => {
            format!(
                r#"{{"Type":"ratelimit","Priority":{n},"Middleware":{{"PeriodSeconds":1,"Requests":{},"Burst":{},"Variable":"client.ip"}}}}"#,
                n + 1,
                n + 2
            )
        }
        "frontends" => {
            let rule = match kind {
                3 => format!("Host(`h{host}.test`) && PathRegexp(`/x{n}.*`)"),
                4 => format!("PathPrefix(`/p{n}`)"),
                _ => format!("Host(`h{host}.test`) && PathPrefix(`/p{n}`)"),
            };
            format!(r#"{{"Type":"http","BackendId":"b{n}","Route":"{rule}"}}"#)
        }
        "backends" if key.contains("/servers/") => format!(r#"{{"URL":"http://10.0.{n}.{host}:80","Weight":{kind}}}"#),
        "backends" => format!(r#"{{"Type":"http","Settings":{{"Timeouts":{{"Read":"{}s"}}}}}}"#, n + 1),
        "sites" => {
            format!(r#"{{"Preset":"wordpress","Hosts":["h{host}.test"],"Public":"b{n}","Admin":"b{}"}}"#, (n + 1) % 6)
        }
        "listeners" => {
            format!(r#"{{"Protocol":"http","Address":{{"Network":"tcp","Address":"127.0.0.1:{}"}}}}"#, 8000 + n)
        }
        _ => format!(r#"{{"Settings":{{"Default":{}}}}}"#, n > 2),
    })
}
