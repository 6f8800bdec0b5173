//! etcd answers, but it is not the history that was followed: emptied, another cluster's, a backup's.

use std::time::Duration;

use etna_tests::etcd::{Etcd, Settings};
use etna_tests::proxy::Proxy;
use etna_tests::relay::{Manner, Relay};
use etna_tests::scene::{Scene, frontend, frontend_key, server_key};
use etna_tests::stand_in::StandIn;
use etna_tests::wait::{ensure, eventually};
use serde_json::json;

use super::ground::{Ground, LONG, bare, held, ms, until_following, until_held};
use crate::bed::{BACKEND, HOST, Rate};
use crate::drill::{Length, Outcome};

/// C5. The mark says ten minutes; held is held, so here it is one. The same names and ports give the same cluster id.
pub(super) async fn wiped(length: Length) -> Outcome {
    let ground = Ground::open("c5", 1, Settings::default(), length).await;
    let traffic = ground.load(Rate::L2k).await;
    let etcd = &ground.scene.etcd;
    etcd.kill(0);
    etcd.wipe(0);
    etcd.resume(0);
    etcd.ready(0).await;
    let count = until_held(&ground.proxy).await;
    let time = Duration::from_secs(length.pick(60, 1));
    traffic.go_on(time).await;
    let still = held(&ground.proxy).await;
    let alarm = ground.proxy.metrics().await.sum("etna_suspects", &[]).unwrap_or_default();
    let outcome =
        ground.outcome(traffic, format!("{count} keys held, {still} after {time:?}, alarm says {alarm}"), true).await;
    let answer = ground.proxy.admin_post("/v3/suspects/release", &json!({})).await;
    let released = answer.is_ok_and(|answer| answer.status == 200);
    eventually("what is released is gone", LONG, async || {
        let answer = ground.proxy.get(HOST, "/").await?;
        ensure(answer.status == 404, format!("{}", answer.status))
    })
    .await;
    let held = still == count && alarm > 0.0 && released;
    Outcome { pass: outcome.pass && held, figure: format!("{}; released: all gone", outcome.figure), ..outcome }
}

/// C17. The second endpoint is of another cluster, whose table leads elsewhere; then of an older backup.
pub(super) async fn foreign(length: Length) -> Outcome {
    let (scene, servers) = bare("c17", 1, Settings { relayed: true, ..Settings::default() }).await;
    let other = std::sync::Arc::new(Etcd::start(1).await);
    let wrong = StandIn::start("wrong").await;
    let strangers = other.client().await;
    for (key, value) in [
        (
            format!("{}/{}", scene.prefix, server_key(BACKEND, "live-0")),
            json!({"URL": format!("http://{}", wrong.address)}),
        ),
        (format!("{}/{}", scene.prefix, frontend_key(BACKEND)), frontend("Host(`live.test`)", BACKEND)),
    ] {
        strangers.kv_client().put(key, value.to_string(), None).await.expect("etcd takes a put");
    }
    let second = Relay::start(other.address(0).parse().expect("an address"));
    let store =
        format!("etcd://{},{}/{}", scene.etcd.relay(0).address, second.address, scene.prefix.trim_start_matches('/'));
    let proxy = Proxy::start("etna", &store, &[], scene.folder()).await;
    let ground = Ground::around(scene, servers, proxy, length).await;
    let traffic = ground.load(Rate::L2k).await;
    let etcd = &ground.scene.etcd;

    etcd.relay(0).set(Manner::Refuse);
    traffic.go_on(Duration::from_secs(length.pick(15, 2))).await;
    let error = eventually("the proxy says that it is another cluster", LONG, async || {
        let error = ground.proxy.json("/v3/status").await["error"].to_string();
        if error.contains("cluster") { Ok(error) } else { Err(error) }
    })
    .await;
    let asked = second.open() > 0 || ground.proxy.said().contains(&second.address.port().to_string());
    etcd.relay(0).set(Manner::Pass);
    let back = ground.change("back").await;

    let backup = copy(&ground.scene, etcd.back_up(0), "older");
    for n in 0..30 {
        ground.scene.put(&frontend_key("moved"), frontend(&format!("Host(`moved{n}.test`)"), BACKEND)).await;
    }
    let newest = copy(&ground.scene, etcd.back_up(0), "newer");
    etcd.relay(0).set(Manner::Refuse);
    etcd.kill(0);
    etcd.restore(0, &backup);
    etcd.resume(0);
    second.aim(etcd.address(0).parse().expect("an address"));
    eventually("the proxy says that history went back", LONG, async || {
        let said = ground.proxy.said();
        let (status, problems) = (ground.proxy.json("/v3/status").await, ground.proxy.problems().await);
        let told = ["replaced", "went back", "older"].iter().any(|word| said.contains(word));
        ensure(told, format!("{status} {problems:?}"))
    })
    .await;
    traffic.go_on(Duration::from_secs(length.pick(10, 1))).await;
    etcd.kill(0);
    etcd.restore(0, &newest);
    etcd.resume(0);
    etcd.ready(0).await;
    etcd.relay(0).set(Manner::Pass);
    until_following(&ground.proxy).await;
    let again = ground.change("again").await;
    let limit = Duration::from_secs(2);
    let pass = asked && wrong.requests() == 0 && length.fast(back < limit && again < limit);
    let figure = format!(
        "another cluster: {} requests to its servers, {error}; a change live {} after ours is back, {} after an \
         older backup was told and undone",
        wrong.requests(),
        ms(back),
        ms(again)
    );
    ground.outcome(traffic, figure, pass).await
}

fn copy(scene: &Scene, backup: std::path::PathBuf, name: &str) -> std::path::PathBuf {
    let to = scene.folder().join(name);
    std::fs::copy(backup, &to).expect("a backup can be copied");
    to
}
