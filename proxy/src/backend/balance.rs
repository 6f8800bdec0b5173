//! Balancing: which server takes the next request. Pure: no clock, no I/O; randomness, turn and time are given.
//!
//! Servers are ordered in tiers: those that take new clients by their priority, then, as a last resort, the draining
//! ones. The first tier with a healthy server that was not tried serves; where nobody is healthy, all are tried. In a
//! tier the servers of the proxy's own zone are drawn first, and what an ill one of them would have got goes to the whole
//! tier, so that the others of the zone never get more for it. Servers of weight 0 never take new clients.

use std::time::{Duration, Instant};

use etna_store::object::{Policy, ServerState};

use super::Server;
use super::hash::{draw, draw_evenly, mix};
use super::slow_start::WHOLE;

/// The order in which a backend's servers take requests.
#[derive(Debug, Default)]
pub struct Schedule {
    policy: Policy,
    tiers: Vec<Tier>,
    /// Whether servers are given only so many requests at once.
    limited: bool,
    slow_start: Duration,
}

/// Servers that are equally good.
#[derive(Debug)]
struct Tier {
    all: Ring,
    /// Those of the proxy's own zone, where that are some and not all.
    near: Option<Ring>,
}

/// Servers to draw from, as indexes into the backend's list.
#[derive(Debug)]
struct Ring {
    /// One round of weighted round robin, interleaved; each server as often as its reduced weight.
    round: Box<[u16]>,
    /// Each once; only for hashing.
    members: Box<[u16]>,
    /// Whether all weights are equal.
    even: bool,
}

/// A request that asks for a server.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Counts the backend's requests.
    pub turn: u64,
    /// Drawn for this one.
    pub random: u64,
    /// What it hashes to, where the policy hashes, or the request belongs to a session; then no policy matters.
    pub key: Option<u64>,
    /// When it came.
    pub now: Instant,
    /// Whether any server starts slowly.
    pub ramping: bool,
    /// Servers that failed it.
    pub tried: &'a [u16],
}

/// What comes of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// This server.
    Server(u16),
    /// There are servers, and none may be given more now.
    Full,
    /// Every server was tried, or there is none.
    Nobody,
}

impl Pick {
    /// The server, if there is one.
    pub fn server(self) -> Option<u16> {
        match self {
            Pick::Server(at) => Some(at),
            Pick::Full | Pick::Nobody => None,
        }
    }
}

impl Schedule {
    /// The schedule of a backend's servers, for a proxy in that zone.
    pub fn new(spec: &etna_store::Backend, servers: &[Server], zone: Option<&str>) -> Schedule {
        let mut priorities: Vec<u32> = servers.iter().filter(|s| s.takes_new()).map(|s| s.spec.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let mut tiers: Vec<Tier> = priorities
            .into_iter()
            .map(|priority| {
                Tier::new(servers, zone, |server| {
                    if server.takes_new() && server.spec.priority == priority { server.spec.weight } else { 0 }
                })
            })
            .collect();
        if servers.iter().any(|s| s.spec.state == ServerState::Draining) {
            tiers.push(Tier::new(servers, zone, |server| u32::from(server.spec.state == ServerState::Draining)));
        }
        Schedule { policy: spec.policy, tiers, limited: spec.limit.is_some(), slow_start: spec.slow_start }
    }

    /// Whether no server can take a request.
    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    /// Whether it goes by how fast servers answer.
    pub fn measures(&self) -> bool {
        self.policy == Policy::PeakEwma
    }

    /// The tier in which a server takes new clients, counted from 1; the draining ones are in the last.
    pub fn tier_of(&self, at: u16) -> Option<usize> {
        self.tiers.iter().position(|tier| tier.all.members.contains(&at)).map(|tier| tier + 1)
    }

    /// Whether a server is drawn before others of its tier, being in the proxy's own zone.
    pub fn is_near(&self, at: u16) -> bool {
        self.tiers.iter().filter_map(|tier| tier.near.as_ref()).any(|near| near.members.contains(&at))
    }

    /// Chooses a server that was not tried yet.
    #[inline]
    pub fn pick(&self, servers: &[Server], ask: &Ask<'_>) -> Pick {
        // Nearly always the first one drawn will do.
        if let Some(tier) = self.tiers.first() {
            let look = Look { schedule: self, servers, ask, well: true };
            if let Some(at) = look.first(tier.near.as_ref().unwrap_or(&tier.all)) {
                return Pick::Server(at);
            }
        }
        self.pick_other(servers, ask)
    }

    #[cold]
    fn pick_other(&self, servers: &[Server], ask: &Ask<'_>) -> Pick {
        for tier in &self.tiers {
            if let Some(at) = self.within(tier, servers, ask, true) {
                return Pick::Server(at);
            }
            if self.limited && tier.all.members.iter().any(|at| !ask.tried.contains(at) && is_well(servers, *at)) {
                return Pick::Full;
            }
        }
        self.pick_among_ill(servers, ask)
    }

    /// Nobody is well: everybody is asked, rather than nobody.
    #[cold]
    fn pick_among_ill(&self, servers: &[Server], ask: &Ask<'_>) -> Pick {
        if let Some(at) = self.tiers.iter().find_map(|tier| self.within(tier, servers, ask, false)) {
            return Pick::Server(at);
        }
        let untried = |tier: &Tier| tier.all.members.iter().any(|at| !ask.tried.contains(at));
        if self.limited && self.tiers.iter().any(untried) { Pick::Full } else { Pick::Nobody }
    }

    fn within(&self, tier: &Tier, servers: &[Server], ask: &Ask<'_>, well: bool) -> Option<u16> {
        let look = Look { schedule: self, servers, ask, well };
        if let Some(near) = &tier.near
            && let Some(at) = look.first(near)
        {
            return Some(at);
        }
        look.first(&tier.all).or_else(|| look.other(&tier.all))
    }
}

/// Drawing for one request.
struct Look<'a> {
    schedule: &'a Schedule,
    servers: &'a [Server],
    ask: &'a Ask<'a>,
    /// Whether only healthy servers will do.
    well: bool,
}

