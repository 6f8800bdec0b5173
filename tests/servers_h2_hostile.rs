//! Servers of HTTP/2 that mean harm or are broken: their own clients are told so, nobody else notices, and what they
//! send fills no memory. Frames are written by hand, as those of hostile clients are (`h2_attacks`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etna_tests::client;
use etna_tests::h2::*;
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::stand_in::StandIn;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Sender, channel};
use tokio_util::sync::CancellationToken;

/// What a server does.
#[derive(Clone, Copy)]
struct Malice {
    name: &'static str,
    /// What it begins a connection with.
    begins: fn() -> Vec<u8>,
    /// What it sends for a request's stream, piece by piece.
    sends: fn(stream: u32, n: u32) -> Vec<u8>,
    /// How many of these.
    pieces: u32,
}

/// Once for each request.
fn once(name: &'static str, sends: fn(u32, u32) -> Vec<u8>) -> Malice {
    Malice { name, begins: settings, sends, pieces: 1 }
}

/// For far longer than anybody should listen.
fn flood(name: &'static str, sends: fn(u32, u32) -> Vec<u8>) -> Malice {
    Malice { name, begins: settings, sends, pieces: FLOOD }
}

/// It goes wrong before there is a request.
fn beginning(name: &'static str, begins: fn() -> Vec<u8>) -> Malice {
    Malice { name, begins, sends: |_, _| Vec::new(), pieces: 0 }
}

fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[])
}

/// The head of an answer.
fn head(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block)
}

const OK: u8 = 0x88;

fn goaway(last: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn floods() -> Vec<Malice> {
    vec![
        flood("PING", |_, _| frame(PING, 0, 0, &[1; 8]).repeat(MANY)),
        flood("PING's answer", |_, _| frame(PING, ACK, 0, &[1; 8]).repeat(MANY)),
        flood("SETTINGS", |_, _| frame(SETTINGS, 0, 0, &setting(4, 65_535)).repeat(MANY)),
        flood("SETTINGS' answer", |_, _| frame(SETTINGS, ACK, 0, &[]).repeat(MANY)),
        flood("WINDOW_UPDATE", |stream, _| frame(WINDOW_UPDATE, 0, stream, &1u32.to_be_bytes()).repeat(MANY)),
        flood("PRIORITY", |stream, _| frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1]).repeat(MANY)),
        flood("an unknown type", |_, _| frame(0xbe, 0, 0, &[]).repeat(MANY)),
        flood("GOAWAY", |_, _| goaway(0x7fff_ffff).repeat(MANY)),
        flood("RST_STREAM", |stream, _| reset(stream, 8).repeat(MANY)),
        flood("interim answers", |stream, _| head(END_HEADERS, stream, &field(":status", "103")).repeat(MANY)),
        flood("CONTINUATION", |stream, n| match n {
            0 => head(0, stream, &[OK]),
            _ => frame(CONTINUATION, 0, stream, &field("x", &"y".repeat(16_000))),
        }),
        flood("empty CONTINUATION", |stream, n| match n {
            0 => head(0, stream, &[OK]),
            _ => frame(CONTINUATION, 0, stream, &[]).repeat(MANY),
        }),
        flood("empty DATA before a head", |stream, _| frame(DATA, 0, stream, &[]).repeat(MANY)),
    ]
}

