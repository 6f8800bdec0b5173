//! F2: clients that leave while they wait or while they are answered. F6: clients that have said all they will, and wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use etna_tests::load::percentile;
use etna_tests::scene::Scene;
use etna_tests::wait::{ensure, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::drill::{Length, Outcome};
use crate::protocol::wire::{Gone, Wire};

/// When requests reached the server, and when it saw that nobody waits for them.
#[derive(Default)]
struct Seen {
    began: Mutex<HashMap<String, Instant>>,
    ended: Mutex<HashMap<String, Instant>>,
}

pub(super) async fn run(length: Length) -> Outcome {
    let many = length.pick(1000, 80);
    let scene = Scene::alone("leaving").await;
    let seen = Arc::<Seen>::default();
    let noting = seen.clone();
    let address = super::server(move |stream| serve(stream, noting.clone())).await;
    scene.route("a", "a.test", &[("s", address)]).await;
    let proxy = scene.proxy("etna").await;
    proxy.until_status("a.test", "/", 200).await;
    let mut delays = Vec::new();
    let mut wrong = Vec::new();
    let mut leaving = JoinSet::new();
    for n in 0..many {
        let (seen, to) = (seen.clone(), proxy.listen);
        leaving.spawn(async move { leave(to, n, &seen).await });
        while leaving.len() >= AT_ONCE || n + 1 == many && !leaving.is_empty() {
            match leaving.join_next().await.expect("one runs").expect("it ends") {
                Ok(delay) => delays.push(delay),
                Err(why) => wrong.push(why),
            }
        }
    }
    delays.sort_unstable();
    let p99 = percentile(&delays, 0.99).unwrap_or_default();
    if !length.fast(p99 < Duration::from_millis(100)) {
        wrong.push(format!("the server noticed after {p99:.1?} (p99)"));
    }
    let left = async |name: &str| proxy.metrics().await.sum(name, &[]).unwrap_or(f64::NAN);
    let mut open = (f64::NAN, f64::NAN);
    for _ in 0..200 {
        open = (left("etna_connections").await, left("etna_server_in_flight").await);
        if open.0 <= 1.0 && open.1 == 0.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if open.0 > 1.0 || open.1 != 0.0 {
        wrong.push(format!("{} connections and {} requests are left", open.0, open.1));
    }
    let figure = format!("the server noticed after {p99:.1?} (p99); {} connections, {} requests left", open.0, open.1);
    crate::protocol::outcome(&format!("{AT_ONCE} at once"), many, figure, &wrong)
}

/// Leaves before the answer, or in the middle of it; how long the server did not know.
async fn leave(to: std::net::SocketAddr, n: usize, seen: &Seen) -> Result<Duration, String> {
    let path = format!("/{}/{n}", if n.is_multiple_of(2) { "wait" } else { "stream" });
    let mut wire = Wire::open(to).await;
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes()).await;
    let at = async |map: &Mutex<HashMap<String, Instant>>, what: &str| {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(at) = map.lock().unwrap_or_else(PoisonError::into_inner).get(&path) {
                return Ok(*at);
            }
            if Instant::now() > until {
                return Err(format!("{path}: the server did not see its {what}"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    at(&seen.began, "beginning").await?;
    if n % 2 == 1 {
        wire.take(20_000, Duration::from_secs(20)).await.map_err(|gone| format!("{path}: {gone:?}"))?;
    }
    let left = Instant::now();
    drop(wire);
    Ok(at(&seen.ended, "end").await?.saturating_duration_since(left))
}

async fn serve(mut stream: TcpStream, seen: Arc<Seen>) {
    while let Some((head, _)) = super::head(&mut stream).await {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let note = |map: &Mutex<HashMap<String, Instant>>| {
            map.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), Instant::now());
        };
        if !path.starts_with("/wait") && !path.starts_with("/stream") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            continue;
        }
        note(&seen.began);
        let streams = path.starts_with("/stream");
        let (mut read, mut write) = stream.split();
        let going = async {
            if streams && write.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await.is_ok() {
                while write.write_all(&[b'x'; 8192]).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            } else {
                std::future::pending::<()>().await;
            }
        };
        let mut byte = [0];
        tokio::select! {
            () = going => {}
            _ = read.read(&mut byte) => {}
        }
        return note(&seen.ended);
    }
}

/// `printf 'GET ...' | nc -N`, in every form.
pub(super) async fn half_closed() -> Outcome {
    let scene = Scene::alone("halfclosed").await;
    let address = super::server(slowly).await;
    scene.route("a", "a.test", &[("s", address)]).await;
    let proxy = scene.proxy("etna").await;
    proxy.until_status("a.test", "/", 200).await;
    let get = "GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let cases: [(&str, String, usize); 7] = [
        ("a request", get.into(), 1),
        ("a request of HTTP/1.0", "GET /slow HTTP/1.0\r\nHost: a.test\r\n\r\n".into(), 1),
        ("a request that closes", "GET /slow HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".into(), 1),
        ("a request for much", "GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n".into(), 1),
        ("a request with a body", "POST /slow HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello".into(), 1),
        (
            "a request in chunks",
            "POST /slow HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into(),
            1,
        ),
        ("three requests", get.repeat(3), 3),
    ];
    let mut wrong = Vec::new();
    for (name, bytes, answers) in &cases {
        let mut wire = Wire::open(proxy.listen).await;
        wire.send(bytes.as_bytes()).await;
        wire.finish().await;
        for _ in 0..*answers {
            let reply = wire.reply(false, crate::protocol::SOON).await;
            let size = if name.contains("much") { 2 << 20 } else { 2 };
            if !reply.as_ref().is_ok_and(|reply| reply.status == 200 && reply.body.len() == size) {
                wrong.push(format!("{name}: {:?}", reply.map(|reply| (reply.status, reply.body.len()))));
            }
        }
        // And then it ends: nobody can ask any more.
        if !wire.is_closed(crate::protocol::SOON).await {
            wrong.push(format!("{name}: the connection stays open"));
        }
    }
    // The end of what a client says may come after the answer's beginning.
    let mut wire = Wire::open(proxy.listen).await;
    wire.send(b"GET /parted HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let head = wire.head(Instant::now() + crate::protocol::SOON).await;
    wire.finish().await;
    let body = wire.take(12, crate::protocol::SOON).await;
    if body.as_deref() != Ok(b"half the end") {
        wrong.push(format!("an end after the answer's beginning: {head:?}, {body:?}"));
    }
    // Half a request is none.
    for half in ["GET / HT", "POST /never HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhel"] {
        let mut wire = Wire::open(proxy.listen).await;
        wire.send(half.as_bytes()).await;
        wire.finish().await;
        match wire.reply(false, crate::protocol::SOON).await {
            Ok(reply) if reply.status == 400 || reply.status == 408 => {}
            Err(Gone::Closed | Gone::Reset) => {}
            other => wrong.push(format!("{half:?}: {other:?}")),
        }
    }
    let idle = eventually("nothing is left", crate::protocol::SOON, async || {
        let open = proxy.metrics().await.sum("etna_server_in_flight", &[]);
        ensure(open == Some(0.0), format!("{open:?} requests"))
    });
    idle.await;
    crate::protocol::outcome("one at a time", cases.len() + 5, format!("{} wrong", wrong.len()), &wrong)
}

async fn slowly(mut stream: TcpStream) {
    while let Some((head, _)) = super::head(&mut stream).await {
        let answer = match head.split(' ').nth(1) {
            Some("/large") => {
                [b"HTTP/1.1 200 OK\r\nContent-Length: 2097152\r\n\r\n".as_slice(), &vec![b'x'; 2 << 20]].concat()
            }
            Some("/parted") => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhalf ").await;
                tokio::time::sleep(Duration::from_millis(500)).await;
                b"the end".to_vec()
            }
            // Waits for what is missing.
            Some("/never") => {
                let _ = stream.read_to_end(&mut Vec::new()).await;
                return;
            }
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".to_vec(),
        };
        if head.contains("/slow") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let _ = stream.write_all(&answer).await;
        if !head.contains("/large") {
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            return;
        }
    }
}

const AT_ONCE: usize = 20;
