//! D3: requests of HTTP/2 that would become others, or two, on their way to a server.
//!
//! Each vector is sent over TLS and in the clear, to a proxy before a server of HTTP/1.1 and to one before a server of
//! HTTP/2; what arrives at the server decides: nothing, a part, one clean request, or more. After each, a request on
//! the same connection and one of somebody else must be answered as their own.

use std::net::SocketAddr;
use std::time::Duration;

use etna_tests::h2::{self as raw, DATA, END_HEADERS, END_STREAM, HEADERS, Wire, block, frame};
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::tls::{Authority, TlsClient, https_listener};
use etna_tests::wait::{ensure, eventually};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::oracle::{New, Server};
use super::vectors::{self, Expect, Plain, Then, Vector};
use crate::drill::Outcome;
use crate::protocol::oracle::{Oracle, Seen};
use crate::protocol::strict::Request;
use crate::protocol::{SOON, wire};

pub(super) async fn run() -> Outcome {
    let mut wrong = Vec::new();
    let mut figures = Vec::new();
    let (mut requests, mut many) = (0, 0);
    for server in [Server::Old(Oracle::start().await), Server::New(New::start().await)] {
        let to = if matches!(server, Server::Old(_)) { "1.1" } else { "2" };
        let mut ground = Ground::start(server).await;
        for secure in [true, false] {
            let scheme = if secure { "https" } else { "http" };
            let (attacks, controls) = (vectors::attacks(scheme), vectors::controls(scheme));
            many = attacks.len();
            let (mut nothing, mut part, mut one) = (0, 0, 0);
            for vector in attacks.iter().chain(&controls) {
                requests += 1;
                match ground.judge(vector, secure).await {
                    Ok(Arrived::Nothing) => nothing += 1,
                    Ok(Arrived::Part) => part += 1,
                    Ok(Arrived::One) => one += 1,
                    Err(why) => wrong.push(format!("{scheme} to HTTP/{to}, {}: {why}", vector.name)),
                }
            }
            figures.push(format!("{scheme} to HTTP/{to}: {nothing} nothing, {part} a part, {one} one request"));
        }
        let panics = ground.proxy.metrics().await.sum("etna_panics_total", &[]);
        if panics != Some(0.0) {
            wrong.push(format!("panics: {panics:?}"));
        }
    }
    assert!(many >= 57, "{many} vectors");
    let figure = format!("{many} vectors and controls; at the server, {}; {} wrong", figures.join("; "), wrong.len());
    crate::protocol::outcome("one at a time, 4 ways", requests, figure, &wrong)
}

/// What of a vector arrived at the server, all being as it must be.
enum Arrived {
    Nothing,
    Part,
    One,
}

/// What a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Status(u16, String),
    /// The stream was ended, or the connection.
    Ended,
    Silence,
}

