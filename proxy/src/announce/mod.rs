//! `--announce ID`: this proxy as a server of a backend in another tier's store, under a lease.
//!
//! A front-tier `etna` follows that store and balances over the proxies that announce themselves there. The walk of an
//! announcement: ready ([`Announcer::start`] waits for it) → `place` keeps a lease and makes the keys say what
//! `record` says → drained ([`Announcer::drain`]) → gone ([`Announcer::end`]). A process that is replaced just stops:
//! its successor finds the lease in the state directory and goes on with it. Runs on the control side; no failure here
//! stops anything else, each is a problem, a line in the log and a metric (`status`).

mod place;
mod record;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod url;

use std::sync::Arc;
use std::time::Duration;

use etna_store::Key;
use etna_store::engine::Options;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use crate::control::State;
use place::{Place, Store};
use record::{Entry, Proxy};
pub use settings::{Announce, name};
pub use status::Announced;

/// What a process says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Give me requests.
    Up,
    /// Give me no new ones.
    Draining,
    /// I am gone.
    Gone,
}

/// The announcement of this process. Dropped, it stops where it is: what is written lives as long as its lease.
pub struct Announcer {
    stage: watch::Sender<Stage>,
    state: Arc<State>,
    places: Vec<AbortOnDropHandle<()>>,
}

impl Announcer {
    /// Announces the proxy once it accepts connections (`gate` is cancelled) and has a table; without `--announce` never.
    pub fn start(config: &Config, state: &Arc<State>, gate: &CancellationToken) -> Announcer {
        let (stage, followed) = watch::channel(Stage::Up);
        let places = config.announce.as_ref().map(|announce| places(config, announce, state)).unwrap_or_default();
        if let Some(announce) = &config.announce {
            state.announced.begin(announce, &places);
        }
        let places = places.into_iter().map(|place| {
            let (mut store, gate, mut stage) = (state.subscribe_store(), gate.clone(), followed.clone());
            AbortOnDropHandle::new(tokio::spawn(async move {
                let ready = async {
                    gate.cancelled().await;
                    store.wait_for(|store| store.revision.is_some()).await.is_ok()
                };
                let is_ready = tokio::select! {
                    is_ready = ready => is_ready,
                    _ = stage.wait_for(|stage| *stage == Stage::Gone) => false,
                };
                if is_ready {
                    place.run(stage).await;
                }
            }))
        });
        Announcer { places: places.collect(), stage, state: state.clone() }
    }

    /// Says that this process takes no new requests; returns when that is written, or after so long. It is tried on.
    pub async fn drain(&self, within: Duration) {
        self.stage.send_replace(Stage::Draining);
        let _ = tokio::time::timeout(within, self.state.announced.until_told_to_drain()).await;
    }

    /// Takes the announcement back; what the store does not take within so long ends with its lease.
    pub async fn end(self, within: Duration) {
        self.stage.send_replace(Stage::Gone);
        let _ = tokio::time::timeout(within, join_all(self.places)).await;
    }
}

/// Where the proxy is announced: in the store of the tier in front, and in its own, for who runs this tier.
fn places(config: &Config, announce: &Announce, state: &Arc<State>) -> Vec<Place> {
    let proxy = Proxy::new(announce, config.zone.clone());
    let server = Entry::Server(Key::Server(announce.backend.as_str().into(), announce.id.as_str().into()));
    let member = Entry::Member(Key::proxy(&announce.id));
    let own = Store::Open(state.engine.clone());
    let elsewhere = announce.store.as_ref().filter(|url| **url != config.store);
    let shares: Vec<(Store, Vec<Entry>)> = match elsewhere {
        None => vec![(own, vec![server, member])],
        Some(url) => {
            let options: Options = config.store_options.clone();
            vec![(Store::Url(url.clone(), options), vec![server]), (own, vec![member])]
        }
    };
    let shares = shares.into_iter().enumerate();
    let place = |(number, (store, entries))| {
        let notes = config.state_dir.join(NOTES[usize::from(number > 0)]);
        Place::new(number, store, entries, proxy.clone(), announce, notes, state.clone())
    };
    shares.map(place).collect()
}

/// Where leases are noted, in the state directory.
const NOTES: [&str; 2] = ["announced.lease", "member.lease"];
