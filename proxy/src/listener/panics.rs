//! A bug of ours in the midst of a request: that request's connection ends, nobody else's does, and it is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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

/// Two frontends without servers; `a` has the bug in its chain.
fn table() -> Table {
    let change = |id: &str| Change {
        key: Bytes::from(format!("frontends/{id}/frontend")),
        value: Some(Bytes::from(format!(
            r#"{{"Type":"http","BackendId":"none","Route":"Host(`{id}.test`)","Settings":{{}}}}"#
        ))),
    };
    let mut model = Model::default();
    let delta = model.apply(&Batch { revision: Revision(1), changes: vec![change("a"), change("b")] });
    let mut table = Compiler::default().compile(&model, &delta, &Table::default());
    let whole = table.router.get("a").unwrap().clone();
    let spec = etna_store::Middleware {
        id: "bug".into(),
        frontend: "a".into(),
        kind: "bug".into(),
        priority: 0,
        settings: RawValue::from_string("{}".into()).unwrap().into(),
    };
    let step = Step { spec: Arc::new(spec), middleware: Arc::new(Bug) };
    let broken = Frontend {
        id: whole.id.clone(),
        spec: whole.spec.clone(),
        rule: whole.rule.clone(),
        backend: whole.backend,
        fallback: whole.fallback,
        elsewhere: whole.elsewhere.clone(),
        deny: whole.deny,
        cookie: whole.cookie.clone(),
        failover: whole.failover.clone(),
        chain: [step].into(),
        broken: false,
        live: whole.live.clone(),
    };
    table.router.insert("a".into(), whole.rule.clone(), 0, Arc::new(broken));
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

#[tokio::test]
async fn a_panic_in_a_request_ends_that_connection_alone() {
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
    let address: SocketAddr = bound.address;
    let worker = Handle::start(0, shared).unwrap();
    let place = Place { address, prelude: Prelude::default() };
    worker.tell(Command::Open { id: "default".into(), place, sockets: bound.sockets }).await;

    let mut other = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut other, "b.test").await.starts_with("HTTP/1.1 503 "));
    for times in 1..=3 {
        let mut unlucky = TcpStream::connect(address).await.unwrap();
        let answer = ask(&mut unlucky, "a.test").await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 500 "), "{answer}");
        // The connection is closed a moment before that is counted.
        let counted = async {
            while process.panics.get() < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), counted).await.expect("it is counted");
        assert_eq!(process.panics.get(), times);
    }
    // Whoever was there before, and whoever comes, is served.
    assert!(ask(&mut other, "b.test").await.starts_with("HTTP/1.1 503 "));
    let mut new = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut new, "b.test").await.starts_with("HTTP/1.1 503 "));
    drop((other, new));
    tokio::time::timeout(Duration::from_secs(20), async {
        while process.connections.get() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("no connection is left");
}
