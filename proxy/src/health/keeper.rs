//! The keeper: which server is checked when, and what is done with what was found.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use etna_store::object::{HealthCheck, Id};
use tokio::task::{Id as TaskId, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use super::probe::{Checked, Probed, probe};
use super::verdict::Visitor;
use crate::backend::Backend;
use crate::backend::health::{Finding, Reason, State as Believed};
use crate::control::State;

/// Follows the table, and checks.
pub(super) struct Keeper {
    state: Arc<State>,
    /// The backends that were seen last.
    seen: imbl::Vector<Option<Arc<Backend>>>,
    /// What is checked, by the number of the server's living state.
    watched: HashMap<u64, Watched>,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    running: JoinSet<(u64, u64, Probed)>,
    /// The servers that are being checked, by the task that does it.
    asked: HashMap<TaskId, u64>,
    /// Backends of which no server is well.
    panicking: BTreeSet<Id>,
}

/// A server that is checked.
struct Watched {
    backend: Arc<Backend>,
    at: u16,
    check: Arc<HealthCheck>,
    /// The visitor that it wants to see.
    visitor: Visitor,
    /// Whether it was checked before: then its next check is at a moment of this proxy's own.
    begun: bool,
    /// When it is checked next; `None` while it is.
    next: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(state: Arc<State>) -> Keeper {
        Keeper {
            state,
            seen: imbl::Vector::new(),
            watched: HashMap::new(),
            due: BinaryHeap::new(),
            running: JoinSet::new(),
            asked: HashMap::new(),
            panicking: BTreeSet::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut tables = self.state.live.subscribe();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.follow();
        let mut rested = Instant::now();
        loop {
            self.start();
            let next = self.due.peek().map(|Reverse((when, _))| *when).filter(|_| self.running.len() < MOST_AT_ONCE);
            tokio::select! {
                published = async { tokio::time::sleep_until(rested).await; tables.changed().await } => {
                    if published.is_err() {
                        return;
                    }
                    self.follow();
                    // A store that changes all the time is followed often enough.
                    rested = Instant::now() + REST;
                }
                Some(done) = self.running.join_next_with_id(), if !self.running.is_empty() => match done {
                    Ok((task, (number, began, probed))) => {
                        self.asked.remove(&task);
                        self.done(number, began, probed);
                    }
                    Err(broken) => {
                        let number = self.asked.remove(&broken.id());
                        tracing::error!(error = %broken, "a health check broke");
                        if let Some(number) = number {
                            self.plan(number, Instant::now() + TICK);
                        }
                    }
                },
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                _ = tick.tick() => self.look_at_panics(),
            }
        }
    }

    /// Watches what the table in force wants checked.
    fn follow(&mut self) {
        let now = self.state.live.table().backends.clone();
        if now.ptr_eq(&self.seen) {
            return;
        }
        let before = std::mem::replace(&mut self.seen, now.clone());
        // What did not change is the same value.
        let same =
            |slot: usize, backend: &Option<Arc<Backend>>| match (before.get(slot).and_then(Option::as_ref), backend) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (None, None) => true,
                _ => false,
            };
        for (slot, backend) in now.iter().enumerate().filter(|(slot, backend)| !same(*slot, backend)) {
            let stays: BTreeSet<u64> = match backend {
                Some(backend) if backend.check.is_some() => {
                    backend.servers.iter().map(|server| server.live.number).collect()
                }
                _ => BTreeSet::new(),
            };
            for server in before.get(slot).and_then(Option::as_ref).iter().flat_map(|old| &old.servers) {
                if !stays.contains(&server.live.number) {
                    self.watched.remove(&server.live.number);
                }
            }
            if let Some(backend) = backend {
                self.watch(backend);
                self.look_at(backend);
            }
        }
    }

    fn watch(&mut self, backend: &Arc<Backend>) {
        let Some(check) = &backend.check else { return };
        for (at, server) in (0u16..).zip(&backend.servers) {
            let number = server.live.number;
            let mut changed = true;
            match self.watched.get_mut(&number) {
                Some(known) => {
                    (known.backend, known.at) = (backend.clone(), at);
                    changed = *known.check != **check && known.next.is_some();
                    known.check = check.clone();
                }
                None => {
                    let (backend, check) = (backend.clone(), check.clone());
                    let watched = Watched { backend, at, check, visitor: Visitor::default(), begun: false, next: None };
                    self.watched.insert(number, watched);
                }
            }
            if changed {
                self.plan(number, Instant::now());
            }
        }
    }

    fn plan(&mut self, number: u64, when: Instant) {
        if let Some(watched) = self.watched.get_mut(&number) {
            watched.next = Some(when);
            self.due.push(Reverse((when, number)));
        }
    }

    /// Starts the checks that are due, as many as may run at once.
    fn start(&mut self) {
        let now = Instant::now();
        while self.running.len() < MOST_AT_ONCE
            && let Some(Reverse((when, number))) = self.due.peek().copied()
            && when <= now
        {
            self.due.pop();
            let Some(watched) = self.watched.get_mut(&number) else { continue };
            // It was planned anew meanwhile.
            if watched.next != Some(when) {
                continue;
            }
            watched.next = None;
            let Some(server) = watched.backend.servers.get(usize::from(watched.at)) else { continue };
            let (live, tls) = (server.live.clone(), server.tls.clone());
            let (check, visitor) = (watched.check.clone(), watched.visitor);
            let (proxy_protocol, protocol) = (watched.backend.spec.proxy_protocol, watched.backend.spec.protocol);
            let task = self.running.spawn(async move {
                let began = live.health.now();
                let checked = Checked { live: &live, tls: tls.as_ref(), proxy_protocol, protocol };
                (number, began, probe(checked, &check, visitor).await)
            });
            self.asked.insert(task.id(), number);
        }
    }

    fn done(&mut self, number: u64, began: u64, probed: Probed) {
        let Some(watched) = self.watched.get_mut(&number) else { return };
        let Some(server) = watched.backend.servers.get(usize::from(watched.at)) else { return };
        watched.visitor = probed.visitor;
        let health = &server.live.health;
        let mut changed = None;
        match probed.finding {
            Some(finding) => {
                self.state.health.add(finding.reason);
                changed = health.record(began, finding.clone(), &watched.check).map(|before| (before, finding));
            }
            None => self.state.health.not_made.add(1),
        }
        let pause = health.pause(&watched.check);
        let settled = std::mem::replace(&mut watched.begun, true) || pause < watched.check.interval;
        let share = if settled { 0.9 + fastrand::f64() * 0.2 } else { fastrand::f64() };
        let told =
            changed.map(|(before, finding)| (watched.backend.clone(), watched.at, before, health.state(), finding));
        // Who was watched anew while he was asked is planned already.
        if watched.next.is_none() {
            self.plan(number, Instant::now() + pause.mul_f64(share));
        }
        if let Some((backend, at, before, now, finding)) = told {
            tell(&backend, at, before, now, &finding);
            self.look_at(&backend);
        }
    }

    /// Says when a backend comes to have nobody who is well, and when it no longer is so.
    fn look_at(&mut self, backend: &Backend) {
        let tally = backend.tally();
        if tally.is_panic() {
            if self.panicking.insert(backend.id.clone()) {
                tracing::error!(backend = %backend.id, servers = tally.all, "no server is well: all are asked");
            }
        } else if self.panicking.remove(&backend.id) {
            tracing::info!(backend = %backend.id, serving = tally.serving, servers = tally.all, "a server is well again");
        }
    }

    fn look_at_panics(&mut self) {
        if self.panicking.is_empty() {
            return;
        }
        let there: Vec<Arc<Backend>> =
            self.seen.iter().flatten().filter(|backend| self.panicking.contains(&backend.id)).cloned().collect();
        self.panicking.retain(|id| there.iter().any(|backend| backend.id == *id));
        there.iter().for_each(|backend| self.look_at(backend));
    }
}

fn tell(backend: &Backend, at: u16, before: Believed, now: Believed, finding: &Finding) {
    let Some(server) = backend.servers.get(usize::from(at)) else { return };
    let Finding { reason, detail, .. } = finding;
    match (before, now) {
        (_, Believed::Down) => {
            tracing::warn!(backend = %backend.id, server = %server.spec.id, reason = reason.word(), detail, "server is ill");
        }
        (Believed::Starting, _) if *reason == Reason::Ok => {
            tracing::info!(backend = %backend.id, server = %server.spec.id, "server is well");
            backend.wake();
        }
        (Believed::Starting, _) => {
            tracing::warn!(backend = %backend.id, server = %server.spec.id, reason = reason.word(), detail, "server is well, but");
            backend.wake();
        }
        _ => backend.welcome(at, "checks find it well"),
    }
}

/// Checks that run at once: enough for thousands of servers of which a tenth does not answer.
const MOST_AT_ONCE: usize = 256;
/// Between two looks at backends that panic.
const TICK: Duration = Duration::from_secs(1);
/// Least time between two looks at the table.
const REST: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;
    use crate::backend::balance::{Ask, Schedule};
    use crate::backend::place::Place;
    use crate::backend::{Live, Server, test};
    use crate::health::verdict::well;

    /// The server with room is new: those who wait get it as soon as its first check finds it well.
    #[tokio::test]
    async fn who_waits_is_woken_by_a_first_check() {
        let backend = test::backend(Vec::new(), r#","Limit":1"#, None);
        let now = Instant::now();
        let servers: Vec<Server> = (1..)
            .zip(["a", "b"])
            .map(|(number, id)| {
                let server = test::server(id, "");
                let live = Live::new(number, "b", &server.spec).waiting_in(backend.live.queue.clone());
                live.follow(&server.spec, Some(1), now.into_std());
                Server { live: Arc::new(live), ..server }
            })
            .collect();
        let schedule = Schedule::new(&backend.spec, &servers, None);
        let backend = Arc::new(Backend { servers, schedule, ..backend });
        let health = &backend.servers[1].live.health;
        health.expect_check();
        let ask = Ask { turn: 0, random: 0, key: None, now: now.into_std(), ramping: false, tried: &[] };
        let Place::At(0, _held) = backend.place(None, &ask) else { panic!("there was no room at a") };
        let mut until = None;
        let mut waiting = std::pin::pin!(backend.wait(None, &ask, &mut until));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());

        let check = HealthCheck::default();
        let before = health.record(health.now(), well(), &check).unwrap();
        tell(&backend, 1, before, health.state(), &well());
        let Poll::Ready(handed) = futures_util::poll!(waiting.as_mut()) else { panic!("nobody woke it") };
        assert_eq!(handed.unwrap().unwrap().at, 1);
    }
}
