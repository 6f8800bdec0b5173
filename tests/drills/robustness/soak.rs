//! G8: a steady load and no fault, ten minutes, or as many seconds as `ETNA_DRILLS_SOAK_SECONDS` says.

use std::time::Duration;

use crate::bed::{Bed, Rate};
use crate::denial::{self, MB};
use crate::drill::{Length, Outcome};

pub(super) async fn run(length: Length) -> Outcome {
    let said = std::env::var("ETNA_DRILLS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(said.unwrap_or(length.pick(600, 20)));
    let bed = Bed::start("soak", length).await;
    let load = bed.load(Rate::L2k).await;
    // Ten parts; the first is for pools and buffers to find their size.
    let mut parts: Vec<f64> = Vec::new();
    for _ in 0..10 {
        let mut seen = Vec::new();
        for _ in 0..10 {
            load.go_on(time / 100).await;
            seen.push(denial::resident(bed.proxy.pid()).unwrap_or_default() as f64 / MB);
        }
        parts.push(seen.iter().sum::<f64>() / seen.len() as f64);
    }
    let traffic = bed.finish(load).await;
    let grown = (parts[9] - parts[1]) / parts[1] * 100.0;
    let tenth = time / 10;
    let first = traffic.latency_ms(0.99, tenth, tenth * 2);
    let last = traffic.latency_ms(0.99, tenth * 9, time);
    let figure =
        format!("memory {:.1} MB, then {:.1} ({grown:+.1} %); p99 {first:.1} ms, then {last:.1}", parts[1], parts[9]);
    // Flat is two in a hundred, or what one thread's heap takes at once.
    let flat = grown <= 2.0 || parts[9] - parts[1] < 1.0;
    let figure = if flat { figure } else { format!("{figure}: {parts:.1?}") };
    let outcome = traffic.outcome(figure, flat);
    Outcome { load: format!("{}, {} s", outcome.load, time.as_secs()), ..outcome }
}
