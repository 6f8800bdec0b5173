//! B5, B6: servers that are said to be ill, and one that says so itself.

use std::time::Duration;

use etna_tests::scene::{frontend, frontend_key};
use etna_tests::wait::{ensure, eventually};
use serde_json::json;

use crate::bed::{BACKEND, Bed, HOST, Needs, Rate};
use crate::drill::{Length, Outcome};
use crate::load::Mix;
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

/// B6: a server refuses everything while the others have much to do, then all do, and whoever is refused is to be sent
/// to another one: that must not multiply the load.
pub(crate) async fn refusing(length: Length) -> Outcome {
    let bed = Bed::start("b6", length).await;
    let mut route = frontend(&format!("Host(`{HOST}`)"), BACKEND);
    route["Settings"]["FailoverPredicate"] = "ResponseCode() == 503 && Attempts() <= 2".into();
    bed.proxy.until_revision(bed.scene.put(&frontend_key(BACKEND), route).await).await;
    let mix = bed.mix(Rate::L2k).await;
    // Each of two servers gets half of the requests, and has half of a core: 90 % of that, or little where the machine
    // does other things.
    let spin = length.pick(900_000, 200_000) / mix.rate.max(1);
    for server in &bed.servers[..2] {
        server.set(&format!("spin={spin}")).await;
    }
    bed.servers[2].set("status=503").await;
    let (before, refused_before) = (attempts(&bed), bed.servers[2].attempts());
    let load = bed.load_of(mix.clone()).await;
    load.go_on(length.pick(Duration::from_secs(20), Duration::from_secs(1))).await;
    let one = bed.finish(load).await;
    let between = attempts(&bed);
    let refused = bed.servers[2].attempts() - refused_before;
    let other = one.report.wrong.iter().filter(|(_, _, why)| !why.contains(" answered 503 ")).count();

    for server in &bed.servers[..2] {
        server.set("spin=0&status=503").await;
    }
    let load = bed.load_of(Mix { first: mix.first + (1 << 36), ..mix }).await;
    load.go_on(length.pick(Duration::from_secs(10), Duration::from_secs(1))).await;
    let all = bed.finish(load).await;
    let share = |attempts: u64, sent: u64| attempts as f64 / sent.max(1) as f64;
    let (share_one, share_all) =
        (share(between - before, one.report.sent), share(attempts(&bed) - between, all.report.sent));
    // A share of what was sent before may be saved up; ten retries are everybody's.
    let whole = share((attempts(&bed) - before).saturating_sub(10), one.report.sent + all.report.sent);
    let figure = format!(
        "attempts a request: {share_one:.3} while one refuses ({refused} at it), {share_all:.3} while all do, {whole:.3} \
         in all (<= 1.2); \
         {other} failed otherwise than by its 503; others compute {spin} us a request, p99 {:.1} ms",
        one.report.latency_ms(0.99)
    );
    one.outcome_if(figure, whole <= 1.2 && refused > 0 && other == 0)
}

/// Requests that reached any server.
fn attempts(bed: &Bed) -> u64 {
    bed.servers.iter().map(Echo::attempts).sum()
}
