//! Drills: requests and responses that are not what they seem.

mod judge;
pub(crate) mod oracle;
mod paths;
mod responses;
pub(crate) mod strict;
mod vectors;
pub(crate) mod wire;

use std::time::Duration;

use crate::drill::{Drill, Length, Outcome, Running};
pub(crate) use judge::Ground;
use vectors::Vector;
use wire::Wire;

pub(crate) const DRILLS: &[Drill] = &[
    Drill { id: "D1", what: "requests that can be read in two ways", quick: true, run: |_| Box::pin(requests()) },
    Drill {
        id: "D7",
        what: "responses that can be read in two ways",
        quick: true,
        run: |_| Box::pin(responses::run()),
    },
    Drill {
        id: "D9",
        what: "paths that can be read in two ways",
        quick: true,
        run: |length| Box::pin(paths::run(length)),
    },
    Drill { id: "D13", what: "64 requests at once, one of them bad", quick: true, run: pipelining },
];

/// Every vector once, each beside a request that is right on the same connection and one on another; then what is
/// right, alone and sixteen at a time.
async fn requests() -> Outcome {
    let vectors = vectors::all();
    let controls = vectors::controls();
    assert!(vectors.len() >= 170 && controls.len() >= 100, "{} vectors, {} controls", vectors.len(), controls.len());
    let mut ground = Ground::start("requests").await;
    let mut wrong: Vec<String> = Vec::new();
    for vector in vectors.iter().chain(&controls) {
        if let Err(why) = ground.judge(vector).await {
            wrong.push(format!("{}: {why}", vector.name));
        }
    }
    let simple: Vec<&Vector> = controls.iter().filter(|control| !control.bytes.starts_with(b"HEAD")).collect();
    for group in simple.chunks(16) {
        if let Err(why) = ground.pipelined(group).await {
            wrong.push(format!("16 controls from {:?} on: {why}", group[0].name));
        }
    }
    let requests = vectors.len() + controls.len() + simple.len();
    let figure = format!("{} vectors, {} controls, {} wrong", vectors.len(), controls.len(), wrong.len());
    outcome("one at a time", requests, figure, &wrong)
}

/// Sixty-four at once: in order, and nothing after the bad one is answered or reaches a server.
fn pipelining(length: Length) -> Running {
    Box::pin(async move {
        let mut ground = Ground::start("pipelining").await;
        let mut wrong = Vec::new();
        let mut requests = 0;
        let rounds = length.pick(8, 1);
        for bad in [None, Some(0), Some(1), Some(31), Some(62), Some(63)].into_iter().cycle().take(6 * rounds) {
            for (name, line) in BAD {
                requests += 64;
                if let Err(why) = depth(&mut ground, bad, line).await {
                    wrong.push(format!("{name} at {bad:?}: {why}"));
                }
                if bad.is_none() {
                    break;
                }
            }
        }
        outcome("64 deep", requests, format!("{} wrong", wrong.len()), &wrong)
    })
}

const BAD: [(&str, &str); 3] = [
    ("two lengths", "POST /bad HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    ("no request line", "bad\r\n\r\n"),
    ("a bare line feed", "GET /bad HTTP/1.1\nHost: a.test\r\n\r\n"),
];

async fn depth(ground: &mut Ground, bad: Option<usize>, line: &str) -> Result<(), String> {
    ground.oracle.take();
    let mut all = Vec::new();
    for n in 0..64 {
        let text = match n % 4 {
            _ if bad == Some(n) => line.to_owned(),
            0 => format!("POST /{n} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello"),
            1 => format!(
                "POST /{n} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            ),
            _ => format!("GET /{n} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        };
        all.extend_from_slice(text.as_bytes());
    }
    let mut wire = Wire::open(ground.proxy.listen).await;
    wire.send(&all).await;
    for n in 0..64 {
        let reply = wire.reply(false, SOON).await.map_err(|gone| format!("answer {n}: {gone:?}"))?;
        if bad == Some(n) {
            if reply.status < 400 || !wire.is_closed(SOON).await {
                return Err(format!("{} to the bad one, or not closed after it", reply.status));
            }
            break;
        }
        let expected = if n % 4 < 2 { format!("POST /{n} 5") } else { format!("GET /{n} 0") };
        if (reply.status, reply.field("x-saw")) != (200, &*expected) {
            return Err(format!("answer {n} is {} {:?}", reply.status, reply.field("x-saw")));
        }
    }
    match ground.oracle.take().len() {
        seen if seen == bad.unwrap_or(64) => Ok(()),
        seen => Err(format!("the server saw {seen}")),
    }
}

/// A proxy before an oracle.
pub(crate) async fn ground(name: &str) -> Ground {
    Ground::start(name).await
}

/// What is wrong is shown, up to a number of lines.
pub(crate) fn outcome(load: &str, requests: usize, mut figure: String, wrong: &[String]) -> Outcome {
    for line in wrong.iter().take(SHOWN) {
        figure.push('\n');
        figure.push_str(line);
    }
    let failed = wrong.len() as u64;
    Outcome { load: load.into(), requests: requests as u64, failed, figure, pass: wrong.is_empty() }
}

const SHOWN: usize = 60;
pub(crate) const SOON: Duration = Duration::from_secs(5);
