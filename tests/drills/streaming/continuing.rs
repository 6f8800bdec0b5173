//! F3: `Expect: 100-continue` with servers that say 100, refuse, answer early or say nothing, and with clients that
//! wait and clients that do not.

use std::time::{Duration, Instant};

use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::drill::{Length, Outcome};
use crate::protocol::wire::{Gone, Wire};

/// Servers: what they answer, and whether they want the body first.
const SERVERS: [(&str, u16); 4] = [("continues", 200), ("refuses", 417), ("early", 401), ("silent", 200)];

pub(super) async fn run(length: Length) -> Outcome {
    let scene = Scene::alone("continuing").await;
    for (name, _) in SERVERS {
        let address = super::server(move |stream| serve(stream, name)).await;
        scene.put(&server_key(name, "s"), server_at(address)).await;
        scene.put(&frontend_key(name), frontend(&format!("Host(`{name}.test`)"), name)).await;
    }
    let proxy = scene.proxy("etna").await;
    for (name, _) in SERVERS {
        proxy.until_status(&format!("{name}.test"), "/", 200).await;
    }
    let mut wrong = Vec::new();
    let mut sent = 0;
    let mut told = Duration::ZERO;
    let mut before = Vec::new();
    for (name, status) in SERVERS {
        for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            for patient in [true, false] {
                sent += 1;
                let head = format!("POST / HTTP/1.1\r\nHost: {name}.test\r\n{framing}\r\nExpect: 100-continue\r\n\r\n");
                let body = if framing.contains("chunked") { "5\r\nhello\r\n0\r\n\r\n" } else { "hello" };
                let what = format!("{name}, {framing}, {}", if patient { "patient" } else { "impatient" });
                match exchange(proxy.listen, &head, body, patient).await {
                    Ok(done) => {
                        told = told.max(done.told);
                        if done.status != status {
                            wrong.push(format!("{what}: {}", done.status));
                        }
                        if !length.fast(done.told <= FALLBACK) {
                            wrong.push(format!("{what}: nothing said for {:.1?}", done.told));
                        }
                        if done.continued && patient && status != 200 {
                            before.push(name);
                        }
                    }
                    Err(why) => wrong.push(format!("{what}: {why}")),
                }
            }
        }
    }
    // The rest of the rules: 417 to what is not known, nothing interim for HTTP/1.0 or without a body.
    for (what, head, status) in [
        (
            "an unknown expectation",
            "POST / HTTP/1.1\r\nHost: early.test\r\nExpect: x\r\nContent-Length: 5\r\n\r\nhello",
            417,
        ),
        (
            "HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: early.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
            401,
        ),
        ("no body", "GET /get HTTP/1.1\r\nHost: early.test\r\nExpect: 100-continue\r\n\r\n", 200),
    ] {
        sent += 1;
        let mut wire = Wire::open(proxy.listen).await;
        wire.send(head.as_bytes()).await;
        match wire.any_reply(false, crate::protocol::SOON).await {
            Ok(reply) if reply.status == status => {}
            other => wrong.push(format!("{what}: {other:?}")),
        }
    }
    before.dedup();
    let early = if before.is_empty() { String::new() } else { format!("; 100 came before the refusal of {before:?}") };
    let figure = format!("{} wrong; the first word after at most {told:.1?}{early}", wrong.len());
    crate::protocol::outcome("one at a time", sent, figure, &wrong)
}

struct Done {
    status: u16,
    /// How long nothing was said.
    told: Duration,
    /// Whether 100 came.
    continued: bool,
}

async fn exchange(to: std::net::SocketAddr, head: &str, body: &str, patient: bool) -> Result<Done, String> {
    let mut wire = Wire::open(to).await;
    wire.send(head.as_bytes()).await;
    if !patient {
        wire.send(body.as_bytes()).await;
    }
    let began = Instant::now();
    let gone = |gone: Gone| format!("{gone:?} after {:.1?}", began.elapsed());
    let mut reply = wire.any_reply(false, crate::protocol::SOON).await.map_err(gone)?;
    let told = began.elapsed();
    let continued = reply.status == 100;
    if continued {
        if patient {
            wire.send(body.as_bytes()).await;
        }
        reply = wire.any_reply(false, crate::protocol::SOON).await.map_err(gone)?;
    }
    // Whoever never sends the body cannot go on, and who goes on gets an answer to what it asked.
    if !reply.closes() && (continued || !patient) {
        wire.send(b"GET /get HTTP/1.1\r\nHost: early.test\r\n\r\n").await;
        match wire.reply(false, crate::protocol::SOON).await {
            Ok(next) if next.status == 200 => {}
            other => return Err(format!("after {}: {other:?}", reply.status)),
        }
    } else if !reply.closes() {
        return Err(format!("{}, and the connection stays open for a body that never comes", reply.status));
    }
    Ok(Done { status: reply.status, told, continued })
}

async fn serve(mut stream: TcpStream, name: &str) {
    while let Some((head, mut body)) = super::head(&mut stream).await {
        if head.starts_with("GET") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            continue;
        }
        let answer = match name {
            "refuses" => "417 Expectation Failed",
            "early" => "401 Unauthorized",
            _ => "200 OK",
        };
        if name == "continues" && head.to_ascii_lowercase().contains("expect:") {
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        let wants = name == "continues" || name == "silent";
        let mut piece = [0; 1024];
        while wants && !body.windows(5).any(|part| part == b"hello") {
            match stream.read(&mut piece).await {
                Ok(n @ 1..) => body.extend_from_slice(&piece[..n]),
                _ => return,
            }
        }
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        let until = Instant::now() + Duration::from_secs(1);
        while let Ok(Ok(1..)) = tokio::time::timeout_at(until.into(), stream.read(&mut piece)).await {}
        return;
    }
}

/// A client that waits for a word has waited long enough.
const FALLBACK: Duration = Duration::from_millis(1500);
