//! F1: uploads that are far faster than the server that takes them. F7: uploads that are refused half-way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use etna_tests::scene::{Scene, frontend_key, server_at, server_key};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::denial::Memory;
use crate::drill::{Length, Outcome};
use crate::protocol::wire::Wire;

/// Four at once; the bytes arrive as they left, the proxy keeps next to none of them, and the senders wait.
pub(super) async fn slow_server(length: Length) -> Outcome {
    let (size, rate) = length.pick((2 << 30, 10_000_000), (6 << 20, 4_000_000));
    let scene = Scene::alone("uploads").await;
    let received = Arc::new(AtomicU64::new(0));
    let counted = received.clone();
    let address = super::server(move |stream| {
        let counted = counted.clone();
        async move {
            let _ = take(stream, rate, &counted).await;
        }
    })
    .await;
    scene.route("a", "a.test", &[("s", address)]).await;
    let proxy = scene.proxy("etna").await;
    proxy.until_status("a.test", "/", 200).await;
    let memory = Memory::watch(proxy.pid());
    let sent = Arc::new(AtomicU64::new(0));
    let mut uploads = JoinSet::new();
    for number in 0..UPLOADS {
        uploads.spawn(upload(proxy.listen, number, size, sent.clone()));
    }
    let mut ahead = 0;
    let mut wrong = Vec::new();
    while !uploads.is_empty() {
        tokio::select! {
            ended = uploads.join_next() => {
                if let Some(Err(why)) = ended.map(|ended| ended.expect("an upload ends")) {
                    wrong.push(why);
                }
            }
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                ahead = ahead.max(sent.load(Relaxed).saturating_sub(received.load(Relaxed)));
            }
        }
    }
    let grown = memory.stop().await / MB;
    let ahead = ahead as f64 / MB / f64::from(UPLOADS);
    if grown >= 20.0 {
        wrong.push(format!("memory +{grown:.1} MB"));
    }
    if ahead >= 32.0 {
        wrong.push(format!("a sender was {ahead:.0} MB ahead"));
    }
    let figure = format!(
        "memory +{grown:.1} MB; senders at most {ahead:.1} MB ahead of the server, mostly in the kernel's buffers"
    );
    let load = format!("{UPLOADS} x {} MiB at {} MB/s", size >> 20, rate / 1_000_000);
    crate::protocol::outcome(&load, UPLOADS as usize, figure, &wrong)
}

async fn upload(to: SocketAddr, number: u32, size: u64, sent: Arc<AtomicU64>) -> Result<(), String> {
    let lost = |error: std::io::Error| format!("upload {number}: {error}");
    let mut stream = TcpStream::connect(to).await.map_err(lost)?;
    let head = "POST /upload HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.map_err(lost)?;
    let mut digest = Sha256::new();
    let mut block = vec![0; BLOCK as usize];
    for n in 0..size / BLOCK {
        fill(&mut block, u64::from(number) << 40 | n);
        digest.update(&block);
        stream.write_all(format!("{BLOCK:x}\r\n").as_bytes()).await.map_err(lost)?;
        stream.write_all(&block).await.map_err(lost)?;
        stream.write_all(b"\r\n").await.map_err(lost)?;
        sent.fetch_add(BLOCK, Relaxed);
    }
    stream.write_all(b"0\r\n\r\n").await.map_err(lost)?;
    let mut answer = Vec::new();
    let expected = hex(digest);
    let mut piece = [0; 1024];
    while !answer.ends_with(expected.as_bytes()) {
        match tokio::time::timeout(Duration::from_secs(60), stream.read(&mut piece)).await {
            Ok(Ok(n @ 1..)) => answer.extend_from_slice(&piece[..n]),
            other => return Err(format!("upload {number}: {other:?} after {:?}", String::from_utf8_lossy(&answer))),
        }
    }
    Ok(())
}

