//! A place at a server for one request: chosen and counted at once, or waited for.
//!
//! Where a backend has no limit there is always room and nothing waits. Where it has, a client that is stuck to a server
//! waits for that one, everybody else for any.

use super::balance::{Ask, Pick};
use super::queue::Wants;
use super::{Backend, InFlight, Server};
use crate::error::Error;

/// What comes of asking for a place.
#[derive(Debug)]
pub enum Place {
    /// This server's.
    At(u16, InFlight),
    /// None is free now: [`Backend::wait`] for one.
    Full {
        /// Whether ill servers are asked, because all are ill.
        ill_too: bool,
    },
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
                Pick::Full { ill_too } => return Place::Full { ill_too },
                Pick::Nobody => return Place::Nobody,
            };
            if let Some(place) = self.server(at).and_then(|server| InFlight::enter_within(&server.live)) {
                return Place::At(at, place);
            }
        }
        Place::Full { ill_too: false }
    }

    /// Waits for a place; `Overloaded` if too many wait already, or none becomes free in time. Leaving it is safe.
    pub async fn wait(&self, stuck: Option<u16>, ask: &Ask<'_>, ill_too: bool) -> Result<(u16, InFlight), Error> {
        let Some(limit) = &self.spec.limit else { return Err(Error::Overloaded) };
        let number = |at: u16| self.server(at).map(|server| server.live.number);
        let wants = match stuck.and_then(number) {
            Some(number) => Wants::Only(number),
            None => Wants::Any {
                tried: ask.tried.iter().filter_map(|at| number(*at)).collect(),
                newest: self.servers.iter().map(|server| server.live.number).max().unwrap_or_default(),
                ill_too,
            },
        };
        let queue = &self.live.queue;
        let Some(mut waiting) = queue.enter(wants, limit.queue as usize) else { return Err(Error::Overloaded) };
        // What became free while we lined up was handed to nobody.
        if let Place::At(at, place) = self.place(stuck, ask) {
            return Ok((at, place));
        }
        match tokio::time::timeout(limit.wait, &mut waiting.handed).await {
            Ok(Ok(place)) => {
                let known = self.servers.iter().position(|server| std::ptr::eq(&*server.live, &**place.live()));
                let at = known.and_then(|at| u16::try_from(at).ok()).ok_or(Error::Overloaded)?;
                Ok((at, place))
            }
            Ok(Err(_)) | Err(_) => {
                queue.expired.add(1);
                Err(Error::Overloaded)
            }
        }
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
    use std::sync::Arc;
    use std::time::Instant;

    fn ask() -> Ask<'static> {
        Ask { turn: 0, random: 0, key: None, now: Instant::now(), ramping: false, tried: &[] }
    }

    fn backend(limit: &str) -> Backend {
        let backend = test::backend(Vec::new(), &format!(r#","Limit":{limit}"#), None);
        let server = test::limited(1, 1);
        let live = crate::backend::Live::new(1, "b", &server.spec).waiting_in(backend.live.queue.clone());
        live.follow(&server.spec, Some(1), Instant::now());
        let servers = vec![Server { spec: server.spec, live: Arc::new(live) }];
        let schedule = crate::backend::balance::Schedule::new(&backend.spec, &servers, None);
        Backend { servers, schedule, ..backend }
    }

    fn taken(backend: &Backend) -> InFlight {
        match backend.place(None, &ask()) {
            Place::At(0, place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn who_waits_gets_the_place_that_becomes_free() {
        let backend = backend("1");
        for stuck in [None, Some(0)] {
            let held = taken(&backend);
            assert!(matches!(backend.place(stuck, &ask()), Place::Full { .. }));
            let asked = ask();
            let free = async {
                tokio::task::yield_now().await;
                assert_eq!(backend.live.queue.len(), 1);
                drop(held);
            };
            let (place, ()) = tokio::join!(backend.wait(stuck, &asked, false), free);
            assert_eq!(place.unwrap().0, 0);
            assert_eq!((backend.live.queue.len(), backend.servers[0].live.in_flight()), (0, 0));
        }
    }

    #[tokio::test]
    async fn whoever_waits_too_long_or_finds_the_queue_full_is_told_so() {
        let backend = backend(r#"{"Requests":1,"Queue":1,"Wait":"10ms"}"#);
        let _held = taken(&backend);
        let asked = ask();
        let (first, second) = tokio::join!(backend.wait(None, &asked, false), backend.wait(None, &asked, false));
        assert_eq!((first.unwrap_err(), second.unwrap_err()), (Error::Overloaded, Error::Overloaded));
        let queue = &backend.live.queue;
        assert_eq!((queue.waited.get(), queue.expired.get(), queue.overflowed.get(), queue.len()), (1, 1, 1, 0));
    }

    #[tokio::test]
    async fn who_leaves_the_queue_leaves_nothing_behind() {
        let backend = backend("1");
        let held = taken(&backend);
        let asked = ask();
        {
            let mut waiting = std::pin::pin!(backend.wait(None, &asked, false));
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
            // Handed over, and never looked at.
            drop(held);
        }
        assert_eq!((backend.live.queue.len(), backend.servers[0].live.in_flight()), (0, 0));
        drop(taken(&backend));
    }
}
