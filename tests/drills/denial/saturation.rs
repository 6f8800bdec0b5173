//! E12: three times the requests that can be served. What is served is as much as before, the rest is told at once.

use std::time::Duration;

use etna_tests::load::percentile;

use crate::bed::{Bed, Rate};
use crate::drill::{Length, Outcome};
use crate::load::Load;

pub(super) async fn run(length: Length) -> Outcome {
    let bed = Bed::start("saturation", length).await;
    // The highest rate at which everything is served, sought by doubling.
    let mut rate: u64 = 500;
    let goodput = loop {
        let mut mix = bed.mix(Rate::Of(rate)).await;
        mix.rate = rate;
        let load = Load::start(mix);
        load.go_on(Duration::from_secs(3)).await;
        let traffic = bed.finish(load).await;
        let served = traffic.report.right as f64 / traffic.report.took.as_secs_f64();
        if served < rate as f64 * 0.9 || rate > 100_000 {
            break served;
        }
        rate *= 2;
    };
    let mut mix = bed.mix(Rate::Of(0)).await;
    mix.rate = (goodput * 3.0) as u64;
    let wanted = mix.rate;
    let load = Load::start(mix);
    load.go_on(length.pick(Duration::from_secs(60), Duration::from_secs(5))).await;
    let traffic = bed.finish(load).await;
    let served = traffic.report.right as f64 / traffic.report.took.as_secs_f64();
    let is_shed = |why: &str| why.contains("answered 503");
    let lost = traffic.report.wrong.iter().filter(|(_, _, why)| !is_shed(why)).count();
    let shed: std::collections::BTreeSet<u64> =
        traffic.report.wrong.iter().filter(|(_, _, why)| is_shed(why)).map(|(id, ..)| *id).collect();
    let mut told: Vec<Duration> =
        traffic.samples.iter().filter(|sample| shed.contains(&sample.id)).map(|sample| sample.latency).collect();
    told.sort_unstable();
    let told_in = percentile(&told, 0.99).unwrap_or_default();
    let mut mix = bed.mix(Rate::Of(0)).await;
    mix.rate = (goodput * 0.3) as u64;
    let after = Load::start(mix);
    after.go_on(Duration::from_secs(4)).await;
    let after = bed.finish(after).await;
    let late = after.report.wrong.iter().filter(|(_, at, _)| *at > Duration::from_secs(2)).count();
    let figure = format!(
        "{goodput:.0}/s can be served, of {wanted}/s {served:.0}/s were; {} told 503, 99 of 100 within {told_in:.1?}, \
         {lost} lost; p99 of the served {:.0} ms; {late} failed later than 2 s after it",
        shed.len(),
        traffic.report.latency_ms(0.99)
    );
    let pass = served >= goodput * 0.9 && told_in <= Duration::from_millis(50) && late == 0 && lost == 0;
    Outcome { load: format!("{wanted}/s, 60 s"), requests: traffic.report.sent, failed: lost as u64, figure, pass }
}
