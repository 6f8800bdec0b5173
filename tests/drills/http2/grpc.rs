//! gRPC through the proxy: an echo of ours, calls of one message and streams both ways; and etcd itself behind it,
//! asked by its own client.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use etcd_client::{Client, EventType, WatchOptions};
use etna_tests::h2_server::send;
use etna_tests::scene::{Scene, frontend, frontend_key, server_key};
use etna_tests::tls::{Authority, TlsClient, https_listener};
use futures_util::StreamExt as _;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::drill::Length;

/// What came out.
pub(super) struct Called {
    pub(super) calls: usize,
    pub(super) said: String,
    pub(super) wrong: Vec<String>,
}

/// All of it, in the clear and over TLS on both sides.
pub(super) async fn run(length: Length) -> Called {
    let scene = Scene::alone("grpc").await;
    let authority = Authority::new(scene.folder());
    let pair = authority.issue(&["a.test", "localhost"]);
    scene.put("hosts/a.test/host", authority.host(&pair, true)).await;
    scene.put("listeners/https", https_listener(json!({}))).await;
    let acceptor = TlsAcceptor::from(std::sync::Arc::new({
        let mut config = Authority::server(&pair, None);
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }));
    let (clear, secure) = (serve(None).await, serve(Some(acceptor)).await);
    let etcd = scene.etcd.url(0);
    let urls =
        [("a", format!("http://{clear}")), ("b", format!("https://localhost:{}", secure.port())), ("etcd", etcd)];
    for (id, url) in urls {
        let settings = json!({ "Protocol": "h2", "TLS": { "CA": authority.pem() } });
        scene.put(&format!("backends/{id}/backend"), json!({ "Type": "http", "Settings": settings })).await;
        scene.put(&server_key(id, "s"), json!({ "URL": url })).await;
    }
    scene.put(&frontend_key("a"), frontend("Host(`a.test`) && PathRegexp(`/clear.*`)", "a")).await;
    scene.put(&frontend_key("b"), frontend("Host(`a.test`) && PathRegexp(`/secure.*`)", "b")).await;
    scene.put(&frontend_key("etcd"), frontend("PathRegexp(`/etcdserverpb.*`)", "etcd")).await;
    let proxy = scene.proxy_with("etna", &["--seal-key", authority.seal_key()]).await;
    let at = etna_tests::h2::open(&scene, &proxy).await;
    let https = proxy.listener("https").await;
    let mut config = (*authority.client().config).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let client = TlsClient { config: config.into() };

    let messages = length.pick(10_000, 400);
    let mut wrong = Vec::new();
    for (path, tls) in [("clear", false), ("secure", true)] {
        let connection = match tls {
            false => super::trailers::connect(at).await.expect("it speaks HTTP/2"),
            true => over(client.connect(https, "a.test").await.expect("it speaks TLS")).await,
        };
        wrong.extend(echo_all(&connection, path, messages / 2).await);
    }
    let (puts, lost) = etcd_behind(at, length.pick(1000, 50)).await;
    wrong.extend(lost);
    let said = format!("{messages} messages echoed, half over TLS, half in streams both ways; {puts} through etcd");
    Called { calls: messages + puts, said, wrong }
}

async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    client.ready().await.expect("it takes requests")
}

/// Half of so many messages by calls of one, half in streams of fifty, forty at once of either.
async fn echo_all(client: &SendRequest<Bytes>, path: &'static str, messages: usize) -> Vec<String> {
    let calls = futures_util::stream::iter(0..messages / 2).map(|n| {
        let client = client.clone();
        async move { timed(one(client, path, n as u64)).await.map_err(|why| format!("gRPC, {path}, call {n}: {why}")) }
    });
    let streams =
        futures_util::stream::iter(0..messages / 2 / EACH).map(|n| {
            let client = client.clone();
            async move {
                timed(many(client, path, n as u64)).await.map_err(|why| format!("gRPC, {path}, stream {n}: {why}"))
            }
        });
    let calls: Vec<_> = calls.buffer_unordered(40).filter_map(async |done| done.err()).collect().await;
    let streams: Vec<_> = streams.buffer_unordered(40).filter_map(async |done| done.err()).collect().await;
    [calls, streams].concat()
}

async fn timed(call: impl Future<Output = Result<Result<(), String>, h2::Error>>) -> Result<(), String> {
    let within = tokio::time::timeout(PATIENCE, call).await.map_err(|_| "not done in time")?;
    within.map_err(|error| error.to_string())?
}

/// A message with the five bytes before it; some are long, some hold nothing.
fn message(seed: u64) -> Bytes {
    let mut random = fastrand::Rng::with_seed(seed);
    let length = match seed % 50 {
        0 => 0,
        1 => 100_000,
        _ => random.usize(1..4000),
    };
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(length).expect("a short message").to_be_bytes());
    bytes.extend((0..length).map(|_| random.u8(..)));
    bytes.into()
}

fn request(path: &str, method: &str) -> Request<()> {
    let request = Request::post(format!("http://a.test/{path}.Echo/{method}"));
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).expect("a request")
}

