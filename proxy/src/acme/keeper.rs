//! Sets about what is due, a few hosts at a time, the longest due first. It works from the table: nobody else's host
//! can get in there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use etna_store::object::{Id, Protocol};
use etna_store::{Error, with_causes};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Subject;
use super::due::{self, Answerable};
use super::http::Way;
use super::work::{Outcome, Work};
use crate::control::State;
use crate::listener::speaks_tls;

/// The one that looks after certificates.
pub(super) struct Keeper {
    state: Arc<State>,
    /// This proxy, as no other is called.
    proxy: String,
    way: Option<Way>,
    accounts: Arc<Mutex<()>>,
    works: JoinSet<(Id, Result<Outcome, Error>)>,
    /// Hosts that are worked for.
    busy: Vec<Id>,
    /// Hosts to leave alone for a while, and how often in a row the store failed for them.
    resting: HashMap<Id, (Instant, u32)>,
    /// Hosts for which this proxy was the last to fail: another one may reach the authority from where it is.
    failed: HashSet<Id>,
}

impl Keeper {
    pub(super) fn new(state: Arc<State>) -> Keeper {
        Keeper {
            state,
            proxy: format!("{:016x}", fastrand::u64(..)),
            way: None,
            accounts: Arc::default(),
            works: JoinSet::new(),
            busy: Vec::new(),
            resting: HashMap::new(),
            failed: HashSet::new(),
        }
    }