/// Takes one upload at a rate, and answers the digest of what came.
async fn take(stream: TcpStream, rate: u64, received: &AtomicU64) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let mut chunked = false;
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        chunked |= line.eq_ignore_ascii_case("transfer-encoding: chunked\r\n");
        if line == "\r\n" {
            break;
        }
    }
    let mut digest = Sha256::new();
    let began = Instant::now();
    let mut total = 0;
    let mut block = vec![0; BLOCK as usize];
    // Without a body it is somebody who only asks whether the route is there.
    let mut more = chunked;
    while more {
        line.clear();
        stream.read_line(&mut line).await?;
        let mut left = usize::from_str_radix(line.trim_end(), 16).map_err(std::io::Error::other)?;
        more = left > 0;
        while left > 0 {
            let here = left.min(block.len());
            let n = stream.read(&mut block[..here]).await?;
            if n == 0 {
                return Ok(());
            }
            digest.update(&block[..n]);
            left -= n;
            total += n as u64;
            received.fetch_add(n as u64, Relaxed);
            let due = began + Duration::from_secs_f64(total as f64 / rate as f64);
            tokio::time::sleep_until(due.into()).await;
        }
        stream.read_line(&mut line).await?;
    }
    let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 64\r\n\r\n{}", hex(digest));
    stream.get_mut().write_all(answer.as_bytes()).await
}

/// Refused by the proxy, which has a limit, and by a server, which has one; told to a client that reads while it sends,
/// and to one that first sends for a while.
pub(super) async fn refused(length: Length) -> Outcome {
    let size: u64 = length.pick(1 << 30, 16 << 20);
    let scene = Scene::alone("refused").await;
    let refusing = super::server(|stream| async move {
        let _ = refuse(stream).await;
    })
    .await;
    let mut hosts = Vec::new();
    for (id, limit) in [("limited", Some(64 * 1024)), ("server", None)] {
        scene.put(&server_key(id, "s"), server_at(refusing)).await;
        let limits = limit.map_or(json!({}), |bytes| json!({"MaxBodyBytes": bytes}));
        let settings = json!({"PassHostHeader": true, "Limits": limits});
        let route = format!("Host(`{id}.test`)");
        scene
            .put(&frontend_key(id), json!({"Type": "http", "BackendId": id, "Route": route, "Settings": settings}))
            .await;
        hosts.push(format!("{id}.test"));
    }
    let proxy = scene.proxy("etna").await;
    for host in &hosts {
        proxy.until_status(host, "/", 200).await;
    }
    let mut wrong = Vec::new();
    let mut sent = 0;
    for host in &hosts {
        for chunked in [false, true] {
            for first in [0, 512 * 1024] {
                for _ in 0..length.pick(20, 3) {
                    sent += 1;
                    if let Err(why) = until_refused(proxy.listen, host, chunked, size, first).await {
                        wrong.push(format!("{host}, chunked {chunked}, {first} bytes before reading: {why}"));
                    }
                }
            }
        }
    }
    let figure = format!("{} MiB each; {} not told", size >> 20, wrong.len());
    crate::protocol::outcome("one at a time", sent, figure, &wrong)
}

async fn until_refused(to: SocketAddr, host: &str, chunked: bool, size: u64, first: usize) -> Result<(), String> {
    let mut wire = Wire::open(to).await;
    // A little more than is ever sent: an answer to a request that has come whole need not close.
    let told = size + 1;
    let framing = if chunked { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {told}") };
    wire.send(format!("POST / HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n").as_bytes()).await;
    let block = vec![b'x'; BLOCK as usize];
    let piece = if chunked { [format!("{BLOCK:x}\r\n").as_bytes(), &block, b"\r\n"].concat() } else { block };
    for _ in 0..first / BLOCK as usize {
        wire.send(&piece).await;
    }
    let rest = size.saturating_sub(first as u64) / BLOCK;
    let sending = wire.send_beside_many(piece, rest);
    let reply = wire.reply(false, Duration::from_secs(30)).await;
    sending.abort();
    match reply {
        Ok(reply) if reply.status == 413 && reply.closes() => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Takes 64 KiB, says that this is too much, and closes as servers do: both directions, after a moment.
async fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    let Some((head, rest)) = super::head(&mut stream).await else { return Ok(()) };
    if !head.starts_with("POST") {
        return stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    }
    let mut taken = rest.len();
    let mut block = vec![0; 16 * 1024];
    while taken < 64 * 1024 {
        match stream.read(&mut block).await? {
            0 => break,
            n => taken += n,
        }
    }
    stream
        .write_all(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 8\r\n\r\ntoo long")
        .await?;
    stream.shutdown().await?;
    let until = Instant::now() + Duration::from_secs(1);
    while let Ok(Ok(1..)) = tokio::time::timeout_at(until.into(), stream.read(&mut block)).await {}
    Ok(())
}

/// Bytes of which no two blocks are alike.
fn fill(block: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in block.as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

const UPLOADS: u32 = 4;
const BLOCK: u64 = 64 * 1024;
const MB: f64 = 1024.0 * 1024.0;
