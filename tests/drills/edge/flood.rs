//! E13. More handshakes than are wanted: too many, half of one, in crumbs, given up in the middle. Others have
//! connections that stand, and must not notice; and nothing may be left of it afterwards.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use etna_tests::tls::TlsClient;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::arrivals::Arrivals;
use super::ground::{Ground, bearable, panics};
use super::hello::record;
use super::pieces::{self, Pieces};
use super::standing::Standing;
use crate::control::busy;
use crate::denial::{MB, Memory, Probed, unnoticed};
use crate::drill::{Length, Outcome};

pub(super) async fn run(length: Length) -> Outcome {
    let ground = Ground::open("flood", json!({})).await;
    let (proxy, at) = ground.proxy("etna").await;
    let client = ground.client();
    let rate = bearable(length.pick(500, 60), length, &client, at).await;
    let idle = idle(proxy.pid()).await;
    let before = Standing::during(&client, at, length.pick(10, 2) * SECOND).await;
    let memory = Memory::watch(proxy.pid());
    let mut wrong: Vec<String> = Vec::new();
    let mut told = Vec::new();
    let mut requests = before.sent;
    let mut note = |what: &str, during: &Probed, said: String| {
        let (others, unharmed) = unnoticed(length, &before, during);
        if !unharmed {
            wrong.push(format!("during {what}: {others}"));
        }
        requests += during.sent;
        told.push(format!("{said} (p99 {:.1} ms)", during.p99()));
    };
    let mut failures = Vec::new();

    let standing = Standing::start(&client, at).await;
    let arrivals = Arrivals::start(&client, &[at], rate);
    tokio::time::sleep(length.pick(10, 2) * SECOND).await;
    let came = arrivals.stop().await;
    failures
        .extend(came.iter().filter_map(|one| one.leaf.as_ref().err()).map(|why| format!("a handshake of many: {why}")));
    note("handshakes", &standing.stop().await, format!("{} handshakes, {rate}/s", came.len()));

    let standing = Standing::start(&client, at).await;
    let (many, few, limit) = (length.pick(5000, 1000), length.pick(600, 90), length.pick(LIMIT, 2 * LIMIT));
    let (lives, longest_given_up) = tokio::join!(half_open(&client, at, many), given_up(&client, at, few));
    let longest = lives.iter().max().copied().unwrap_or_default();
    if lives.len() != many || longest.max(longest_given_up) > limit {
        failures.push(format!("of {many} half-open handshakes {} connected; not all closed in time", lives.len()));
    }
    let said = format!(
        "{many} half open, the last closed after {longest:.1?}, {few} with close_notify, after {longest_given_up:.1?} \
         (limit 10 s)"
    );
    note("half-open handshakes", &standing.stop().await, said);

    let standing = Standing::start(&client, at).await;
    let (many, broken) = crumbs(&client, at, length.pick(10, 3) * SECOND).await;
    failures.extend(broken);
    note("records of a byte", &standing.stop().await, format!("{many} in records of a byte"));

    let grown = memory.stop().await / MB;
    let busy = self::idle(proxy.pid()).await;
    wrong.extend(failures);
    if grown > MOST_MB {
        wrong.push(format!("memory grew by {grown:.0} MB"));
    }
    if busy > idle + 10 {
        wrong.push(format!("afterwards it computes {busy} ticks in 2 s, before {idle}"));
    }
    let panics = panics(&proxy).await;
    if panics != 0.0 {
        wrong.push(format!("{panics} panics"));
    }
    let first = wrong.first().map(|why| format!("; {why}")).unwrap_or_default();
    let figure = format!(
        "before p99 {:.1} ms; {}; memory +{grown:.0} MB (< {MOST_MB:.0}); idle CPU {} ms of 2 s, was {}{first}",
        before.p99(),
        told.join("; "),
        busy * 10,
        idle * 10
    );
    let load = format!("{rate} handshakes/s, 50/s kept");
    Outcome { load, requests, failed: wrong.len() as u64, figure, pass: wrong.is_empty() }
}

/// Ticks of 10 ms that it computes in two seconds of nothing.
async fn idle(pid: u32) -> u64 {
    let before = busy(pid);
    tokio::time::sleep(2 * SECOND).await;
    busy(pid) - before
}

/// A third says nothing, a third half a hello, a third a whole one and nothing more. How long each lived.
async fn half_open(client: &TlsClient, at: SocketAddr, many: usize) -> Vec<Duration> {
    let hello = pieces::hello(&client.config);
    let mut tasks = JoinSet::new();
    for n in 0..many {
        let said = hello[..[0, hello.len() / 2, hello.len()][n % 3]].to_vec();
        tasks.spawn(until_closed(at, said));
        if n % 30 == 29 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// Says something, and reads until the other side closes; how long that took.
async fn until_closed(at: SocketAddr, said: Vec<u8>) -> Option<Duration> {
    let mut stream = TcpStream::connect(at).await.ok()?;
    let began = Instant::now();
    stream.write_all(&said).await.ok()?;
    let mut buffer = [0; 8192];
    let reading = async { while let Ok(1..) = stream.read(&mut buffer).await {} };
    let _ = tokio::time::timeout(3 * LIMIT, reading).await;
    Some(began.elapsed())
}

/// Whole handshakes, a byte a record, twenty a second for so long; how many, and what went wrong.
async fn crumbs(client: &TlsClient, at: SocketAddr, time: Duration) -> (usize, Vec<String>) {
    let mut tasks = JoinSet::new();
    let (began, mut many) = (Instant::now(), 0);
    while began.elapsed() < time {
        let config = client.config.clone();
        let how = if many % 2 == 0 { Pieces::Bytes } else { Pieces::Crumbs };
        tasks.spawn_blocking(move || pieces::shake(&config, at, how));
        many += 1;
        tokio::time::sleep(SECOND / 20).await;
    }
    let broken = tasks.join_all().await.into_iter().filter_map(Result::err);
    (many, broken.map(|why| format!("a byte a record: {why}")).collect())
}

/// Says close_notify before, within and after the hello, and leaves the connection open; the longest it lived.
async fn given_up(client: &TlsClient, at: SocketAddr, many: usize) -> Duration {
    let hello = pieces::hello(&client.config);
    let notify = record(21, 0x0303, &[1, 0]);
    let mut tasks = JoinSet::new();
    for n in 0..many {
        let said = [&hello[..[0, hello.len() / 2, hello.len()][n % 3]], &notify].concat();
        tasks.spawn(until_closed(at, said));
    }
    tasks.join_all().await.into_iter().flatten().max().unwrap_or_default()
}

const SECOND: Duration = Duration::from_secs(1);
/// The time limit of a head, and what a busy machine is late.
const LIMIT: Duration = Duration::from_millis(11_500);
/// By how much memory may grow: 5,000 handshakes of what rustls keeps of one.
const MOST_MB: f64 = 120.0;
