//! Follows Docker: subscribes, then lists, then takes what happens; for ever, across restarts of the engine.
//!
//! The I/O around the pure [`Tracker`]: what it wants looked at is inspected, what it wants asked is probed, and what
//! it wants registered goes out through a watch channel. An error changes nothing and starts a new session.

mod probe;
mod tracker;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use etna_store::pace::{Backoff, Throttle};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use probe::answers;
pub use tracker::{Ask, Next, Tracker};

use crate::classify::HostIp;
use crate::docker::{Container, Docker, Error, Event};
use crate::notify::{Beat, Board};
use crate::wanted::Wanted;

/// How many containers are inspected at a time.
const INSPECTIONS: usize = 8;

/// How often everything is looked at again.
const RESYNC: Duration = Duration::from_secs(60);

/// How long a server may take for its first answer before it is registered with weight 0, and how long one later
/// question is repeated.
const FIRST_ANSWER: Duration = Duration::from_secs(60);

/// The pause between two questions to a server that may just be starting, and to one that did not answer in time.
const OFTEN: Duration = Duration::from_millis(200);
const SELDOM: Duration = Duration::from_secs(2);

/// Follows one Docker engine.
pub struct Follower {
    docker: Docker,
    host_ip: HostIp,
    tracker: Tracker,
    out: watch::Sender<Option<Wanted>>,
    board: Board,
    tasks: JoinSet<Done>,
    /// When to look at which container.
    due: BTreeMap<String, Instant>,
    looking: BTreeSet<String>,
    /// When the last event happened, by Docker's clock.
    since: Option<i64>,
    /// The last list was not believed: ask again soon.
    doubtful: bool,
}

enum Done {
    Looked(String, Box<Result<Option<Container>, Error>>),
    Asked(Ask, bool),
}

impl Follower {
    /// A follower that has seen nothing yet. The channel carries `None` until everything has been looked at once.
    pub fn new(
        docker: Docker,
        host_ip: HostIp,
        tracker: Tracker,
        board: Board,
    ) -> (Follower, watch::Receiver<Option<Wanted>>) {
        let (out, wanted) = watch::channel(None);
        let follower = Follower {
            docker,
            host_ip,
            tracker,
            out,
            board,
            tasks: JoinSet::new(),
            due: BTreeMap::new(),
            looking: BTreeSet::new(),
            since: None,
            doubtful: false,
        };
        (follower, wanted)
    }

