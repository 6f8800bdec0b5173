//! E6: a head that goes on and on (RUSTSEC-2024-0332).

use etna_tests::h2::*;

use super::ground::{Ground, HANGS};
use super::pour::pour_many;
use crate::drill::{Length, Outcome};

pub(super) async fn run(length: Length) -> Outcome {
    let mut ground = Ground::open("continuations", length).await;
    let opening = frame(HEADERS, END_STREAM, 1, &request("GET", HANGS, "/"));
    // A value that is far longer than anything, in small pieces.
    let endless =
        frame(HEADERS, END_STREAM, 1, &[&request("GET", HANGS, "/")[..], &[0, 1, b'x', 127, 0xff, 0x7f]].concat());
    let kinds: [(&str, &[u8], Vec<u8>); 5] = [
        ("full frames", &opening, field("x", &"y".repeat(16_000))),
        ("frames of a field", &opening, field("x", "y")),
        ("frames of nothing", &opening, Vec::new()),
        ("one value, a byte a frame", &endless, vec![b'y']),
        ("one value, full frames", &endless, vec![b'y'; 16_384]),
    ];
    let mut most = 0;
    for (name, opening, piece) in &kinds {
        let attack = ground.attack().await;
        let each = frame(CONTINUATION, 0, 1, piece);
        let all = pour_many(ground.at, MANY, opening, ENOUGH, move |_| each.clone()).await;
        let cost = ground.over(name, attack).await;
        let bytes = all.iter().map(|one| one.bytes).max().unwrap_or_default();
        most = most.max(bytes);
        let stayed = all.iter().find(|one| !one.was_told_to_go());
        ground.check(name, stayed.is_none(), || format!("not told to go: {stayed:?}"));
        ground.check(name, bytes <= MOST_BYTES, || format!("{bytes} bytes (<= {MOST_BYTES})"));
        ground.check(name, cost.memory < MOST_MB, || format!("memory +{:.1} MB (< {MOST_MB})", cost.memory));
    }
    ground.tell(format!("told to go after at most {most} bytes (<= {MOST_BYTES})"));
    ground.outcome(format!("{MANY} connections, {} kinds", kinds.len())).await
}

const MANY: usize = 10;
const ENOUGH: u32 = 20_000;
const MOST_BYTES: usize = 1024 * 1024;
/// Ten connections' buffers.
const MOST_MB: f64 = 10.0;
