//! A place at a server for one request: chosen and counted at once, or waited for.
//!
//! Where a backend has no limit there is always room and nothing waits. Where it has, a client that is stuck to a server
//! waits for that one, everybody else for whichever the schedule picks when one becomes free. A change of the backend
//! while somebody waits is `queue.rs`.

use std::sync::Arc;
use std::time::Instant;

use super::balance::{Ask, Pick};
use super::queue::Handed;
use super::{Backend, InFlight, Server};
use crate::error::Error;

/// What comes of asking for a place.
#[derive(Debug)]
pub enum Place {
    /// This server's.
    At(u16, InFlight),
    /// None is free now: [`Backend::wait`] for one.
    Full,
    /// Every server was tried, or there is none.
    Nobody,
}

impl Backend {
    /// A place at the server that a request is stuck to, or at one that the schedule picks.
    pub fn place(&self, stuck: Option<u16>, ask: &Ask<'_>) -> Place {
        if self.spec.limit.is_none() {
            let at = stuck.map_or_else(|| self.schedule.pick(&self.servers, ask), Pick::Server);
            let place = at.server().and_then(|at| Some((at, InFlight::enter(&self.server(at)?.live))));
            return place.map_or(Place::Nobody, |(at, place)| Place::At(at, place));
        }
        // Another worker may be faster; then the next pick passes that server over.
        for _ in 0..RACES {
            let at = match stuck.map_or_else(|| self.schedule.pick(&self.servers, ask), Pick::Server) {
                Pick::Server(at) => at,
                Pick::Full => return Place::Full,
                Pick::Nobody => return Place::Nobody,
            };
            if let Some(place) = self.server(at).and_then(|server| InFlight::enter_within(&server.live)) {
                return Place::At(at, place);
            }
        }
        Place::Full
    }

    /// Waits for a place, perhaps in a newer version of the backend. `None`: the backend was deleted, or has no server any
    /// more that was not tried, and the table is to be asked again. `Overloaded` if too many wait already, or none becomes
    /// free in time: `until`, which is set to the end of the backend's `Wait` where it is not known. Leaving it is safe.
    pub async fn wait(
        self: &Arc<Backend>,
        stuck: Option<u16>,
        ask: &Ask<'_>,
        until: &mut Option<Instant>,
    ) -> Result<Option<Handed>, Error> {
        let Some(limit) = &self.spec.limit else { return Err(Error::Overloaded) };
        let queue = &self.live.queue;
        let until = *until.get_or_insert_with(|| Instant::now() + limit.wait);
        let Some(mut waiting) = queue.enter(self, stuck, ask, limit.queue as usize) else {
            return Err(Error::Overloaded);
        };
        // What became free while we lined up was handed to nobody.
        queue.serve();
        match tokio::time::timeout_at(until.into(), &mut waiting.handed).await {
            Ok(Ok(handed)) => Ok(Some(handed)),
            Ok(Err(_)) if Instant::now() < until => Ok(None),
            Ok(Err(_)) | Err(_) => {
                queue.expired.add(1);
                Err(Error::Overloaded)
            }
        }
    }

    /// Where a server stands in this version of the backend.
    pub fn at(&self, number: u64) -> Option<u16> {
        let at = self.servers.iter().position(|server| server.live.number == number)?;
        u16::try_from(at).ok()
    }

    fn server(&self, at: u16) -> Option<&Server> {
        self.servers.get(usize::from(at))
    }
}

/// How often a place that was seen free may be lost to another worker before the request lines up.
const RACES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::test;

    fn ask() -> Ask<'static> {
        Ask { turn: 0, random: 0, key: None, now: Instant::now(), ramping: false, tried: &[] }
    }

    fn backend(limit: &str) -> Arc<Backend> {
        let backend = test::backend(Vec::new(), &format!(r#","Limit":{limit}"#), None);
        let server = test::server("s", "");
        let live = crate::backend::Live::new(1, "b", &server.spec).waiting_in(backend.live.queue.clone());
        live.follow(&server.spec, Some(1), Instant::now());
        let servers = vec![Server { live: Arc::new(live), ..server }];
        let schedule = crate::backend::balance::Schedule::new(&backend.spec, &servers, None);
        Arc::new(Backend { servers, schedule, ..backend })
    }

    fn taken(backend: &Backend) -> InFlight {
        match backend.place(None, &ask()) {
            Place::At(0, place) => place,
            other => panic!("{other:?}"),
        }
    }

    async fn wait(backend: &Arc<Backend>, stuck: Option<u16>) -> Result<Option<Handed>, Error> {
        backend.wait(stuck, &ask(), &mut None).await
    }

    #[tokio::test]
    async fn who_waits_gets_the_place_that_becomes_free() {
        let backend = backend("1");
        for stuck in [None, Some(0)] {
            let held = taken(&backend);
            assert!(matches!(backend.place(stuck, &ask()), Place::Full));
            let free = async {
                tokio::task::yield_now().await;
                assert_eq!(backend.live.queue.len(), 1);
                drop(held);
            };
            let (handed, ()) = tokio::join!(wait(&backend, stuck), free);
            assert_eq!(handed.unwrap().unwrap().at, 0);
            assert_eq!((backend.live.queue.len(), backend.servers[0].live.in_flight()), (0, 0));
        }
    }

    #[tokio::test]
    async fn whoever_waits_too_long_or_finds_the_queue_full_is_told_so() {
        let backend = backend(r#"{"Requests":1,"Queue":1,"Wait":"10ms"}"#);
        let _held = taken(&backend);
        let (first, second) = tokio::join!(wait(&backend, None), wait(&backend, None));
        assert_eq!((first.unwrap_err(), second.unwrap_err()), (Error::Overloaded, Error::Overloaded));
        let queue = &backend.live.queue;
        assert_eq!((queue.waited.get(), queue.expired.get(), queue.overflowed.get(), queue.len()), (1, 1, 1, 0));
    }

    #[tokio::test]
    async fn whoever_waits_again_has_what_is_left_of_its_time() {
        let backend = backend(r#"{"Requests":1,"Wait":"1h"}"#);
        let _held = taken(&backend);
        let mut until = Some(Instant::now());
        assert_eq!(backend.wait(None, &ask(), &mut until).await.unwrap_err(), Error::Overloaded);
        // Even where there is nothing to wait for any more.
        backend.live.queue.follow(None);
        assert_eq!(backend.wait(None, &ask(), &mut until).await.unwrap_err(), Error::Overloaded);
        assert!(backend.wait(None, &ask(), &mut None).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn who_leaves_the_queue_leaves_nothing_behind() {
        let backend = backend("1");
        let held = taken(&backend);
        {
            let mut waiting = std::pin::pin!(wait(&backend, None));
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
            // Handed over, and never looked at.
            drop(held);
        }
        assert_eq!((backend.live.queue.len(), backend.servers[0].live.in_flight()), (0, 0));
        drop(taken(&backend));
    }
}
