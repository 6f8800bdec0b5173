//! E12: three times the requests that can be served. What is served is as much as before, the rest is told at once.
//!
//! The servers say what they can: so many at a time, each for 100 ms. So it does not depend on the machine, on which the
//! clients and the servers run, too, what can be served.

use std::collections::BTreeMap;
use std::time::Duration;

use etna_tests::load::{Load as Closed, Plan, percentile};
use serde_json::json;

use crate::bed::{BACKEND, Bed, HOST, Needs, Rate};
use crate::drill::{Length, Outcome};
use crate::load::{Load, Mix};
use crate::load_shape;

pub(super) async fn run(length: Length) -> Outcome {
    let limit = json!({"Limit": {"Requests": AT_ONCE, "Queue": AT_ONCE * 2, "Wait": "1s"}});
    let bed = Bed::with("saturation", length, Needs { backend: limit, ..Needs::default() }).await;
    for server in &bed.servers {
        server.set("delay=100").await;
    }
    // As many clients as can be served or wait: none is turned away.
    let closed = Closed::start(Plan {
        to: vec![bed.proxy.listen],
        rate: 0,
        connections: AT_ONCE * 4,
        request: load_shape::request,
        host: HOST.into(),
        check: |id, answer| load_shape::check(HOST, BACKEND, id, answer),
    });
    tokio::time::sleep(length.pick(Duration::from_secs(10), Duration::from_secs(2))).await;
    let alone = closed.stop().await;
    let (goodput, alone_p99) = (alone.rate(), alone.latency_ms(0.99));

    let rate = (goodput * 3.0) as u64;
    let traffic = load(&bed, rate, length.pick(Duration::from_secs(60), Duration::from_secs(3))).await;
    let served = traffic.report.right as f64 / traffic.report.took.as_secs_f64();
    let shed: BTreeMap<u64, ()> =
        traffic.report.wrong.iter().filter(|(_, _, why)| is_shed(why)).map(|(id, ..)| (*id, ())).collect();
    let mut told: Vec<Duration> =
        traffic.samples.iter().filter(|sample| shed.contains_key(&sample.id)).map(|sample| sample.latency).collect();
    told.sort_unstable();
    let told_in = percentile(&told, 0.99).unwrap_or_default();
    let told_half = percentile(&told, 0.5).unwrap_or_default();
    let mut lost: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, _, why) in traffic.report.wrong.iter().filter(|(_, _, why)| !is_shed(why)) {
        *lost.entry(why).or_default() += 1;
    }
    let losses: usize = lost.values().sum();
    let p99 = traffic.report.latency_ms(0.99);
    let after = load(&bed, (goodput * 0.5) as u64, Duration::from_secs(4)).await;
    let late = after.report.wrong.iter().filter(|(_, at, _)| *at > Duration::from_secs(2)).count();
    let figure = format!(
        "{goodput:.0}/s can be served, of {rate}/s {served:.0}/s were; {} told 503, half within {told_half:.1?}, 99 of 100 within {told_in:.1?}; \
         {losses} lost {:?}; p99 of the served {p99:.0} ms, was {alone_p99:.0}; {late} failed later than 2 s after it",
        shed.len(),
        lost.iter().take(3).collect::<Vec<_>>(),
    );
    let pass = served >= goodput * 0.9
        && told_in <= Duration::from_millis(50)
        && p99 < alone_p99 * 3.0
        && late == 0
        && losses == 0
        && alone.wrong.is_empty();
    Outcome { load: traffic.says, requests: traffic.report.sent, failed: losses as u64, figure, pass }
}

async fn load(bed: &Bed, rate: u64, time: Duration) -> crate::load::Traffic {
    let mix = bed.mix(Rate::Of(0)).await;
    let load = Load::start(Mix { rate, ..mix });
    load.go_on(time).await;
    bed.finish(load).await
}

fn is_shed(why: &str) -> bool {
    why.contains("answered 503")
}

/// Requests that each of three servers does at once.
const AT_ONCE: usize = 8;