/// A call of one message. Every tenth asks for an error, which is told without a body.
async fn one(client: SendRequest<Bytes>, path: &str, n: u64) -> Result<Result<(), String>, h2::Error> {
    let fails = n % 10 == 9;
    let mut client = client.ready().await?;
    let (response, mut out) = client.send_request(request(path, if fails { "Fail" } else { "One" }), false)?;
    let asked = message(n);
    let sending = async {
        send(&mut out, asked.clone()).await?;
        out.send_data(Bytes::new(), true)
    };
    let receiving = async {
        let (head, mut body) = response.await?.into_parts();
        let (bytes, trailers) = whole(&mut body).await?;
        Ok((head, bytes, trailers))
    };
    if fails {
        let (head, bytes, trailers) = receiving.await?;
        // Where there is no body, the head is the trailers (Trailers-Only).
        let right = head.headers.get("grpc-status").is_some_and(|status| status == "5") && bytes.is_empty();
        return Ok(if right { Ok(()) } else { Err(format!("{head:?} {} {trailers:?}", bytes.len())) });
    }
    let ((), (head, bytes, trailers)) = tokio::try_join!(sending, receiving)?;
    let typed = head.headers.get("content-type").is_some_and(|kind| kind == "application/grpc");
    Ok(if head.status == 200 && typed && bytes == asked && is_well(&trailers, &asked) {
        Ok(())
    } else {
        Err(format!("{head:?}, {} of {} bytes, {trailers:?}", bytes.len(), asked.len()))
    })
}

/// A stream both ways: the next message goes when the one before is back.
async fn many(client: SendRequest<Bytes>, path: &str, n: u64) -> Result<Result<(), String>, h2::Error> {
    let mut client = client.ready().await?;
    let (response, mut out) = client.send_request(request(path, "Many"), false)?;
    let mut body = response.await?.into_body();
    let mut all = Vec::new();
    for number in 0..EACH as u64 {
        let asked = message(n * 1000 + number);
        send(&mut out, asked.clone()).await?;
        let mut back = BytesMut::new();
        while back.len() < asked.len() {
            let Some(data) = body.data().await else { return Ok(Err(format!("it ends in message {number}"))) };
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            back.extend_from_slice(&data);
        }
        if back != asked {
            return Ok(Err(format!("message {number} came back as another")));
        }
        all.extend_from_slice(&asked);
    }
    out.send_data(Bytes::new(), true)?;
    let (rest, trailers) = whole(&mut body).await?;
    Ok(if rest.is_empty() && is_well(&trailers, &all) { Ok(()) } else { Err(format!("at its end {trailers:?}")) })
}

/// Whether the trailers say that all is well, and that the server has seen exactly this.
fn is_well(trailers: &HeaderMap, sent: &[u8]) -> bool {
    let field = |name| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    trailers.len() == 2 && field("grpc-status") == "0" && field("x-sum") == sum(sent)
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The whole of a body: its bytes and its trailers.
pub(super) async fn whole(body: &mut RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, body.trailers().await?.unwrap_or_default()))
}

/// The echo.
async fn serve(tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            match tls.clone() {
                None => drop(tokio::spawn(connection(stream))),
                Some(tls) => drop(tokio::spawn(secured(tls, stream))),
            }
        }
    });
    address
}

async fn secured(tls: TlsAcceptor, stream: TcpStream) {
    if let Ok(stream) = tls.accept(stream).await {
        connection(stream).await;
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(async move {
            let _ = answer(request, respond).await;
        });
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let fails = request.uri().path().ends_with("/Fail");
    let mut body = request.into_body();
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    if fails {
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
        response.headers_mut().insert("grpc-message", HeaderValue::from_static("not%20found"));
        respond.send_response(response, true)?;
        return Ok(());
    }
    let mut out: SendStream<Bytes> = respond.send_response(response, false)?;
    let mut digest = Sha256::new();
    let mut waiting = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        digest.update(&data);
        waiting.extend_from_slice(&data);
        // Message by message, as whoever understands them does.
        while waiting.len() >= 5 {
            let length = 5 + (&waiting[1..5]).get_u32() as usize;
            if waiting.len() < length {
                break;
            }
            send(&mut out, waiting.split_to(length).freeze()).await?;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let sum: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    trailers.insert("x-sum", HeaderValue::from_str(&sum).expect("text"));
    out.send_trailers(trailers)
}

/// etcd's own server behind the proxy, its own client before it: so many keys are written, read, and seen by a watch.
async fn etcd_behind(at: SocketAddr, keys: usize) -> (usize, Vec<String>) {
    let asking = async {
        let mut client = Client::connect([format!("http://{at}")], None).await?;
        let options = WatchOptions::new().with_prefix();
        let mut watch = client.watch("/grpc-drill/", Some(options)).await?;
        let mut wrong = Vec::new();
        for n in 0..keys {
            let (key, value) = (format!("/grpc-drill/{n}"), message(n as u64).to_vec());
            client.put(key.clone(), value.clone(), None).await?;
            let got = client.get(key.clone(), None).await?;
            if got.kvs().first().map(etcd_client::KeyValue::value) != Some(&value[..]) {
                wrong.push(format!("{key} is read as something else"));
            }
        }
        let mut seen = 0;
        while seen < keys {
            let Some(response) = watch.message().await? else { break };
            for event in response.events().iter().filter(|event| event.event_type() == EventType::Put) {
                let right = event.kv().is_some_and(|kv| kv.key() == format!("/grpc-drill/{seen}").as_bytes());
                if !right {
                    wrong.push(format!("event {seen} is another"));
                }
                seen += 1;
            }
        }
        if seen != keys {
            wrong.push(format!("the watch ended after {seen} of {keys} keys"));
        }
        client.delete("/grpc-drill/", Some(etcd_client::DeleteOptions::new().with_prefix())).await?;
        Ok::<Vec<String>, etcd_client::Error>(wrong)
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(wrong)) => (keys * 3, wrong),
        Ok(Err(error)) => (keys * 3, vec![format!("etcd behind: {error}")]),
        Err(_) => (keys * 3, vec!["etcd behind: not done in time".into()]),
    }
}

/// Messages of a stream.
const EACH: usize = 50;
const PATIENCE: Duration = Duration::from_secs(60);
