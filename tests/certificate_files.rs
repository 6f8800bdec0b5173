//! Certificates that lie in a directory: found, replaced half by half, taken away.

use std::path::Path;
use std::time::Duration;

use etna_store::seal::KeyPair;
use etna_tests::process::pipe;
use etna_tests::scene::Scene;
use etna_tests::stand_in::StandIn;
use etna_tests::tls::{Authority, https_listener};
use etna_tests::wait::{ensure, eventually};
use serde_json::json;

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    // As programs do that mean it: whole or not at all.
    let new = dir.join(format!("{name}.new"));
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(new, dir.join(name)).unwrap();
}

#[tokio::test]
async fn certificates_in_a_directory_are_served_and_followed() {
    let scene = Scene::open("certificate-files").await;
    let authority = Authority::new(scene.folder());
    let server = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", server.address)]).await;
    scene.put("listeners/edge", https_listener(json!({}))).await;
    let dir = scene.folder().join("certificates");
    std::fs::create_dir(&dir).unwrap();
    let put = |pair: &KeyPair| {
        write(&dir, "a.test.crt", pair.cert());
        write(&dir, "a.test.key", pair.key());
    };
    put(&authority.issue(&["a.test"]));
    let proxy = scene.proxy_with("etna", &["--certificates", dir.to_str().unwrap()]).await;
    let (at, client) = (proxy.listener("edge").await, authority.client());
    let served = async || client.certificate(at, "a.test").await;
    let changes = async |from: &[u8]| {
        eventually("another certificate is served", SOON, async || {
            let now = served().await?;
            ensure(now != from, "the same as before")?;
            Ok::<Vec<u8>, String>(now)
        })
        .await
    };
    let first = changes(&[]).await;
    assert_eq!(client.get(at, "a.test", "/").await.unwrap().status, 200);

    let next = authority.issue(&["a.test"]);
    write(&dir, "a.test.crt", next.cert());
    eventually("half a pair is a problem", SOON, async || {
        let problems = proxy.problems().await;
        let told = problems.iter().any(|problem| problem["key"] == dir.join("a.test").to_str().unwrap());
        ensure(told, format!("{problems:?}"))
    })
    .await;
    assert_eq!(served().await.unwrap(), first, "the last good one serves");
    write(&dir, "a.test.key", next.key());
    let second = changes(&first).await;
    eventually("nothing is wrong", SOON, async || {
        let problems = proxy.problems().await;
        ensure(problems.is_empty(), format!("{problems:?}"))
    })
    .await;

    // What ends within a week is told; it serves.
    put(&authority.issue_for_days(&["a.test"], 3));
    changes(&second).await;
    eventually("its end is told", SOON, async || {
        let problems = proxy.problems().await;
        let told =
            problems.iter().any(|problem| problem["reason"].as_str().unwrap().starts_with("the certificate ends "));
        ensure(told, format!("{problems:?}"))
    })
    .await;

    // What nobody writes to, and what never ends: neither is waited for.
    pipe(&dir.join("pipe.crt"));
    std::os::unix::fs::symlink("/dev/zero", dir.join("zero.crt")).unwrap();
    eventually("they are told", SOON, async || {
        let problems = proxy.problems().await;
        let told = |name: &str| problems.iter().any(|problem| problem["key"] == dir.join(name).to_str().unwrap());
        ensure(told("pipe") && told("zero"), format!("{problems:?}"))
    })
    .await;

    std::fs::remove_file(dir.join("a.test.crt")).unwrap();
    eventually("it is taken away", SOON, async || ensure(served().await.is_err(), "it is still served")).await;
    std::fs::remove_dir_all(&dir).unwrap();
    let key = format!("--certificates {}", dir.display());
    let of_it = async || proxy.problems().await.into_iter().filter(|problem| problem["key"] == key.as_str()).count();
    eventually("that it is gone is told", SOON, async || ensure(of_it().await == 1, "it is not")).await;
    std::fs::create_dir(&dir).unwrap();
    eventually("that it is there again, too", SOON, async || ensure(of_it().await == 0, "it is not")).await;
    assert_eq!(proxy.admin_get("/readyz").await.unwrap().status, 200);
}

const SOON: Duration = Duration::from_secs(30);
