//! Sends a vector and judges what came of it: at the client, at the server, and at a client beside it.

use std::time::Duration;

use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key};
use etna_tests::wait::{ensure, eventually};

use super::SOON;
use super::oracle::{Oracle, Seen};
use super::vectors::{Expect, Plain, Vector};
use super::wire::{Gone, Reply, Wire};

/// A proxy that sends everything, whatever its host, to an oracle.
pub(crate) struct Ground {
    pub(crate) proxy: Proxy,
    pub(crate) oracle: Oracle,
    victim: Wire,
    number: u64,
    _scene: Scene,
}

/// What came of one vector.
struct Came {
    first: Result<Reply, Gone>,
    /// The answer to the request after it on the same connection.
    canary: Option<Result<Reply, Gone>>,
    /// Whether a server saw that one.
    canary_seen: bool,
    /// What else a server saw.
    others: Vec<Seen>,
}

impl Ground {
    pub(crate) async fn start(name: &str) -> Ground {
        let scene = Scene::alone(name).await;
        let oracle = Oracle::start().await;
        scene.route("a", "a.test", &[("s", oracle.address)]).await;
        scene.put(&frontend_key("any"), frontend("PathRegexp(`.*`)", "a")).await;
        let proxy = scene.proxy("etna").await;
        proxy.until_status("a.test", "/", 200).await;
        proxy.until_status("other.test", "/", 200).await;
        let victim = Wire::open(proxy.listen).await;
        Ground { proxy, oracle, victim, number: 0, _scene: scene }
    }

    /// What is wrong with what came of it, if anything is.
    pub(crate) async fn judge(&mut self, vector: &Vector) -> Result<(), String> {
        self.number += 1;
        let canary = format!("/canary/{}", self.number);
        self.oracle.take();
        let mut wire = Wire::open(self.proxy.listen).await;
        wire.send(&vector.bytes).await;
        wire.send(format!("GET {canary} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes()).await;
        let head = vector.bytes.starts_with(b"HEAD");
        let mut first = wire.reply(head, PATIENCE).await;
        if matches!(first, Err(Gone::Quiet)) {
            // It waits for more: there is no more.
            wire.finish().await;
            first = wire.reply(head, SOON).await;
        }
        let second = match &first {
            Ok(reply) if !reply.closes() => Some(wire.reply(false, SOON).await),
            _ => None,
        };
        drop(wire);
        let settled = eventually("the server has seen the end of it", SOON, async || {
            ensure(self.oracle.unfinished() == 0, "a request is still being received")
        });
        settled.await;
        let victim = self.victim().await;
        let mut others = self.oracle.take();
        let is = |seen: &Seen, target: &str| matches!(seen, Seen::Clean(request) if request.target == target);
        others.retain(|seen| !is(seen, &format!("/victim/{}", self.number)));
        let before = others.len();
        others.retain(|seen| !is(seen, &canary));
        let canary_seen = before > others.len();
        if let Some(Ok(reply)) = &second
            && reply.status == 200
            && reply.field("x-saw") != format!("GET {canary} 0")
        {
            return Err(format!("SMUGGLED: the next request was answered {:?}", reply.field("x-saw")));
        }
        let came = Came { first, canary: second, canary_seen, others };
        came.against(&vector.expect).and(victim)
    }

    /// Several at once on one connection, all right.
    pub(crate) async fn pipelined(&mut self, group: &[&Vector]) -> Result<(), String> {
        self.oracle.take();
        let mut wire = Wire::open(self.proxy.listen).await;
        let all: Vec<u8> = group.iter().flat_map(|vector| vector.bytes.clone()).collect();
        // Both at once: whoever sends all before reading anything may fill every buffer on the way.
        let sender = wire.send_beside(all);
        let mut received = Ok(());
        for vector in group {
            let Expect::Forward(plain) = &vector.expect else { continue };
            let reply = wire.reply(false, SOON).await;
            if !reply.as_ref().is_ok_and(|reply| reply.status == 200 && reply.field("x-saw") == saw(plain)) {
                received = Err(format!("{}: {reply:?}", vector.name));
                break;
            }
        }
        sender.abort();
        received
    }

    /// Somebody else's request, on a connection kept all along.
    async fn victim(&mut self) -> Result<(), String> {
        let request = format!("GET /victim/{} HTTP/1.1\r\nHost: a.test\r\n\r\n", self.number);
        self.victim.send(request.as_bytes()).await;
        let reply = self.victim.reply(false, SOON).await;
        let saw = format!("GET /victim/{} 0", self.number);
        if reply.as_ref().is_ok_and(|reply| reply.status == 200 && reply.field("x-saw") == saw) {
            return Ok(());
        }
        self.victim = Wire::open(self.proxy.listen).await;
        Err(format!("VICTIM: another client got {reply:?}"))
    }
}

impl Came {
    fn against(&self, expect: &Expect) -> Result<(), String> {
        for seen in &self.others {
            match (seen, expect) {
                (Seen::Ambiguous(why), _) => return Err(format!("AMBIG: {why}")),
                (Seen::Clean(request), Expect::Forward(plain) | Expect::Either(plain))
                    if request.method == plain.method
                        && request.target == plain.target
                        && request.body == plain.body
                        && self.others.len() == 1 => {}
                (Seen::Clean(request), _) => {
                    let smuggled = if request.target.contains("smuggled") { "SMUGGLED" } else { "taken" };
                    return Err(format!("{smuggled}: a server saw {} {}", request.method, request.target));
                }
                (Seen::Partial(_), Expect::Cut | Expect::Either(_)) => {}
                (Seen::Partial(line), _) => return Err(format!("a server saw the beginning of {line:?}")),
            }
        }
        let status = self.first.as_ref().map_or(0, |reply| reply.status);
        match expect {
            Expect::Refuse | Expect::Cut => self.refused().and_then(|()| match (&self.canary, self.canary_seen) {
                (_, true) | (Some(Ok(_)), _) => Err("the connection went on after it".into()),
                _ => Ok(()),
            }),
            Expect::Deny => self.refused(),
            Expect::Either(_) if status != 200 => self.refused(),
            Expect::Forward(plain) | Expect::Either(plain) => self.forwarded(plain),
        }
    }

    /// Answered so that a client knows, or not at all.
    fn refused(&self) -> Result<(), String> {
        match &self.first {
            Ok(reply) if matches!(reply.status, 400..=499 | 501 | 505) => Ok(()),
            Err(Gone::Closed | Gone::Reset) => Ok(()),
            Ok(reply) => Err(format!("answered {}", reply.status)),
            Err(gone) => Err(format!("{gone:?}")),
        }
    }

    fn forwarded(&self, plain: &Plain) -> Result<(), String> {
        let reply = self.first.as_ref().map_err(|gone| format!("not answered: {gone:?}"))?;
        if (reply.status, reply.field("x-saw")) != (200, &*saw(plain)) {
            return Err(format!("answered {} {:?}", reply.status, reply.field("x-saw")));
        }
        match &self.canary {
            Some(Ok(canary)) if canary.status == 200 => Ok(()),
            Some(other) => Err(format!("the next request: {other:?}")),
            None => Ok(()),
        }
    }
}

fn saw(plain: &Plain) -> String {
    format!("{} {} {}", plain.method, plain.target, plain.body.len())
}

/// Until a vector is taken to wait for more.
const PATIENCE: Duration = Duration::from_millis(700);
