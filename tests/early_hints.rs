//! What a server says ahead of its answer reaches the client ahead of it (RFC 9110 section 15.2), whichever HTTP either
//! speaks.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etna_tests::h2 as raw;
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::tls::{Authority, TlsClient, https_listener};
use etna_tests::wait::{ensure, eventually};
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

const SOON: Duration = Duration::from_secs(20);
const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
    Keep-Alive: timeout=5\r\nLocation: /b\r\nLink: </c.js>; rel=preload\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Answer: 1\r\n\r\nhello";

/// What is left of a hint for a client.
const LEFT: [(&str, &str); 3] =
    [("link", "</a.css>; rel=preload"), ("link", "</c.js>; rel=preload"), ("location", "/b")];

/// Servers of both kinds: `old.test` and `new.test`.
struct Bed {
    scene: Scene,
    proxy: Proxy,
    /// Where HTTP/2 is understood in the clear, beside HTTP/1.1.
    at: SocketAddr,
    /// Has a server that waits answer.
    answer: Arc<Notify>,
}

impl Bed {
    async fn open(name: &str, flags: &[&str]) -> Bed {
        let scene = Scene::open(name).await;
        let answer = Arc::new(Notify::new());
        let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (old, new) = (listen().await, listen().await);
        scene.route("old", "old.test", &[("s", old.local_addr().unwrap())]).await;
        scene.put("backends/new/backend", json!({ "Type": "http", "Settings": { "Protocol": "h2" } })).await;
        scene.put(&server_key("new", "s"), server_at(new.local_addr().unwrap())).await;
        scene.put(&frontend_key("new"), frontend("Host(`new.test`)", "new")).await;
        tokio::spawn(serve_old(old, answer.clone()));
        tokio::spawn(serve_new(new, answer.clone()));
        let proxy = scene.proxy_with("etna", flags).await;
        let at = raw::open(&scene, &proxy).await;
        Bed { scene, proxy, at, answer }
    }

    async fn old_client(&self) -> Old<TcpStream> {
        Old::over(TcpStream::connect(self.proxy.listen).await.unwrap())
    }
}

/// A server of HTTP/1.1: `/wait…` is hinted, and answered when that is told; `/many?N` is hinted N times; `/pieces` comes
/// byte by byte, `/large` is hinted 8 times at length, and all else comes in one piece.
async fn serve_old(listener: TcpListener, answer: Arc<Notify>) {
    while let Ok((stream, _)) = listener.accept().await {
        let answer = answer.clone();
        tokio::spawn(async move {
            stream.set_nodelay(true).unwrap();
            let mut wire = Old::over(stream);
            loop {
                let head = wire.head().await;
                let Some(path) = head.split(' ').nth(1) else { return };
                let mut says = [HINT, ANSWER].concat();
                if path.starts_with("/wait") {
                    wire.stream.write_all(HINT.as_bytes()).await.unwrap();
                    answer.notified().await;
                    says = ANSWER.to_owned();
                } else if let Some(n) = path.strip_prefix("/many?") {
                    says = [&HINT.repeat(n.parse().unwrap()), ANSWER].concat();
                } else if path == "/large" {
                    says = [&large_hint().repeat(8), ANSWER].concat();
                } else if path == "/asks" {
                    says = [HINT, "HTTP/1.1 100 Continue\r\n\r\n", HINT].concat();
                } else if path == "/pieces" {
                    for byte in says.as_bytes().chunks(1) {
                        wire.stream.write_all(byte).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    continue;
                }
                wire.stream.write_all(says.as_bytes()).await.unwrap();
                if path == "/asks" {
                    assert_eq!(wire.body(5).await, "world");
                    wire.stream.write_all(ANSWER.as_bytes()).await.unwrap();
                }
            }
        });
    }
}

fn large_hint() -> String {
    format!("HTTP/1.1 103 Early Hints\r\nlink: {}\r\n\r\n", "x".repeat(120_000))
}

/// The same of HTTP/2.
async fn serve_new(listener: TcpListener, answer: Arc<Notify>) {
    while let Ok((stream, _)) = listener.accept().await {
        let answer = answer.clone();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or("1"));
                    for _ in 0..query.parse().unwrap() {
                        let mut hint = Response::builder().status(103);
                        for (name, value) in LEFT {
                            hint = hint.header(name, value);
                        }
                        respond.send_informational(hint.body(()).unwrap()).unwrap();
                    }
                    if path.starts_with("/wait") {
                        answer.notified().await;
                    }
                    // Who was told too much has gone.
                    let head = Response::builder().header("x-answer", "1").body(()).unwrap();
                    if let Ok(mut send) = respond.send_response(head, false) {
                        let _ = send.send_data(Bytes::from_static(b"hello"), true);
                    }
                });
            }
        });
    }
}

