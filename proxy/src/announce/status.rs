//! How the announcement stands: for `/v3/status`, `/metrics` and the problems.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use etna_store::{LeaseId, Problem};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::place::Place;
use super::settings::Announce;

/// The announcement, as everybody may see it. Empty without `--announce`.
#[derive(Debug, Default)]
pub struct Announced {
    status: watch::Sender<Status>,
    /// Whether problems have changed since that was asked last.
    changed: AtomicBool,
}

#[derive(Debug, Default)]
struct Status {
    id: String,
    backend: String,
    places: Vec<PlaceStatus>,
}

#[derive(Debug)]
struct PlaceStatus {
    store: String,
    /// The first key that is written there.
    key: String,
    standing: Standing,
    since: Instant,
    url: Option<String>,
    lease: Option<LeaseId>,
    problem: Option<Problem>,
    failures: u64,
}

/// What others see in one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing yet, or nothing any more.
    Absent,
    /// It takes requests.
    Announced,
    /// It takes no new ones.
    Draining,
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Standing::Absent => "absent",
            Standing::Announced => "announced",
            Standing::Draining => "draining",
        }
    }
}

impl Announced {
    pub(super) fn begin(&self, announce: &Announce, places: &[Place]) {
        let now = Instant::now();
        let of = |place: &Place| PlaceStatus {
            store: place.describe(),
            key: place.first_key(),
            standing: Standing::Absent,
            since: now,
            url: None,
            lease: None,
            problem: None,
            failures: 0,
        };
        let places = places.iter().map(of).collect();
        self.status.send_replace(Status { id: announce.id.clone(), backend: announce.backend.clone(), places });
        self.changed.store(true, Relaxed);
    }

    /// What others see in a store now; whether that is news.
    pub(super) fn stands(&self, place: usize, standing: Standing, url: Option<&str>, lease: Option<LeaseId>) -> bool {
        let mut news = false;
        self.change(place, |place| {
            news = place.standing != standing || (place.lease != lease && standing != Standing::Absent);
            if news {
                place.since = Instant::now();
            }
            place.standing = standing;
            place.url = url.map(str::to_owned).or(place.url.take());
            place.lease = lease;
        });
        news
    }

    /// Why a store does not say what it should, or that it does; whether that is news.
    pub(super) fn tell(&self, place: usize, problem: Option<Problem>) -> bool {
        let mut news = false;
        self.change(place, |place| {
            place.failures += u64::from(problem.is_some());
            news = place.problem != problem;
            place.problem = problem;
        });
        if news {
            self.changed.store(true, Relaxed);
        }
        news
    }

    /// What others see in a store.
    pub(super) fn standing(&self, place: usize) -> Standing {
        self.status.borrow().places.get(place).map_or(Standing::Absent, |place| place.standing)
    }

    /// Returns when no store says any more that this process takes requests.
    pub(super) async fn until_told_to_drain(&self) {
        let mut status = self.status.subscribe();
        let told = |status: &Status| status.places.iter().all(|place| place.standing != Standing::Announced);
        let _ = status.wait_for(told).await;
    }

    /// Why it does not stand as it should.
    pub fn problems(&self) -> Vec<Problem> {
        self.status.borrow().places.iter().filter_map(|place| place.problem.clone()).collect()
    }

    /// Whether these have changed since this was asked last.
    pub fn take_changed(&self) -> bool {
        self.changed.swap(false, Relaxed)
    }

    /// How it stands, as JSON; null without `--announce`.
    pub fn report(&self, now: Instant) -> Value {
        let status = self.status.borrow();
        if status.places.is_empty() {
            return Value::Null;
        }
        let place = |place: &PlaceStatus| {
            json!({
                "store": place.store,
                "key": place.key,
                "state": place.standing.word(),
                "since_seconds": now.saturating_duration_since(place.since).as_secs_f64(),
                "lease": place.lease.map(|lease| lease.0),
                "failures": place.failures,
                "error": place.problem.as_ref().map(|problem| &problem.reason),
            })
        };
        json!({
            "id": status.id,
            "backend": status.backend,
            "url": status.places.iter().find_map(|place| place.url.as_ref()),
            "places": status.places.iter().map(place).collect::<Vec<_>>(),
        })
    }

    /// By store: its name, whether the proxy is to be seen there, and failures so far.
    pub fn counts(&self) -> Vec<(String, bool, u64)> {
        let status = self.status.borrow();
        let count = |place: &PlaceStatus| (place.store.clone(), place.standing != Standing::Absent, place.failures);
        status.places.iter().map(count).collect()
    }

    fn change(&self, place: usize, change: impl FnOnce(&mut PlaceStatus)) {
        self.status.send_modify(|status| {
            if let Some(place) = status.places.get_mut(place) {
                change(place);
            }
        });
    }
}