fn answers() -> Vec<Malice> {
    vec![
        once("a head of 200 KiB", |stream, _| {
            let piece = field("x", &"y".repeat(16_000));
            let more = frame(CONTINUATION, 0, stream, &piece).repeat(11);
            [head(0, stream, &[&[OK][..], &piece].concat()), more, frame(CONTINUATION, END_HEADERS, stream, &[])]
                .concat()
        }),
        once("a head that becomes large", |stream, _| {
            let entry = [&[OK, 0x40][..], &field("x", &"y".repeat(3000))[1..]].concat();
            head(END_HEADERS | END_STREAM, stream, &[entry, vec![0xbe; 10_000]].concat())
        }),
        once("a reset", |stream, _| reset(stream, 2)),
        once("no beginning", |stream, _| reset(stream, REFUSED_STREAM)),
        once("sent away", |_, _| goaway(0)),
        once("sent away, and then more", |_, _| [goaway(1), goaway(99)].concat()),
        once("an idle stream", |_, _| head(END_HEADERS | END_STREAM, 99, &[OK])),
        once("an even stream", |_, _| head(END_HEADERS | END_STREAM, 2, &[OK])),
        once("stream 0", |_, _| head(END_HEADERS | END_STREAM, 0, &[OK])),
        once("a push", |stream, _| {
            let block = [&[0, 0, 0, 2][..], &request("GET", "a.test", "/")].concat();
            frame(PUSH_PROMISE, END_HEADERS, stream, &block)
        }),
        once("DATA before a head", |stream, _| frame(DATA, END_STREAM, stream, b"hello")),
        once("a window beyond all bounds", |_, _| frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())),
        once("a stream's window beyond all bounds", |stream, _| {
            frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())
        }),
        once("no status", |stream, _| head(END_HEADERS | END_STREAM, stream, &field("x", "y"))),
        once("two statuses", |stream, _| head(END_HEADERS | END_STREAM, stream, &[OK, OK])),
        once("a status that is none", |stream, _| head(END_HEADERS | END_STREAM, stream, &field(":status", "2x0"))),
        once("a status of 101", |stream, _| head(END_HEADERS, stream, &field(":status", "101"))),
        once("a field of one hop", |stream, _| {
            head(END_HEADERS | END_STREAM, stream, &[&[OK][..], &field("connection", "x")].concat())
        }),
        once("a name in capitals", |stream, _| {
            head(END_HEADERS | END_STREAM, stream, &[&[OK][..], &field("X-Y", "x")].concat())
        }),
        once("a line's end in a value", |stream, _| {
            head(END_HEADERS | END_STREAM, stream, &[&[OK][..], &field("x", "a\r\nb: c")].concat())
        }),
        once("a table that is none", |stream, _| head(END_HEADERS | END_STREAM, stream, &[0xff; 6])),
        once("half a frame", |stream, _| head(END_HEADERS, stream, &[OK; 50])[..20].to_vec()),
        once("a frame of 16 MiB", |_, _| [&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1][..], &[0; 1000]].concat()),
        once("nothing", |_, _| Vec::new()),
    ]
}

fn beginnings() -> Vec<Malice> {
    vec![
        beginning("silence", Vec::new),
        beginning("random bytes", || (0..1000_u32).map(|n| (n * 7919 % 251) as u8).collect()),
        beginning("a setting that cannot be", || frame(SETTINGS, 0, 0, &setting(5, 1))),
        beginning("no stream at all", || frame(SETTINGS, 0, 0, &setting(3, 0))),
        beginning("no window at all", || frame(SETTINGS, 0, 0, &setting(4, 0))),
        beginning("sent away at once", || [settings(), goaway(0)].concat()),
    ]
}

/// Answers whose heads are good, and whose bodies never end well.
fn bodies() -> Vec<Malice> {
    vec![
        flood("empty DATA", |stream, n| match n {
            0 => head(END_HEADERS, stream, &[OK]),
            _ => frame(DATA, 0, stream, &[]).repeat(MANY),
        }),
        flood("padding", |stream, n| match n {
            0 => head(END_HEADERS, stream, &[OK]),
            _ => frame(DATA, PADDED, stream, &[0]).repeat(MANY),
        }),
        flood("more than the window", |stream, n| match n {
            0 => head(END_HEADERS, stream, &[&[OK][..], &field("content-length", "10")].concat()),
            _ => frame(DATA, 0, stream, &[7; 16_384]),
        }),
        once("a body that is reset", |stream, _| {
            [head(END_HEADERS, stream, &[OK]), frame(DATA, 0, stream, b"hello"), reset(stream, 2)].concat()
        }),
        once("less than it says", |stream, _| {
            let head = head(END_HEADERS, stream, &[&[OK][..], &field("content-length", "10")].concat());
            [head, frame(DATA, END_STREAM, stream, b"hello")].concat()
        }),
        once("trailers without end", |stream, _| {
            let trailers = frame(HEADERS, 0, stream, &field("x", "y"));
            let more = frame(CONTINUATION, 0, stream, &field("x", &"y".repeat(16_000)));
            [head(END_HEADERS, stream, &[OK]), trailers, more.repeat(60)].concat()
        }),
    ]
}

/// Serves until the test ends.
async fn start(malice: Malice, stop: &CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = stop.clone();
    tokio::spawn(async move {
        let accepting = async {
            while let Ok((stream, _)) = listener.accept().await {
                let stop = stop.clone();
                tokio::spawn(async move { stop.run_until_cancelled(serve(stream, malice)).await });
            }
        };
        stop.run_until_cancelled(accepting).await
    });
    address
}

async fn serve(mut stream: TcpStream, malice: Malice) -> std::io::Result<()> {
    stream.write_all(&(malice.begins)()).await?;
    stream.read_exact(&mut [0; PREFACE.len()]).await?;
    let (from, mut to) = stream.into_split();
    let (asked, mut requests) = channel(100);
    let reading = tokio::spawn(read(from, asked));
    while let Some(stream) = requests.recv().await {
        for n in 0..malice.pieces {
            to.write_all(&(malice.sends)(stream, n)).await?;
        }
    }
    // What is said last can be read, whoever closes first.
    let _ = reading.await;
    Ok(())
}

