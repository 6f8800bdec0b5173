//! E7: heads that are small on the wire and large in memory: a field put in the table once and named again and again,
//! crumbs of cookies, empty fields; each of a byte. Clients allow nothing of the answers, so that all may have to wait.
//!
//! A head four times as large as allowed ends its connection at once. One between is an honest mistake as well, which
//! users want to be told of: it is answered 431, and what of it went beyond the limit was never kept; only who repeats
//! it is sent away, when the heads are used up that may fail. Heads within the limit are bounded
//! for all streams of a connection together, and by the time for which an answer may wait.

use etna_tests::h2::*;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ground::{Ground, HANGS, SECOND};
use super::pour::{Poured, pour_many};
use crate::bed::HOST;
use crate::drill::{Length, Outcome};

pub(super) async fn run(length: Length) -> Outcome {
    let many = length.pick(50, 10);
    let mut ground = Ground::open("bombs", length).await;
    let none = frame(SETTINGS, 0, 0, &setting(4, 0));
    for (name, bomb) in bombs() {
        let attack = ground.attack().await;
        let bytes = bomb.clone();
        let all = pour_many(ground.at, many, &none, ENOUGH, move |n| head(2 * n + 1, HANGS, &bytes.large)).await;
        let stayed = all.iter().find(|one| !is_first(one));
        ground.check(name, stayed.is_none(), || format!("not told to go by the first head: {stayed:?}"));
        let cost = ground.over(name, attack).await;
        ground.check(name, cost.memory < MOST_MB, || format!("memory +{:.1} MB (< {MOST_MB})", cost.memory));

        let attack = ground.attack().await;
        let all = pour_many(ground.at, many, &none, ENOUGH, move |n| head(2 * n + 1, HANGS, &bomb.between)).await;
        let stayed = all.iter().find(|one| !one.was_told_to_go() || one.last_stream > 2 * MOST_REFUSED);
        ground.check(name, stayed.is_none(), || format!("between: not told to go: {stayed:?}"));
        let told = all.iter().all(|one| one.statuses.keys().eq(&[431]));
        ground.check(name, told, || format!("between: not all told 431: {:?}", all.first()));
        let cost = ground.over_in_turn(&format!("{name}, between"), attack, many).await;
        ground.check(name, cost.memory < MOST_MB, || format!("between: memory +{:.1} MB (< {MOST_MB})", cost.memory));
    }
    waiting(&mut ground, many, length).await;
    ground.outcome(format!("{many} connections, 4 bombs")).await
}

/// Whether it was told to go by its first head.
fn is_first(one: &Poured) -> bool {
    one.was_told_to_go() && one.last_stream <= 1 && one.statuses.is_empty()
}

/// Heads just within all limits, a hundred streams of each connection, whose server does not answer; then the same with
/// one that does, and answers that may not be sent: after a while they are given up.
async fn waiting(ground: &mut Ground, many: usize, length: Length) {
    let name = "heads within the limit";
    let fields: Vec<u8> = (0..90).flat_map(|n| field(&format!("x-{n}"), &"y".repeat(300))).collect();
    for (what, host) in [("no answer", HANGS), ("answers that may not be sent", HOST)] {
        let attack = ground.attack().await;
        let mut wires = Vec::new();
        for _ in 0..many {
            let mut wire = Wire::open(ground.at).await;
            wire.send(&frame(SETTINGS, 0, 0, &setting(4, 0))).await.expect("the proxy reads");
            for stream in 0..STREAMS {
                for frame in split(2 * stream + 1, &[request("GET", host, "/"), fields.clone()].concat()) {
                    wire.send(&frame).await.expect("the proxy reads");
                }
            }
            wires.push(wire);
        }
        let mut tasks = JoinSet::new();
        // What was begun waits; beyond that it is refused. Answers wait for no longer than a reader may take.
        let until = Instant::now() + if host == HOST && length == Length::Full { 40 * SECOND } else { SECOND };
        for mut wire in wires {
            tasks.spawn(async move {
                let (mut refused, mut given_up, mut answered) = (0, 0, 0);
                while let Ok(Some(frame)) = wire.next(until).await {
                    match (frame.kind, frame.code()) {
                        (RST_STREAM, Some(REFUSED_STREAM)) => refused += 1,
                        (RST_STREAM, _) => given_up += 1,
                        (HEADERS, _) => answered += 1,
                        _ => {}
                    }
                }
                (refused, given_up, answered)
            });
        }
        let all = tasks.join_all().await;
        let cost = ground.over(&format!("{name}, {what}"), attack).await;
        let sum = |of: fn(&(u32, u32, u32)) -> u32| all.iter().map(of).sum::<u32>();
        let (refused, given_up, answered) = (sum(|one| one.0), sum(|one| one.1), sum(|one| one.2));
        ground.tell(format!("{what}: {refused} refused, {answered} answered, {given_up} given up"));
        let one = cost.memory / many as f64;
        ground.check(name, one < MOST_WAITING_MB, || format!("{what}: {one:.1} MB a connection (< {MOST_WAITING_MB})"));
        if host == HANGS {
            let waiting = STREAMS * many as u32 - refused;
            let most = (256 / 27 + 2) * many as u32;
            ground.check(name, waiting <= most, || format!("{waiting} heads wait (<= {most})"));
        } else if length == Length::Full {
            ground.check(name, given_up >= answered, || "answers wait for longer than 30 s".into());
        }
    }
}

/// A head of a block, which may be longer than a frame.
fn split(stream: u32, block: &[u8]) -> Vec<Vec<u8>> {
    let pieces: Vec<&[u8]> = block.chunks(16_384).collect();
    let frames = pieces.iter().enumerate().map(|(n, piece)| {
        let last = if n + 1 == pieces.len() { END_HEADERS } else { 0 };
        match n {
            0 => frame(HEADERS, END_STREAM | last, stream, piece),
            _ => frame(CONTINUATION, last, stream, piece),
        }
    });
    frames.collect()
}

/// A request with more in its head.
fn head(stream: u32, host: &str, more: &[u8]) -> Vec<u8> {
    split(stream, &[&request("GET", host, "/"), more].concat()).concat()
}

#[derive(Clone)]
struct Bomb {
    /// More than four times what is allowed.
    large: Vec<u8>,
    /// More than allowed.
    between: Vec<u8>,
}

fn bombs() -> Vec<(&'static str, Bomb)> {
    let tabled = |value: usize, large: usize, between: usize| {
        let mut first = vec![0x40];
        first.extend(&field("x", &"y".repeat(value))[1..]);
        // What was put in last has this number.
        let named = |times: usize| [first.clone(), vec![0xbe; times]].concat();
        Bomb { large: named(large), between: named(between) }
    };
    // Fields of the static table whose values are empty (RFC 7541 appendix A).
    let fixed = |index: u8| Bomb { large: vec![0x80 | index; 16_000], between: vec![0x80 | index; 1000] };
    vec![
        ("a byte, named again", tabled(1, 16_000, 1500)),
        ("4,000 bytes, named again", tabled(4000, 16_000, 12)),
        ("crumbs", fixed(32)),
        ("empty fields", fixed(15)),
    ]
}

const ENOUGH: u32 = 3000;
const STREAMS: u32 = 100;
/// Heads of a connection that are looked at until it is ended.
const MOST_REFUSED: u32 = 250;
const MOST_MB: f64 = 50.0;
/// Of memory for a connection whose requests all wait, with their tasks and their connections to servers: what a
/// hundred requests of HTTP/1.1 may have as well.
const MOST_WAITING_MB: f64 = 2.0;
