//! The store goes: traffic goes on with what was last in force, and changes are live again soon after it is back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use etna_tests::client::{Answer, request};
use etna_tests::load::{Load, Plan};
use etna_tests::proxy::Proxy;
use etna_tests::report::measured;
use etna_tests::scene::{Scene, frontend, frontend_key};
use etna_tests::stand_in::StandIn;
use etna_tests::wait::{ensure, eventually};
use http::Request;
use http_body_util::Full;

fn asked(host: &str, n: u64) -> Request<Full<Bytes>> {
    request("GET", host, &format!("/{n}")).header("x-test-id", n).body(Full::default()).expect("a valid request")
}

fn right(n: u64, answer: &Answer) -> Result<(), String> {
    let is_right = answer.status == 200 && answer.header("x-test-id") == n.to_string();
    if is_right { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
}

pub(crate) fn traffic(proxy: &Proxy) -> Load {
    Load::start(Plan {
        to: vec![proxy.listen],
        rate: 300,
        connections: 8,
        request: asked,
        host: "a.test".into(),
        check: right,
    })
}

/// Puts a frontend until etcd takes it; how long it then takes until it is served.
pub(crate) async fn put_to_served(scene: &Scene, proxy: &Proxy, id: &str) -> Duration {
    let host = format!("{id}.test");
    let value = frontend(&format!("Host(`{host}`)"), "a");
    eventually("etcd takes a put", LONG, async || scene.try_put(&frontend_key(id), value.clone()).await).await;
    let put = Instant::now();
    eventually("it is served", LONG, async || {
        let answer = proxy.get(&host, "/").await?;
        ensure(answer.status == 200, format!("{}", answer.status))
    })
    .await;
    put.elapsed()
}

pub(crate) async fn until_away(proxy: &Proxy) {
    eventually("the proxy knows that its store is away", LONG, async || {
        let status = proxy.json("/v3/status").await;
        ensure(status["following"] == false, status.to_string())
    })
    .await;
    assert_eq!(proxy.admin_get("/readyz").await.unwrap().status, 200, "it serves, so it is ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_started_again() {
    let scene = Scene::with_etcd("killed", 1).await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    let load = traffic(&proxy);
    load.more(100).await;
    scene.etcd.kill(0);
    until_away(&proxy).await;
    load.more(600).await;
    eventually("it is a problem", LONG, async || {
        let problems = proxy.problems().await;
        ensure(problems.iter().any(|problem| problem.to_string().contains("is not followed")), format!("{problems:?}"))
    })
    .await;
    scene.etcd.resume(0);
    scene.etcd.ready(0).await;
    let took = put_to_served(&scene, &proxy, "back").await;
    eventually("it is none any more", LONG, async || {
        let problems = proxy.problems().await;
        ensure(problems.is_empty(), format!("{problems:?}"))
    })
    .await;
    measured(&format!("after kill -9 a put was served after {took:?}"));
    load.more(100).await;
    load.stop().await.assert_all_right();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_and_thawed() {
    let scene = Scene::with_etcd("frozen", 1).await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    let load = traffic(&proxy);
    load.more(100).await;
    scene.etcd.freeze(0);
    // Its connections stay open and say nothing: only silence shows that it is gone.
    until_away(&proxy).await;
    load.more(600).await;
    scene.etcd.thaw(0);
    let took = put_to_served(&scene, &proxy, "back").await;
    measured(&format!("after SIGSTOP a put was served after {took:?}"));
    load.more(100).await;
    load.stop().await.assert_all_right();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_of_three_is_not_missed() {
    let scene = Scene::with_etcd("members", 3).await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy("etna").await;
    let load = traffic(&proxy);
    for member in 0..3 {
        scene.etcd.kill(member);
        let took = put_to_served(&scene, &proxy, &format!("without-{member}")).await;
        measured(&format!("without member {member} a put was served after {took:?}"));
        scene.etcd.resume(member);
        scene.etcd.ready(member).await;
    }
    load.stop().await.assert_all_right();
}

/// Until something has happened, on a machine that does other things, too: how long it takes of an idle one, the drills
/// measure.
pub(crate) const LONG: Duration = Duration::from_secs(30);
