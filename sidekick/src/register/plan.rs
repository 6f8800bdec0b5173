//! The plan: what the store lacks of what is wanted, as transactions. Pure.
//!
//! An empty plan means that the store is as it should be; a plan that was carried out leaves an empty one. Sites and
//! backends are only ever created or, if a sidekick wrote them, given more hosts: they outlive containers and hosts.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use etna_store::{Compare, Item, LeaseId, Op, Txn};

use super::record::{self, Machine};
use crate::wanted::{self, Stage, Wanted};

/// The most writes in one transaction: etcd refuses more than 128 by default.
const OPS_MAX: usize = 100;

/// A server of this machine in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldServer {
    /// Its value.
    pub value: Bytes,
    /// The lease it lives under.
    pub lease: Option<LeaseId>,
    /// It drains by another hand: an operator's, or that of an earlier life of this sidekick.
    pub pinned: bool,
}

/// What the store holds, as far as it concerns this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// This machine's servers, by key.
    pub servers: BTreeMap<String, HeldServer>,
    /// Sites and backends, by key; `None`: known to be absent. Not listed: unknown, taken for absent until a
    /// transaction says otherwise.
    pub shared: BTreeMap<String, Option<Item>>,
}

/// One transaction and what it means.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// To be committed as it is.
    pub txn: Txn,
    /// One line for each write: why, and which key.
    pub notes: Vec<(&'static str, String)>,
}

/// Says what to write. Steps are independent of each other; servers come first, because a drain cannot wait.
pub fn plan(wanted: &Wanted, machine: &Machine, held: &Held, lease: LeaseId) -> Vec<Step> {
    let mut writes = servers(wanted, machine, held, lease);
    let mut steps = Vec::new();
    for (site, hosts) in sites(wanted) {
        let Some(mut step) = create(site, &hosts, held) else { continue };
        // A site is born together with its servers, so that nobody sees it empty.
        let prefixes =
            [wanted::public_backend(site), wanted::admin_backend(site)].map(|id| record::server_key(&id, ""));
        let (mine, rest): (Vec<Write>, Vec<Write>) = writes
            .into_iter()
            .partition(|write| prefixes.iter().any(|prefix| write.key().starts_with(prefix.as_str())));
        writes = rest;
        let room = OPS_MAX.saturating_sub(step.txn.ops.len());
        for (at, write) in mine.into_iter().enumerate() {
            if at < room { write.add_to(&mut step) } else { writes.push(write) }
        }
        steps.push(step);
    }
    let mut plain: Vec<Step> = Vec::new();
    for write in writes {
        if plain.last().is_none_or(|step| step.txn.ops.len() >= OPS_MAX) {
            plain.push(Step { txn: Txn::default(), notes: Vec::new() });
        }
        if let Some(step) = plain.last_mut() {
            write.add_to(step);
        }
    }
    plain.append(&mut steps);
    plain
}

struct Write {
    op: Op,
    note: &'static str,
}

impl Write {
    fn key(&self) -> &str {
        match &self.op {
            Op::Put(key, ..) | Op::Delete(key) => key,
        }
    }

    fn add_to(self, step: &mut Step) {
        step.notes.push((self.note, self.key().to_owned()));
        step.txn.ops.push(self.op);
    }
}

