//! A table as large as the largest that are wanted.

use std::time::{Duration, Instant};

use etna_tests::etcd::Settings;
use etna_tests::proxy::Proxy;
use etna_tests::scene::{frontend, frontend_key, server_key};
use serde_json::{Value, json};

use super::ground::{Ground, bare, ms, put_to_served};
use crate::bed::{BACKEND, Rate};
use crate::drill::{Length, Outcome};

/// C14. 20,000 frontends and 50,000 servers in 5,000 backends, about 30 MB; debug builds are not held to the times.
pub(super) async fn large(length: Length) -> Outcome {
    let (scene, servers) = bare("c14", 1, Settings::default()).await;
    let (routes, backends) = (length.pick(20_000, 2_000), length.pick(5_000, 500));
    let mut bytes = 0;
    let objects =
        (0..backends * 10).map(|n| server(n % backends, n / backends)).chain((0..routes).map(|n| route(n, backends)));
    let objects: Vec<(String, Value)> =
        objects.inspect(|(key, value)| bytes += key.len() + value.to_string().len()).collect();
    scene.put_all(objects).await;
    let began = Instant::now();
    let proxy = Proxy::start_within("etna", &scene.store(), &[], scene.folder(), Duration::from_secs(120)).await;
    let synced = began.elapsed();
    let counts = proxy.json("/v3/status").await["counts"].clone();
    let whole = counts["frontends"] == routes + 10 && counts["servers"] == backends * 10 + 21;

    let ground = Ground::around(scene, servers, proxy, length).await;
    let (scene, proxy) = (&ground.scene, &ground.proxy);
    let calm = ground.load(Rate::L2k).await;
    calm.go_on(Duration::from_secs(length.pick(15, 2))).await;
    let calm = ground.finish(calm).await.report;
    let traffic = ground.load(Rate::L2k).await;
    let mut lags = Vec::new();
    for n in 0..length.pick(50, 5) {
        lags.push(put_to_served(scene, proxy, &format!("late{n}")).await);
        // Another backend changes, too, and the one that serves.
        let (key, _) = server(n, 0);
        scene.put(&key, json!({ "URL": "http://10.255.0.1:80" })).await;
        let live = &ground.servers[n % 3];
        let value = json!({ "URL": format!("http://{}", live.address), "Weight": 1 + n % 2 });
        scene.put(&server_key(BACKEND, &live.id), value).await;
    }
    let traffic = ground.finish(traffic).await;
    let (calm_ms, swapping) = (calm.latency_ms(0.999), traffic.report.latency_ms(0.999));
    let mut outcome = traffic.outcome("", true);
    let memory = proxy.memory() >> 20;
    lags.sort_unstable();
    let lag = lags[lags.len() / 2];
    let stall = swapping - calm_ms;
    let timely = cfg!(debug_assertions) || (synced < Duration::from_secs(3) && stall < 5.0);
    outcome.pass &= whole && calm.wrong.is_empty() && memory < 400 && timely;
    outcome.figure = format!(
        "{} MB; ready after {} (< 3 s); RSS {memory} MiB (< 400); a change live in {}; p99.9 {:.1} ms while calm, \
         {swapping:.1} ms while changing (< +5){}; {}",
        bytes / 1_000_000,
        ms(synced),
        ms(lag),
        calm_ms,
        if cfg!(debug_assertions) { ", times not held on a debug build" } else { "" },
        outcome.figure
    );
    outcome
}

fn server(backend: usize, n: usize) -> (String, Value) {
    let note = format!("{backend:0>150}{n:0>150}");
    let address = format!("http://10.{}.{}.{}:80", backend / 250, backend % 250, n + 1);
    (server_key(&format!("b{backend}"), &format!("s{n}")), json!({ "URL": address, "Meta": { "note": note } }))
}

fn route(n: usize, backends: usize) -> (String, Value) {
    let rule = format!("Host(`h{n}.{:0>120}.test`) && PathPrefix(`/p{}/{:0>100}`)", n % 7, n % 10, n);
    (frontend_key(&format!("f{n}")), frontend(&rule, &format!("b{}", n % backends)))
}
