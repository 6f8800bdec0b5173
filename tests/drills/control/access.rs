//! etcd refuses: a login that ended, a password that changed, a role that lost its right. Never taken for *empty*.

use std::time::{Duration, Instant};

use etna_tests::etcd::Settings;
use etna_tests::proxy::Proxy;
use etna_tests::relay::Manner;
use etna_tests::scene::Scene;
use etna_tests::wait::{ensure, eventually};

use super::ground::{Ground, LONG, bare, held, ms, put_to_served};
use crate::bed::Rate;
use crate::drill::{Length, Outcome};

/// C16. Simple tokens that last two seconds, and are forgotten when etcd starts again.
pub(super) async fn refused(length: Length) -> Outcome {
    let flags = vec!["--auth-token-ttl".into(), "2".into()];
    let settings = Settings { flags, relayed: true, ..Settings::default() };
    let (mut scene, servers) = bare("c16", 1, settings).await;
    let file = scene.folder().join("password");
    write(&file, "first");
    set_up(&scene);
    scene.sign_in("root", "root").await;
    let flags = ["--store-user", "proxy", "--store-password-file", file.to_str().expect("a path of ours")];
    let proxy = Proxy::start("etna", &scene.store(), &flags, scene.folder()).await;
    let ground = Ground::around(scene, servers, proxy, length).await;
    let (etcd, proxy) = (ground.scene.etcd.clone(), &ground.proxy);
    let traffic = ground.load(Rate::L2k).await;
    let hold = Duration::from_secs(length.pick(10, 2));

    // Idle until the token has ended.
    traffic.go_on(Duration::from_secs(4)).await;
    let expired = ground.change("expired").await;
    etcd.kill(0);
    etcd.resume(0);
    etcd.ready(0).await;
    let forgotten = ground.change("forgotten").await;

    root(&ground.scene, &["user", "passwd", "proxy", "--interactive=false"], Some("second"));
    reconnect(&ground.scene).await;
    until_refused(proxy).await;
    traffic.go_on(hold).await;
    let mut suspects = held(proxy).await;
    write(&file, "second");
    let back = Instant::now();
    let changed = until_back(&ground, "changed", back).await;

    root(&ground.scene, &["role", "revoke-permission", "proxy", "--prefix", &prefix(&ground.scene)], None);
    reconnect(&ground.scene).await;
    until_refused(proxy).await;
    traffic.go_on(hold).await;
    suspects += held(proxy).await;
    grant(&ground.scene);
    let back = Instant::now();
    let granted = until_back(&ground, "granted", back).await;
    let quick = Duration::from_secs(2);
    let pass = expired < quick && forgotten < quick && changed < LATE && granted < LATE && suspects == 0;
    let figure = format!(
        "a change live: {} after the token ended, {} after etcd forgot it, {} after the password file was right again, \
         {} after the right was given back (< 10 s); {suspects} keys taken for gone; no client certificate was rotated",
        ms(expired),
        ms(forgotten),
        ms(changed),
        ms(granted)
    );
    ground.outcome(traffic, figure, pass).await
}

async fn until_back(ground: &Ground, id: &str, since: Instant) -> Duration {
    put_to_served(&ground.scene, &ground.proxy, id).await;
    since.elapsed()
}

fn set_up(scene: &Scene) {
    let run = |args: &[&str]| scene.etcd.ctl(&[0], args).unwrap_or_else(|error| panic!("{error}"));
    run(&["user", "add", "root:root"]);
    run(&["user", "add", "proxy:first"]);
    run(&["role", "add", "proxy"]);
    run(&["role", "grant-permission", "proxy", "--prefix=true", "read", &prefix(scene)]);
    run(&["user", "grant-role", "proxy", "proxy"]);
    run(&["auth", "enable"]);
}

fn grant(scene: &Scene) {
    root(scene, &["role", "grant-permission", "proxy", "--prefix=true", "read", &prefix(scene)], None);
}

/// As root; what is typed where it asks.
fn root(scene: &Scene, args: &[&str], typed: Option<&str>) {
    let args = [&["--user", "root:root"], args].concat();
    let done = match typed {
        Some(text) => scene.etcd.ctl_typed(&[0], &args, text),
        None => scene.etcd.ctl(&[0], &args),
    };
    done.unwrap_or_else(|error| panic!("{error}"));
}

fn prefix(scene: &Scene) -> String {
    format!("{}/", scene.prefix)
}

/// Breaks the proxy's connections, so that it has to show again who it is.
async fn reconnect(scene: &Scene) {
    scene.etcd.relay(0).set(Manner::Refuse);
    eventually("its connections are gone", LONG, async || {
        let open = scene.etcd.relay(0).open();
        ensure(open == 0, format!("{open} open"))
    })
    .await;
    scene.etcd.relay(0).set(Manner::Pass);
}

async fn until_refused(proxy: &Proxy) {
    eventually("the proxy says that it is refused", LONG, async || {
        let status = proxy.json("/v3/status").await;
        let error = status["error"].as_str().unwrap_or_default();
        let said = ["refused", "denied", "password", "authentication"].iter().any(|word| error.contains(word));
        ensure(status["following"] == false && said, status.to_string())
    })
    .await;
}

fn write(file: &std::path::Path, text: &str) {
    std::fs::write(file, text).expect("the password can be written");
}

/// It tries again every few seconds.
const LATE: Duration = Duration::from_secs(10);