/// Says which streams begin.
async fn read(mut from: OwnedReadHalf, asked: Sender<u32>) {
    let mut head = [0; 9];
    while from.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if from.read_exact(&mut vec![0; length]).await.is_err() {
            return;
        }
        if head[3] == HEADERS {
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            let _ = asked.try_send(stream);
        }
    }
}

struct Bed {
    scene: Scene,
    good: StandIn,
    proxy: Proxy,
    stop: CancellationToken,
}

async fn bed(name: &str) -> Bed {
    let scene = Scene::open(name).await;
    let good = StandIn::start("good").await;
    scene.route("good", "good.test", &[("s", good.address)]).await;
    let proxy = scene.proxy_with("etna", &["--workers", "1"]).await;
    Bed { scene, good, proxy, stop: CancellationToken::new() }
}

/// Asks each of these servers through the proxy, all at once, with and without a body; what came of each. Beside it
/// another server's clients are served.
async fn ask(bed: &Bed, all: &[Malice]) -> Vec<(&'static str, Result<u16, String>)> {
    let mut revision = 0;
    for (n, malice) in all.iter().enumerate() {
        let id = format!("evil-{n}");
        let times = json!({ "Read": "1s", "Dial": "1s", "TLSHandshake": "1s" });
        let value = json!({ "Type": "http", "Settings": { "Protocol": "h2", "Timeouts": times } });
        bed.scene.put(&format!("backends/{id}/backend"), value).await;
        bed.scene.put(&server_key(&id, "s"), server_at(start(*malice, &bed.stop).await)).await;
        revision = bed.scene.put(&frontend_key(&id), frontend(&format!("Host(`{id}.test`)"), &id)).await;
    }
    bed.proxy.until_revision(revision).await;
    assert_eq!(bed.proxy.problems().await, Vec::<serde_json::Value>::new());
    let asking = all.iter().enumerate().map(|(n, malice)| async move {
        let host = format!("evil-{n}.test");
        let mut came = Vec::new();
        for body in [0, 300_000, 0] {
            let method = if body == 0 { "GET" } else { "POST" };
            let request = client::request(method, &host, "/").body(Bytes::from(vec![b'x'; body]).into()).unwrap();
            let began = Instant::now();
            let answer = client::send(bed.proxy.listen, request).await.map(|answer| answer.status);
            let took = began.elapsed();
            assert!(took < LONG, "{}: {method} took {took:.1?}", malice.name);
            came.push((malice.name, answer));
        }
        came
    });
    let others = async {
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            assert_eq!(bed.proxy.get("good.test", "/").await.unwrap().server(), "good");
        }
    };
    let (came, ()) = tokio::join!(futures_util::future::join_all(asking), others);
    came.into_iter().flatten().collect()
}

/// Nothing is left of it.
async fn afterwards(bed: Bed, before: u64) {
    let grown = bed.proxy.memory().saturating_sub(before);
    assert!(grown < 40_000_000, "grown by {grown} bytes");
    assert_eq!(bed.proxy.get("good.test", "/").await.unwrap().status, 200);
    assert_eq!(bed.proxy.metrics().await.sum("etna_panics_total", &[]), Some(0.0));
    assert!(bed.good.requests() > 1);
    bed.stop.cancel();
}

/// Each request is answered, and says that its server did not.
async fn all_fail(name: &str, malices: Vec<Malice>) {
    let bed = bed(name).await;
    let before = bed.proxy.memory();
    let came = ask(&bed, &malices).await;
    let wrong: Vec<_> = came.iter().filter(|(_, answer)| !matches!(answer, Ok(502 | 504))).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    afterwards(bed, before).await;
}

#[tokio::test]
async fn floods_instead_of_answers() {
    all_fail("h2-evil-floods", floods()).await;
}

#[tokio::test]
async fn answers_that_are_none() {
    all_fail("h2-evil-answers", answers()).await;
}

#[tokio::test]
async fn beginnings_that_are_none() {
    all_fail("h2-evil-begin", beginnings()).await;
}

/// A client that was told of a good head is not told that its body is whole.
#[tokio::test]
async fn bodies_that_do_not_end_well() {
    let bed = bed("h2-evil-bodies").await;
    let before = bed.proxy.memory();
    let came = ask(&bed, &bodies()).await;
    let wrong: Vec<_> = came.iter().filter(|(_, answer)| matches!(answer, Ok(status) if *status < 500)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    afterwards(bed, before).await;
}

/// Frames at a time.
const MANY: usize = 100;
/// Pieces of a flood.
const FLOOD: u32 = 300;
/// No request may take as long.
const LONG: Duration = Duration::from_secs(20);
