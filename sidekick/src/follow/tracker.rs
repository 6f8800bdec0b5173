//! What is known of every container, and what should be registered because of it. Pure: events, inspections, answers
//! and the clock are arguments; what is to be done next is the result.
//!
//! A container told to stop drains at once, from what was known of it; everything else is decided by looking at it
//! again, so that events may be lost, late or twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::classify::{Claim, Decision, Policy, classify};
use crate::docker::signal::{Meaning, meaning};
use crate::docker::{Container, Event, time};
use crate::wanted::{Member, Stage, Wanted};

/// How long events of one container are gathered before it is looked at.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// How long a published port may take to be bound after a start.
const BINDING: Duration = Duration::from_secs(5);

/// How long a container may go on after it was told to stop, before that is taken for a mistake.
const DRAIN_MAX: Duration = Duration::from_secs(600);

/// How long an engine that restarted may show no container of ours before it is believed (`live-restore`).
const GRACE: Duration = Duration::from_secs(30);

/// A question to a container's server: whether it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The container's id.
    pub container: String,
    /// Where.
    pub address: SocketAddr,
    /// For the `Host` header.
    pub host: String,
    /// The run of the container that is meant.
    run: String,
}

/// What is to be done next.
#[derive(Debug, Default, PartialEq)]
pub struct Next {
    /// Look at this container after so long.
    pub inspect: Option<(String, Duration)>,
    /// Ask this.
    pub ask: Option<Ask>,
}

/// All containers.
pub struct Tracker {
    policy: Policy,
    /// Only the container with this name or id.
    only: Option<String>,
    /// Whether a server has to answer before it is registered.
    probes: bool,
    containers: BTreeMap<String, Tracked>,
    unread: BTreeSet<String>,
    /// The event stream broke; what the next list says may be too early.
    interrupted: bool,
    suspect_since: Option<Instant>,
}

struct Tracked {
    container: Container,
    decision: Decision,
    /// When this run of it was first seen.
    seen: Instant,
    draining: Option<Instant>,
    /// Where it is reached, as far as that can be relied on: what was asked, or is being asked.
    address: Option<SocketAddr>,
    answers: Answers,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    NotYet,
    Late,
    Yes,
}

impl Tracker {
    /// A tracker that knows nothing.
    pub fn new(policy: Policy, only: Option<String>, probes: bool) -> Tracker {
        let containers = BTreeMap::new();
        Tracker { policy, only, probes, containers, unread: BTreeSet::new(), interrupted: false, suspect_since: None }
    }

    /// The policy, where this host's address may change.
    pub fn policy_mut(&mut self) -> &mut Policy {
        &mut self.policy
    }

    /// What should be registered.
    pub fn wanted(&self) -> Wanted {
        let member = |(id, tracked): (&String, &Tracked)| Some((id.clone(), tracked.member()?));
        Wanted { members: self.containers.iter().filter_map(member).collect(), unread: self.unread.clone() }
    }

    /// How many containers are ours.
    pub fn ours(&self) -> usize {
        self.containers.values().filter(|tracked| tracked.claim().is_some()).count()
    }

    /// Takes an event.
    pub fn event(&mut self, event: &Event, now: Instant) -> Next {
        let id = event.container.as_str();
        let look = |after| Next { inspect: Some((id.to_owned(), after)), ask: None };
        if id.is_empty() {
            return Next::default();
        }
        match (event.kind.as_str(), event.action.as_str()) {
            ("network", "connect" | "disconnect") => look(DEBOUNCE),
            ("container", "kill") => {
                self.killed(event, now);
                Next::default()
            }
            ("container", "die" | "destroy") => {
                if self.containers.get(id).is_some_and(|tracked| !tracked.predates(event)) {
                    self.gone(id);
                }
                // A replayed event may be older than what runs now.
                look(DEBOUNCE)
            }
            ("container", "pause") => look(Duration::ZERO),
            ("container", "start" | "restart" | "unpause" | "rename" | "update" | "stop") => look(DEBOUNCE),
            ("container", action) if action.starts_with("health_status") => look(DEBOUNCE),
            _ => Next::default(),
        }
    }

