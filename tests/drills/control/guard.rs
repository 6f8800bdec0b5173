//! Deletion is a claim: a mass of it is held, one of it is not.

use std::time::{Duration, Instant};

use etna_tests::etcd::Settings;
use etna_tests::scene::{frontend, frontend_key, server_at, server_key};

use super::ground::{Ground, held, ms, until_held, until_served};
use crate::bed::Rate;
use crate::drill::{Length, Outcome};

/// C9. One backend gets another name, in one transaction; then all backends are deleted in one.
pub(super) async fn deleted(length: Length) -> Outcome {
    let ground = Ground::open("c9", 1, Settings::default(), length).await;
    let traffic = ground.load(Rate::L2k).await;
    let mut changes = vec![(frontend_key("other0"), Some(frontend("Host(`renamed.test`)", "renamed")))];
    for server in ground.servers.iter().take(2) {
        changes.push((server_key("renamed", &server.id), Some(server_at(server.address))));
        changes.push((server_key("other0", &server.id), None));
    }
    let revision = ground.scene.change(changes).await;
    let put = Instant::now();
    until_served(&ground.proxy, "renamed.test").await;
    let renamed = put.elapsed();
    ground.proxy.until_revision(revision).await;
    let old = ground.proxy.admin_get("/v2/backends/other0/servers/live-0").await.map_or(0, |answer| answer.status);
    let at_once = held(&ground.proxy).await == 0 && old == 404 && length.fast(renamed < Duration::from_secs(1));

    ground.scene.delete_below("backends/").await;
    let count = until_held(&ground.proxy).await;
    traffic.go_on(Duration::from_secs(length.pick(30, 1))).await;
    let figure = format!(
        "renamed: live {} after, nothing held, the old name gone ({old}); all backends deleted: {count} keys held",
        ms(renamed)
    );
    ground.outcome(traffic, figure, at_once).await
}
