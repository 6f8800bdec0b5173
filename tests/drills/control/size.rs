//! A table as large as the largest that are wanted.

use std::time::{Duration, Instant};

use etna_tests::etcd::Settings;
use etna_tests::proxy::Proxy;
use etna_tests::scene::{frontend, frontend_key, server_key};
use serde_json::{Value, json};

use super::ground::{Traffic, application, bare, ms, put_to_served};
use crate::drill::{Length, Outcome};

/// C14. 20,000 frontends and 50,000 servers in 5,000 backends, about 30 MB; debug builds are not held to the times.
pub(super) async fn large(length: Length) -> Outcome {
    let (scene, _servers) = bare("c14", 1, Settings::default()).await;
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

    let calm = Traffic::start(&proxy, length).await;
    calm.during(Duration::from_secs(length.pick(15, 2))).await;
    let calm = calm.stop_with_latency(0.999).await;
    let traffic = Traffic::start(&proxy, length).await;
    let mut lags = Vec::new();
    for n in 0..length.pick(50, 5) {
        lags.push(put_to_served(&scene, &proxy, &format!("late{n}")).await);
        // A whole backend changes too, and one that serves.
        let (key, value) = server(n, 0);
        scene.put(&key, value).await;
    }
    let _again = application(&scene).await;
    let (mut outcome, swapping) = traffic.stop_with_latency(0.999).await;
    let memory = proxy.memory() >> 20;
    lags.sort_unstable();
    let lag = lags[lags.len() / 2];
    let stall = swapping - calm.1;
    let timely = cfg!(debug_assertions) || (synced < Duration::from_secs(3) && stall < 5.0);
    outcome.pass &= whole && calm.0.pass && memory < 400 && timely;
    outcome.figure = format!(
        "{} MB; ready after {} (< 3 s); RSS {memory} MiB (< 400); a change live in {}; p99.9 {:.1} ms while calm, \
         {swapping:.1} ms while changing (< +5){}; {}",
        bytes / 1_000_000,
        ms(synced),
        ms(lag),
        calm.1,
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
