//! How streams and connections of HTTP/2 with clients end: broken off by a server, taken back by a client, answered
//! early, drained, or closed because others need the room.

use std::time::Duration;

use etna_tests::h2::{self as raw, Outcome, Wire};
use etna_tests::scene::Scene;
use etna_tests::stand_in::{Manner, StandIn};
use etna_tests::wait::{ensure, eventually};
use h2::Reason;

use crate::h2::{SOON, bed, connect, get, request, whole, within};

#[tokio::test]
async fn what_a_server_breaks_off_is_reset() {
    let (_scene, a, proxy, at) = bed("h2broken").await;
    a.set(Manner::CloseInBody);
    let mut client = connect(at).await;
    let (response, _) = client.send_request(request("GET", "/").body(()).unwrap(), true).unwrap();
    let error = within(whole(within(response).await.unwrap().into_body())).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    a.set(Manner::Close);
    assert_eq!(get(&mut client, "/").await.0.status(), 502);
    a.set(Manner::Answer);
    assert_eq!(get(&mut client, "/").await.0.status(), 200);
    assert_eq!(proxy.metrics().await.sum("etna_http2_connections_total", &[]), Some(1.0));
}

#[tokio::test]
async fn a_request_that_is_taken_back_is_taken_back_from_its_server() {
    let (_scene, a, proxy, at) = bed("h2cancel").await;
    a.set(Manner::Hang);
    let mut client = connect(at).await;
    let (response, mut send) = client.send_request(request("GET", "/").body(()).unwrap(), true).unwrap();
    eventually("the server has it", SOON, async || ensure(a.requests() == 1, "not yet")).await;
    send.send_reset(Reason::CANCEL);
    drop(response);
    eventually("the server sees it", SOON, async || ensure(a.abandoned() == 1, "not yet")).await;
    // The same when the whole connection goes.
    let (_response, _) = client.send_request(request("GET", "/").body(()).unwrap(), true).unwrap();
    eventually("the server has it", SOON, async || ensure(a.requests() == 2, "not yet")).await;
    let mut wire = Wire::open(at).await;
    wire.send(&raw::get(1, "a.test", "/")).await.unwrap();
    eventually("the server has both", SOON, async || ensure(a.requests() == 3, "not yet")).await;
    drop(wire);
    eventually("the server sees it", SOON, async || ensure(a.abandoned() == 2, "not yet")).await;
    eventually("they are counted", SOON, async || {
        let resets = proxy.metrics().await.sum("etna_http2_resets_total", &[]);
        ensure(resets == Some(1.0), format!("{resets:?}"))
    })
    .await;
    eventually("the one that is left is open", SOON, async || {
        let open = proxy.metrics().await.sum("etna_http2_streams", &[]);
        ensure(open == Some(1.0), format!("{open:?}"))
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_comes_early_ends_the_upload() {
    let (_scene, _a, _proxy, at) = bed("h2early").await;
    let mut wire = Wire::open(at).await;
    let head = raw::request("POST", "nobody.test", "/");
    wire.send(&raw::frame(raw::HEADERS, raw::END_HEADERS, 1, &head)).await.unwrap();
    assert_eq!(wire.outcome(1).await, Outcome::Status(404));
    assert_eq!(wire.outcome(1).await, Outcome::Reset(raw::NO_ERROR));
    // What is still on its way is borne, and the connection goes on.
    wire.send(&[raw::frame(raw::DATA, 0, 1, &[7; 1000]), raw::get(3, "a.test", "/")].concat()).await.unwrap();
    assert_eq!(wire.outcome(3).await, Outcome::Status(200));
}

#[tokio::test]
async fn a_drain_tells_clients_to_go_and_finishes_what_runs() {
    let (_scene, a, mut proxy, at) = bed("h2drain").await;
    a.set(Manner::Slow(Duration::from_secs(2)));
    let mut wire = Wire::open(at).await;
    wire.send(&raw::get(1, "a.test", "/")).await.unwrap();
    eventually("the server has it", SOON, async || ensure(a.requests() == 1, "not yet")).await;
    proxy.terminate();
    let mut told = false;
    let mut answered = false;
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    while let Some(frame) = wire.next(until).await.expect("in time") {
        told |= frame.code() == Some(raw::NO_ERROR) && frame.kind == raw::GOAWAY;
        answered |= frame.status() == Some(200);
        if frame.kind == raw::PING && frame.flags & raw::ACK == 0 {
            wire.send(&raw::frame(raw::PING, raw::ACK, 0, &frame.payload)).await.unwrap();
        }
    }
    assert!(told && answered, "told: {told}, answered: {answered}");
    assert!(proxy.end(Duration::from_secs(60)).await.success());
}

#[tokio::test]
async fn an_idle_connection_makes_room_when_there_is_little() {
    let scene = Scene::open("h2idle").await;
    let a = StandIn::start("a").await;
    a.set(Manner::Slow(Duration::from_secs(5)));
    scene.route("a", "a.test", &[("s", a.address)]).await;
    let proxy = scene.proxy_with("etna", &["--max-connections", "5", "--workers", "1"]).await;
    let at = raw::open(&scene, &proxy).await;
    let mut busy = Wire::acknowledged(at).await;
    busy.send(&raw::get(1, "a.test", "/")).await.unwrap();
    let mut idle = Wire::acknowledged(at).await;
    let told = idle.until("GOAWAY", |frame| frame.kind == raw::GOAWAY).await;
    assert_eq!(told.code(), Some(raw::NO_ERROR));
    // It does not answer, and is left.
    let until = tokio::time::Instant::now() + SOON;
    while idle.next(until).await.expect("in time").is_some() {}
    assert_eq!(busy.outcome(1).await, Outcome::Status(200));
}
