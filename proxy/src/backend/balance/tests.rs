//! What is promised of balancing, policy by policy.

use super::*;
use crate::backend::{Backend, InFlight, test};
use proptest::prelude::*;

const POLICIES: [&str; 4] = ["wrr", "p2c", "ewma", "hash"];

fn up(id: &str, weight: u32) -> Server {
    test::server(id, &format!(r#","Weight":{weight}"#))
}

fn with(policy: &str, servers: Vec<Server>) -> Backend {
    test::backend(servers, &format!(r#","Policy":"{policy}""#), None)
}

fn ask(turn: u64, tried: &[u16]) -> Ask<'_> {
    let random = mix(turn ^ 0x5eed);
    Ask { turn, random, key: None, now: Instant::now(), ramping: false, tried }
}

/// The key of a request, where the policy hashes.
fn key(backend: &Backend, turn: u64) -> Option<u64> {
    (backend.spec.policy == Policy::Hash).then(|| mix(turn))
}

fn pick(backend: &Backend, turn: u64, tried: &[u16]) -> Option<u16> {
    let ask = Ask { key: key(backend, turn), ..ask(turn, tried) };
    backend.schedule.pick(&backend.servers, &ask).server()
}

/// How many of so many requests each server gets.
fn spread(backend: &Backend, requests: u64, now: Instant) -> Vec<u64> {
    let mut spread = vec![0; backend.servers.len()];
    for turn in 0..requests {
        let ask = Ask { now, key: key(backend, turn), ramping: backend.is_ramping(now), ..ask(turn, &[]) };
        spread[usize::from(backend.schedule.pick(&backend.servers, &ask).server().unwrap())] += 1;
    }
    spread
}

fn near(value: u64, wanted: u64) -> bool {
    value.abs_diff(wanted) <= wanted / 10 + 20
}

#[test]
fn round_robin_interleaves_by_weight() {
    let backend = with("wrr", vec![up("a", 5), up("b", 1), up("c", 1)]);
    let picks: Vec<u16> = (0..7).filter_map(|turn| pick(&backend, turn, &[])).collect();
    assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn tried_servers_are_skipped_until_none_is_left() {
    for policy in POLICIES {
        let backend = with(policy, vec![up("a", 1), up("b", 2), up("c", 1)]);
        let mut tried = Vec::new();
        while let Some(pick) = pick(&backend, 7, &tried) {
            assert!(!tried.contains(&pick));
            tried.push(pick);
        }
        tried.sort_unstable();
        assert_eq!(tried, [0, 1, 2], "{policy}");
    }
}

#[test]
fn tiers_are_used_in_order_and_draining_servers_last() {
    let servers = vec![
        test::server("backup", r#","Priority":2"#),
        up("main", 1),
        test::server("leaving", r#","State":"draining""#),
        up("off", 0),
    ];
    for policy in POLICIES {
        let backend = with(policy, servers.clone());
        assert_eq!(pick(&backend, 0, &[]), Some(1));
        assert_eq!(pick(&backend, 0, &[1]), Some(0));
        assert_eq!(pick(&backend, 0, &[1, 0]), Some(2));
        assert_eq!(pick(&backend, 0, &[1, 0, 2]), None);
        assert!(with(policy, servers[3..].to_vec()).schedule.is_empty());
    }
}

#[test]
fn two_choices_prefer_the_one_with_less_in_flight_per_weight() {
    let backend = with("p2c", vec![up("a", 1), up("b", 1)]);
    let _busy: Vec<InFlight> = (0..3).map(|_| InFlight::enter(&backend.servers[0].live)).collect();
    assert!((0..64).all(|turn| pick(&backend, turn, &[]) == Some(1)));
}

#[test]
fn least_latency_avoids_the_slow_and_the_busy() {
    let backend = with("ewma", vec![up("a", 1), up("b", 1)]);
    let (a, b) = (&backend.servers[0].live, &backend.servers[1].live);
    a.latency.record(Duration::from_millis(400), 0);
    assert!((0..64).all(|turn| pick(&backend, turn, &[]) == Some(1)), "b was never slow");
    let _busy: Vec<InFlight> = (0..40).map(|_| InFlight::enter(b)).collect();
    assert!((0..64).all(|turn| pick(&backend, turn, &[]) == Some(0)), "a is slow, and b forty times as busy");
}

#[test]
fn a_key_stays_on_its_server_and_takes_the_next_best_when_that_failed() {
    let mut firsts = Vec::new();
    for (policy, key) in POLICIES.iter().flat_map(|policy| (0..100u64).map(move |key| (policy, key))) {
        let backend = with(policy, vec![up("a", 1), up("b", 1), up("c", 1)]);
        let of = |turn, tried| {
            let ask = Ask { key: Some(mix(key)), ..ask(turn, tried) };
            backend.schedule.pick(&backend.servers, &ask).server().unwrap()
        };
        let first = of(0, &[]);
        assert!((1..10).all(|turn| of(turn, &[]) == first), "{policy}");
        let tried = [first];
        assert!((1..10).all(|turn| of(turn, &tried) == of(0, &tried)), "{policy}");
        firsts.push(first);
    }
    assert!([0, 1, 2].iter().all(|at| firsts.contains(at)));
    let backend = with("hash", vec![up("a", 1), up("b", 1), up("c", 1)]);
    let keyless = |turn| backend.schedule.pick(&backend.servers, &Ask { key: None, ..ask(turn, &[]) });
    assert_eq!([keyless(0), keyless(1), keyless(2)], [0, 1, 2].map(Pick::Server), "without a key by turn");
}

#[test]
fn servers_of_the_own_zone_first_and_what_they_cannot_take_is_shared_by_all() {
    for policy in POLICIES {
        let zone = |id: &str, zone: &str| test::server(id, &format!(r#","Zone":"{zone}""#));
        let servers = vec![zone("a", "x"), zone("b", "x"), zone("c", "y"), zone("d", "y")];
        let backend = test::backend(servers, &format!(r#","Policy":"{policy}""#), Some("x"));
        let spread = spread(&backend, 2000, Instant::now());
        assert!(near(spread[0], 1000) && near(spread[1], 1000), "{policy}: {spread:?}");
        assert!(pick(&backend, 3, &[0, 1]).is_some_and(|at| at >= 2));
        let elsewhere = test::backend(backend.servers.clone(), "", Some("z"));
        assert!(self::spread(&elsewhere, 2000, Instant::now()).iter().all(|share| *share == 500));
    }
}

#[test]
fn full_servers_are_passed_over_and_do_not_open_the_next_tier() {
    for policy in POLICIES {
        let more = format!(r#","Policy":"{policy}","Limit":1"#);
        let backend = test::backend(vec![up("a", 1), up("b", 1), test::server("c", r#","Priority":2"#)], &more, None);
        let first = InFlight::enter_within(&backend.servers[0].live).unwrap();
        assert!((0..8).all(|turn| pick(&backend, turn, &[]) == Some(1)));
        let _second = InFlight::enter_within(&backend.servers[1].live).unwrap();
        assert_eq!(backend.schedule.pick(&backend.servers, &ask(0, &[])), Pick::Full);
        assert_eq!(pick(&backend, 0, &[0, 1]), Some(2), "those that failed it are not waited for");
        drop(first);
        assert_eq!(pick(&backend, 0, &[]), Some(0));
    }
}

#[test]
fn a_new_server_gets_its_share_little_by_little() {
    for policy in POLICIES {
        let backend = with(policy, vec![up("a", 1), up("b", 1), up("c", 1), up("d", 1)]);
        let now = Instant::now();
        backend.begin(&backend.servers[3..], now);
        if policy != "hash" {
            assert!(spread(&backend, 8000, now)[3] > 1500, "{policy}: it has nothing to do");
        }
        let _busy: Vec<InFlight> = backend.servers.iter().map(|server| InFlight::enter(&server.live)).collect();
        let share = |seconds: u64| spread(&backend, 8000, now + Duration::from_secs(seconds))[3];
        // A tenth of a quarter, a half of a quarter, all of it.
        let [first, half, whole] = [share(0), share(5), share(11)];
        // With two choices and nothing in flight a tie goes to the first drawn.
        assert!((100..450).contains(&first), "{policy}: {first}");
        assert!((700..1500).contains(&half), "{policy}: {half}");
        assert!((1800..2200).contains(&whole), "{policy}: {whole}");
        assert!(!backend.is_ramping(now + Duration::from_secs(11)));
    }
}

#[test]
fn at_most_half_start_slowly() {
    let backend = with("wrr", vec![up("a", 1), up("b", 1), up("c", 1)]);
    let now = Instant::now();
    let slow = || backend.servers.iter().filter(|s| s.live.share(now, Duration::from_secs(10)) < WHOLE).count();
    backend.begin(&backend.servers, now);
    assert_eq!(slow(), 0, "all are new");
    backend.back(0, now);
    assert_eq!(slow(), 1);
    backend.back(2, now);
    assert_eq!(slow(), 1);
    let off = test::backend(vec![up("a", 1), up("b", 1)], r#","SlowStart":"0s""#, None);
    off.back(1, now);
    assert!(!off.is_ramping(now));
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

proptest! {
    #[test]
    fn whoever_is_picked_may_be(
        policy in 0usize..4,
        shapes in prop::collection::vec((0u32..4, 1u32..3, any::<bool>(), any::<bool>()), 1..8),
        limit in prop::option::of(1u32..3),
        turn in any::<u64>(),
        tried in prop::collection::vec(0u16..8, 0..5),
    ) {
        let servers: Vec<Server> = shapes.iter().enumerate().map(|(n, (weight, priority, draining, near))| {
            let state = if *draining { "draining" } else { "up" };
            let zone = if *near { "x" } else { "y" };
            let more = format!(r#","Weight":{weight},"Priority":{priority},"State":"{state}","Zone":"{zone}""#);
            test::server(&format!("s{n}"), &more)
        }).collect();
        let limited = limit.map_or(String::new(), |limit| format!(r#","Limit":{limit}"#));
        let more = format!(r#","Policy":"{}"{limited}"#, POLICIES[policy]);
        let backend = test::backend(servers, &more, Some("x"));
        let _held: Vec<InFlight> = backend.servers.iter().step_by(2).map(|s| InFlight::enter(&s.live)).collect();
        let key = (turn % 2 == 0).then(|| mix(turn));
        match backend.schedule.pick(&backend.servers, &Ask { key, ..ask(turn, &tried) }) {
            Pick::Server(at) => {
                prop_assert!(!tried.contains(&at));
                let server = &backend.servers[usize::from(at)];
                prop_assert!(server.live.has_room());
                prop_assert!(server.takes_new() || server.spec.state == ServerState::Draining);
            }
            Pick::Full => prop_assert!(limit.is_some()),
            Pick::Nobody => {
                let left = (0u16..).zip(&backend.servers).any(|(at, server)| {
                    !tried.contains(&at) && (server.takes_new() || server.spec.state == ServerState::Draining)
                });
                prop_assert!(!left);
            }
        }
    }
}