/// One side of a connection of HTTP/1.
struct Old<S> {
    stream: S,
    read: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Old<S> {
    fn over(stream: S) -> Old<S> {
        Old { stream, read: Vec::new() }
    }

    async fn ask(&mut self, line: &str, host: &str, more: &str) {
        let head = format!("{line}\r\nHost: {host}\r\n{more}\r\n");
        self.stream.write_all(head.as_bytes()).await.unwrap();
    }

    /// The next head, and nothing after it; empty at the end.
    async fn head(&mut self) -> String {
        // Nothing is looked at twice: who reads for too long is cut off.
        let mut from = 0;
        loop {
            if let Some(at) = self.read[from..].windows(4).position(|four| four == b"\r\n\r\n") {
                return String::from_utf8(self.read.drain(..from + at + 4).collect()).unwrap();
            }
            from = self.read.len().saturating_sub(3);
            if self.more().await == 0 {
                assert!(self.read.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.read));
                return String::new();
            }
        }
    }

    async fn body(&mut self, length: usize) -> String {
        while self.read.len() < length {
            assert_ne!(self.more().await, 0, "half a body");
        }
        String::from_utf8(self.read.drain(..length).collect()).unwrap()
    }

    async fn more(&mut self) -> usize {
        let reading = self.stream.read_buf(&mut self.read);
        tokio::time::timeout(SOON, reading).await.expect("in time").unwrap_or(0)
    }

    /// The next head is a hint.
    async fn hint(&mut self) {
        let head = self.head().await;
        let fields = head.strip_prefix("HTTP/1.1 103 Early Hints\r\n").expect(&head);
        let fields = fields.lines().filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.into(), value));
        is_what_is_left(fields.map(|(name, value)| (name, value.to_owned())).collect());
    }

    /// What comes next is the answer.
    async fn answer(&mut self) {
        let head = self.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("x-answer: 1\r\n"), "{head}");
        assert!(!head.contains("link"), "{head}");
        let body = if head.contains("content-length: 5\r\n") { "hello" } else { "5\r\nhello\r\n0\r\n\r\n" };
        assert_eq!(self.body(body.len()).await, body);
    }
}

