//! F8: server-sent events and long polls: nothing waits for more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use etna_tests::load::percentile;
use etna_tests::scene::Scene;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::drill::{Length, Outcome};
use crate::protocol::wire::Wire;

pub(super) async fn run(length: Length) -> Outcome {
    let scene = Scene::alone("events").await;
    let sent = Arc::<Mutex<Vec<Instant>>>::default();
    let noting = sent.clone();
    let address = super::server(move |stream| serve(stream, noting.clone())).await;
    scene.route("a", "a.test", &[("s", address)]).await;
    let proxy = scene.proxy("etna").await;
    proxy.until_status("a.test", "/", 200).await;
    let mut wrong = Vec::new();
    let mut delays: Vec<Duration> = Vec::new();
    for (framing, body) in [("chunked", true), ("close", true), ("length", true), ("head", false)] {
        sent.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut wire = Wire::open(proxy.listen).await;
        wire.send(format!("GET /{framing} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes()).await;
        let mut came = Vec::new();
        let until = Instant::now() + crate::protocol::SOON;
        match wire.head(until).await {
            Ok(head) if head.status == 200 => came.push(Instant::now()),
            other => wrong.push(format!("{framing}: {other:?}")),
        }
        let mut seen = 0;
        while body && seen < EVENTS {
            match wire.take(1, crate::protocol::SOON).await {
                Ok(bytes) => {
                    let more = bytes.windows(5).filter(|part| *part == b"data:").count();
                    came.extend(std::iter::repeat_n(Instant::now(), more));
                    seen += more;
                }
                Err(gone) => {
                    wrong.push(format!("{framing}: {gone:?} after {seen} events"));
                    break;
                }
            }
        }
        let sent = sent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        delays.extend(came.iter().zip(&sent).map(|(came, sent)| came.saturating_duration_since(*sent)));
    }
    delays.sort_unstable();
    let median = percentile(&delays, 0.5).unwrap_or(Duration::MAX);
    let p99 = percentile(&delays, 0.99).unwrap_or(Duration::MAX);
    if !length.fast(median < Duration::from_millis(10) && p99 < Duration::from_millis(200)) {
        wrong.push(format!("an event took {median:.1?}, at most {p99:.1?}"));
    }
    let figure = format!("{} events, {median:.1?} each (p50), at most {p99:.1?}", delays.len());
    crate::protocol::outcome("4 streams in turn", delays.len(), figure, &wrong)
}

/// Sends a head, and events some milliseconds apart, noting when; `/head` sends no body for a long time.
async fn serve(mut stream: TcpStream, sent: Arc<Mutex<Vec<Instant>>>) {
    while let Some((head, _)) = super::head(&mut stream).await {
        let note = || sent.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        let path = head.split(' ').nth(1).unwrap_or_default();
        let framing = match path {
            "/chunked" => "Transfer-Encoding: chunked\r\n",
            "/close" => "",
            "/length" | "/head" => "Content-Length: 100000\r\n",
            _ => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                continue;
            }
        };
        note();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n");
        let _ = stream.write_all(head.as_bytes()).await;
        for n in 0..EVENTS * usize::from(path != "/head") {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let event = format!("data: {n}\n\n");
            let bytes = if path == "/chunked" { format!("{:x}\r\n{event}\r\n", event.len()) } else { event };
            note();
            if stream.write_all(bytes.as_bytes()).await.is_err() {
                return;
            }
        }
        // Until the client has seen all of it, and leaves.
        let _ = super::head(&mut stream).await;
        return;
    }
}

const EVENTS: usize = 25;
