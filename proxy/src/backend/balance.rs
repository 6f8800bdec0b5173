//! Balancing: which server takes the next request. Pure: no clock, no I/O; randomness and turn are given.
//!
//! Servers are ordered in tiers: those that take new clients by their priority, then, as a last resort, the draining
//! ones. A tier is used when every server of the tiers before it was tried. Servers of weight 0 never take new clients.

use etna_store::object::{Policy, ServerState};

use super::Server;

/// The order in which a backend's servers take requests.
#[derive(Debug, Default)]
pub struct Schedule {
    policy: Policy,
    tiers: Vec<Tier>,
}

/// Servers that are equally good, as indexes into the backend's list.
#[derive(Debug)]
struct Tier {
    /// One round of weighted round robin, interleaved; each server as often as its reduced weight.
    round: Box<[u16]>,
}

impl Schedule {
    /// The schedule of a backend's servers.
    pub fn new(policy: Policy, servers: &[Server]) -> Schedule {
        let mut priorities: Vec<u32> = servers.iter().filter(|s| s.takes_new()).map(|s| s.spec.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let mut tiers: Vec<Tier> = priorities
            .into_iter()
            .map(|priority| {
                Tier::new(servers, |server| {
                    if server.takes_new() && server.spec.priority == priority { server.spec.weight } else { 0 }
                })
            })
            .collect();
        if servers.iter().any(|s| s.spec.state == ServerState::Draining) {
            tiers.push(Tier::new(servers, |server| u32::from(server.spec.state == ServerState::Draining)));
        }
        Schedule { policy, tiers }
    }

    /// Whether no server can take a request.
    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    /// Chooses a server that was not tried yet. `turn` counts requests; `random` is drawn for this one.
    pub fn pick(&self, servers: &[Server], turn: u64, random: u64, tried: &[u16]) -> Option<u16> {
        let ill = |at: &u16| !servers[usize::from(*at)].live.health.is_serving();
        if (0..servers.len() as u16).any(|at| ill(&at)) {
            let passed: Vec<u16> = tried.iter().copied().chain((0..servers.len() as u16).filter(ill)).collect();
            if let Some(at) = self.pick_any(servers, turn, random, &passed) {
                return Some(at);
            }
        }
        self.pick_any(servers, turn, random, tried)
    }

    fn pick_any(&self, servers: &[Server], turn: u64, random: u64, tried: &[u16]) -> Option<u16> {
        self.tiers.iter().find_map(|tier| match self.policy {
            Policy::WeightedRoundRobin => tier.in_turn(turn, tried),
            Policy::PowerOfTwoChoices => tier.less_loaded(servers, random, tried).or_else(|| tier.in_turn(turn, tried)),
        })
    }
}

impl Tier {
    fn new(servers: &[Server], weight: impl Fn(&Server) -> u32) -> Tier {
        let weights: Vec<u32> = servers.iter().map(weight).collect();
        Tier { round: round(&weights) }
    }

    fn in_turn(&self, turn: u64, tried: &[u16]) -> Option<u16> {
        let len = self.round.len() as u64;
        if len == 0 {
            return None;
        }
        // Turn after turn from where it stands: the first untried is the next in order.
        (0..len).map(|step| self.round[((turn.wrapping_add(step)) % len) as usize]).find(|index| !tried.contains(index))
    }

    fn less_loaded(&self, servers: &[Server], random: u64, tried: &[u16]) -> Option<u16> {
        let len = self.round.len() as u64;
        if len == 0 {
            return None;
        }
        let draw = |random: u64| self.round[(random % len) as usize];
        let a = draw(random & 0xffff_ffff);
        // The second draw skips over copies of the first, so that two servers are always two.
        let start = (random >> 32) % len;
        let b = (0..len).map(|step| draw(start + step)).find(|b| *b != a).unwrap_or(a);
        let load = |index: u16| {
            let server = &servers[usize::from(index)];
            (u64::from(server.live.in_flight()) + 1) * 1000 / u64::from(server.spec.weight.max(1))
        };
        match (tried.contains(&a), tried.contains(&b)) {
            (false, false) => Some(if load(b) < load(a) { b } else { a }),
            (false, true) => Some(a),
            (true, false) => Some(b),
            (true, true) => None,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use crate::backend::{InFlight, Live};
    use etna_store::object::Scheme;

    fn server(id: &str, weight: u32, priority: u32, state: ServerState) -> Server {
        let spec = etna_store::Server {
            id: id.into(),
            scheme: Scheme::Http,
            host: "127.0.0.1".into(),
            port: 80,
            weight,
            priority,
            zone: None,
            state,
            meta: BTreeMap::new(),
        };
        Server { live: Arc::new(Live::new(0, "b", &spec)), spec: Arc::new(spec) }
    }

    fn up(id: &str, weight: u32) -> Server {
        server(id, weight, 1, ServerState::Up)
    }

    #[test]
    fn round_robin_interleaves_by_weight() {
        let servers = [up("a", 5), up("b", 1), up("c", 1)];
        let schedule = Schedule::new(Policy::WeightedRoundRobin, &servers);
        let picks: Vec<u16> = (0..7).filter_map(|turn| schedule.pick(&servers, turn, 0, &[])).collect();
        assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn tried_servers_are_skipped_until_none_is_left() {
        let servers = [up("a", 1), up("b", 1), up("c", 1)];
        for policy in [Policy::WeightedRoundRobin, Policy::PowerOfTwoChoices] {
            let schedule = Schedule::new(policy, &servers);
            let mut tried = Vec::new();
            while let Some(pick) = schedule.pick(&servers, 7, 0x1234_5678_9abc, &tried) {
                assert!(!tried.contains(&pick));
                tried.push(pick);
            }
            tried.sort_unstable();
            assert_eq!(tried, [0, 1, 2]);
        }
    }

    #[test]
    fn tiers_are_used_in_order_and_draining_servers_last() {
        let servers = [
            server("backup", 1, 2, ServerState::Up),
            up("main", 1),
            server("leaving", 1, 1, ServerState::Draining),
            up("off", 0),
        ];
        let schedule = Schedule::new(Policy::WeightedRoundRobin, &servers);
        assert_eq!(schedule.pick(&servers, 0, 0, &[]), Some(1));
        assert_eq!(schedule.pick(&servers, 0, 0, &[1]), Some(0));
        assert_eq!(schedule.pick(&servers, 0, 0, &[1, 0]), Some(2));
        assert_eq!(schedule.pick(&servers, 0, 0, &[1, 0, 2]), None);
        assert!(Schedule::new(Policy::WeightedRoundRobin, &servers[3..]).is_empty());
    }

    #[test]
    fn two_choices_prefer_the_one_with_less_in_flight_per_weight() {
        let servers = [up("a", 1), up("b", 1)];
        let _busy: Vec<InFlight> = (0..3).map(|_| InFlight::enter(&servers[0].live)).collect();
        let schedule = Schedule::new(Policy::PowerOfTwoChoices, &servers);
        for random in 0..64u64 {
            assert_eq!(schedule.pick(&servers, 0, random << 32 | (63 - random), &[]), Some(1));
        }
    }

    #[test]
    fn odd_weights_keep_the_round_short_and_nobody_starves() {
        let weights: Vec<u32> = (0..600).map(|n| if n == 0 { 256 } else { 1 + n % 255 }).collect();
        let round = round(&weights);
        assert!(round.len() as i64 <= LONGEST_ROUND + 600);
        for index in 0..600u16 {
            assert!(round.contains(&index));
        }
    }
}
