//! E1: ten thousand clients that begin a head and send one more line every five seconds.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{MB, Memory, Probe, unnoticed};
use crate::bed::{Bed, HOST};
use crate::drill::{Length, Outcome};

pub(super) async fn run(length: Length) -> Outcome {
    let many = length.pick(10_000, 500);
    let bed = Bed::start("slowhead", length).await;
    let before = Probe::during(bed.proxy.listen, HOST, length.pick(10, 2) * SECOND).await;
    let memory = Memory::watch(bed.proxy.pid());
    let probe = Probe::start(bed.proxy.listen, HOST);
    let lives = attack(bed.proxy.listen, many, b"").await;
    let during = probe.stop().await;
    let grown = memory.stop().await / MB;
    let longest = lives.iter().max().copied().unwrap_or_default();
    let after = bed.proxy.get(HOST, "/").await.map(|answer| answer.status);
    let (others, unharmed) = unnoticed(length, &before, &during);
    let pass = unharmed && lives.len() == many && longest <= LIMIT && grown < 80.0 && after == Ok(200);
    let figure = format!(
        "{} of {many} connected, the last closed after {longest:.1?}; memory +{grown:.0} MB; {others}",
        lives.len()
    );
    let failed = during.wrong.len() as u64;
    Outcome { load: format!("{many} slow heads, 50/s"), requests: during.sent, failed, figure, pass }
}

/// How long each connection lived; those that could not connect are missing. A head begins with `more`.
pub(super) async fn attack(to: SocketAddr, many: usize, more: &'static [u8]) -> Vec<Duration> {
    let mut tasks = JoinSet::new();
    for n in 0..many {
        tasks.spawn(one(to, more));
        // Some thousand a second: no queue of the kernel's overflows.
        if n % 30 == 29 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn one(to: SocketAddr, more: &[u8]) -> Option<Duration> {
    let mut stream = TcpStream::connect(to).await.ok()?;
    let began = Instant::now();
    let head = [b"GET / HTTP/1.1\r\nHost: live.test\r\n", more].concat();
    stream.write_all(&head).await.ok()?;
    let mut answer = [0; 512];
    while began.elapsed() < GIVE_UP {
        match tokio::time::timeout(5 * SECOND, stream.read(&mut answer)).await {
            Err(_) => {
                if stream.write_all(b"X: y\r\n").await.is_err() {
                    break;
                }
            }
            Ok(Ok(1..)) => {}
            Ok(_) => break,
        }
    }
    Some(began.elapsed())
}

/// The time limit of a head, and one second.
const LIMIT: Duration = Duration::from_millis(11_500);
const GIVE_UP: Duration = Duration::from_secs(40);
const SECOND: Duration = Duration::from_secs(1);