    fn killed(&mut self, event: &Event, now: Instant) {
        let Some(tracked) = self.containers.get_mut(&event.container) else { return };
        let signal = event.attributes.get("signal").map_or("", String::as_str);
        if tracked.claim().is_none() || tracked.predates(event) {
            return;
        }
        let name = tracked.container.short_name().to_owned();
        match meaning(signal, &tracked.container.config.stop_signal) {
            Meaning::Stopping => {
                tracing::info!(event = "stopping", container = name, signal, "told to stop: draining");
                tracked.draining.get_or_insert(now);
            }
            Meaning::Dead => {
                tracing::info!(event = "killed", container = name, signal, "killed");
                self.gone(&event.container);
            }
            Meaning::Other => {}
        }
    }

    /// Takes what Docker says of a container.
    pub fn inspected(&mut self, container: Container, now: Instant) -> Next {
        let id = container.id.clone();
        self.unread.remove(&id);
        if id.len() < 12 || !self.only.as_ref().is_none_or(|only| is(&container, only)) {
            return Next::default();
        }
        if !container.runs() {
            self.gone(&id);
            return Next::default();
        }
        let decision = classify(&container, &self.policy);
        let before = self.containers.remove(&id);
        if before.as_ref().is_none_or(|before| before.decision != decision) {
            let told = before.as_ref().map(|before| before.decision.warnings()).unwrap_or_default();
            say(&container, &decision, told);
        }
        let same_run = before.filter(|before| before.container.state.started_at == container.state.started_at);
        let mut tracked = match same_run {
            Some(before) => Tracked { container, decision, ..before },
            None => Tracked { container, decision, seen: now, draining: None, address: None, answers: Answers::NotYet },
        };
        let next = tracked.next(self.probes, now);
        self.containers.insert(id, tracked);
        next
    }

    /// Takes note that a container that runs could not be looked at.
    pub fn unread(&mut self, id: &str) {
        if !self.containers.contains_key(id) {
            self.unread.insert(id.to_owned());
        }
    }

    /// Forgets a container.
    pub fn gone(&mut self, id: &str) {
        self.unread.remove(id);
        let Some(tracked) = self.containers.remove(id) else { return };
        if tracked.claim().is_some() {
            tracing::info!(event = "gone", container = tracked.container.short_name(), "does not run any more");
        }
    }

    /// Takes the answer to a question; `false` means that none came in time. Whether to ask on.
    pub fn answered(&mut self, ask: &Ask, answer: bool) -> bool {
        let Some(tracked) = self.containers.get_mut(&ask.container) else { return false };
        if tracked.container.state.started_at != ask.run || tracked.address != Some(ask.address) {
            return false;
        }
        if !answer && tracked.answers == Answers::NotYet {
            tracing::warn!(event = "no-answer", container = tracked.container.short_name(), address = %ask.address,
                "it does not answer HTTP: registered with weight 0 until it does");
        }
        tracked.answers = if answer { Answers::Yes } else { Answers::Late };
        !answer
    }

    /// Takes the list of all running containers; `false` if it is not believed yet and is to be asked for again.
    pub fn listed(&mut self, ids: &[String], now: Instant) -> bool {
        let listed: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        let mut ours = self.containers.iter().filter(|(_, tracked)| tracked.claim().is_some()).peekable();
        let all_gone = ours.peek().is_some() && ours.all(|(id, _)| !listed.contains(id.as_str()));
        if all_gone && self.interrupted {
            let since = *self.suspect_since.get_or_insert(now);
            if now.saturating_duration_since(since) < GRACE {
                if since == now {
                    tracing::warn!(
                        event = "list-suspect",
                        grace_s = GRACE.as_secs(),
                        "the engine came back without any container of ours; not believed yet"
                    );
                }
                return false;
            }
        }
        self.interrupted = false;
        self.suspect_since = None;
        let gone: Vec<String> =
            self.containers.keys().chain(&self.unread).filter(|id| !listed.contains(id.as_str())).cloned().collect();
        gone.iter().for_each(|id| self.gone(id));
        true
    }

    /// Takes note that the event stream broke.
    pub fn interrupted(&mut self) {
        self.interrupted = true;
    }