impl Look<'_> {
    /// The server that the policy draws, if it will do.
    #[inline]
    fn first(&self, ring: &Ring) -> Option<u16> {
        match (self.schedule.policy, self.ask.key) {
            (_, Some(key)) => self.draws_best(ring, key, |_| true).filter(|at| self.will_do(*at)),
            (Policy::PowerOfTwoChoices, _) => self.cheaper(ring, |server| u64::from(server.live.in_flight()) + 1),
            (Policy::PeakEwma, _) => self.cheaper(ring, |server| {
                let latency = u64::from(server.live.latency.read(server.live.millis(self.ask.now)));
                (latency + NOISE_US) * (u64::from(server.live.in_flight()) + 1)
            }),
            (Policy::WeightedRoundRobin | Policy::Hash, _) => {
                let at = *ring.round.get(in_turn(self.ask.turn, ring.round.len())?)?;
                self.will_do(at).then_some(at)
            }
        }
    }

    /// Of two drawn at random the one that costs less per weight.
    #[inline]
    fn cheaper(&self, ring: &Ring, cost: impl Fn(&Server) -> u64) -> Option<u16> {
        let round = &*ring.round;
        let a = *round.get(drawn(self.ask.random, round.len()))?;
        // The second draw skips over copies of the first, so that two servers are always two.
        let (before, after) = round.split_at_checked(drawn(self.ask.random >> 32, round.len()))?;
        let b = after.iter().chain(before).copied().find(|b| *b != a).unwrap_or(a);
        let load = |index: u16| {
            let server = &self.servers[usize::from(index)];
            cost(server).saturating_mul(1000) / u64::from(server.spec.weight.max(1))
        };
        match (self.will_do(a), self.will_do(b)) {
            (true, true) => Some(if load(b) < load(a) { b } else { a }),
            (true, false) => Some(a),
            (false, true) => Some(b),
            (false, false) => None,
        }
    }

    /// Another one that will do, by weight; at last one that starts slowly and was passed over for it.
    #[cold]
    fn other(&self, ring: &Ring) -> Option<u16> {
        if let Some(key) = self.ask.key {
            return self
                .draws_best(ring, key, |at| self.will_do(at))
                .or_else(|| self.draws_best(ring, key, |at| self.may(at)));
        }
        let round = &*ring.round;
        // By chance, so that what the absent would have got is spread evenly, then one after the other.
        let chance = mix(self.ask.random ^ self.ask.turn);
        let some = (1..=DRAWS).filter_map(|n| round.get(drawn(mix(chance.wrapping_add(n)), round.len())));
        let (before, after) = round.split_at_checked(drawn(chance, round.len()))?;
        let order = || some.clone().chain(after).chain(before).copied();
        order().find(|at| self.will_do(*at)).or_else(|| order().find(|at| self.may(*at)))
    }

    fn draws_best(&self, ring: &Ring, key: u64, fits: impl Fn(u16) -> bool) -> Option<u16> {
        let server = |at: u16| &self.servers[usize::from(at)];
        let members = ring.members.iter().copied().filter(|at| fits(*at));
        if ring.even {
            return members.min_by_key(|at| draw_evenly(key, server(*at).live.hash));
        }
        let lot = |at: u16| draw(key, server(at).live.hash, server(at).spec.weight);
        members.min_by(|a, b| lot(*a).total_cmp(&lot(*b)))
    }

    /// Whether it takes the request: it may, and if it starts slowly it is lucky.
    #[inline]
    fn will_do(&self, at: u16) -> bool {
        self.may(at) && (!self.ask.ramping || self.is_lucky(at))
    }

    #[inline]
    fn may(&self, at: u16) -> bool {
        let live = &self.servers[usize::from(at)].live;
        !self.ask.tried.contains(&at)
            && (!self.well || live.health.is_serving())
            && (!self.schedule.limited || live.has_room())
    }

    #[cold]
    fn is_lucky(&self, at: u16) -> bool {
        let live = &self.servers[usize::from(at)].live;
        // One that has nothing to do is not drowned by a request.
        if self.schedule.policy != Policy::Hash && self.ask.key.is_none() && live.in_flight() == 0 {
            return true;
        }
        // A key that has come to a new server stays there.
        let lot = mix(self.ask.key.unwrap_or(self.ask.random) ^ !live.hash);
        lot % WHOLE < live.share(self.ask.now, self.schedule.slow_start)
    }
}

