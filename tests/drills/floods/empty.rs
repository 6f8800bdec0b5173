//! E10: DATA frames that carry nothing (RUSTSEC-2026-0258), or nothing but padding.

use etna_tests::h2::*;

use super::ground::{Ground, HANGS};
use super::pour::{pour_many, reset};
use crate::drill::{Length, Outcome};

pub(super) async fn run(length: Length) -> Outcome {
    let mut ground = Ground::open("empty", length).await;
    // The second is taken back.
    let begun = |stream| frame(HEADERS, END_HEADERS, stream, &request("POST", HANGS, "/"));
    let opening = [begun(1), begun(3), reset(3)].concat();
    let mut most = 0;
    for (name, each) in [
        ("empty", frame(DATA, 0, 1, &[])),
        ("no padding", frame(DATA, PADDED, 1, &[0])),
        ("padding", frame(DATA, PADDED, 1, &[&[200][..], &[0; 200]].concat())),
        ("on a stream that was ended", frame(DATA, 0, 3, &[])),
    ] {
        let attack = ground.attack().await;
        let all = pour_many(ground.at, MANY, &opening, ENOUGH, move |_| each.clone()).await;
        let cost = ground.over(name, attack).await;
        let frames = all.iter().map(|one| one.times).max().unwrap_or_default();
        most = most.max(frames);
        let stayed = all.iter().find(|one| !one.was_told_to_go());
        ground.check(name, stayed.is_none(), || format!("not told to go: {stayed:?}"));
        ground.check(name, frames <= MOST_FRAMES, || format!("{frames} frames (<= {MOST_FRAMES})"));
        ground.check(name, cost.memory < MOST_MB, || format!("memory +{:.1} MB (< {MOST_MB})", cost.memory));
    }
    ground.tell(format!("told to go after at most {most} frames (<= {MOST_FRAMES})"));
    let crate_version = locked_h2();
    ground.check("the crate", crate_version.as_slice() >= FIXED.as_slice(), || {
        format!("h2 {crate_version:?} (>= {FIXED:?})")
    });
    ground.outcome(format!("{MANY} connections, 4 kinds")).await
}

/// The version of the crate `h2` with which everything here is built.
fn locked_h2() -> Vec<u32> {
    let lock = include_str!("../../../Cargo.lock");
    let version = lock.split_once("name = \"h2\"\nversion = \"").and_then(|(_, rest)| rest.split_once('"'));
    let (version, _) = version.expect("the lock file names it");
    version.split('.').map(|part| part.parse().expect("a number")).collect()
}

const MANY: usize = 10;
const ENOUGH: u32 = 20_000;
const MOST_FRAMES: u32 = 2000;
const MOST_MB: f64 = 10.0;
/// From this version on it bounds them itself.
const FIXED: [u32; 3] = [0, 4, 16];
