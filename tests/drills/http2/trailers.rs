//! F4: trailers go through whole, whichever version of HTTP client and server speak, and gRPC with them.
//!
//! Servers send back what they got, its trailers too; what may not trail is left out on both ways.

use std::net::SocketAddr;

use bytes::Bytes;
use etna_tests::h2_server::{H2Server, Terms, send};
use etna_tests::proxy::Proxy;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use h2::client::SendRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::grpc;
use crate::drill::{Length, Outcome};
use crate::protocol::strict;
use crate::protocol::wire::Wire;
use crate::protocol::{SOON, outcome};
use crate::streaming::server;

pub(super) async fn run(length: Length) -> Outcome {
    let (requests, mut wrong) = trailing(length).await;
    let called = grpc::run(length).await;
    wrong.extend(called.wrong);
    let figure = format!("{requests} requests with trailers, 4 ways; gRPC: {}; {} wrong", called.said, wrong.len());
    outcome("one at a time; gRPC: 40 at once", requests + called.calls, figure, &wrong)
}

/// All cases on all ways; how many, and what went wrong.
async fn trailing(length: Length) -> (usize, Vec<String>) {
    let scene = Scene::alone("trailers").await;
    let new = H2Server::start("new", Terms::default(), None).await;
    route(&scene, "old", json!({}), server(echo).await).await;
    route(&scene, "new", json!({ "Protocol": "h2" }), new.address).await;
    let proxy = scene.proxy("etna").await;
    let clear = etna_tests::h2::open(&scene, &proxy).await;
    let mut wrong = Vec::new();
    let mut requests = 0;
    for host in ["old.test", "new.test"] {
        // It says when it is there; an echo of HTTP/1.1 needs nothing more.
        proxy.until_status(host, "/echo", 200).await;
        for round in 0..length.pick(50, 2) {
            for (name, case) in cases(round) {
                requests += 2;
                let to = if host == "old.test" { "1.1" } else { "2" };
                if let Err(why) = case.by_old(&proxy, host).await {
                    wrong.push(format!("{name}, HTTP/1.1 to HTTP/{to}: {why}"));
                }
                if let Err(why) = case.by_new(clear, host).await {
                    wrong.push(format!("{name}, HTTP/2 to HTTP/{to}: {why}"));
                }
            }
        }
    }
    (requests, wrong)
}

async fn route(scene: &Scene, id: &str, settings: serde_json::Value, at: SocketAddr) {
    scene.put(&format!("backends/{id}/backend"), json!({ "Type": "http", "Settings": settings })).await;
    scene.put(&server_key(id, "s"), server_at(at)).await;
    scene.put(&frontend_key(id), frontend(&format!("Host(`{id}.test`)"), id)).await;
}

/// A body, what trails it, and what of that may arrive.
struct Case {
    body: Bytes,
    sent: Vec<(String, String)>,
    arrives: Vec<(String, String)>,
}

