//! E14: everything far too long.

use std::time::{Duration, Instant};

use super::{MB, Memory};
use crate::drill::{Length, Outcome};
use crate::protocol::ground;
use crate::protocol::oracle::Seen;
use crate::protocol::wire::{Gone, Wire};

pub(super) async fn run(length: Length) -> Outcome {
    let ground = ground("oversized").await;
    let x = |size: usize| "x".repeat(size);
    let fields = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
    let chunks = |body: &str| format!("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let long = x(100 * 1024);
    let table: Vec<(&str, String, &[u16])> = vec![
        ("a target of 100 KiB", get(&format!("/{long}"), ""), &[414]),
        ("a query of 100 KiB", get(&format!("/?{long}"), ""), &[414]),
        ("a target of 9 KiB", get(&format!("/{}", x(9 * 1024)), ""), &[414]),
        ("a field of 100 KiB", get("/", &format!("X: {long}\r\n")), &[431]),
        ("a cookie of 100 KiB", get("/", &format!("Cookie: {long}\r\n")), &[431]),
        ("a field's name of 100 KiB", get("/", &format!("{long}: x\r\n")), &[431, 400]),
        ("a field of 33 KiB", get("/", &format!("X: {}\r\n", x(33 * 1024))), &[431]),
        ("101 fields", get("/", &fields(100)), &[431]),
        ("10,000 fields", get("/", &fields(10_000)), &[431]),
        ("10,000 fields of one name", get("/", &"X: y\r\n".repeat(10_000)), &[431]),
        ("a method of 100 KiB", format!("{long} / HTTP/1.1\r\nHost: a.test\r\n\r\n"), &[400, 414, 501]),
        ("a method of 200 bytes", format!("{} / HTTP/1.1\r\nHost: a.test\r\n\r\n", x(200)), &[400, 501]),
        ("a version of 100 KiB", format!("GET / HTTP/1.1{long}\r\nHost: a.test\r\n\r\n"), &[400, 414, 505]),
        ("a Host of 100 KiB", format!("GET / HTTP/1.1\r\nHost: {long}\r\n\r\n"), &[431, 400]),
        ("a Host of 1 KiB", format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", x(1024)), &[400]),
        ("a chunk extension of 64 KiB", chunks(&format!("5;{}\r\nhello\r\n0\r\n\r\n", x(64 * 1024))), &[400]),
        ("a chunk's size of 64 KiB", chunks(&format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(64 * 1024))), &[400]),
        ("a trailer of 64 KiB", chunks(&format!("0\r\nX: {}\r\n\r\n", x(64 * 1024))), &[400, 431]),
        ("10,000 trailers", chunks(&format!("0\r\n{}\r\n", fields(10_000))), &[400, 431]),
        ("100 KiB of empty lines", format!("{}{}", "\r\n".repeat(50 * 1024), get("/", "")), &[400, 431, 200]),
        (
            "a length of 2 to the 62nd",
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4611686018427387904\r\n\r\n".into(),
            &[400, 413, 0],
        ),
    ];
    let memory = Memory::watch(ground.proxy.pid());
    let mut wrong = Vec::new();
    for (name, bytes, allowed) in &table {
        ground.oracle.take();
        let mut wire = Wire::open(ground.proxy.listen).await;
        let sending = wire.send_beside(bytes.as_bytes().to_vec());
        // 0: no answer is right, too, for what could still go on.
        let patience = if allowed.contains(&0) { Duration::from_millis(300) } else { Duration::from_secs(20) };
        match wire.reply(false, patience).await {
            Ok(reply) if allowed.contains(&reply.status) => {}
            Err(Gone::Quiet) if allowed.contains(&0) => {}
            other => wrong.push(format!("{name}: {other:?}")),
        }
        sending.abort();
        let whole = ground.oracle.take().into_iter().any(|seen| !matches!(seen, Seen::Partial(_)));
        if whole && !allowed.contains(&200) {
            wrong.push(format!("{name}: a server saw it"));
        }
    }
    // Chunks of one byte are right, and may be served; ten times as many take ten times as long, not a hundred.
    let small = length.pick(1_000_000, 20_000);
    let one = upload(&ground, small).await;
    let ten = upload(&ground, small * 10).await;
    let grown = memory.stop().await / MB;
    match (&one, &ten) {
        (Ok(one), Ok(ten)) if length.fast(*ten < *one * 30) => {}
        other => wrong.push(format!("chunks of one byte: {other:?} for {small} and ten times as many")),
    }
    if grown >= 10.0 {
        wrong.push(format!("memory +{grown:.0} MB"));
    }
    let figure = format!(
        "{} kinds; chunks of one byte {one:.1?}, ten times as many {ten:.1?}; memory +{grown:.1} MB",
        table.len()
    );
    crate::protocol::outcome("one at a time", table.len() + 2, figure, &wrong)
}

/// A body in chunks of one byte.
async fn upload(ground: &crate::protocol::Ground, chunks: usize) -> Result<Duration, String> {
    let began = Instant::now();
    let mut wire = Wire::open(ground.proxy.listen).await;
    let head = b"POST /small HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let sending = wire.send_beside([head, b"1\r\nx\r\n".repeat(chunks), b"0\r\n\r\n".to_vec()].concat());
    let reply = wire.reply(false, Duration::from_secs(120)).await.map_err(|gone| format!("{gone:?}"))?;
    sending.abort();
    let saw = reply.field("x-saw").to_owned();
    if saw == format!("POST /small {chunks}") { Ok(began.elapsed()) } else { Err(format!("{} {saw}", reply.status)) }
}