    /// Until the process drains, and then until nothing is left half done.
    pub(super) async fn run(mut self) {
        let mut revisions = self.state.live.subscribe();
        let draining = self.state.draining.clone();
        while !draining.is_cancelled() {
            let seen = self.state.live.table().acme.clone();
            let wake = self.set_about().await;
            loop {
                tokio::select! {
                    changed = revisions.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        // However fast the table changes, it is not looked over more often, nor for what others do.
                        tokio::time::sleep(BETWEEN_LOOKS).await;
                        if self.state.live.table().acme.ptr_eq(&seen) && Instant::now() < wake {
                            continue;
                        }
                    }
                    Some(done) = self.works.join_next() => self.done(done),
                    () = sleep_until(wake) => {}
                    () = draining.cancelled() => {}
                }
                break;
            }
        }
        while let Some(done) = self.works.join_next().await {
            self.done(done);
        }
    }

    /// Begins what is due; when to look again.
    async fn set_about(&mut self) -> Instant {
        let longest = Instant::now() + LONGEST_PAUSE;
        let table = self.state.live.table();
        if table.acme.is_empty() && self.resting.is_empty() {
            return longest;
        }
        self.state.acme.retain(|host| table.acme.contains_key(host));
        self.resting.retain(|host, _| table.acme.contains_key(host));
        self.failed.retain(|host| table.acme.contains_key(host));
        // The last table on disk holds nothing of all this.
        if !self.state.store().following {
            return longest.min(Instant::now() + WITHOUT_STORE);
        }
        let Some(keyring) = self.state.keyring() else { return longest };
        let (now, clock) = (Instant::now(), SystemTime::now());
        let mut due: Vec<(SystemTime, &Arc<Subject>)> = Vec::new();
        let mut wake = longest;
        for subject in table.acme.values().filter(|subject| !self.busy.contains(&subject.host)) {
            let moment = self.moment(subject);
            let rest = self.resting.get(&subject.host).map_or(now, |(until, _)| *until);
            let wait = moment.duration_since(clock).unwrap_or_default().min(LONGEST_PAUSE);
            // Whoever has claimed it does it; when it ends, the table changes.
            if subject.is_claimed {
                continue;
            }
            if wait.is_zero() && rest <= now {
                due.push((moment, subject));
            } else {
                wake = wake.min((now + wait).max(rest));
            }
        }
        due.sort_by(|one, other| (one.0, &one.1.host).cmp(&(other.0, &other.1.host)));
        let answerable = answerable(&self.state);
        let room = MOST_AT_ONCE.saturating_sub(self.busy.len());
        for (_, subject) in due.into_iter().take(room) {
            let way = match self.way().await {
                Ok(way) => way,
                Err(reason) => {
                    self.state.acme.tell(&subject.host, Some(reason));
                    self.resting.insert(subject.host.clone(), (now + LONGEST_PAUSE, 0));
                    continue;
                }
            };
            let work = Work {
                state: self.state.clone(),
                keyring: keyring.clone(),
                way,
                subject: subject.clone(),
                proxy: self.proxy.clone(),
                accounts: self.accounts.clone(),
                answerable,
            };
            let host = subject.host.clone();
            self.busy.push(host.clone());
            self.works.spawn(async move { (host, work.run().await) });
        }
        wake
    }

    /// When this proxy sets about what is due for a host.
    fn moment(&self, subject: &Subject) -> SystemTime {
        let (at, _) = due::next(subject, self.state.acme.settings.directory(&subject.acme));
        let longest = if subject.certificate.is_some() { LONGEST_LAG } else { SHORTEST_LAG };
        let behind = if self.failed.contains(&subject.host) { LAG_AFTER_FAILURE } else { Duration::ZERO };
        at + behind + due::lag(&subject.host, &self.proxy, longest)
    }

    async fn way(&mut self) -> Result<Way, String> {
        if let Some(way) = &self.way {
            return Ok(way.clone());
        }
        let file = self.state.acme.settings.ca_file.clone();
        let opened = tokio::task::spawn_blocking(move || Way::open(file.as_deref())).await;
        let way = opened.unwrap_or_else(|error| Err(error.to_string()))?;
        self.way = Some(way.clone());
        Ok(way)
    }

    fn done(&mut self, done: Result<(Id, Result<Outcome, Error>), tokio::task::JoinError>) {
        let (host, outcome) = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "the work for a certificate broke");
                // Which host it was for is not told: all are looked at again.
                for host in self.busy.drain(..) {
                    self.resting.insert(host, (Instant::now() + LONGEST_PAUSE, 0));
                }
                return;
            }
        };
        self.busy.retain(|busy| *busy != host);
        match &outcome {
            Ok(Outcome::Failed) => self.failed.insert(host.clone()),
            _ => self.failed.remove(&host),
        };
        match outcome {
            Ok(outcome) => {
                // The table has yet to show what was written, or what another proxy does.
                let (rest, trouble) = match outcome {
                    Outcome::NotOurs => (AFTER_OTHERS, None),
                    Outcome::Written | Outcome::Failed => (AFTER_WORK, None),
                    Outcome::Unable(reason) => (LONGEST_PAUSE, Some(reason)),
                };
                self.state.acme.tell(&host, trouble);
                self.resting.insert(host, (Instant::now() + rest, 0));
            }
            Err(error) => {
                let failures = self.resting.get(&host).map_or(0, |(_, failures)| *failures) + 1;
                let pause = due::back_off(failures, None, fastrand::f64()).min(LONGEST_PAUSE);
                let text = with_causes(&error);
                tracing::warn!(%host, error = text, seconds = pause.as_secs(), "the work for a certificate was lost");
                self.state.acme.tell(&host, Some(format!("getting a certificate was lost: {text}")));
                self.resting.insert(host, (Instant::now() + pause, failures));
            }
        }
    }
}

/// Where challenges can be answered: at what this process listens on.
fn answerable(state: &State) -> Answerable {
    let table = state.live.table();
    let mut answerable = Answerable { http: false, tls: false };
    for id in state.addresses().keys() {
        let stored = table.listeners.get(id).map(|listener| listener.protocol == Protocol::Https);
        match stored.unwrap_or_else(|| speaks_tls(id)) {
            true => answerable.tls = true,
            false => answerable.http = true,
        }
    }
    answerable
}

/// Hosts that are worked for at once.
const MOST_AT_ONCE: usize = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const WITHOUT_STORE: Duration = Duration::from_secs(1);
/// By how much a proxy may be behind another in setting about a renewal, and about a first certificate.
const LONGEST_LAG: Duration = Duration::from_secs(3);
const SHORTEST_LAG: Duration = Duration::from_millis(200);
/// By how much it lets others go first where it failed.
const LAG_AFTER_FAILURE: Duration = Duration::from_secs(10);
const AFTER_WORK: Duration = Duration::from_secs(2);
const AFTER_OTHERS: Duration = Duration::from_secs(1);
