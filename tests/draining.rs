//! TERM: no new work, what runs is finished, and the process ends with 0.

use std::time::Duration;

use etna_tests::client::Connection;
use etna_tests::scene::Scene;
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::wait::{ensure, eventually};

#[tokio::test]
async fn a_request_that_runs_is_finished() {
    let scene = Scene::open("term").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let mut proxy = scene.proxy("etna").await;
    a.set(Manner::Slow(Duration::from_secs(1)));
    let (listen, admin) = (proxy.listen, proxy.admin);
    let running = tokio::spawn(async move { etna_tests::client::get(listen, "a.test", "/").await });
    let mut idle = Connection::open(listen).await.unwrap();
    eventually("the server has it", SOON, async || ensure(a.requests() == 1, "not yet")).await;
    proxy.terminate();
    eventually("it is not ready any more", SOON, async || {
        match etna_tests::client::get(admin, &admin.to_string(), "/readyz").await {
            Ok(answer) => ensure(answer.status == 503, format!("{}", answer.status)),
            Err(_) => Ok(()),
        }
    })
    .await;
    let answer = running.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.server()), (200, "a"));
    // One that stays idle is closed some seconds later.
    assert_eq!(proxy.end(Duration::from_secs(10)).await.code(), Some(0), "{}", proxy.said());
    assert!(idle.get("a.test", "/").await.is_err());
}

#[tokio::test]
async fn an_idle_connection_gets_one_more_answer_and_is_told_to_go() {
    let scene = Scene::open("lastanswer").await;
    let a = StandIn::start("a").await;
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let mut proxy = scene.proxy("etna").await;
    let mut kept = Connection::open(proxy.listen).await.unwrap();
    assert_eq!(kept.get("a.test", "/").await.unwrap().header("connection"), "");
    proxy.terminate();
    eventually("no new connections are taken", SOON, async || {
        ensure(Connection::open(proxy.listen).await.is_err(), "they are")
    })
    .await;
    let last = kept.get("a.test", "/").await.unwrap();
    assert_eq!((last.status, last.header("connection")), (200, "close"));
    assert_eq!(proxy.end(Duration::from_secs(2)).await.code(), Some(0), "{}", proxy.said());
}

#[tokio::test]
async fn a_proxy_without_clients_ends_at_once() {
    let scene = Scene::open("idle").await;
    let mut proxy = scene.proxy("etna").await;
    proxy.terminate();
    assert_eq!(proxy.end(Duration::from_secs(2)).await.code(), Some(0), "{}", proxy.said());
}

#[tokio::test]
async fn what_does_not_end_is_cut_in_time() {
    let scene = Scene::open("cut").await;
    let a = StandIn::start("a").await;
    a.set(Manner::Hang);
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let mut proxy = scene.proxy_with("etna", &["--drain-seconds", "1"]).await;
    let listen = proxy.listen;
    let hanging = tokio::spawn(async move { etna_tests::client::get(listen, "a.test", "/").await });
    eventually("the server has it", SOON, async || ensure(a.requests() == 1, "not yet")).await;
    proxy.terminate();
    assert_eq!(proxy.end(Duration::from_secs(4)).await.code(), Some(0));
    let answer = hanging.await.unwrap();
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status >= 500));
}

const SOON: Duration = Duration::from_secs(5);
