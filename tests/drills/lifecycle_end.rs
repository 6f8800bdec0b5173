//! A7, A8: the process ends, because it was told to or because it was killed.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use etna_tests::binaries::binary;
use etna_tests::client::{self, Connection};
use etna_tests::process::Process;
use etna_tests::scene::{frontend, frontend_key};
use etna_tests::wait::{ensure, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bed::{BACKEND, Bed, HOST, Needs, Rate};
use crate::drill::{Length, Outcome};

/// A7: what runs is finished, nothing new is taken, and who does not end is cut.
pub(crate) async fn terminated(length: Length) -> Outcome {
    let flags = ["--drain-grace", "1", "--drain", "3"];
    let needs = Needs { flags: flags.map(str::to_owned).into(), ..Needs::default() };
    let mut bed = Bed::with("a7", length, needs).await;
    for server in &bed.servers {
        server.set("delay=100").await;
    }
    let load = bed.load(Rate::L2k).await;
    let mut stuck = TcpStream::connect(bed.proxy.listen).await.expect("it takes connections");
    let half = format!("POST /load/1 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000\r\n\r\nand then nothing");
    stuck.write_all(half.as_bytes()).await.expect("it reads");
    load.go_on(length.pick(Duration::from_secs(3), Duration::from_millis(200))).await;
    let told = load.began.elapsed();
    let began = Instant::now();
    bed.proxy.terminate();
    let listen = bed.proxy.listen;
    eventually("no connection is taken any more", Duration::from_secs(20), async || {
        ensure(Connection::open(listen).await.is_err(), "one was")
    })
    .await;
    let closed = began.elapsed();
    let status = bed.proxy.end(Duration::from_secs(60)).await;
    let took = began.elapsed();
    let cut = tokio::time::timeout(Duration::from_secs(10), stuck.read(&mut [0; 1024])).await.is_ok();
    let mut traffic = bed.finish(load).await;
    // Who comes when it has gone is not its fault: here nobody else listens.
    let before = traffic.report.wrong.len();
    traffic.report.wrong.retain(|(_, at, why)| *at < told || !why.starts_with("connect"));
    let refused = before - traffic.report.wrong.len();
    let figure = format!(
        "{status} after {took:.1?} (<= 4 s); nothing accepted after {closed:.1?} (grace 1 s); stuck peer {}; {refused} refused",
        if cut { "cut" } else { "NOT cut" }
    );
    let in_time = length.fast(took <= Duration::from_secs(4) && closed <= Duration::from_millis(1500));
    traffic.outcome(figure, status.code() == Some(0) && in_time && cut)
}

/// A8: with 10,000 routes, and no etcd to ask for them.
pub(crate) async fn killed(length: Length) -> Outcome {
    let routes = length.pick(10_000, 100);
    let port = TcpListener::bind("127.0.1.1:0").and_then(|held| held.local_addr()).expect("a port is free");
    let fixed = port.to_string();
    let needs = Needs { flags: vec!["--listen".into(), fixed.clone()], own_etcd: true, ..Needs::default() };
    let mut bed = Bed::with("a8", length, needs).await;
    let host = |n: usize| format!("r{n}.test");
    let all = (0..routes).map(|n| (frontend_key(&format!("r{n}")), frontend(&format!("Host(`{}`)", host(n)), BACKEND)));
    let revision = bed.scene.put_all(all).await;
    bed.proxy.until_revision(revision).await;
    let last = host(routes - 1);
    eventually("the table is on disk", Duration::from_secs(20), async || {
        // What is still being written is not on disk.
        let file = bed.proxy.last_table().ok_or("there is none")?;
        ensure(holds(&file, last.as_bytes()), format!("{} does not name the last route", file.display()))
    })
    .await;
    bed.proxy.kill();
    bed.scene.etcd.kill(0);
    let mut command = Command::new(binary("etna"));
    command.args([
        "serve",
        "--store",
        &bed.scene.store(),
        "--listen",
        &fixed,
        "--admin",
        "127.0.0.1:0",
        "--workers",
        "2",
    ]);
    command.arg("--state-dir").arg(&bed.proxy.state_dir);
    let began = Instant::now();
    let _again = Process::start("again", &mut command, bed.scene.folder());
    let first = eventually("it serves what it served", Duration::from_secs(10), async || {
        let answer = client::get(port, &last, "/").await?;
        ensure(answer.status == 200, format!("{} {}", answer.status, answer.text())).map(|()| began.elapsed())
    })
    .await;
    let mut wrong = 0;
    for n in (0..routes).step_by(routes / 100) {
        let answer = client::get(port, &host(n), "/").await;
        wrong += u64::from(!answer.is_ok_and(|answer| answer.status == 200));
    }
    Outcome {
        load: "-".into(),
        requests: 101,
        failed: wrong,
        figure: format!("{routes} routes; first 200 after {first:.0?} (<= 500 ms)"),
        pass: wrong == 0 && length.fast(first <= Duration::from_millis(500)),
    }
}

/// Whether a file holds some bytes.
fn holds(file: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read(file).is_ok_and(|content| content.windows(bytes.len()).any(|window| window == bytes))
}
