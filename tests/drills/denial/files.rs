//! E11: a proxy that may open 512 files, and two thousand connections.

use std::process::Command;
use std::time::{Duration, Instant};

use etna_tests::client;
use etna_tests::proxy::Proxy;
use etna_tests::scene::Scene;
use etna_tests::wait::{ensure, eventually};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::drill::{Length, Outcome};
use crate::protocol::oracle::Oracle;
use crate::protocol::wire::Wire;

pub(super) async fn run(length: Length) -> Outcome {
    let scene = Scene::alone("files").await;
    let server = Oracle::start().await;
    scene.route("a", "a.test", &[("s", server.address)]).await;
    let limited = limited(&scene).await;
    let mut kept = Vec::new();
    for _ in 0..20 {
        kept.push(Wire::open(limited.listen).await);
    }
    let mut wrong = Vec::new();
    let mut asked = 0;
    rounds(&mut kept, 2, &mut asked, &mut wrong).await;

    let mut opening = JoinSet::new();
    for _ in 0..2000 {
        let to = limited.listen;
        opening.spawn(async move {
            let mut stream = tokio::time::timeout(Duration::from_secs(3), TcpStream::connect(to)).await.ok()?.ok()?;
            // A head that has begun cannot be taken for an idle connection.
            stream.write_all(b"GET / HTTP/1.1\r\n").await.ok()?;
            Some(stream)
        });
    }
    let held: Vec<TcpStream> = opening.join_all().await.into_iter().flatten().collect();
    let until = Instant::now() + length.pick(Duration::from_secs(8), Duration::from_millis(1200));
    while Instant::now() < until {
        rounds(&mut kept, 1, &mut asked, &mut wrong).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let admin = client::get(limited.admin, &limited.admin.to_string(), "/readyz").await;
    if !admin.as_ref().is_ok_and(|answer| answer.status == 200) {
        wrong.push(format!("the admin API: {admin:?}"));
    }
    let connections = held.len();
    drop(held);
    let released = Instant::now();
    eventually("new connections are served", Duration::from_secs(30), async || {
        let answer =
            tokio::time::timeout(Duration::from_millis(500), client::get(limited.listen, "a.test", "/new")).await;
        let answer = answer.map_err(|_| "no answer yet".to_owned())??;
        ensure(answer.status == 200, answer.status.to_string())
    })
    .await;
    let recovered = released.elapsed();
    let figure =
        format!("{connections} connections held; 20 kept ones asked {asked} times; recovered in {recovered:.1?}");
    let outcome = crate::protocol::outcome("2000 + 20 connections", asked, figure, &wrong);
    Outcome { pass: outcome.pass && length.fast(recovered < Duration::from_secs(1)) && connections > 500, ..outcome }
}

/// Asks on every kept connection.
async fn rounds(kept: &mut [Wire], times: usize, asked: &mut usize, wrong: &mut Vec<String>) {
    for _ in 0..times {
        for (number, wire) in kept.iter_mut().enumerate() {
            *asked += 1;
            wire.send(format!("GET /{number} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes()).await;
            let reply = wire.reply(false, Duration::from_secs(20)).await;
            if !reply.as_ref().is_ok_and(|reply| reply.field("x-saw") == format!("GET /{number} 0")) {
                wrong.push(format!("kept connection {number}: {reply:?}"));
            }
        }
    }
}

/// A proxy that may open no more than 512 files, also if it asks.
async fn limited(scene: &Scene) -> Proxy {
    let plain = Proxy::command("etna", &scene.store(), &[], scene.folder());
    let mut command = Command::new("prlimit");
    command.arg("--nofile=512:512").arg(plain.get_program()).args(plain.get_args());
    let proxy = Proxy::run("etna", command, scene.folder(), Duration::from_secs(20)).await;
    proxy.until_ready(Duration::from_secs(20)).await;
    proxy.until_status("a.test", "/", 200).await;
    proxy
}