fn cases(round: u64) -> Vec<(String, Case)> {
    let mut random = fastrand::Rng::with_seed(round);
    let text = |text: &[(&str, &str)]| -> Vec<(String, String)> {
        text.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let many = (0..60).map(|n| (format!("x-{n}"), n.to_string())).collect();
    let sets = [
        ("one", text(&[("x-end", "1")])),
        ("what gRPC has", text(&[("grpc-status", "0"), ("grpc-message", "it%20is%20well"), ("x-own-bin", "AAEC/w==")])),
        ("one without a value", text(&[("x-end", "")])),
        ("one twice", text(&[("x-end", "1"), ("x-end", "2")])),
        (
            "one with all that a value may hold",
            vec![("x-end".to_owned(), (' '..='~').collect::<String>().trim().to_owned())],
        ),
        ("a long one", vec![("x-end".to_owned(), "v".repeat(8000))]),
        ("sixty", many),
        ("a digest", text(&[("digest", "sha-256=:AA==:"), ("server-timing", "a;dur=1")])),
    ];
    let mut all = Vec::new();
    for length in [0, 1, 5, 16_384, 200_000] {
        let body: Bytes = (0..length).map(|_| random.u8(..)).collect();
        for (name, trailers) in &sets {
            let case = Case { body: body.clone(), sent: trailers.clone(), arrives: trailers.clone() };
            all.push((format!("{name} after {length} bytes"), case));
        }
        let unfit = ["content-length", "host", "x-forwarded-for", "authorization", "cookie", "set-cookie", "expect"];
        let mut sent = text(&[("x-first", "1")]);
        sent.extend(unfit.iter().map(|name| ((*name).to_owned(), "0".to_owned())));
        sent.extend(text(&[("x-last", "2")]));
        let arrives = text(&[("x-first", "1"), ("x-last", "2")]);
        all.push((format!("what may not trail after {length} bytes"), Case { body, sent, arrives }));
    }
    all
}

impl Case {
    async fn by_old(&self, proxy: &Proxy, host: &str) -> Result<(), String> {
        let mut bytes =
            format!("POST /echo HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
        for piece in self.body.chunks(3000) {
            bytes.extend([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        }
        bytes.extend_from_slice(b"0\r\n");
        for (name, value) in &self.sent {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        let mut wire = Wire::open(proxy.listen).await;
        // Both at once: the server may answer while it still gets.
        let sending = wire.send_beside(bytes);
        let reply = wire.reply(false, SOON).await.map_err(|gone| format!("{gone:?}"));
        sending.abort();
        let reply = reply?;
        self.is(reply.status, &reply.body, reply.trailers)
    }

    async fn by_new(&self, at: SocketAddr, host: &str) -> Result<(), String> {
        let exchanging = self.exchange(at, host);
        tokio::time::timeout(SOON, exchanging)
            .await
            .map_err(|_| "nothing in time")?
            .map_err(|error: h2::Error| error.to_string())?
    }

    async fn exchange(&self, at: SocketAddr, host: &str) -> Result<Result<(), String>, h2::Error> {
        let mut client = connect(at).await?;
        let request = Request::post(format!("http://{host}/echo")).body(()).expect("a request");
        let (response, mut out) = client.send_request(request, false)?;
        let sending = async {
            send(&mut out, self.body.clone()).await?;
            let mut trailers = HeaderMap::new();
            for (name, value) in &self.sent {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                trailers.append(name, HeaderValue::from_str(value).expect("a value"));
            }
            out.send_trailers(trailers)
        };
        let receiving = async {
            let (head, mut body) = response.await?.into_parts();
            let (bytes, trailers) = grpc::whole(&mut body).await?;
            let field = |(name, value): (&HeaderName, &HeaderValue)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            };
            Ok((head.status.as_u16(), bytes, trailers.iter().map(field).collect()))
        };
        let (_, (status, bytes, trailers)) = tokio::try_join!(sending, receiving)?;
        Ok(self.is(status, &bytes, trailers))
    }

    /// Whether an answer is what was sent.
    fn is(&self, status: u16, body: &[u8], mut trailers: Vec<(String, String)>) -> Result<(), String> {
        let mut arrives = self.arrives.clone();
        // In what order fields of different names come means nothing.
        arrives.sort();
        trailers.sort();
        if (status, body, &trailers) == (200, &self.body[..], &arrives) {
            return Ok(());
        }
        Err(format!("{status}, {} of {} bytes, {trailers:?}", body.len(), self.body.len()))
    }
}

/// A client of HTTP/2 in the clear.
pub(super) async fn connect(at: SocketAddr) -> Result<SendRequest<Bytes>, h2::Error> {
    let stream = TcpStream::connect(at).await.map_err(|_| h2::Reason::CONNECT_ERROR)?;
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    client.ready().await
}

/// A server of HTTP/1.1 that sends back a request's body and trailers, once it has all of it.
async fn echo(mut stream: TcpStream) {
    let mut buffer = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let ends = buffer.ends_with(b"\r\n\r\n");
        let Some((request, length)) = (if ends { strict::request(&buffer).ok().flatten() } else { None }) else {
            match stream.read(&mut piece).await {
                Ok(n @ 1..) => buffer.extend_from_slice(&piece[..n]),
                _ => return,
            }
            continue;
        };
        buffer.drain(..length);
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in request.body.chunks(5000) {
            answer.extend([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        }
        answer.extend_from_slice(b"0\r\n");
        for (name, value) in &request.trailers {
            answer.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        answer.extend_from_slice(b"\r\n");
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}
