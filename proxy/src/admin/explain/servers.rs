//! Part of `explain`: how a backend chooses, and its servers as the next request would try them, each with why not.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use etna_store::object::{Policy, ServerState};
use serde_json::{Value, json};

use super::super::objects::url;
use super::MOST_SHOWN;
use crate::backend::Backend;
use crate::backend::balance::Ask;
use crate::backend::slow_start::WHOLE;

/// What is set and what goes on in the backend as a whole.
pub(super) fn balancing(backend: &Backend, key: Option<u64>) -> Value {
    let spec = &backend.spec;
    let queue = &backend.live.queue;
    json!({
        "backend": &*backend.id,
        "policy": spec.policy.name(),
        "hash_on": (spec.policy == Policy::Hash).then(|| spec.hash_on.text()),
        "hashed": key.is_some(),
        "slow_start": etna_store::duration::format(spec.slow_start),
        "limit": spec.limit.map(|limit| json!({
            "requests": limit.requests,
            "queue": limit.queue,
            "wait": etna_store::duration::format(limit.wait),
            "waiting": queue.len(),
            "overflowed": queue.overflowed.get(),
            "expired": queue.expired.get(),
        })),
        "retries_denied": backend.live.retries_denied.get(),
        "panic": backend.tally().is_panic(),
    })
}

/// The servers of a backend, as the next request would try them; those that take none come last.
pub(super) fn servers(backend: &Backend, stuck: Option<u16>, key: Option<u64>, now: Instant) -> Vec<Value> {
    let turn = backend.live.turn.load(Relaxed);
    let mut order: Vec<u16> = stuck.into_iter().collect();
    while order.len() < MOST_SHOWN {
        let ask = Ask { turn, random: 0, key, now, ramping: backend.is_ramping(now), tried: &order };
        let Some(next) = backend.schedule.pick(&backend.servers, &ask).server() else { break };
        order.push(next);
    }
    let tried = order.len();
    let rest = (0..u16::try_from(backend.servers.len()).unwrap_or(u16::MAX)).filter(|at| !order.contains(at));
    let all: Vec<u16> = order.iter().copied().chain(rest).take(MOST_SHOWN).collect();
    let tier = |at: u16| backend.schedule.tier_of(at);
    let well = |at: u16| backend.servers.get(usize::from(at)).is_some_and(|server| server.live.health.is_serving());
    // Where the next request goes: the first tier with a server that is well.
    let first = all.iter().filter(|at| well(**at)).filter_map(|at| tier(*at)).min();
    let server = |(place, at): (usize, &u16)| {
        let server = backend.servers.get(usize::from(*at))?;
        let live = &server.live;
        let draining = server.spec.state == ServerState::Draining;
        let share = live.share(now, backend.spec.slow_start);
        let health = server.live.health.standing();
        let note = match (stuck == Some(*at), draining, server.spec.weight) {
            (true, ..) => "the cookie names it",
            (_, _, 0) => "weight 0: takes no requests",
            _ if first.is_some() && !well(*at) => "not asked while another is well",
            (_, true, _) => "draining: last resort",
            _ if first.is_some() && tier(*at) > first => "not asked while a tier before has one that is well",
            _ if !live.has_room() => "full: others first",
            _ if share < WHOLE => "starts slowly",
            _ if key.is_some() => "by the hash of its key",
            _ => match backend.spec.policy {
                Policy::PowerOfTwoChoices => "drawn at random, the less loaded of two",
                Policy::PeakEwma => "drawn at random, the faster and less loaded of two",
                Policy::Hash | Policy::WeightedRoundRobin => "",
            },
        };
        Some(json!({
            "id": &*server.spec.id,
            "url": url(&server.spec),
            "state": if draining { "draining" } else { "up" },
            "draining_seconds": live.draining_for(now).map(|time| time.as_secs()),
            "healthy": live.health.is_serving(),
            "weight": server.spec.weight,
            "priority": server.spec.priority,
            "tier": backend.schedule.tier_of(*at),
            "zone": server.spec.zone.as_deref(),
            "near": backend.schedule.is_near(*at),
            "share": share as f64 / WHOLE as f64,
            "in_flight": live.in_flight(),
            "latency_ms": backend.schedule.measures().then(|| f64::from(live.latency.read(live.millis(now))) / 1000.0),
            "order": (place < tried).then_some(place + 1),
            "health": health.word,
            // Of who is not checked nothing is known, not even that it is well.
            "reason": (health.word != "unchecked").then(|| health.reason.word()),
            "detail": health.detail,
            "handshake_error": live.handshake_error.get(),
            "note": note,
        }))
    };
    all.iter().enumerate().filter_map(server).collect()
}
