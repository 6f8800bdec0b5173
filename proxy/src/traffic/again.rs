//! Whether a request is sent once more, after how an attempt ended, and what that costs.
//!
//! By default what got no byte of an answer, if its method is idempotent (RFC 9110 section 9.2.2); otherwise as the
//! frontend's predicate says. Always only to a server that was not tried, with a body that is still there, within the
//! backend's budget. What never reached a server costs nothing of it.

use std::time::{Duration, Instant};

use etna_store::object::Timeouts;
use http::{Method, StatusCode};

use crate::backend::balance::{Ask, Pick};
use crate::backend::pool::Limits;
use crate::backend::sending::Sending;
use crate::backend::{Backend, Live, latency};
use crate::error::Error;
use crate::failover::{Attempt, Predicate};
use crate::stats::Retries;

/// A request's attempts so far.
pub(super) struct Again {
    turn: u64,
    started: Instant,
    tried: Vec<u16>,
    sent: u32,
    failure: Error,
}

/// How an attempt ended that reached a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With an answer.
    Answered(StatusCode),
    /// Without a byte of one.
    Unanswered,
    /// With something that is none.
    Nonsense,
    /// Not in time.
    Late,
}

impl Ended {
    /// What the client is told.
    pub(super) fn error(self) -> Error {
        match self {
            Ended::Late => Error::Timeout,
            Ended::Answered(_) | Ended::Unanswered | Ended::Nonsense => Error::Upstream,
        }
    }

    fn status(self) -> u16 {
        match self {
            Ended::Answered(status) => status.as_u16(),
            Ended::Unanswered | Ended::Nonsense | Ended::Late => self.error().status().as_u16(),
        }
    }
}

impl Again {
    /// Nothing was tried yet. `turn`: the backend's requests so far.
    pub(super) fn new(turn: u64, started: Instant) -> Again {
        Again { turn, started, tried: Vec::new(), sent: 0, failure: Error::NoServer }
    }

    /// The servers that failed the request.
    pub(super) fn tried(&self) -> &[u16] {
        &self.tried
    }

    /// What the client is told when there is nobody left.
    pub(super) fn failure(&self) -> Error {
        self.failure
    }

    /// It goes on at another version of its backend, or at another backend, whose requests so far are `turn`.
    pub(super) fn goes_on_at(&mut self, next: &Backend, left: &Backend, turn: u64) {
        self.turn = turn;
        let number = |at: u16| left.servers.get(usize::from(at)).map(|server| server.live.number);
        self.tried = self.tried.iter().filter_map(|at| next.at(number(*at)?)).collect();
    }

    /// How long connecting to a server may take: not all of `Dial` and `TLSHandshake` while there is another one to ask.
    pub(super) fn connect_limits(&self, backend: &Backend, at: u16, ask: &Ask<'_>) -> Limits {
        let Timeouts { dial, tls_handshake: handshake, .. } = backend.spec.timeouts;
        let tried: Vec<u16> = self.tried.iter().copied().chain([at]).collect();
        if (dial > QUICK || handshake > QUICK_TLS) && has_another(backend, &tried, ask) {
            return Limits { dial: dial.min(QUICK), handshake: handshake.min(QUICK_TLS) };
        }
        Limits { dial, handshake }
    }

    /// No connection to a server could be made: another one is asked, unless that went on for too long.
    pub(super) fn unreachable(&mut self, at: u16) -> Result<(), Error> {
        self.tried.push(at);
        if self.sent == 0 {
            self.failure = Error::Connect;
        }
        if self.started.elapsed() > LONGEST { Err(self.failure) } else { Ok(()) }
    }

    /// Whether the request is sent once more, after an attempt at a server that ended in some way; then its body is back
    /// at its beginning.
    pub(super) fn may(
        &mut self,
        backend: &Backend,
        (at, ended): (u16, Ended),
        predicate: Option<&Predicate>,
        method: &Method,
        body: &mut Sending,
        ask: &Ask<'_>,
    ) -> bool {
        self.sent += 1;
        self.tried.push(at);
        self.failure = ended.error();
        let wanted = match predicate {
            Some(predicate) => {
                let attempt = Attempt { method, number: self.sent, status: ended.status() };
                self.sent < MOST_ASKED_FOR && predicate.holds(&attempt)
            }
            None => self.sent < MOST && ended == Ended::Unanswered && is_idempotent(method),
        };
        if !wanted || !body.can_rewind() || !has_another(backend, &self.tried, ask) {
            return false;
        }
        let live = &backend.live;
        if !live.budget.withdraw(self.turn, live.millis(ask.now)) {
            live.retries_denied.add(1);
            return false;
        }
        body.rewind()
    }
}

