//! E2: two thousand uploads of 100 bytes a second, a hundred that begin fast and then stop, and some of 2,000 bytes a
//! second, which are slow but honest.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{MB, Memory, Probe, unnoticed};
use crate::bed::{Bed, HOST};
use crate::drill::{Length, Outcome};

pub(super) async fn run(length: Length) -> Outcome {
    let many = length.pick(2000, 100);
    let bed = Bed::start("slowbody", length).await;
    let before = Probe::during(bed.proxy.listen, HOST, length.pick(10, 2) * SECOND).await;
    let memory = Memory::watch(bed.proxy.pid());
    let probe = Probe::start(bed.proxy.listen, HOST);
    let (mut slow, mut honest) = (JoinSet::new(), JoinSet::new());
    for n in 0..many {
        slow.spawn(upload(bed.proxy.listen, n % 2 == 0, 100, 1_000_000));
        if n % 30 == 29 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    for n in 0..20 {
        honest.spawn(upload(bed.proxy.listen, n % 2 == 0, 2000, 80_000));
    }
    // Fast for a second, so that they are over any rate for a while; then silent.
    let mut stopped = JoinSet::new();
    for n in 0..100 {
        stopped.spawn(upload(bed.proxy.listen, n % 2 == 0, 60_000, STOPS));
    }
    let ends: Vec<End> = slow.join_all().await;
    let stopped = stopped.join_all().await.iter().map(|end| end.after).max().unwrap_or_default();
    let honest = honest.join_all().await;
    let during = probe.stop().await;
    let grown = memory.stop().await / MB;
    let longest = ends.iter().map(|end| end.after).max().unwrap_or_default();
    let told = ends.iter().filter(|end| end.status == 408).count();
    let served = honest.iter().filter(|end| end.status == 200).count();
    let (others, unharmed) = unnoticed(length, &before, &during);
    let figure = format!(
        "the last of {many} closed after {longest:.1?}, {told} told 408; those that stopped after {stopped:.1?}; {served} of 20 slow honest ones served; \
         memory +{grown:.0} MB; {others}"
    );
    let pass = unharmed && longest <= 26 * SECOND && stopped <= 33 * SECOND && served == 20 && told >= many * 9 / 10;
    let failed = (during.wrong.len() + 20 - served) as u64;
    Outcome { load: format!("{many} slow bodies, 50/s"), requests: during.sent + 20, failed, figure, pass }
}

struct End {
    status: u16,
    after: Duration,
}

/// Sends a body at a rate, until all is sent or an answer comes; what the answer is, and after how long it is over.
async fn upload(to: SocketAddr, chunked: bool, rate: usize, size: usize) -> End {
    let began = Instant::now();
    let mut answer = Vec::new();
    let result = async {
        let mut stream = TcpStream::connect(to).await?;
        let framing = if chunked { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {size}") };
        let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let piece = vec![b'x'; rate / 4];
        let mut left = size;
        let mut buffer = [0; 4096];
        while began.elapsed() < GIVE_UP {
            let wait = if left > 0 && (size != STOPS || left > STOPS / 2) { SECOND / 4 } else { GIVE_UP };
            match tokio::time::timeout(wait, stream.read(&mut buffer)).await {
                Ok(Ok(n @ 1..)) => answer.extend_from_slice(&buffer[..n]),
                Ok(_) => break,
                Err(_) => {
                    left = left.saturating_sub(piece.len());
                    let last = if left == 0 { "0\r\n\r\n" } else { "" };
                    let bytes = if chunked {
                        [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n", last.as_bytes()].concat()
                    } else {
                        piece.clone()
                    };
                    // An answer may lie there already.
                    let _ = stream.write_all(&bytes).await;
                }
            }
        }
        Ok::<(), std::io::Error>(())
    };
    let _ = result.await;
    let status = answer.get(9..12).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok()).unwrap_or_default();
    End { status, after: began.elapsed() }
}

/// The size of bodies that stop half-way.
const STOPS: usize = 60_000;
const GIVE_UP: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
