//! What the control loop does besides, whatever it waits for: suspects, lost events, what is wrong.
//!
//! Every step goes on as far as it can without waiting for a network or a disk.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etna_store::object::Id;
use etna_store::{Delta, Problem, key};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Interval;

use super::follow::Control;
use super::probe::{Suspect, probe};
use super::resync::{Resync, Step};
use super::suspect::Case;
use crate::backend::Backend;

/// What has its own time.
pub(super) struct Chores {
    pub(super) resync: Resync,
    /// What was applied and not yet published.
    pub(super) pending: Delta,
    tick: Interval,
    done: Instant,
    probing: Option<JoinHandle<Vec<(Bytes, bool)>>>,
    probed: Option<Instant>,
    /// When the health of suspects was last looked at.
    judged: Option<Instant>,
    /// When the ends of certificates were last looked at.
    judged_certificates: Instant,
}

impl Chores {
    pub(super) fn new(tick: Interval, now: Instant) -> Chores {
        let resync = Resync::new(now);
        Chores {
            resync,
            pending: Delta::default(),
            tick,
            done: now,
            probing: None,
            probed: None,
            judged: None,
            judged_certificates: now,
        }
    }

    /// Waits until there is something to do; whether suspects are to be released.
    pub(super) async fn due(&mut self, release: &Notify) -> bool {
        tokio::select! {
            () = release.notified() => true,
            _ = self.tick.tick() => false,
        }
    }

    /// Whether they were not done for a while.
    pub(super) fn are_late(&self) -> bool {
        self.done.elapsed() >= LATE
    }
}

impl Control {
    pub(super) async fn do_chores(&mut self, release: bool) {
        let now = Instant::now();
        self.chores.done = now;
        self.state.beat.fetch_add(1, Relaxed);
        self.retry_listeners().await;
        self.keep_tickets(false).await;
        let mut delta = self.read_again().await;
        // What is found before the store was read comes with its first table.
        let certified = self.look_at_certificates().await && self.state.store().revision.is_some();
        let is_due = now.duration_since(self.chores.judged_certificates) >= JUDGE_CERTIFICATES
            && !self.state.live.table().certificates.is_empty();
        if certified || is_due {
            // Time alone makes some of them a problem.
            self.chores.judged_certificates = now;
            self.news = true;
        }
        if release {
            tracing::info!(keys = self.suspects.held().count(), "suspects are released: what vanished is believed");
            delta.merge(self.suspects.release(&mut self.state.model_mut()));
        }
        delta.merge(self.suspects.expire(&mut self.state.model_mut(), now));
        delta.merge(self.judge_servers(now).await);
        if self.state.store().following {
            delta.merge(self.compare(now).await);
            self.state.set_store(|store| store.heard = Some(now));
        }
        if delta.is_empty() && !certified { self.tell() } else { self.publish(self.seen, &delta).await }
    }

    /// Lets go of suspect servers that no longer answer.
    async fn judge_servers(&mut self, now: Instant) -> Delta {
        let mut gone = BTreeSet::new();
        let mut delta = Delta::default();
        if let Some(probing) = self.chores.probing.take_if(|probing| probing.is_finished()) {
            for (key, answered) in probing.await.unwrap_or_default() {
                let back = self.suspects.returned(&mut self.state.model_mut(), &key, answered);
                delta.merge(back);
                if self.suspects.answered(&key, answered) {
                    gone.insert(key);
                }
            }
        }
        let count = self.suspects.server_count();
        if count == 0 {
            self.chores.probed = None;
            return delta;
        }
        if self.chores.judged.is_none_or(|at| now.duration_since(at) >= JUDGE_EVERY) {
            self.chores.judged = Some(now);
            gone.extend(self.unhealthy());
        }
        // So many connections a second at most, and each suspect once a second at most.
        let every = PROBE_EVERY.max(Duration::from_millis(count as u64));
        if self.chores.probing.is_none() && self.chores.probed.is_none_or(|at| now.duration_since(at) >= every) {
            self.chores.probed = Some(now);
            let first = self.suspects.ask_returning().into_iter();
            let first = first.map(|(key, server)| Suspect { key, host: server.host.clone(), port: server.port });
            let model = self.state.model();
            let suspects = self.suspects.servers().filter_map(|(key, (backend, id))| {
                let server = model.server(backend, id)?;
                Some(Suspect { key: key.clone(), host: server.host.clone(), port: server.port })
            });
            self.chores.probing = Some(tokio::spawn(probe(first.chain(suspects).collect())));
        }
        if gone.is_empty() {
            return delta;
        }
        let gone: Vec<Bytes> = gone.into_iter().collect();
        tracing::info!(servers = gone.len(), "suspects no longer answer: they are believed gone");
        delta.merge(self.suspects.let_go(&mut self.state.model_mut(), &gone));
        delta
    }

    /// Suspects whose checks or answers say that they should be given nothing.
    fn unhealthy(&self) -> Vec<Bytes> {
        let table = self.state.live.table();
        let wanted: BTreeSet<&Id> = self.suspects.servers().map(|(_, (backend, _))| backend).collect();
        let backends = table.backends.iter().flatten().filter(|backend| wanted.contains(&backend.id));
        let backends: HashMap<&Id, &Arc<Backend>> = backends.map(|backend| (&backend.id, backend)).collect();
        let is_down = |backend: &Id, id: &Id| {
            let Some(backend) = backends.get(backend) else { return false };
            let at = backend.servers.binary_search_by(|server| server.spec.id.cmp(id));
            at.is_ok_and(|at| backend.servers[at].live.health.is_ill())
        };
        let down = self.suspects.servers().filter(|(_, (backend, id))| is_down(backend, id));
        down.map(|(key, _)| key.clone()).collect()
    }

    /// Looks for events that the watch lost.
    async fn compare(&mut self, now: Instant) -> Delta {
        match self.chores.resync.step(&self.state.engine, self.seen, now).await {
            Step::Nothing => {}
            Step::Replaced => self.behind = true,
            Step::Failed(error) => self.complain(&error),
            Step::Compare(snapshot, touched) => {
                let mut diff = self.suspects.diff(&snapshot);
                diff.changes.retain(|change| !touched.contains(&change.key));
                diff.revision = self.seen;
                let lost = diff.changes.len() as u64;
                if let Some(first) = diff.changes.first() {
                    let first = key::show(&first.key);
                    tracing::warn!(keys = lost, first, "the store had changes that it did not tell of");
                }
                let delta = self.suspects.apply(&mut self.state.model_mut(), &diff, now, false);
                self.state.set_store(|store| {
                    store.resyncs += 1;
                    store.differences += lost;
                    store.error = None;
                });
                return delta;
            }
        }
        Delta::default()
    }
}

/// What is told about a case.
pub(super) fn suspicion(case: &Case, hold: Duration) -> Problem {
    let effect = match case.until {
        Some(_) => {
            format!("it serves on as suspect: servers as long as they answer, all for at most {} s", hold.as_secs())
        }
        None => {
            "it serves on as suspect until it is released: the store's history went back, so nobody deleted it".into()
        }
    };
    Problem {
        key: key::show(&case.example),
        reason: format!("{}, and is held", case.what),
        hint: "put it back; or, if it is gone on purpose, `etnactl suspects --release`".into(),
        line: None,
        column: None,
        effect,
    }
}

const JUDGE_CERTIFICATES: Duration = Duration::from_secs(5);
const JUDGE_EVERY: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_millis(500);
