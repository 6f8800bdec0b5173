//! D7: servers that answer what can be read in two ways, or not at all. Nobody but who asked may get any of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etna_tests::scene::Scene;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::strict;
use super::wire::{Gone, Wire};
use crate::drill::Outcome;

/// One answer.
struct Answer {
    name: String,
    method: &'static str,
    bytes: Vec<u8>,
    /// Whether the server closes after it.
    ends: bool,
    expect: Expect,
}

/// What must come of it.
enum Expect {
    /// 502, or an answer that is visibly cut off; the server's connection is not used again.
    Bad,
    /// This status and body; the server's connection is not used again.
    Once(u16, &'static str),
    /// Mended to this status and body, or bad.
    Either(u16, &'static str),
    /// This status and body, without fields named `x-secret`.
    Clean(u16, &'static str),
}
use Expect::{Bad, Clean, Either, Once};

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// Heads and bodies after `HTTP/1.1 200 OK`.
const BAD: [(&str, &[u8]); 41] = [
    ("two equal lengths", b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    ("two lengths", b"Content-Length: 5\r\nContent-Length: 4\r\n\r\nhello"),
    ("a list of lengths", b"Content-Length: 5, 5\r\n\r\nhello"),
    ("a length with zeros", b"Content-Length: 005\r\n\r\nhello"),
    ("a length with a sign", b"Content-Length: +5\r\n\r\nhello"),
    ("a negative length", b"Content-Length: -5\r\n\r\nhello"),
    ("a hexadecimal length", b"Content-Length: 0x5\r\n\r\nhello"),
    ("an empty length", b"Content-Length:\r\n\r\nhello"),
    ("a huge length", b"Content-Length: 18446744073709551621\r\n\r\nhello"),
    ("a length in words", b"Content-Length: five\r\n\r\nhello"),
    ("a length beside chunks", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("chunks beside a length", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("an unknown coding", b"Transfer-Encoding: gzip\r\n\r\nhello"),
    ("identity", b"Transfer-Encoding: identity\r\n\r\nhello"),
    ("chunked twice", b"Transfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("two codings", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("a coding with a vertical tab", b"Transfer-Encoding: \x0bchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("a coding with a space before its colon", b"Transfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("a length with a space before its colon", b"Content-Length : 5\r\n\r\nhello"),
    ("a folded field", b"X: y\r\n folded\r\nContent-Length: 5\r\n\r\nhello"),
    ("NUL in a value", b"X: a\x00b\r\nContent-Length: 5\r\n\r\nhello"),
    ("a control byte in a value", b"X: a\x01b\r\nContent-Length: 5\r\n\r\nhello"),
    ("a bare CR in a value", b"X: a\rb\r\nContent-Length: 5\r\n\r\nhello"),
    ("NUL in a name", b"X\x00: y\r\nContent-Length: 5\r\n\r\nhello"),
    ("a space in a name", b"X Y: y\r\nContent-Length: 5\r\n\r\nhello"),
    ("no colon", b"nothing\r\nContent-Length: 5\r\n\r\nhello"),
    ("no name", b": y\r\nContent-Length: 5\r\n\r\nhello"),
    ("a chunk's size with a sign", b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk's size with 0x", b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"),
    ("no chunk's size", b"Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n"),
    ("a chunk's size beyond all", b"Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("a chunk's size ended by LF", b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"),
    ("a chunk ended by LF", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n"),
    ("a chunk too long", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n"),
    ("a chunk too short", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhell\r\n0\r\n\r\n"),
    ("NUL in a chunk extension", b"Transfer-Encoding: chunked\r\n\r\n5;\x00\r\nhello\r\n0\r\n\r\n"),
    ("LF in a chunk extension", b"Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("a body ended by LF", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\n"),
    ("a trailer without a colon", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nnothing\r\n\r\n"),
    ("a folded trailer", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n"),
    ("a trailer with NUL", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: \x00\r\n\r\n"),
];

/// Whole answers that are none.
const GARBAGE: [(&str, &[u8]); 19] = [
    ("nothing at all", b""),
    ("garbage", b"garbage\r\n\r\n"),
    ("a status of two digits", b"HTTP/1.1 99 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("a status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("a status below all", b"HTTP/1.1 000 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("a status in words", b"HTTP/1.1 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("no space before the status", b"HTTP/1.1200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("HTTP/2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("http/1.1", b"http/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("an HTTP/2 frame", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80"),
    ("half a status line", b"HTTP/1.1 20"),
    ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le"),
    ("a head without an end", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"),
    ("half a body", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"),
    ("chunks without an end", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ("half a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"),
    ("only an interim answer", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ("a switch nobody asked for", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    ("a reason with NUL", b"HTTP/1.1 200 O\x00K\r\nContent-Length: 5\r\n\r\nhello"),
];

/// Whole answers that are cleaned, or right.
const GOOD: [(&str, &str, &[u8], Expect); 22] = [
    ("more than its length", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", Once(200, "hello")),
    ("more than its chunks", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", Once(200, "hello")),
    ("204 with a body", "GET", b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", Once(204, "")),
    ("204 with a length", "GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison", Once(204, "")),
    ("304 with a body", "GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison", Once(304, "")),
    ("HEAD with a body", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", Once(200, "")),
    ("HEAD with chunks", "HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n", Once(200, "")),
    ("an interim answer after the final one", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 100 Continue\r\n\r\n", Once(200, "hello")),
    ("a late byte", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\n", Once(200, "hello")),
    ("interim answers before", "GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Clean(200, "hello")),
    ("a nominated field", "GET", b"HTTP/1.1 200 OK\r\nConnection: x-secret\r\nX-Secret: 1\r\nContent-Length: 5\r\n\r\nhello", Clean(200, "hello")),
    ("a nominated length", "GET", b"HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello", Clean(200, "hello")),
    ("until the end", "GET", b"HTTP/1.1 200 OK\r\n\r\nhello", Once(200, "hello")),
    ("HTTP/1.0", "GET", b"HTTP/1.0 200 OK\r\n\r\nhello", Once(200, "hello")),
    ("chunks in HTTP/1.0", "GET", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Either(200, "hello")),
    ("a bare LF", "GET", b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 5\r\n\r\nhello", Either(200, "hello")),
    ("a head ended by LF", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nhello", Either(200, "hello")),
    ("empty lines before", "GET", b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Either(200, "hello")),
    ("no reason", "GET", b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", Clean(200, "hello")),
    ("chunks", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX: y\r\n\r\n", Clean(200, "hello")),
    ("nothing", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Clean(200, "")),
    ("304", "GET", b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", Clean(304, "")),
];

fn all() -> Vec<Answer> {
    let mut all: Vec<Answer> = Vec::new();
    for (name, rest) in BAD {
        let bytes = [OK.as_bytes(), rest].concat();
        all.push(Answer { name: name.into(), method: "GET", bytes, ends: false, expect: Bad });
    }
    for (name, bytes) in GARBAGE {
        all.push(Answer { name: name.into(), method: "GET", bytes: bytes.to_vec(), ends: true, expect: Bad });
    }
    for (name, method, bytes, expect) in GOOD {
        let ends = matches!(name, "until the end" | "HTTP/1.0");
        all.push(Answer { name: name.into(), method, bytes: bytes.to_vec(), ends, expect });
    }
    let large = |bytes: Vec<u8>| [OK.as_bytes(), &bytes, b"Content-Length: 5\r\n\r\nhello"].concat();
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    let more: [(&str, Vec<u8>); 4] = [
        ("a head of 1 MiB", large([b"X: ".to_vec(), vec![b'x'; 1 << 20], b"\r\n".to_vec()].concat())),
        ("10,000 fields", large(b"X: y\r\n".repeat(10_000))),
        ("1,000 interim answers", [interim, large(Vec::new())].concat()),
        (
            "5,000 bytes of chunk extension",
            [OK.as_bytes(), b"Transfer-Encoding: chunked\r\n\r\n5;", &vec![b'x'; 5000], b"\r\nhello\r\n0\r\n\r\n"]
                .concat(),
        ),
    ];
    for (name, bytes) in more {
        all.push(Answer { name: name.into(), method: "GET", bytes, ends: false, expect: Bad });
    }
    all
}

pub(super) async fn run() -> Outcome {
    let answers = Arc::new(all());
    let scene = Scene::alone("responses").await;
    let server = Server::start(answers.clone()).await;
    scene.route("a", "a.test", &[("s", server.address)]).await;
    let proxy = scene.proxy("etna").await;
    proxy.until_status("a.test", "/own/0", 200).await;
    let mut victim = Wire::open(proxy.listen).await;
    let mut wrong = Vec::new();
    for (n, answer) in answers.iter().enumerate() {
        let mut wire = Wire::open(proxy.listen).await;
        let request = |method: &str, path: &str| format!("{method} {path}/{n} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        wire.send(request(answer.method, "/answer").as_bytes()).await;
        let first = wire.reply(answer.method == "HEAD", PATIENCE).await;
        let mut say = |why: String| wrong.push(format!("{}: {why}", answer.name));
        match (&first, &answer.expect) {
            (Ok(reply), Bad | Either(..)) if matches!(reply.status, 502 | 503) => {}
            (Err(Gone::Closed | Gone::Cut | Gone::Reset), Bad | Either(..)) => {}
            (Ok(reply), Once(status, body) | Clean(status, body) | Either(status, body))
                if reply.status == *status && reply.body == body.as_bytes() && reply.field("x-secret").is_empty() => {}
            (other, _) => say(format!("the client got {other:?}")),
        }
        // The same client again, if it can, and another: each gets its own.
        if first.as_ref().is_ok_and(|reply| !reply.closes()) {
            wire.send(request("GET", "/own").as_bytes()).await;
            match wire.reply(false, PATIENCE).await {
                Ok(reply) if reply.status == 200 && reply.body == format!("own /own/{n}").as_bytes() => {}
                other => say(format!("the same client got then {other:?}")),
            }
        }
        victim.send(request("GET", "/own").as_bytes()).await;
        let other = victim.reply(false, PATIENCE).await;
        if !other.as_ref().is_ok_and(|reply| reply.status == 200 && reply.body == format!("own /own/{n}").as_bytes()) {
            say(format!("CROSSED: another client got {other:?}"));
            victim = Wire::open(proxy.listen).await;
        }
    }
    for (number, line) in server.reused.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        wrong.push(format!("{}: REUSED: the server's connection was used again for {line}", answers[*number].name));
    }
    let figure = format!("{} answers, {} wrong", answers.len(), wrong.len());
    super::outcome("one at a time", answers.len() * 3, figure, &wrong)
}

/// Gives `/answer/N` the N-th answer, as it is, and `/own/N` its own.
struct Server {
    address: SocketAddr,
    /// What came on a connection after an answer that must be the last on it.
    reused: Arc<Mutex<Vec<(usize, String)>>>,
}

impl Server {
    async fn start(answers: Arc<Vec<Answer>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let reused = Arc::<Mutex<Vec<(usize, String)>>>::default();
        let noted = reused.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answers.clone(), noted.clone()));
            }
        });
        Server { address, reused }
    }
}

async fn serve(mut stream: TcpStream, answers: Arc<Vec<Answer>>, reused: Arc<Mutex<Vec<(usize, String)>>>) {
    let mut buffer = Vec::new();
    let mut piece = [0; 4096];
    let mut last = None;
    loop {
        while let Ok(Some((request, length))) = strict::request(&buffer) {
            buffer.drain(..length);
            if let Some(number) = last {
                reused.lock().unwrap_or_else(PoisonError::into_inner).push((number, request.target.clone()));
            }
            let number = request.target.strip_prefix("/answer/").and_then(|number| number.parse::<usize>().ok());
            let sent = match number.map(|number| (number, &answers[number])) {
                Some((number, answer)) => {
                    last = last.or_else(|| matches!(answer.expect, Bad | Once(..)).then_some(number));
                    let sent = stream.write_all(&answer.bytes).await;
                    if answer.ends {
                        return;
                    }
                    sent
                }
                None => {
                    let body = format!("own {}", request.target);
                    stream.write_all(format!("{OK}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await
                }
            };
            if sent.is_err() {
                return;
            }
        }
        match stream.read(&mut piece).await {
            Ok(n @ 1..) => buffer.extend_from_slice(&piece[..n]),
            _ => return,
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(3);
