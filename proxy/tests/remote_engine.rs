//! The remote engine, checked with the acceptance suite of all engines against the admin API's side of it.

// Helpers of tests are tests too.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../../store/tests/engine/suite.rs"]
mod suite;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use etna_proxy::admin::store_api;
use etna_store::engine::{Options, embedded, memory};
use etna_store::{Engine, Error, Revision};
use futures_util::StreamExt as _;
use suite::Bench;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};

/// A server with a runtime of its own, so that its connections die with it.
struct Server {
    runtime: Option<tokio::runtime::Runtime>,
    address: SocketAddr,
}

impl Server {
    fn start(router: Router, address: SocketAddr) -> Server {
        let runtime = runtime();
        let listener = {
            let _inside = runtime.enter();
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).unwrap();
            socket.listen(1024).unwrap()
        };
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Server { runtime: Some(runtime), address }
    }

    fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Remote {
    dir: TempDir,
    server: Server,
    behind: Option<Arc<dyn Engine>>,
    engine: Arc<dyn Engine>,
}

#[async_trait]
impl Bench for Remote {
    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    async fn compact(&self) {
        let puts = (0..=10_000).map(|_| suite::put(self.behind.as_ref().unwrap(), "filler", "x"));
        futures_util::stream::iter(puts).buffer_unordered(256).for_each(async |_| {}).await;
    }

    async fn restart(&mut self) -> bool {
        self.server.stop();
        self.behind = None;
        let behind = embedded::open(self.dir.path()).await.unwrap();
        self.behind = Some(behind.clone());
        self.server = Server::start(store_api::router(behind), self.server.address);
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_every_promise() {
    suite::check_all(async || {
        let dir = tempfile::tempdir().unwrap();
        let behind = embedded::open(dir.path()).await.unwrap();
        let server = Server::start(store_api::router(behind.clone()), any());
        let engine = etna_store::open(&format!("http://{}", server.address), &Options::default()).await.unwrap();
        Remote { dir, server, behind: Some(behind), engine }
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etna.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let behind = memory::open();
    let serving = tokio::spawn(async move { axum::serve(listener, store_api::router(behind)).await });
    let url = format!("unix:{}", path.display());
    let engine = etna_store::open(&url, &Options::default()).await.unwrap();
    assert_eq!(engine.describe(), url);
    let start = suite::put(&engine, "k", "1").await;
    let mut watch = engine.watch(start).await.unwrap();
    suite::put(&engine, "k", "2").await;
    suite::next(&mut watch).await;
    serving.abort();
}

#[tokio::test]
async fn a_token_is_shown_and_read_again() {
    let guard = axum::middleware::from_fn(async |request: Request, next: Next| {
        match request.headers().get(header::AUTHORIZATION) {
            Some(shown) if shown == "Bearer secret" => next.run(request).await,
            _ => (StatusCode::UNAUTHORIZED, "show the token").into_response(),
        }
    });
    let behind = memory::open();
    let server = Server::start(store_api::router(behind).layer(guard), any());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "old").unwrap();
    let options = Options { password_file: Some(file.clone()), ..Options::default() };
    let engine = etna_store::open(&format!("http://{}", server.address), &options).await.unwrap();
    let Err(Error::Denied { reason }) = engine.snapshot().await else { panic!("not denied") };
    assert!(reason.contains("show the token") && reason.contains("password file"), "{reason}");
    std::fs::write(&file, "secret\n").unwrap();
    engine.snapshot().await.unwrap();
    drop(server);
}

#[tokio::test]
async fn who_is_refused_for_another_reason_is_told_that_one() {
    let refusal = (StatusCode::FORBIDDEN, r#"{"message":"call it by its IP address"}"#);
    let server = Server::start(Router::new().fallback(async move || refusal), any());
    let engine = etna_store::open(&format!("http://{}", server.address), &Options::default()).await.unwrap();
    let Err(Error::Denied { reason }) = engine.snapshot().await else { panic!("not denied") };
    assert!(reason.ends_with(": call it by its IP address"), "{reason}");
    drop(server);
}

#[tokio::test]
async fn silence_is_noticed_and_idleness_is_none() {
    let behind = memory::open();
    let server = Server::start(store_api::router(behind), any());
    let engine = etna_store::open(&format!("http://{}", server.address), &Options::default()).await.unwrap();
    let mut watch = engine.watch(Revision(0)).await.unwrap();
    let idle = tokio::time::timeout(Duration::from_secs(8), watch.next()).await;
    assert!(idle.is_err(), "an idle watch goes on: {idle:?}");

    // One that accepts and answers, and then says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\n\"beat\"\n\r\n").await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        std::future::pending::<()>().await;
    });
    let engine = etna_store::open(&url, &Options::default()).await.unwrap();
    let mut watch = engine.watch(Revision(0)).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("noticed");
    assert!(matches!(end, Some(Err(Error::Unavailable { .. }))), "{end:?}");
    assert!(watch.next().await.is_none());
    silent.abort();
    drop(server);
}

#[tokio::test]
async fn what_is_not_understood_is_refused_as_json() {
    let server = Server::start(store_api::router(memory::open()), any());
    let post = |kind: &str, body: &str| {
        format!(
            "POST /v3/store/commit HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let large = format!(r#"{{"ops":[{{"delete":"{}"}}]}}"#, "k".repeat(2 << 20));
    for (request, status) in [
        (post("text/plain", r#"{"ops":[{"put":["k","",null]}]}"#), "415"),
        (post("application/json", r#"{"ops":[{"put":["k","",null]}]}"#), "200"),
        (post("application/json", "{"), "400"),
        (post("application/json", r#"{"ops":[{"put":["k","not base64!",null]}]}"#), "400"),
        (post("application/json", r#"{"ops":[],"more":1}"#), "400"),
        (post("application/json", r#"{"ops":[{"delete":""}]}"#), "400"),
        (post("application/json", r#"{"compares":[{"absent":"k"}],"ops":[]}"#), "409"),
        (post("application/json", r#"{"ops":[{"put":["k","",4711]}]}"#), "410"),
        (post("application/json", &large), "413"),
        ("GET /v3/store/watch?after=x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".into(), "400"),
        ("GET /v3/store/watch?after=9999 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".into(), "410"),
        ("GET /v3/store/key HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".into(), "400"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // It may answer and close before it has read all.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let shown: String = request.chars().take(200).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}\n{answer}");
        assert!(answer.contains("\r\n\r\n{\""), "{answer}");
    }
    drop(server);
}

#[tokio::test]
async fn nobody_there_and_somebody_else_there() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let engine = etna_store::open(&format!("http://{unused}"), &Options::default()).await.unwrap();
    let Err(Error::Unavailable { context, .. }) = engine.snapshot().await else { panic!("no error") };
    assert!(context.contains("etna serve"), "{context}");
    let other = Server::start(Router::new(), any());
    let engine = etna_store::open(&format!("http://{}", other.address), &Options::default()).await.unwrap();
    assert!(matches!(engine.snapshot().await, Err(Error::Invalid { .. })));
    drop(other);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