fn is_what_is_left(mut fields: Vec<(String, String)>) {
    fields.sort();
    assert_eq!(fields, LEFT.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

/// What a client of HTTP/2 is told: hints until there are no more, which is said by calling `heard`; then the answer.
async fn ask(client: &mut SendRequest<Bytes>, host: &str, path: &str, mut heard: impl FnMut(&HeaderMap)) -> u16 {
    let request = Request::get(format!("http://{host}{path}")).body(()).unwrap();
    let (mut response, _) = client.send_request(request, true).unwrap();
    let asking = async {
        while let Some(hint) = poll_fn(|cx| response.poll_informational(cx)).await {
            let hint = hint.unwrap();
            assert_eq!(hint.status(), 103);
            let fields = hint.headers().iter();
            is_what_is_left(fields.map(|(name, value)| (name.to_string(), value.to_str().unwrap().into())).collect());
            heard(hint.headers());
        }
        let (head, body) = response.await.unwrap().into_parts();
        let (bytes, _) = crate::h2::whole(body).await.unwrap();
        if head.status == 200 {
            assert!(head.headers.contains_key("x-answer") && !head.headers.contains_key("link"), "{head:?}");
            assert_eq!(bytes, "hello");
        }
        head.status.as_u16()
    };
    tokio::time::timeout(SOON, asking).await.expect("in time")
}

#[tokio::test]
async fn a_hint_is_there_before_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let bed = Bed::open("hints", &["--access-log", log.to_str().unwrap()]).await;
    for host in ["old.test", "new.test"] {
        let mut client = bed.old_client().await;
        for _ in 0..2 {
            client.ask("GET /wait HTTP/1.1", host, "").await;
            client.hint().await;
            bed.answer.notify_one();
            client.answer().await;
        }
        let mut client = crate::h2::connect(bed.at).await;
        for _ in 0..2 {
            let mut hints = 0;
            let status = ask(&mut client, host, "/wait", |_| {
                hints += 1;
                bed.answer.notify_one();
            });
            assert_eq!((status.await, hints), (200, 1), "{host}");
        }
    }
    // Nothing but answers counts.
    let metrics = bed.proxy.metrics().await;
    for (class, requests) in [("2xx", 8.0), ("1xx", 0.0)] {
        for name in ["etna_requests_total", "etna_server_requests_total"] {
            assert_eq!(metrics.sum(name, &[("class", class)]).unwrap_or_default(), requests, "{name} {class}");
        }
    }
    eventually("all is logged", SOON, async || {
        let lines = std::fs::read_to_string(&log).unwrap_or_default();
        let statuses = lines.lines().filter(|line| line.contains("\"status\":200")).count();
        ensure((lines.lines().count(), statuses) == (8, 8), lines)
    })
    .await;
}

#[tokio::test]
async fn so_many_and_no_more() {
    let bed = Bed::open("hintsmany", &[]).await;
    for host in ["old.test", "new.test"] {
        for (told, status) in [(8, 200), (9, 502)] {
            let mut client = bed.old_client().await;
            client.ask(&format!("GET /many?{told} HTTP/1.1"), host, "").await;
            for _ in 0..8 {
                client.hint().await;
            }
            let head = client.head().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {head}");
            let mut client = crate::h2::connect(bed.at).await;
            let mut hints = 0;
            let asked = ask(&mut client, host, &format!("/many?{told}"), |_| hints += 1).await;
            assert_eq!((asked, hints), (status, 8), "{host}");
        }
    }
}

#[tokio::test]
async fn however_it_comes_and_whoever_asks() {
    let bed = Bed::open("hintscome", &[]).await;
    for host in ["old.test", "new.test"] {
        // One after the other on a connection, some asked for before the one before is answered.
        let mut client = bed.old_client().await;
        for path in ["/pieces", "/together", "/pieces"] {
            client.ask(&format!("GET {path} HTTP/1.1"), host, "").await;
        }
        for _ in 0..3 {
            client.hint().await;
            client.answer().await;
        }
        // Who knows none gets none.
        client.ask("GET /together HTTP/1.0", host, "").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    }
    let mut client = bed.old_client().await;
    client.ask("PUT /asks HTTP/1.1", "old.test", "Expect: 100-continue\r\nContent-Length: 5\r\n").await;
    client.hint().await;
    // Which of both is first nobody promises: one is passed on, and the body asked for when it is wanted.
    let mut both = [client.head().await, client.head().await];
    both.sort();
    assert_eq!(both[0], "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(both[1].starts_with("HTTP/1.1 103 "), "{}", both[1]);
    client.stream.write_all(b"world").await.unwrap();
    client.answer().await;
}

#[tokio::test]
async fn who_does_not_read_gets_fewer_but_whole_ones() {
    let bed = Bed::open("hintsunread", &[]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = Old::over(socket.connect(bed.proxy.listen).await.unwrap());
    // More than the kernel holds.
    const ASKED: usize = 12;
    for _ in 0..ASKED {
        client.ask("GET /large HTTP/1.1", "old.test", "").await;
    }
    let answered = async || bed.proxy.metrics().await.sum("etna_requests_total", &[("class", "2xx")]);
    eventually("it is answered", SOON, async || ensure(answered().await >= Some(1.0), "not yet")).await;
    let (large, mut hints) = (large_hint(), 0);
    for _ in 0..ASKED {
        loop {
            let head = client.head().await;
            if head.starts_with("HTTP/1.1 200 OK\r\n") {
                break;
            }
            assert!(head == large, "{} bytes: {}", head.len(), &head[..head.len().min(100)]);
            hints += 1;
        }
        assert_eq!(client.body(5).await, "hello");
    }
    println!("{hints} hints of {}", 8 * ASKED);
    assert!((1..8 * ASKED).contains(&hints), "{hints}");
}

/// What goes on when its client has left runs in a task of its own.
#[tokio::test]
async fn jobs_are_hinted_too() {
    let bed = Bed::open("hintsjob", &[]).await;
    let site = |backend: &str| json!({ "Preset": "wordpress", "Hosts": [format!("{backend}.job")], "Public": backend, "Admin": backend });
    for backend in ["old", "new"] {
        let revision = bed.scene.put(&format!("sites/{backend}"), site(backend)).await;
        bed.proxy.until_revision(revision).await;
        let host = format!("{backend}.job");
        let mut client = bed.old_client().await;
        client.ask("GET /wp-cron.php?1 HTTP/1.1", &host, "").await;
        client.hint().await;
        client.answer().await;
        let mut client = crate::h2::connect(bed.at).await;
        let mut hints = 0;
        assert_eq!((ask(&mut client, &host, "/wp-cron.php?1", |_| hints += 1).await, hints), (200, 1));
    }
}

#[tokio::test]
async fn the_same_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let bed = Bed::open("hintstls", &["--seal-key", authority.seal_key()]).await;
    bed.scene.put("hosts/old.test/host", authority.host(&authority.issue(&["old.test"]), true)).await;
    bed.scene.put("listeners/https", https_listener(json!({}))).await;
    let at = bed.proxy.listener("https").await;
    let mut client = Old::over(authority.client().connect(at, "old.test").await.unwrap());
    client.ask("GET /wait HTTP/1.1", "old.test", "").await;
    client.hint().await;
    bed.answer.notify_one();
    client.answer().await;
    let mut config = (*authority.client().config).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TlsClient { config: Arc::new(config) }.connect(at, "old.test").await.unwrap();
    let mut client = crate::h2::begin(stream).await;
    assert_eq!(ask(&mut client, "old.test", "/wait", |_| bed.answer.notify_one()).await, 200);
}