/// Whose turn it is of so many. Narrow, because wide divisions are slow; once in 2³² turns the order jumps.
#[inline]
fn in_turn(turn: u64, of: usize) -> Option<usize> {
    (turn as u32).checked_rem(u32::try_from(of).ok()?).map(|at| at as usize)
}

/// One of so many, by the lower half of a random number, without a division.
#[inline]
fn drawn(random: u64, of: usize) -> usize {
    (((random & 0xffff_ffff) * of as u64) >> 32) as usize
}

fn is_well(servers: &[Server], at: u16) -> bool {
    servers[usize::from(at)].live.health.is_serving()
}

impl Tier {
    fn new(servers: &[Server], zone: Option<&str>, weight: impl Fn(&Server) -> u32) -> Tier {
        let weights: Vec<u32> = servers.iter().map(weight).collect();
        let is_near = |server: &Server| zone.is_some() && server.spec.zone.as_deref() == zone;
        let near: Vec<u32> = servers.iter().zip(&weights).map(|(s, w)| if is_near(s) { *w } else { 0 }).collect();
        let some_near = near.iter().any(|weight| *weight > 0) && near != weights;
        Tier { all: Ring::new(&weights), near: some_near.then(|| Ring::new(&near)) }
    }
}

impl Ring {
    fn new(weights: &[u32]) -> Ring {
        let members = weights.iter().enumerate().filter(|(_, weight)| **weight > 0);
        let members: Box<[u16]> = members.filter_map(|(at, _)| u16::try_from(at).ok()).collect();
        let mut present = weights.iter().filter(|weight| **weight > 0);
        let first = present.next();
        Ring { round: round(weights), members, even: present.all(|weight| Some(weight) == first) }
    }
}

/// Interleaves indexes by weight, as smooth weighted round robin does: at each step everyone gains its weight, the
/// richest is chosen and pays the total. `[5, 1, 1]` gives `a a b a c a a`.
fn round(weights: &[u32]) -> Box<[u16]> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let mut weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    // A round stays short however odd the weights are; the error is below one part in the number of steps.
    let total: i64 = weights.iter().sum();
    if total > LONGEST_ROUND {
        for weight in weights.iter_mut().filter(|weight| **weight > 0) {
            *weight = (*weight * LONGEST_ROUND / total).max(1);
        }
    }
    let total: i64 = weights.iter().sum();
    if weights.iter().filter(|weight| **weight > 0).all(|weight| *weight == 1) {
        let members = weights.iter().enumerate().filter(|(_, weight)| **weight > 0);
        return members.filter_map(|(index, _)| u16::try_from(index).ok()).collect();
    }
    let mut credit = vec![0i64; weights.len()];
    (0..total)
        .filter_map(|_| {
            for (credit, weight) in credit.iter_mut().zip(&weights) {
                *credit += weight;
            }
            let (richest, _) = credit.iter().enumerate().rev().max_by_key(|(_, credit)| **credit)?;
            credit[richest] -= total;
            u16::try_from(richest).ok()
        })
        .collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

const LONGEST_ROUND: i64 = 4096;
/// Tries by chance before servers are looked at one by one.
const DRAWS: u64 = 4;
/// Differences in latency below this, in microseconds, say nothing.
const NOISE_US: u64 = 100;

#[cfg(test)]
mod tests;