    /// Takes note of the time: who was told to stop long ago and still runs is up again.
    pub fn tick(&mut self, now: Instant) {
        for tracked in self.containers.values_mut() {
            if tracked.draining.is_some_and(|since| now.saturating_duration_since(since) >= DRAIN_MAX) {
                tracing::warn!(
                    event = "still-running",
                    container = tracked.container.short_name(),
                    "told to stop ten minutes ago and still running: takes traffic again"
                );
                tracked.draining = None;
            }
        }
    }
}

impl Tracked {
    fn claim(&self) -> Option<&Claim> {
        match &self.decision {
            Decision::Ours(claim) => Some(claim),
            Decision::NotOurs { .. } => None,
        }
    }

    /// Whether an event is from before this run: replayed, and of no importance any more.
    fn predates(&self, event: &Event) -> bool {
        event.time != 0 && time::nanos(&self.container.state.started_at).is_some_and(|start| event.time < start)
    }

    /// What an inspection leads to.
    fn next(&mut self, probes: bool, now: Instant) -> Next {
        let Decision::Ours(claim) = &self.decision else { return Next::default() };
        let again = claim.waiting && now.saturating_duration_since(self.seen) < BINDING;
        let inspect = again.then(|| (self.container.id.clone(), DEBOUNCE));
        let address = claim.address.filter(|_| !again);
        if address == self.address {
            return Next { inspect, ask: None };
        }
        if claim.waiting && !again {
            tracing::warn!(
                event = "port-not-bound",
                container = self.container.short_name(),
                port = claim.port,
                "its published port is not bound; its own address is used"
            );
        }
        self.address = address;
        self.answers = if probes { Answers::NotYet } else { Answers::Yes };
        let ask = address.filter(|_| probes).map(|address| Ask {
            container: self.container.id.clone(),
            address,
            host: claim.hosts.first().cloned().unwrap_or_default(),
            run: self.container.state.started_at.clone(),
        });
        Next { inspect, ask }
    }

    fn member(&self) -> Option<Member> {
        let claim = self.claim()?;
        let late = self.answers == Answers::Late;
        let stage = match (self.draining, self.answers) {
            (Some(_), _) => Stage::Draining,
            (None, Answers::NotYet) => Stage::Pending,
            (None, Answers::Yes | Answers::Late) => Stage::Up,
        };
        let mut meta = BTreeMap::from([
            ("container".to_owned(), self.container.short_name().to_owned()),
            ("image".to_owned(), self.container.config.image.clone()),
            ("started".to_owned(), self.container.state.started_at.clone()),
        ]);
        let note = claim.held.clone().or(late.then(|| "does not answer HTTP".to_owned()));
        meta.extend(note.map(|note| ("note".to_owned(), note)));
        Some(Member {
            site: claim.site.clone(),
            hosts: claim.hosts.clone(),
            role: claim.role,
            address: self.address,
            port: claim.port,
            weight: if late { 0 } else { claim.weight },
            stage,
            meta,
        })
    }
}

/// Whether a container is the one that a name or an id (its first twelve digits at least) means.
fn is(container: &Container, named: &str) -> bool {
    container.short_name() == named || (named.len() >= 12 && container.id.starts_with(named))
}

/// Logs a decision, and of its warnings those that were not told before.
fn say(container: &Container, decision: &Decision, told: &[String]) {
    let name = container.short_name();
    match decision {
        Decision::Ours(claim) => {
            let address = claim.address.map(|address| address.to_string());
            let held = claim.held.as_deref();
            tracing::info!(
                event = "ours",
                container = name,
                site = claim.site,
                role = claim.role.name(),
                address,
                weight = claim.weight,
                held,
                "decided"
            );
            for warning in claim.warnings.iter().filter(|warning| !told.contains(warning)) {
                tracing::warn!(event = "doubtful", container = name, "{warning}");
            }
        }
        Decision::NotOurs { mistake, why } => {
            let why = why.last().map(|reason| format!("{}: {}: {}", reason.rule, reason.saw, reason.then));
            if *mistake {
                tracing::warn!(event = "not-ours", container = name, why, "asks to be registered and cannot be");
            } else {
                tracing::debug!(event = "not-ours", container = name, why, "decided");
            }
        }
    }
}

#[cfg(test)]
mod tests;
