//! Long bodies, which the kernel moves by itself: every byte of each arrives, none of another's, and nobody is told that
//! half of one is whole.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::wait::{ensure, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The bytes of a body: others for each `seed`, and none like those a power of two away.
struct Bytes {
    seed: u64,
    at: u64,
    /// They come again and again.
    period: Vec<u8>,
}

impl Bytes {
    fn of(seed: u64) -> Bytes {
        let byte = |at: usize| ((at as u64 + seed * 7919).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
        Bytes { seed, at: 0, period: (0..65_521).map(byte).collect() }
    }

    fn fill(&mut self, mut piece: &mut [u8]) {
        while !piece.is_empty() {
            let from = &self.period[(self.at % self.period.len() as u64) as usize..];
            let here = from.len().min(piece.len());
            piece[..here].copy_from_slice(&from[..here]);
            piece = &mut piece[here..];
            self.at += here as u64;
        }
    }

    fn check(&mut self, piece: &[u8]) -> Result<(), String> {
        let begin = self.at;
        let mut expected = vec![0; piece.len()];
        self.fill(&mut expected);
        if piece == expected {
            return Ok(());
        }
        let at = piece.iter().zip(&expected).take_while(|(is, should)| is == should).count();
        Err(format!("byte {} of body {} is another", begin + at as u64, self.seed))
    }
}

/// A server whose paths say what it does: `/down/SEED/LENGTH/SENT` announces a body and sends so much of it, then closes
/// if that is not all of it; `/stall/…` waits instead; `/more/…` says more than was asked for; `/up/SEED` checks what it
/// gets; `/late/SEED` does so after a while.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    sent: Arc<AtomicU64>,
    gone: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server { address, connections: Arc::default(), sent: Arc::default(), gone: Arc::default() };
        let (connections, sent, gone) = (server.connections.clone(), server.sent.clone(), server.gone.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Relaxed);
                let (sent, gone) = (sent.clone(), gone.clone());
                tokio::spawn(async move {
                    let _ = serve(stream, &sent).await;
                    gone.fetch_add(1, Relaxed);
                });
            }
        });
        server
    }

    fn open(&self) -> usize {
        self.connections.load(Relaxed) - self.gone.load(Relaxed)
    }
}

