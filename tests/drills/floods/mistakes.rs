//! E5: mistakes on a stream for which the proxy resets it (CVE-2025-8671): the client takes nothing back, and the
//! request's server is at work all the same.

use etna_tests::h2::*;

use super::ground::{Ground, HANGS};
use super::pour::{Way, begin, pour_many, update};
use crate::drill::{Length, Outcome};

pub(super) async fn run(length: Length) -> Outcome {
    let mut ground = Ground::open("mistakes", length).await;
    // As many requests at once as these connections may have anyway: what they take is no harm, and how many there are at
    // once is a matter of how busy the machine is.
    let honest = ground.attack().await;
    pour_many(ground.at, MANY, &[], 100, |n| begin(2 * n + 1, HANGS)).await;
    let honest = ground.over("as many honest requests", honest).await.memory;
    let mut most = 0;
    for (name, mistake) in MISTAKES {
        let attack = ground.attack().await;
        let each = move |n: u32| [begin(4 * n + 1, HANGS), mistake(4 * n + 1)].concat();
        let all = pour_many(ground.at, MANY, &[], ENOUGH, each).await;
        let cost = ground.over(name, attack).await;
        let resets = all.iter().map(|one| one.resets).max().unwrap_or_default();
        most = most.max(resets);
        let stayed = all.iter().find(|one| !one.was_told_to_go());
        ground.check(name, stayed.is_none(), || format!("not told to go: {stayed:?}"));
        ground.check(name, resets <= MOST_RESETS, || format!("{resets} resets (<= {MOST_RESETS})"));
        let beyond = cost.memory - honest;
        ground.check(name, beyond < MOST_MB, || format!("memory +{beyond:.1} MB (< {MOST_MB}) beyond honest requests"));
    }
    ground.tell(format!("told to go after at most {most} resets (<= {MOST_RESETS})"));
    ground.outcome(format!("{MANY} connections, {} mistakes", MISTAKES.len())).await
}

/// What is sent after a whole request.
const MISTAKES: [Way; 6] = [
    ("a window beyond all bounds", |stream| update(stream, 0x7fff_ffff)),
    ("a window by 0", |stream| update(stream, 0)),
    ("HEADERS after the end", |stream| begin(stream, HANGS)),
    ("DATA after the end", |stream| frame(DATA, 0, stream, b"x")),
    ("PRIORITY on itself", |stream| frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[1]].concat())),
    ("a head that is malformed", |stream| {
        let block = [request("GET", HANGS, "/"), field("connection", "x")].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, stream + 2, &block)
    }),
];

const MANY: usize = 10;
const ENOUGH: u32 = 5000;
const MOST_RESETS: u32 = 1100;
const MOST_MB: f64 = 10.0;
