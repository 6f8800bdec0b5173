//! A bug of ours in the midst of a request: that request's connection ends (over HTTP/2 its stream alone), nobody else's
//! does, and it is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use etna_store::{Batch, Change, Model, Revision};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::socket;
use super::worker::{Command, Handle, Place, Prelude, Shared};
use crate::middleware::{Answer, Middleware, Next, Request};
use crate::stats::Process;
use crate::table::compile::Compiler;
use crate::table::{Frontend, LiveTable, Step, Table};
use crate::tls::terms::Terms;
use crate::tls::tickets::{Epoch, Tickets};
use crate::traffic::trust::Trusted;

/// A middleware with a bug.
struct Bug;

impl Middleware for Bug {
    fn handle<'a>(&'a self, _request: Request, _next: Next<'a>) -> Answer<'a> {
        Box::pin(async { panic!("a bug in a middleware, for a test") })
    }
}

/// Two frontends without servers, `a` with the bug in its chain, and a listener that speaks HTTP/2 in the clear.
fn table() -> Table {
    let change = |key: String, value: String| Change { key: key.into(), value: Some(value.into()) };
    let frontend = |id: &str| {
        let value = format!(r#"{{"Type":"http","BackendId":"none","Route":"Host(`{id}.test`)","Settings":{{}}}}"#);
        change(format!("frontends/{id}/frontend"), value)
    };
    let address = r#"{"Network":"tcp","Address":"127.0.0.1:80"}"#;
    let value = format!(r#"{{"Protocol":"http","Address":{address},"Settings":{{"H2C":true}}}}"#);
    let listener = change("listeners/default".into(), value);
    let mut model = Model::default();
    let delta = model.apply(&Batch { revision: Revision(1), changes: vec![frontend("a"), frontend("b"), listener] });
    let mut table = Compiler::default().compile(&model, &delta, &Table::default());
    let mut broken = Frontend::clone(table.router.get("a").unwrap());
    let spec = etna_store::Middleware {
        id: "bug".into(),
        frontend: "a".into(),
        kind: "bug".into(),
        priority: 0,
        settings: RawValue::from_string("{}".into()).unwrap().into(),
    };
    let step = Step { spec: Arc::new(spec), middleware: Arc::new(Bug) };
    broken.chain = [step].into();
    table.router.insert(Arc::new(broken));
    table
}

/// One request; what came back until the connection ended or an answer was whole.
async fn ask(stream: &mut TcpStream, host: &str) -> String {
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(Ok(n @ 1..)) = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut piece)).await {
        answer.extend_from_slice(&piece[..n]);
        if answer.ends_with(b"\n") {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A worker that serves the table.
struct Served {
    address: SocketAddr,
    process: Arc<Process>,
    _worker: Handle,
}

impl Served {
    async fn start() -> Served {
        let (live, process) = (Arc::new(LiveTable::default()), Arc::new(Process::default()));
        live.publish(table());
        let gate = CancellationToken::new();
        gate.cancel();
        let shared = Shared {
            live,
            process: process.clone(),
            trusted: Arc::new(Trusted::default()),
            mark: Arc::default(),
            admission: Arc::new(Admission::new(100, 0)),
            tickets: Tickets::new(Epoch(0)),
            terms: Arc::new(Terms::usual()),
            access: None,
            force: CancellationToken::new(),
            gate,
        };
        let bound = socket::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let address = bound.address;
        let worker = Handle::start(0, shared).unwrap();
        let place = Place { address, prelude: Prelude::default() };
        worker.tell(Command::Open { id: "default".into(), place, sockets: bound.sockets }).await;
        Served { address, process, _worker: worker }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Waits until so many panics were counted; what they end is closed a moment before.
    async fn counts(&self, panics: u64) {
        until(|| self.process.panics.get() >= panics).await;
        assert_eq!(self.process.panics.get(), panics);
    }
}

async fn until(met: impl Fn() -> bool) {
    let met = async {
        while !met() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), met).await.expect("within its time");
}

#[tokio::test]
async fn a_panic_in_a_request_ends_that_connection_alone() {
    let served = Served::start().await;
    let mut other = served.connect().await;
    assert!(ask(&mut other, "b.test").await.starts_with("HTTP/1.1 503 "));
    for times in 1..=3 {
        let answer = ask(&mut served.connect().await, "a.test").await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 500 "), "{answer}");
        served.counts(times).await;
    }
    // Whoever was there before, and whoever comes, is served.
    assert!(ask(&mut other, "b.test").await.starts_with("HTTP/1.1 503 "));
    assert!(ask(&mut served.connect().await, "b.test").await.starts_with("HTTP/1.1 503 "));
    drop(other);
    until(|| served.process.connections.get() == 0).await;
}

#[tokio::test]
async fn a_panic_in_a_stream_ends_that_stream_alone() {
    let served = Served::start().await;
    let (mut client, connection) = h2::client::handshake(served.connect().await).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut begin = |host: &str| {
        let request = http::Request::get(format!("http://{host}/")).body(()).unwrap();
        client.send_request(request, true).unwrap().0
    };
    for times in 1..=3 {
        // Tasks are shared: the one whose stream broke must not be given another.
        let streams = [begin("b.test"), begin("a.test"), begin("b.test")];
        let [before, unlucky, after] =
            streams.map(|stream| async move { stream.await.map(|answer| answer.status().as_u16()) });
        let (before, unlucky, after) = tokio::join!(before, unlucky, after);
        assert_eq!((before.unwrap(), after.unwrap()), (503, 503));
        assert!(unlucky.is_err_and(|error| error.is_reset()));
        served.counts(times).await;
    }
    let http2 = &served.process.http2;
    until(|| http2.open.get() == 0).await;
    assert_eq!((http2.connections.get(), http2.streams.get()), (1, 9));
    drop(client);
    connection.await.unwrap().unwrap();
}
