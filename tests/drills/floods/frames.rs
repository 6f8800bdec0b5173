//! E9: frames that carry nothing and want to be looked at or answered, from clients that read what comes and from such
//! that do not; and responses that nobody reads.

use etna_tests::h2::*;
use tokio::task::JoinSet;

use super::ground::{Ground, HANGS, SECOND};
use super::pour::{begin, pour_many, pour_unread, update};
use super::unread;
use crate::drill::{Length, Outcome};

pub(super) async fn run(length: Length) -> Outcome {
    let mut ground = Ground::open("frames", length).await;
    let kinds = kinds();
    let mut most = 0;
    for (name, each) in &kinds {
        let attack = ground.attack().await;
        let repeated = each.clone();
        let all = pour_many(ground.at, MANY, &begin(1, HANGS), ENOUGH, move |_| repeated.clone()).await;
        let cost = ground.over(name, attack).await;
        most = most.max(all.iter().map(|one| one.times).max().unwrap_or_default());
        // Who is not told to go may cost no more than a fifth of a core.
        let stayed = all.iter().find(|one| !one.was_told_to_go());
        let is_cheap = length.fast(cost.processor <= 0.2 * cost.took.as_secs_f64());
        ground.check(name, stayed.is_none() || is_cheap, || {
            format!("not told to go: {stayed:?}, {:.2} s of a core", cost.processor)
        });
    }
    ground.tell(format!("told to go after at most {most} frames"));
    let time = length.pick(5, 2) * SECOND;
    for (name, each) in &kinds {
        let attack = ground.attack().await;
        let mut tasks = JoinSet::new();
        for _ in 0..MANY {
            tasks.spawn(pour_unread(ground.at, begin(1, HANGS), each.clone(), time));
        }
        let broken = tasks.join_all().await.into_iter().filter(|broken| *broken).count();
        let cost = ground.over(&format!("{name} unread"), attack).await;
        let one = cost.memory / MANY as f64;
        ground.check(name, one <= MOST_MB, || format!("unread: {one:.2} MB a connection (<= {MOST_MB})"));
        let is_cheap = length.fast(broken == MANY || cost.processor <= 0.2 * cost.took.as_secs_f64());
        ground.check(name, is_cheap, || format!("unread: {broken} broken off, {:.2} s of a core", cost.processor));
    }
    // A line for each frame would be a flood as well.
    let said = ground.bed.proxy.said();
    ground.check("the log", !said.contains("PING"), || format!("it speaks of frames: {said}"));
    unread::run(&mut ground, length).await;
    ground.outcome(format!("{MANY} connections, {} kinds", kinds.len())).await
}

fn kinds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("PING", frame(PING, 0, 0, &[7; 8])),
        ("PING's answer", frame(PING, ACK, 0, &[7; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &setting(4, 65_535))),
        ("empty SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("SETTINGS that change the table", frame(SETTINGS, 0, 0, &[setting(1, 0), setting(1, 4096)].concat())),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", update(0, 1)),
        ("a stream's WINDOW_UPDATE", update(1, 1)),
        ("an unknown type", frame(0xbe, 0, 0, &[])),
    ]
}

const MANY: usize = 10;
const ENOUGH: u32 = 100_000;
/// Of memory for a connection whose client does not read.
const MOST_MB: f64 = 1.0;