/// Writes that make this machine's servers what they should be.
fn servers(wanted: &Wanted, machine: &Machine, held: &Held, lease: LeaseId) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut keep = BTreeSet::new();
    for (container, member) in &wanted.members {
        let Some(record) = record::Server::of(member, machine) else { continue };
        for backend in member.role.backends(&member.site) {
            let key = record::server_key(&backend, &machine.server_id(container, member.port));
            let before = held.servers.get(&key);
            let was = before.and_then(|before| record::Server::decode(&before.value));
            let value = match member.stage {
                Stage::Draining => record.encode(),
                Stage::Pending => match (before, &was) {
                    (Some(before), Some(was)) if was.url == record.url => before.value.clone(),
                    _ => continue,
                },
                // Whoever drained it meant it: it stays so until the container starts anew.
                Stage::Up => match (before, &was) {
                    (Some(before), Some(was)) if before.pinned && was.drains() && same_run(was, &record) => {
                        record.clone().draining().encode()
                    }
                    _ => record.encode(),
                },
            };
            let note = note(before, was.as_ref(), &value, lease);
            keep.insert(key.clone());
            if let Some(note) = note {
                writes.push(Write { op: Op::Put(key, value, Some(lease)), note });
            }
        }
    }
    // What lives under a lease that is not ours ends with that lease, unless its owner is alive: another machine with
    // the same id, whose servers are not ours to delete.
    let unread = |key: &str| {
        let container = machine.owns(key.as_bytes()).unwrap_or_default();
        wanted.unread.iter().any(|id| id.starts_with(&container))
    };
    let gone = held
        .servers
        .iter()
        .filter(|(key, server)| !keep.contains(*key) && server.lease.is_none_or(|its| its == lease) && !unread(key));
    writes.extend(gone.map(|(key, _)| Write { op: Op::Delete(key.clone()), note: "deregister" }));
    // Away from what is going, before towards what has come.
    writes.sort_by_key(|write| match write.note {
        "drain" => 0,
        "deregister" => 1,
        _ => 2,
    });
    writes
}

fn same_run(was: &record::Server, now: &record::Server) -> bool {
    was.url == now.url && was.meta.get("started") == now.meta.get("started")
}

/// What a put would mean; `None` if it would change nothing.
fn note(
    before: Option<&HeldServer>,
    was: Option<&record::Server>,
    value: &Bytes,
    lease: LeaseId,
) -> Option<&'static str> {
    let Some(before) = before else { return Some("register") };
    if before.value != value {
        let drains = record::Server::decode(value).is_some_and(|now| now.drains());
        let drained = was.is_some_and(record::Server::drains);
        return Some(if drains && !drained { "drain" } else { "update" });
    }
    (before.lease != Some(lease)).then_some("renew")
}

/// The sites of all members with the hosts they claim, in a stable order.
fn sites(wanted: &Wanted) -> BTreeMap<&str, Vec<String>> {
    let mut sites: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for member in wanted.members.values() {
        let hosts = sites.entry(&member.site).or_default();
        let new: Vec<String> = member.hosts.iter().filter(|host| !hosts.contains(host)).cloned().collect();
        hosts.extend(new);
    }
    sites
}

/// The step that makes a site and its backends exist and know its hosts; `None` if they do.
fn create(site: &str, hosts: &[String], held: &Held) -> Option<Step> {
    let mut step = Step { txn: Txn::default(), notes: Vec::new() };
    let mut put = |key: String, value: Bytes, compare: Compare, note: &'static str| {
        step.txn.compares.push(compare);
        Write { op: Op::Put(key, value, None), note }.add_to(&mut step);
    };
    for backend in [wanted::public_backend(site), wanted::admin_backend(site)] {
        let key = record::backend_key(&backend);
        if !matches!(held.shared.get(&key), Some(Some(_))) {
            put(key.clone(), record::backend(&backend), Compare::Absent(key), "create backend");
        }
    }
    let key = record::site_key(site);
    match held.shared.get(&key) {
        Some(Some(item)) => {
            let ours = record::Site::ours(site, &item.value);
            if let Some(more) = ours.and_then(|ours| ours.with_hosts(hosts)) {
                put(key.clone(), more.encode(), Compare::Unchanged(key, item.revision), "add hosts");
            }
        }
        Some(None) | None => {
            let value = record::Site::new(site, hosts.to_vec()).encode();
            put(key.clone(), value, Compare::Absent(key), "create site");
        }
    }
    (!step.txn.ops.is_empty()).then_some(step)
}

#[cfg(test)]
mod tests;
