//! E3: two thousand clients that ask for 8 MiB and then read nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use etna_tests::scene::{frontend, frontend_key, server_at, server_key};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{MB, Memory, Probe, unnoticed};
use crate::bed::{Bed, HOST};
use crate::drill::{Length, Outcome};

pub(super) async fn run(length: Length) -> Outcome {
    let many = length.pick(2000, 100);
    let bed = Bed::start("slowread", length).await;
    let stalls = Arc::<Mutex<Vec<Duration>>>::default();
    let large = large(stalls.clone()).await;
    bed.scene.put(&server_key("large", "s"), server_at(large)).await;
    bed.scene.put(&frontend_key("large"), frontend("Host(`large.test`)", "large")).await;
    bed.proxy.until_status("large.test", "/short", 200).await;
    let open = async || bed.proxy.metrics().await.sum("etna_connections", &[]).unwrap_or(f64::NAN);
    let before = Probe::during(bed.proxy.listen, HOST, length.pick(10, 2) * SECOND).await;
    let at_rest = open().await;
    let memory = Memory::watch(bed.proxy.pid());
    let probe = Probe::start(bed.proxy.listen, HOST);
    let began = Instant::now();
    let mut readers = Vec::new();
    for n in 0..many {
        readers.push(reader(bed.proxy.listen).await);
        if n % 30 == 29 {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    let asked = began.elapsed();
    let mut held = 0.0_f64;
    let mut left = f64::MAX;
    while began.elapsed() < asked + 45 * SECOND {
        tokio::time::sleep(SECOND / 4).await;
        left = open().await - at_rest;
        held = held.max(left);
        // Somebody else's connection may be open as well.
        if held > 10.0 && left <= 3.0 {
            break;
        }
    }
    let during = probe.stop().await;
    let grown = memory.stop().await / MB;
    drop(readers);
    let (others, unharmed) = unnoticed(length, &before, &during);
    let stalls = stalls.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let longest = stalls.iter().max().copied().unwrap_or_default();
    let figure = format!(
        "{held:.0} of {many} held, {left:.0} left; the server stalled {} times, for {longest:.1?} at most; memory \
         +{grown:.0} MB; {others}",
        stalls.len()
    );
    let pass = unharmed && left <= 3.0 && held >= many as f64 * 0.95 && longest <= LIMIT && grown < 200.0;
    let failed = during.wrong.len() as u64;
    Outcome { load: format!("{many} x 8 MiB, 50/s"), requests: during.sent, failed, figure, pass }
}

async fn reader(to: std::net::SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(4096).ok()?;
    let mut stream = socket.connect(to).await.ok()?;
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: large.test\r\nConnection: close\r\n\r\n").await.ok()?;
    Some(stream)
}

/// A server of 8 MiB, with little room in the kernel.
async fn large(stalls: Arc<Mutex<Vec<Duration>>>) -> std::net::SocketAddr {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(64 * 1024).expect("a small buffer");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let listener: TcpListener = socket.listen(4096).expect("it listens");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, stalls.clone()));
        }
    });
    address
}

/// Notes for how long it could send nothing before it was closed.
async fn serve(mut stream: TcpStream, stalls: Arc<Mutex<Vec<Duration>>>) {
    let mut request = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut request).await {
        let size = if request[..n].starts_with(b"GET /large") { 8 << 20 } else { 64 * 1024 };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        let piece = [b'x'; 64 * 1024];
        let mut left = size;
        let mut progress = Instant::now();
        while left > 0 {
            match stream.write(&piece[..left.min(piece.len())]).await {
                Ok(written) => left -= written,
                Err(_) => return stalls.lock().unwrap_or_else(PoisonError::into_inner).push(progress.elapsed()),
            }
            progress = Instant::now();
        }
    }
}

/// The time limit of a write, and what a clock of seconds adds.
const LIMIT: Duration = Duration::from_millis(32_500);
const SECOND: Duration = Duration::from_secs(1);