/// A proxy with one worker, so that all share its connections, before one server.
struct Ground {
    proxy: Proxy,
    server: Server,
    clear: SocketAddr,
    secure: SocketAddr,
    client: TlsClient,
    victim: wire::Wire,
    number: u64,
    _scene: Scene,
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl Ground {
    async fn start(server: Server) -> Ground {
        let scene = Scene::alone("smuggling").await;
        let authority = Authority::new(scene.folder());
        // Both hosts are the client's to ask for: what must be refused is so for no other reason.
        let pair = authority.issue(&["a.test", "b.test"]);
        for host in ["a.test", "b.test"] {
            scene.put(&format!("hosts/{host}/host"), authority.host(&pair, host == "a.test")).await;
        }
        let protocol = if matches!(server, Server::Old(_)) { json!({}) } else { json!({ "Protocol": "h2" }) };
        scene.put("backends/a/backend", json!({ "Type": "http", "Settings": protocol })).await;
        scene.put(&server_key("a", "s"), server_at(server.address())).await;
        scene.put(&frontend_key("any"), frontend("PathRegexp(`.*`)", "a")).await;
        scene.put("listeners/https", https_listener(json!({}))).await;
        let proxy = scene.proxy_with("etna", &["--workers", "1", "--seal-key", authority.seal_key()]).await;
        let clear = raw::open(&scene, &proxy).await;
        let secure = proxy.listener("https").await;
        let mut config = (*authority.client().config).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let client = TlsClient { config: config.into() };
        proxy.until_status("a.test", "/", 200).await;
        let victim = wire::Wire::open(clear).await;
        Ground { proxy, server, clear, secure, client, victim, number: 0, _scene: scene }
    }

    async fn open(&self, secure: bool) -> Wire<Box<dyn Stream>> {
        if secure {
            let stream = self.client.connect(self.secure, "a.test").await.expect("it speaks TLS");
            return Wire::over(Box::new(stream) as Box<dyn Stream>).await;
        }
        let stream = TcpStream::connect(self.clear).await.expect("the proxy accepts");
        stream.set_nodelay(true).expect("a TCP stream");
        Wire::over(Box::new(stream) as Box<dyn Stream>).await
    }

    async fn judge(&mut self, vector: &Vector, secure: bool) -> Result<Arrived, String> {
        self.number += 1;
        let (canary, victim) = (format!("/canary/{}", self.number), format!("/victim/{}", self.number));
        self.server.take();
        let mut wire = self.open(secure).await;
        let _ = wire.send(&vector.bytes).await;
        if vector.then != Then::Waits {
            let begun = async || ensure(self.server.unfinished() > 0, "nothing came");
            eventually("a server sees the beginning", SOON, begun).await;
        }
        let first = match vector.then {
            Then::Waits => answer(&mut wire, 1, SOON).await,
            Then::Resets => {
                let _ = wire.send(&frame(raw::RST_STREAM, 0, 1, &8u32.to_be_bytes())).await;
                Got::Ended
            }
            Then::Leaves => Got::Ended,
        };
        let second = match vector.then {
            Then::Leaves => Got::Ended,
            Then::Waits | Then::Resets => {
                let asked = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", &canary)];
                let _ = wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&asked))).await;
                answer(&mut wire, 3, SOON).await
            }
        };
        drop(wire);
        self.settle().await;
        self.ask_beside(&victim).await?;
        self.settle().await;
        let mut others = self.server.take();
        let own =
            |seen: &Seen| matches!(seen, Seen::Clean(request) if request.target == canary || request.target == victim);
        others.retain(|seen| !own(seen));
        let right = Got::Status(200, format!("GET {canary} 0"));
        match (&second, &vector.expect) {
            (second, _) if *second == right => {}
            (Got::Ended, Expect::Refuse | Expect::Bad | Expect::Method | Expect::Cut(_)) => {}
            (second, _) => return Err(format!("the next request on the connection: {second:?}")),
        }
        let arrived = arrived(&others, &vector.expect)?;
        told(&first, &vector.expect)?;
        Ok(arrived)
    }

    /// Until the server has seen the end of everything.
    async fn settle(&self) {
        let done = async || ensure(self.server.unfinished() == 0, "a request is still being received");
        eventually("the server has seen the end of it", SOON, done).await;
    }

    /// Somebody else's request, on a connection kept all along.
    async fn ask_beside(&mut self, path: &str) -> Result<(), String> {
        self.victim.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes()).await;
        let reply = self.victim.reply(false, SOON).await;
        let saw = format!("GET {path} 0");
        if reply.as_ref().is_ok_and(|reply| reply.status == 200 && reply.body == saw.as_bytes()) {
            return Ok(());
        }
        self.victim = wire::Wire::open(self.clear).await;
        Err(format!("VICTIM: another client got {reply:?}"))
    }
}

/// What comes of a stream, with the body of an answer.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, stream: u32, within: Duration) -> Got {
    let until = Instant::now() + within;
    let mut status = None;
    let mut body = Vec::new();
    loop {
        let Ok(next) = wire.next(until).await else { return Got::Silence };
        let next = match next {
            None => return Got::Ended,
            Some(next) if next.kind == raw::GOAWAY && next.code() != Some(raw::NO_ERROR) => return Got::Ended,
            Some(next) if next.kind == raw::SETTINGS && next.flags & raw::ACK == 0 => {
                let _ = wire.send(&frame(raw::SETTINGS, raw::ACK, 0, &[])).await;
                continue;
            }
            Some(next) if next.stream == stream => next,
            Some(_) => continue,
        };
        match next.kind {
            raw::RST_STREAM if next.code() != Some(raw::NO_ERROR) => return Got::Ended,
            HEADERS if matches!(next.status(), Some(100..=199)) => continue,
            HEADERS if status.is_none() => status = Some(next.status().unwrap_or(0)),
            DATA => body.extend_from_slice(&next.payload),
            _ => {}
        }
        let ends = next.kind == raw::RST_STREAM || matches!(next.kind, HEADERS | DATA) && next.flags & END_STREAM != 0;
        if ends {
            return status
                .map_or(Got::Ended, |status| Got::Status(status, String::from_utf8_lossy(&body).into_owned()));
        }
    }
}

/// Whether what a server saw is what it may see.
fn arrived(others: &[Seen], expect: &Expect) -> Result<Arrived, String> {
    let allowed = match expect {
        Expect::Forward(plain) | Expect::Cut(Some(plain)) => Some(plain),
        _ => None,
    };
    let mut arrived = Arrived::Nothing;
    for seen in others {
        arrived = match (seen, expect) {
            (Seen::Ambiguous(why), _) => return Err(format!("AMBIG: {why}")),
            (Seen::Clean(request), Expect::Alone) if request.target == "/chat" && request.body.is_empty() => {
                Arrived::One
            }
            (Seen::Clean(request), _) => match allowed {
                Some(plain) => plain.is(request).map(|()| Arrived::One)?,
                None => return Err(format!("SMUGGLED: a server saw {} {}", request.method, request.target)),
            },
            (Seen::Partial(_), Expect::Cut(_)) => Arrived::Part,
            (Seen::Partial(line), _) => return Err(format!("a server saw the beginning of {line:?}")),
        };
    }
    match (others.len(), expect) {
        (2.., _) => Err(format!("SPLIT: a server saw {others:?}")),
        (0, Expect::Forward(_)) => Err("nothing arrived".into()),
        _ => Ok(arrived),
    }
}