async fn serve(stream: TcpStream, sent: &AtomicU64) -> std::io::Result<()> {
    let mut stream = BufReader::with_capacity(256 * 1024, stream);
    loop {
        let (first, length) = head(&mut stream).await?;
        let path = first.split(' ').nth(1).unwrap_or_default();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let number = |at: usize| parts.get(at).and_then(|part| part.parse::<u64>().ok()).unwrap_or_default();
        if matches!(parts[0], "up" | "late") {
            if parts[0] == "late" {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            let said = match read(&mut stream, number(1), length).await {
                Ok(()) => "whole".to_owned(),
                Err(error) => error,
            };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len());
            stream.write_all(answer.as_bytes()).await?;
            continue;
        }
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", number(2)).as_bytes()).await?;
        if parts[0] == "more" {
            // In one piece with the body's end: what comes later could be the next answer for all that anybody knows.
            let mut bytes = Bytes::of(number(1));
            let mut piece = vec![0; number(3) as usize];
            bytes.fill(&mut piece);
            let end = piece.split_off(piece.len() - 1000);
            stream.write_all(&piece).await?;
            stream.write_all(&[&end[..], b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"].concat()).await?;
            continue;
        }
        write(&mut stream, number(1), number(3), sent).await?;
        match parts[0] {
            "stall" => return stream.read(&mut [0]).await.map(|_| ()),
            _ if number(3) < number(2) => return Ok(()),
            _ => {}
        }
    }
}

/// A message's first line, and the length of what follows.
async fn head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> std::io::Result<(String, u64)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    Ok((head.lines().next().unwrap_or_default().to_owned(), length))
}

async fn read(stream: &mut (impl tokio::io::AsyncRead + Unpin), seed: u64, length: u64) -> Result<(), String> {
    let (mut bytes, mut buffer) = (Bytes::of(seed), vec![0; 256 * 1024]);
    while bytes.at < length {
        let most = buffer.len().min((length - bytes.at) as usize);
        match stream.read(&mut buffer[..most]).await {
            Ok(n @ 1..) => bytes.check(&buffer[..n])?,
            ended => return Err(format!("after {} of {length} bytes: {ended:?}", bytes.at)),
        }
    }
    Ok(())
}

async fn write(
    stream: &mut (impl tokio::io::AsyncWrite + Unpin),
    seed: u64,
    length: u64,
    sent: &AtomicU64,
) -> std::io::Result<()> {
    let (mut bytes, mut buffer) = (Bytes::of(seed), vec![0; 64 * 1024]);
    while bytes.at < length {
        let most = buffer.len().min((length - bytes.at) as usize);
        bytes.fill(&mut buffer[..most]);
        stream.write_all(&buffer[..most]).await?;
        sent.fetch_add(most as u64, Relaxed);
    }
    Ok(())
}

/// A client on one kept connection.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn open(proxy: &Proxy) -> Client {
        Client(BufReader::with_capacity(256 * 1024, TcpStream::connect(proxy.listen).await.unwrap()))
    }

    async fn ask(&mut self, path: &str) {
        self.0.write_all(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes()).await.unwrap();
    }

    /// Asks for a body, of which all has to come.
    async fn down(&mut self, seed: u64, length: u64) -> Result<(), String> {
        self.ask(&format!("/down/{seed}/{length}/{length}")).await;
        self.whole(seed, length).await
    }

    async fn whole(&mut self, seed: u64, length: u64) -> Result<(), String> {
        let (first, said) = head(&mut self.0).await.map_err(|error| format!("no answer: {error}"))?;
        ensure(first == "http/1.1 200 ok" && said == length, format!("{first}, {said} bytes"))?;
        read(&mut self.0, seed, length).await
    }

    /// Sends a body, and what the server says of it.
    async fn up(&mut self, path: &str, seed: u64, length: u64) -> Result<String, String> {
        let head_of = format!("POST {path}/{seed} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n");
        self.0.write_all(head_of.as_bytes()).await.unwrap();
        write(&mut self.0, seed, length, &AtomicU64::new(0)).await.map_err(|error| error.to_string())?;
        let (first, said) = head(&mut self.0).await.map_err(|error| format!("no answer: {error}"))?;
        ensure(first == "http/1.1 200 ok", &first)?;
        let mut text = vec![0; said as usize];
        self.0.read_exact(&mut text).await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// A proxy with one worker, so that its connections share what is a worker's.
async fn bed(name: &str, flags: &[&str], backend: Value) -> (Scene, Server, Proxy) {
    let scene = Scene::open(name).await;
    let server = Server::start().await;
    scene.put("backends/b/backend", json!({"Type": "http", "Settings": backend})).await;
    scene.put(&server_key("b", "s"), server_at(server.address)).await;
    scene.put(&frontend_key("f"), frontend("Host(`a.test`)", "b")).await;
    let proxy = scene.proxy_with("etna", &[&["--workers", "1"], flags].concat()).await;
    (scene, server, proxy)
}

/// What the access log has of a path.
async fn line(log: &Path, path: &str) -> Value {
    eventually(&format!("{path} has its line"), SOON, async || {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut all = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        all.find(|line| line["path"] == path).ok_or_else(|| text.clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_arrives_both_ways_on_kept_connections() {
    let (_scene, server, proxy) = bed("longkept", &[], json!({})).await;
    let mut alone = Client::open(&proxy).await;
    every_length(&mut alone, 0).await;
    assert_eq!(server.connections.load(Relaxed), 1, "each is used again once its body is over");
    let mut clients = tokio::task::JoinSet::new();
    for client in 1..5 {
        let mut connection = Client::open(&proxy).await;
        clients.spawn(async move { every_length(&mut connection, client).await });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// Bodies of one client, both ways.
async fn every_length(connection: &mut Client, client: u64) {
    for (turn, length) in LENGTHS.into_iter().enumerate() {
        let seed = client * 100 + turn as u64;
        connection.down(seed, length).await.unwrap_or_else(|error| panic!("{length} down: {error}"));
        let said = connection.up("/up", seed, length).await;
        assert_eq!(said.as_deref(), Ok("whole"), "{length} up");
    }
}

#[tokio::test]
async fn what_a_server_says_beyond_a_body_is_nobodys() {
    let (_scene, server, proxy) = bed("longmore", &[], json!({})).await;
    let mut client = Client::open(&proxy).await;
    for seed in 1..5 {
        client.ask(&format!("/more/{seed}/{MIB}/{MIB}")).await;
        client.whole(seed, MIB).await.unwrap();
        client.down(seed + 100, MIB).await.unwrap();
    }
    assert!(server.connections.load(Relaxed) >= 5, "what it said is on none that is used again");
}

#[tokio::test]
async fn half_a_body_is_never_whole() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let (_scene, server, proxy) =
        bed("longhalf", &["--access-log", log.to_str().unwrap()], json!({"Timeouts": {"Idle": "1s"}})).await;
    let half = 2 * MIB + 77;
    // The server closes, and falls silent.
    for kind in ["down", "stall"] {
        let mut client = Client::open(&proxy).await;
        let path = format!("/{kind}/3/{}/{half}", 4 * MIB);
        client.ask(&path).await;
        let ended = tokio::time::timeout(Duration::from_secs(10), client.whole(3, 4 * MIB)).await;
        let error = ended.expect("it is cut off").expect_err("half a body is no body");
        assert!(error.starts_with(&format!("after {half} of")), "{kind}: {error}");
        let said = line(&log, &path).await;
        assert_eq!((&said["bytes_sent"], &said["broken_by"]), (&half.into(), &"server".into()), "{said}");
    }
    // The client leaves while it sends.
    let mut client = Client::open(&proxy).await;
    let head = format!("POST /up/5 HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", 4 * MIB);
    client.0.write_all(head.as_bytes()).await.unwrap();
    write(&mut client.0, 5, half, &AtomicU64::new(0)).await.unwrap();
    drop(client);
    eventually("the server is told", SOON, async || {
        ensure(server.open() == 0, format!("{} connections are open", server.open()))
    })
    .await;
    // Both ways again, counted.
    let mut client = Client::open(&proxy).await;
    client.down(9, 4 * MIB).await.unwrap();
    assert_eq!(client.up("/up", 8, 4 * MIB).await.as_deref(), Ok("whole"));
    let down = line(&log, &format!("/down/9/{0}/{0}", 4 * MIB)).await;
    assert_eq!((&down["bytes_sent"], down.get("broken_by")), (&(4 * MIB).into(), None), "{down}");
    assert_eq!(line(&log, "/up/8").await["bytes_received"], 4 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_those_who_left_comes_to_nobody_else() {
    let (_scene, server, proxy) = bed("longleft", &[], json!({})).await;
    for round in 0..3u64 {
        let mut waiting = Vec::new();
        for seed in 0..8 {
            let mut client = Client::open(&proxy).await;
            client.ask(&format!("/down/{seed}/{0}/{0}", 1u64 << 36)).await;
            waiting.push(client);
        }
        until_held_back(&server).await;
        drop(waiting);
        let mut client = Client::open(&proxy).await;
        for seed in 0..4 {
            client.down(1000 + round * 10 + seed, 3 * MIB).await.unwrap();
            assert_eq!(client.up("/up", seed, 3 * MIB).await.as_deref(), Ok("whole"));
        }
        drop(client);
    }
    eventually("the server is let go by those who left", SOON, async || {
        ensure(server.open() <= 1, format!("{} connections are open", server.open()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_do_not_read_take_nothing_from_those_who_do() {
    let (_scene, server, proxy) = bed("longslow", &[], json!({})).await;
    let memory = proxy.memory();
    let mut waiting = Vec::new();
    // More than a worker has pipes.
    for seed in 0..80 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        let mut client = Client(BufReader::new(socket.connect(proxy.listen).await.unwrap()));
        client.ask(&format!("/down/{seed}/{0}/{0}", 1u64 << 36)).await;
        waiting.push(client);
    }
    until_held_back(&server).await;
    assert!(processor_time(&proxy, Duration::from_millis(500)).await < Duration::from_millis(100), "it spins");
    let mut client = Client::open(&proxy).await;
    for seed in 100..104 {
        client.down(seed, 3 * MIB).await.unwrap();
        assert_eq!(client.up("/late", seed, 20 * MIB).await.as_deref(), Ok("whole"));
    }
    let grown = proxy.memory().saturating_sub(memory);
    assert!(grown < 32 << 20, "the proxy grew by {grown} bytes");
    // Those who begin to read get what was meant for them, if only until they were judged too slow.
    for (seed, client) in waiting.iter_mut().enumerate() {
        assert!(head(&mut client.0).await.unwrap().0.ends_with("200 ok"));
        if let Err(error) = read(&mut client.0, seed as u64, 8 * MIB).await {
            assert!(error.starts_with("after "), "{error}");
        }
    }
}

/// Waits until a server that would send without end has every buffer on the way full.
async fn until_held_back(server: &Server) {
    let mut last = (0, Instant::now());
    eventually("the server is held back", Duration::from_secs(60), async || {
        let now = server.sent.load(Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        ensure(now > 0 && last.1.elapsed() > Duration::from_millis(500), format!("it has sent {now} bytes"))
    })
    .await;
}

/// What a proxy uses of a processor in a while.
async fn processor_time(proxy: &Proxy, during: Duration) -> Duration {
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    tokio::time::sleep(during).await;
    Duration::from_millis(10 * (ticks() - before))
}

const MIB: u64 = 1 << 20;
/// Around what is copied, what is moved at once, and what is moved before others have their turn.
const LENGTHS: [u64; 12] =
    [0, 1, 16_000, 65_535, 65_536, 100_000, 262_144, 262_145, MIB - 1, MIB + 300_000, 4 * MIB + 1, 10 * MIB + 7];
const SOON: Duration = Duration::from_secs(5);