fn has_another(backend: &Backend, tried: &[u16], ask: &Ask<'_>) -> bool {
    backend.schedule.pick(&backend.servers, &Ask { tried, ..*ask }) != Pick::Nobody
}

/// Takes in how fast a server was, where the policy goes by it.
pub(super) fn measure(backend: &Backend, live: &Live, began: Instant, failed: bool) {
    if backend.schedule.measures() {
        let now = Instant::now();
        let took = now.saturating_duration_since(began);
        live.latency.record(if failed { took.max(latency::FAILURE) } else { took }, live.millis(now));
    }
}

/// Counts a second attempt by why it is made.
pub(super) fn count(retries: &Retries, ended: Ended) {
    let counter = match ended {
        Ended::Answered(_) => &retries.status,
        Ended::Unanswered | Ended::Nonsense => &retries.broken,
        Ended::Late => &retries.late,
    };
    counter.add(1);
}

/// RFC 9110 section 9.2.2.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// How often an idempotent request is sent at most: a request that kills servers must not kill them all.
const MOST: u32 = 3;
/// The same where a predicate asks for it: vulcand's first attempt and ten more.
const MOST_ASKED_FOR: u32 = 11;
/// How long a server may take to accept a connection while another could be asked.
const QUICK: Duration = Duration::from_secs(1);
/// How long it may then take to agree upon TLS.
const QUICK_TLS: Duration = Duration::from_secs(3);
/// For how long servers are tried one after the other.
const LONGEST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::test;
    use crate::traffic::body::RequestBody;
    use bytes::Bytes;

    fn backend(servers: usize) -> Backend {
        test::backend((0..servers).map(|n| test::server(&format!("s{n}"), "")).collect(), "", None)
    }

    fn ask(now: Instant) -> Ask<'static> {
        Ask { turn: 0, random: 0, key: None, now, ramping: false, tried: &[] }
    }

    fn may(backend: &Backend, ended: Ended, predicate: &str, method: Method) -> bool {
        let now = Instant::now();
        let predicate = (!predicate.is_empty()).then(|| Predicate::parse(predicate).unwrap());
        let mut body = Sending::new(RequestBody::whole(Bytes::from_static(b"x")), false, false);
        Again::new(0, now).may(backend, (0, ended), predicate.as_ref(), &method, &mut body, &ask(now))
    }

    #[test]
    fn by_default_only_what_is_idempotent_and_unanswered() {
        let three = backend(3);
        assert!(may(&three, Ended::Unanswered, "", Method::GET) && may(&three, Ended::Unanswered, "", Method::PUT));
        assert!(!may(&three, Ended::Unanswered, "", Method::POST));
        assert!(!may(&three, Ended::Late, "", Method::GET) && !may(&three, Ended::Nonsense, "", Method::GET));
        assert!(!may(&backend(1), Ended::Unanswered, "", Method::GET), "there is no other");
    }

    #[test]
    fn a_predicate_decides_instead() {
        let three = backend(3);
        let busy = Ended::Answered(StatusCode::SERVICE_UNAVAILABLE);
        assert!(may(&three, busy, "ResponseCode() == 503", Method::POST));
        assert!(!may(&three, Ended::Answered(StatusCode::OK), "ResponseCode() == 503", Method::POST));
        assert!(may(&three, Ended::Late, "IsNetworkError()", Method::GET));
        assert!(!may(&three, Ended::Unanswered, "Attempts() < 1", Method::GET));
    }

    #[test]
    fn a_spent_budget_ends_it_and_is_counted() {
        let three = backend(3);
        let made = (0..100).filter(|_| may(&three, Ended::Unanswered, "", Method::GET)).count();
        assert!((10..15).contains(&made), "{made}");
        assert_eq!(three.live.retries_denied.get(), 100 - made as u64);
    }

    #[test]
    fn another_server_is_not_kept_waiting_for() {
        let now = Instant::now();
        let limits = |servers| Again::new(0, now).connect_limits(&backend(servers), 0, &ask(now));
        assert_eq!(limits(2), Limits { dial: QUICK, handshake: QUICK_TLS });
        assert_eq!(limits(1), Limits { dial: Duration::from_secs(5), handshake: Duration::from_secs(10) });
    }
}
