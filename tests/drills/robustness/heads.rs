//! G2: heads changed at random. Whatever the proxy takes, a strict reader of our own, which shares nothing with it, takes
//! too, and reads the same out of it.

use std::collections::BTreeMap;

use bytes::BytesMut;
use etna_proxy::traffic::h1;

use crate::drill::{Length, Outcome};
use crate::protocol::strict::{self, Framed};

/// What is changed.
const SEEDS: [&str; 12] = [
    "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "GET http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\n\r\n",
    "POST /form HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "PUT /a%20b HTTP/1.1\r\nHost: a.test:8080\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: [::1]:80\r\nCookie: a=b; c=d\r\nX-Own: \t y \t\r\n\r\n",
    "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "DELETE /x HTTP/1.1\r\nHost:a.test\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
    "\r\nHEAD /%C3%BC HTTP/1.1\r\nhost: A.TEST\r\nTE: trailers\r\nX:\r\n\r\n",
];

/// What is put in.
const PIECES: [&[u8]; 40] = [
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\x00",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\x80",
    b"\xa0",
    b":",
    b",",
    b";",
    b"/",
    b"@",
    b"#",
    b"?",
    b"\"",
    b"0",
    b"5",
    b"+5",
    b"-1",
    b"0x5",
    b"chunked",
    b", chunked",
    b"identity",
    b"Content-Length: 5\r\n",
    b"Content-Length: 6\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b.test\r\n",
    b"X: y\r\n z\r\n",
    b"X : y\r\n",
    b"X\x00: y\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"\r\n\r\n",
    b"Connection: close\r\n",
    b"%00",
    b"99999999999999999999",
];

pub(super) async fn run(length: Length) -> Outcome {
    let many = length.pick(1_000_000, 60_000);
    let runner = tokio::task::spawn_blocking(move || {
        let mut random = fastrand::Rng::with_seed(0x9e37_79b9_7f4a_7c15);
        let (mut taken, mut refused, mut stricter) = (0u64, 0u64, 0u64);
        // One of each kind is shown.
        let mut wrong: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for _ in 0..many {
            let head = mutated(&mut random);
            match judged(&head) {
                Ok(Some(true)) => taken += 1,
                Ok(Some(false)) => stricter += 1,
                Ok(None) => refused += 1,
                Err(why) => {
                    let kind: String = why.chars().take_while(|c| *c != ':').collect();
                    let shown = wrong.entry(kind).or_insert_with(|| (0, format!("{}: {why}", head.escape_ascii())));
                    shown.0 += 1;
                }
            }
        }
        (taken, refused, stricter, wrong)
    });
    let (taken, refused, stricter, wrong) = runner.await.expect("it ran");
    let figure = format!(
        "{taken} taken by both, {refused} by neither, {stricter} by the strict reader alone, {} by the proxy alone",
        wrong.values().map(|(times, _)| times).sum::<u64>()
    );
    let wrong: Vec<String> = wrong.into_values().map(|(times, shown)| format!("{times} like {shown}")).collect();
    // A run that takes nothing has shown nothing.
    let outcome = crate::protocol::outcome("one core", many as usize, figure, &wrong);
    Outcome { pass: outcome.pass && taken > many / 100 && refused > many / 10, ..outcome }
}

/// Whether both take it, neither, or the strict reader alone; an error where the proxy is alone.
fn judged(bytes: &[u8]) -> Result<Option<bool>, String> {
    let mut buffer = BytesMut::from(bytes);
    let read = h1::head::read(&mut buffer, &mut 0).ok().flatten();
    let ours = read.filter(|head| head.parts.method != http::Method::CONNECT && head.parts.host().is_ok());
    let theirs = strict::head(bytes);
    let Some(ours) = ours else {
        return Ok(matches!(theirs, Ok(Some(_))).then_some(false));
    };
    let (theirs, length) = match theirs {
        Ok(Some(theirs)) => theirs,
        Ok(None) => return Err("the strict reader sees no end".into()),
        Err(why) => return Err(why),
    };
    if length != bytes.len() - buffer.len() {
        return Err(format!("the strict reader ends it after {length} bytes"));
    }
    let target = ours.parts.uri.to_string();
    let whole = theirs.target.contains("://");
    if ours.parts.method.as_str() != theirs.method || target != theirs.target && !whole {
        return Err(format!("read as {} {target}", ours.parts.method));
    }
    let read = |name: &str| ours.parts.fields.get_all(name).collect::<Vec<_>>();
    for (name, _) in &theirs.fields {
        if read(name) != theirs.all(name).collect::<Vec<_>>() {
            return Err(format!("{name} read as {:?}", read(name)));
        }
    }
    if ours.parts.fields.len() != theirs.fields.len() {
        return Err(format!("{} fields instead of {}", ours.parts.fields.len(), theirs.fields.len()));
    }
    let framed = format!("{:?}", ours.framing);
    let same = match strict::framing(&theirs)? {
        Framed::Length(0) => framed == "Done",
        Framed::Length(length) => framed == format!("Length({length})"),
        Framed::Chunks => framed.starts_with("Chunked"),
    };
    if same { Ok(Some(true)) } else { Err(format!("framed as {framed}")) }
}

/// A seed with one to four changes.
fn mutated(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut head = SEEDS[random.usize(..SEEDS.len())].as_bytes().to_vec();
    for _ in 0..=random.usize(..4) {
        let at = random.usize(..head.len() + 1);
        match random.usize(..6) {
            0 => drop(head.splice(at..at, PIECES[random.usize(..PIECES.len())].iter().copied())),
            1 if at < head.len() => drop(head.remove(at)),
            2 if at < head.len() => head[at] = random.usize(..256) as u8,
            3 if at < head.len() => head[at] ^= 1 << random.usize(..8),
            4 => {
                // A line again, somewhere: fields twice are what smuggling is made of.
                let lines: Vec<&[u8]> = head.split_inclusive(|byte| *byte == b'\n').collect();
                let line = lines.get(random.usize(..lines.len().max(1))).map(|line| line.to_vec()).unwrap_or_default();
                let starts: Vec<usize> =
                    head.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
                let at = starts.get(random.usize(..starts.len().max(1))).copied().unwrap_or(0);
                head.splice(at..at, line);
            }
            _ => {
                let until = (at + random.usize(..8)).min(head.len());
                head.splice(at..until, PIECES[random.usize(..PIECES.len())].iter().copied());
            }
        }
    }
    head
}