    /// Follows until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken, beat: Beat) {
        let (mut backoff, mut throttle) = (Backoff::default(), Throttle::default());
        loop {
            beat.now();
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.session(&beat, &mut backoff) => ended,
            };
            self.tracker.interrupted();
            self.board.docker("not answering");
            if throttle.admits(Instant::now()) {
                let docker = self.docker.describe();
                match ended {
                    Ok(()) => {
                        tracing::warn!(event = "docker-ended", docker, "Docker ended the event stream; reconnecting")
                    }
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            event = "docker-trouble",
                            docker,
                            error,
                            "Docker cannot be followed; trying again"
                        );
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff.failed()) => {}
            }
        }
    }

    /// Lists and looks at everything once; servers are probed for at most `limit`.
    pub async fn once(&mut self, limit: Duration) -> Result<Wanted, Error> {
        let mut asks = self.list().await?;
        while !asks.is_empty() {
            let answers = stream::iter(asks).map(|ask| async {
                let answer = probe::until_answered(ask.address, &ask.host, limit, OFTEN).await;
                (ask, answer)
            });
            let answers: Vec<(Ask, bool)> = answers.buffer_unordered(64).collect().await;
            for (ask, answer) in answers {
                self.tracker.answered(&ask, answer);
            }
            // Ports that were not bound yet may be by now.
            let due = std::mem::take(&mut self.due);
            asks = if due.is_empty() { Vec::new() } else { self.list().await? };
        }
        Ok(self.tracker.wanted())
    }

    async fn session(&mut self, beat: &Beat, backoff: &mut Backoff) -> Result<(), Error> {
        let version = self.docker.version().await?;
        let mut events = self.docker.events(self.since.unwrap_or_else(a_second_ago)).await?;
        let asks = self.list().await?;
        asks.into_iter().for_each(|ask| self.ask(ask, OFTEN));
        tracing::info!(
            event = "docker",
            docker = self.docker.describe(),
            version = version.version,
            api = version.api_version,
            ours = self.tracker.ours(),
            "following"
        );
        self.board.docker("ok");
        backoff.succeeded();
        let mut resync = ticks(RESYNC);
        let mut tick = ticks(Duration::from_secs(1));
        loop {
            self.publish();
            self.look();
            let next_look = self.due.values().min().copied().filter(|_| self.looking.len() < INSPECTIONS);
            tokio::select! {
                event = events.next() => match event? {
                    Some(event) => self.event(&event),
                    None => return Ok(()),
                },
                Some(done) = self.tasks.join_next() => self.done(done),
                () = until(next_look) => {}
                _ = tick.tick() => {
                    beat.now();
                    self.tracker.tick(Instant::now());
                    if self.doubtful { self.resync().await? }
                }
                _ = resync.tick() => self.resync().await?,
            }
        }
    }

    /// Lists, and looks at everything before it returns: what is not listed is gone. Returns what is to be asked.
    async fn list(&mut self) -> Result<Vec<Ask>, Error> {
        self.refresh_host_ip();
        let ids = self.docker.running().await?;
        let docker = &self.docker;
        let looks = stream::iter(ids.clone()).map(|id| async move {
            match docker.inspect(&id).await {
                // The engine, not this container: nothing is known.
                Err(error @ (Error::Unreachable { .. } | Error::Slow { .. } | Error::Broken { .. })) => Err(error),
                looked => Ok((id, looked)),
            }
        });
        let looked: Vec<_> = looks.buffer_unordered(INSPECTIONS).try_collect().await?;
        self.doubtful = !self.tracker.listed(&ids, Instant::now());
        Ok(looked.into_iter().filter_map(|(id, looked)| self.looked(&id, looked)).collect())
    }

    /// Lists, and has everything looked at without waiting for it.
    async fn resync(&mut self) -> Result<(), Error> {
        self.refresh_host_ip();
        let ids = self.docker.running().await?;
        self.doubtful = !self.tracker.listed(&ids, Instant::now());
        for id in ids {
            self.look_after(id, Duration::ZERO);
        }
        Ok(())
    }

    fn refresh_host_ip(&mut self) {
        if let Some(ip) = self.host_ip.resolve() {
            self.tracker.policy_mut().addressing.host_ip = Some(ip);
        }
    }

    fn publish(&self) {
        let wanted = self.tracker.wanted();
        self.out.send_if_modified(|out| {
            let changed = out.as_ref() != Some(&wanted);
            if changed {
                *out = Some(wanted);
            }
            changed
        });
    }

    fn event(&mut self, event: &Event) {
        self.since = Some(event.time).filter(|&time| time > 0).or(self.since);
        tracing::trace!(event = "docker-event", kind = event.kind, action = event.action, container = event.container);
        let next = self.tracker.event(event, Instant::now());
        if let Some((id, after)) = next.inspect {
            self.look_after(id, after);
        }
    }

    fn look_after(&mut self, id: String, after: Duration) {
        let when = Instant::now() + after;
        let due = self.due.entry(id).or_insert(when);
        *due = (*due).min(when);
    }

    /// Starts the inspections that are due. One container is never inspected twice at a time: the older answer could
    /// come last.
    fn look(&mut self) {
        let now = Instant::now();
        let due: Vec<String> = self.due.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            if self.looking.len() >= INSPECTIONS {
                return;
            }
            if self.looking.contains(&id) {
                self.due.insert(id, now + Duration::from_millis(50));
                continue;
            }
            self.due.remove(&id);
            self.looking.insert(id.clone());
            let docker = self.docker.clone();
            self.tasks.spawn(async move {
                let looked = docker.inspect(&id).await;
                Done::Looked(id, Box::new(looked))
            });
        }
    }

    fn ask(&mut self, ask: Ask, pause: Duration) {
        self.tasks.spawn(async move {
            let answer = probe::until_answered(ask.address, &ask.host, FIRST_ANSWER, pause).await;
            Done::Asked(ask, answer)
        });
    }

    fn done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Looked(id, looked)) => {
                self.looking.remove(&id);
                if let Some(ask) = self.looked(&id, *looked) {
                    self.ask(ask, OFTEN);
                }
            }
            Ok(Done::Asked(ask, answer)) => {
                if self.tracker.answered(&ask, answer) {
                    self.ask(ask, SELDOM);
                }
            }
            Err(error) => {
                tracing::error!(event = "task-failed", %error, "a look at a container failed");
                self.looking.clear();
            }
        }
    }

    fn looked(&mut self, id: &str, looked: Result<Option<Container>, Error>) -> Option<Ask> {
        match looked {
            Ok(Some(container)) => {
                let next = self.tracker.inspected(container, Instant::now());
                if let Some((id, after)) = next.inspect {
                    self.look_after(id, after);
                }
                next.ask
            }
            Ok(None) => {
                self.tracker.gone(id);
                None
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(event = "not-inspected", container = id, error, "nothing is changed for this container");
                self.tracker.unread(id);
                self.look_after(id.to_owned(), Duration::from_secs(5));
                None
            }
        }
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}

/// Docker answers before it has subscribed us, so that the very next events would be lost: ask for the last second.
fn a_second_ago() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.saturating_sub(Duration::from_secs(1)).as_nanos()).unwrap_or(i64::MAX)
}
