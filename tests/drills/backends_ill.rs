//! B5, B6: servers that are said to be ill, and one that says so itself.

use std::time::Duration;

use etna_tests::wait::{ensure, eventually};
use serde_json::json;

use crate::bed::{BACKEND, Bed, Needs, Rate};
use crate::drill::{Length, Outcome};
use crate::servers_handle::Echo;

/// B5: the checks are wrong: nobody is well, so everybody is asked.
pub(crate) async fn unchecked(length: Length) -> Outcome {
    let check = json!({ "Path": "/health", "Interval": "200ms", "Timeout": "1s", "Fall": 2, "Rise": 2 });
    let bed = Bed::with("b5", length, Needs { backend: json!({ "HealthCheck": check }), ..Needs::default() }).await;
    let load = bed.load(Rate::L2k).await;
    for server in &bed.servers {
        server.set("health=500").await;
    }
    eventually("the proxy says that nobody is well", Duration::from_secs(20), async || {
        let status = bed.proxy.json("/v3/status").await["health"]["panic"].clone();
        let panics = status.as_array().is_some_and(|backends| backends.iter().any(|backend| backend == BACKEND));
        ensure(panics, format!("it says {status}"))
    })
    .await;
    let since = load.began.elapsed();
    load.go_on(length.pick(Duration::from_secs(20), Duration::from_secs(1))).await;
    let metric = bed.proxy.metrics().await.sum("etna_backend_panic", &[("backend", BACKEND)]);
    let traffic = bed.finish(load).await;
    let asked = |server: &Echo| traffic.first(|s| s.due > since && s.server.as_deref() == Some(server.id.as_str()));
    let all = bed.servers.iter().all(|server| asked(server).is_some());
    let figure = format!(
        "told by status and metric ({}); {} asked meanwhile",
        metric.map_or("missing".into(), |value| value.to_string()),
        if all { "all" } else { "NOT all" }
    );
    traffic.outcome(figure, all && metric == Some(1.0))
}

/// B6: a server refuses everything while the others have much to do: trying elsewhere must not bring those down.
pub(crate) async fn refusing(length: Length) -> Outcome {
    let bed = Bed::start("b6", length).await;
    let mix = bed.mix(Rate::L2k).await;
    // Each of two servers gets half of the requests, and has half of a core: 90 % of that, or little where the machine
    // does other things.
    let spin = length.pick(900_000, 200_000) / mix.rate.max(1);
    for server in &bed.servers[..2] {
        server.set(&format!("spin={spin}")).await;
    }
    bed.servers[2].set("status=503").await;
    let before: u64 = bed.servers.iter().map(Echo::attempts).sum();
    let load = bed.load_of(mix).await;
    load.go_on(length.pick(Duration::from_secs(20), Duration::from_secs(2))).await;
    let traffic = bed.finish(load).await;
    let attempts = bed.servers.iter().map(Echo::attempts).sum::<u64>() - before;
    let share = attempts as f64 / traffic.report.sent.max(1) as f64;
    let refused = bed.servers[2].attempts();
    let other = traffic.report.wrong.iter().filter(|(_, _, why)| !why.contains(" answered 503 ")).count();
    let figure = format!(
        "{attempts} attempts, {share:.3} a request (<= 1.2); {refused} at the server that refuses; {other} failed otherwise \
         than by its 503; others compute {spin} us a request, p99 {:.1} ms",
        traffic.report.latency_ms(0.99)
    );
    traffic.outcome_if(figure, share <= 1.2 && refused > 0 && other == 0)
}