/// Whether the client was told what it must be.
fn told(got: &Got, expect: &Expect) -> Result<(), String> {
    let fits = match (expect, got) {
        (Expect::Forward(plain), Got::Status(200, body)) => {
            let saw = format!("{} {} {}", plain.method, plain.target, plain.body.len());
            if plain.method == "HEAD" { body.is_empty() } else { *body == saw }
        }
        (Expect::Forward(_), _) => false,
        (Expect::Refuse, Got::Ended | Got::Status(400..=499 | 501, _)) => true,
        (Expect::Method, Got::Ended | Got::Status(405, _)) => true,
        (Expect::Bad, Got::Ended | Got::Status(400, _)) => true,
        // Its answer may be there before the fault is.
        (Expect::Cut(plain), Got::Status(200, _)) => plain.is_some(),
        (Expect::Cut(_), Got::Ended | Got::Status(400..=499, _)) => true,
        (Expect::Alone, Got::Ended | Got::Status(400..=599, _)) => true,
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("the client got {got:?}")) }
}

impl Plain {
    /// Whether a request is this one.
    fn is(&self, request: &Request) -> Result<(), String> {
        if (request.method.as_str(), &request.target, &request.body) != (self.method, &self.target, &self.body) {
            let body = String::from_utf8_lossy(&request.body[..request.body.len().min(100)]).into_owned();
            return Err(format!("a server saw {} {} {body:?}", request.method, request.target));
        }
        for (name, value) in &self.has {
            let values: Vec<&[u8]> = request.all(name).collect();
            if values != [value.as_bytes()] {
                return Err(format!(
                    "{name}: {:?}",
                    values.iter().map(|value| String::from_utf8_lossy(value)).collect::<Vec<_>>()
                ));
            }
        }
        if let Some(name) = self.lacks.iter().find(|name| request.all(name).next().is_some()) {
            return Err(format!("{name}: {} was passed on", request.field(name)));
        }
        let mut trailers: Vec<(&str, &[u8])> =
            request.trailers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        trailers.sort_unstable();
        let own: Vec<(&str, &[u8])> = self.trailers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        if trailers == own { Ok(()) } else { Err(format!("trailers: {:?}", request.trailers)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saw(target: &str, body: &[u8]) -> Seen {
        let fields = vec![("host".to_owned(), b"a.test".to_vec())];
        let (method, target, body) = ("POST".into(), target.into(), body.to_vec());
        Seen::Clean(Request { method, target, version: 1, fields, body, ..Request::default() })
    }

    fn hello() -> Plain {
        Plain { method: "POST", target: "/".into(), body: b"hello".to_vec(), ..Plain::default() }
    }

    #[test]
    fn more_than_what_may_arrive_is_told() {
        let whole = Expect::Forward(hello());
        assert!(arrived(&[saw("/", b"hello")], &whole).is_ok());
        for wrong in [
            vec![],
            vec![saw("/", b"hell")],
            vec![saw("/smuggled", b"hello")],
            vec![saw("/", b"hello"), saw("/", b"hello")],
            vec![Seen::Partial("POST /".into())],
            vec![Seen::Ambiguous("two lengths".into())],
        ] {
            assert!(arrived(&wrong, &whole).is_err(), "{wrong:?}");
        }
        for expect in [Expect::Refuse, Expect::Cut(None), Expect::Alone] {
            assert!(arrived(&[saw("/", b"hello")], &expect).is_err(), "{expect:?}");
        }
        assert!(arrived(&[Seen::Partial("POST /".into())], &Expect::Cut(None)).is_ok());
        let fields = |has, lacks| Expect::Forward(Plain { has, lacks, ..hello() });
        assert!(arrived(&[saw("/", b"hello")], &fields(vec![("host", "a.test")], vec![])).is_ok());
        assert!(arrived(&[saw("/", b"hello")], &fields(vec![("host", "b.test")], vec![])).is_err());
        assert!(arrived(&[saw("/", b"hello")], &fields(vec![], vec!["host"])).is_err());
        assert!(
            arrived(&[saw("/", b"hello")], &Expect::Cut(Some(Plain { trailers: vec![("a", "b")], ..hello() })))
                .is_err()
        );
    }

    #[test]
    fn an_answer_that_must_not_be_is_told() {
        let ok = |text: &str| Got::Status(200, text.into());
        assert!(told(&ok("POST / 5"), &Expect::Forward(hello())).is_ok());
        assert!(told(&ok("GET /smuggled 0"), &Expect::Forward(hello())).is_err());
        for expect in [Expect::Refuse, Expect::Bad, Expect::Method, Expect::Alone, Expect::Cut(None)] {
            assert!(told(&ok(""), &expect).is_err(), "{expect:?}");
            assert!(told(&Got::Silence, &expect).is_err(), "{expect:?}");
            assert!(told(&Got::Ended, &expect).is_ok(), "{expect:?}");
        }
        assert!(told(&Got::Status(400, String::new()), &Expect::Method).is_err());
    }
}
