//! Of E9: responses that nobody reads. Each connection asks for a hundred large pages and allows nothing of them; then
//! it allows all, and reads nothing. What memory grows by from then on is what waits to be written and what was read of
//! servers meanwhile.

use std::time::Duration;

use etna_tests::h2::*;
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::wait::{ensure, eventually};

use super::ground::{Ground, SECOND};
use super::pour::{begin, update};
use crate::denial::{MB, resident};
use crate::drill::Length;

pub(super) async fn run(ground: &mut Ground, length: Length) {
    let many = length.pick(20, 4);
    let large = StandIn::start("large").await;
    large.set(Manner::Page(200, "", Box::leak("x".repeat(PAGE).into_boxed_str())));
    ground.bed.scene.route("large", "large.test", &[("s", large.address)]).await;
    ground.bed.proxy.until_status("large.test", "/", 200).await;
    let asked = large.requests();
    let attack = ground.attack().await;
    let pid = ground.bed.proxy.pid();
    let mut wires = Vec::new();
    for _ in 0..many {
        let mut wire = Wire::open(ground.at).await;
        let nothing = frame(SETTINGS, 0, 0, &setting(4, 0));
        let requests: Vec<u8> = (0..STREAMS).flat_map(|n| begin(2 * n + 1, "large.test")).collect();
        wire.send(&[nothing, requests].concat()).await.expect("the proxy reads");
        wires.push(wire);
    }
    // A machine that is busy answers some of them 503.
    let wanted = asked + u64::from(STREAMS) * many as u64 * 3 / 4;
    eventually("most are asked for", 20 * SECOND, async || {
        ensure(large.requests() >= wanted, format!("{} of {wanted}", large.requests()))
    })
    .await;
    let before = settled(pid).await;
    for wire in &mut wires {
        let all = [frame(SETTINGS, 0, 0, &setting(4, 0x3fff_ffff)), update(0, 0x3fff_ffff)].concat();
        wire.send(&all).await.expect("the proxy reads");
    }
    let after = settled(pid).await;
    let one = after.saturating_sub(before) as f64 / MB / many as f64;
    let name = "responses unread";
    drop(wires);
    ground.over_in_turn(name, attack, many).await;
    ground.tell(format!(
        "of each of {many} connections with {STREAMS} unread responses {one:.2} MB wait (<= {MOST_MB:.2})"
    ));
    ground.check(name, one <= MOST_MB, || format!("{one:.2} MB wait (<= {MOST_MB:.2})"));
}

/// Memory once it has not grown for a while.
async fn settled(pid: u32) -> u64 {
    let (mut most, mut still) = (0, 0);
    while still < 5 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = resident(pid).unwrap_or_default();
        still = if now > most + 64 * 1024 { 0 } else { still + 1 };
        most = most.max(now);
    }
    most
}

const STREAMS: u32 = 100;
const PAGE: usize = 4 << 20;
/// For a connection: what waits to be written, 1 MB, and for each request what was read of its server at once, as for one
/// of HTTP/1.1.
const MOST_MB: f64 = 1.0 + STREAMS as f64 / 16.0;
