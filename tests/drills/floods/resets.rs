//! E4: requests that are taken back as soon as they were sent (CVE-2023-44487), or as soon as a server has them. Each
//! second a connection that was ended is followed by another.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ground::{Ground, HANGS, SECOND};
use super::pour::{Poured, Way, begin, pour, reset};
use crate::drill::{Length, Outcome};

pub(super) async fn run(length: Length) -> Outcome {
    let mut ground = Ground::open("resets", length).await;
    let time = length.pick(10, 2) * SECOND;
    let kinds: [Way; 4] = [
        ("at once", |n| [begun(n, 1), taken_back(n, 1)].concat()),
        ("ten at a time", |n| [begun(n, 10), taken_back(n, 10)].concat()),
        ("a hundred at a time", |n| [begun(n, 100), taken_back(n, 100)].concat()),
        ("when its server has it", |n| match n % 50 {
            0 => begun(n / 50, 10),
            49 => taken_back(n / 50, 10),
            _ => Vec::new(),
        }),
    ];
    for (name, each) in kinds {
        let asked = ground.hangs.requests();
        let attack = ground.attack().await;
        let all = attackers(ground.at, time, each).await;
        let cost = ground.over(name, attack).await;
        let (many, asked) = (all.len().max(1) as u64, ground.hangs.requests() - asked);
        // Of each stream a head and what takes it back.
        let frames = all.iter().map(|one| one.last_stream + 1).max().unwrap_or_default();
        let reached = asked / many;
        ground.tell(format!(
            "{many} connections ended after at most {frames} frames, {reached} requests of each begun on average"
        ));
        let stayed = all.iter().find(|one| !one.was_told_to_go());
        ground.check(name, stayed.is_none(), || format!("not told to go: {stayed:?}"));
        ground.check(name, frames <= MOST_FRAMES, || format!("{frames} frames were looked at (<= {MOST_FRAMES})"));
        ground.check(name, reached <= MOST_BEGUN, || format!("{reached} requests begun (<= {MOST_BEGUN})"));
        let is_cheap = length.fast(cost.processor < MOST_PROCESSOR);
        ground.check(name, is_cheap, || format!("{:.2} s of a core (< {MOST_PROCESSOR})", cost.processor));
    }
    ground.outcome(format!("{MANY} connections, {} s", time.as_secs())).await
}

/// Connections for so long, each followed by another a second after it began.
async fn attackers(at: SocketAddr, time: Duration, each: fn(u32) -> Vec<u8>) -> Vec<Poured> {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..MANY {
        tasks.spawn(async move {
            let mut all = Vec::new();
            while Instant::now() < until {
                let next = Instant::now() + SECOND;
                all.push(pour(at, &[], ENOUGH, each).await);
                tokio::time::sleep_until(next).await;
            }
            all
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// The n-th so many requests.
fn begun(n: u32, together: u32) -> Vec<u8> {
    streams(n, together).flat_map(|stream| begin(stream, HANGS)).collect()
}

fn taken_back(n: u32, together: u32) -> Vec<u8> {
    streams(n, together).flat_map(reset).collect()
}

fn streams(n: u32, together: u32) -> impl Iterator<Item = u32> {
    (n * together..(n + 1) * together).map(|stream| 2 * stream + 1)
}

const MANY: usize = 10;
/// Times, if nobody ended it.
const ENOUGH: u32 = 20_000;
/// A connection's frames until it is ended.
const MOST_FRAMES: u32 = 2000;
/// A connection's requests that reach a server.
const MOST_BEGUN: u64 = 100;
/// Seconds of a core that all of it may cost.
const MOST_PROCESSOR: f64 = 1.0;
