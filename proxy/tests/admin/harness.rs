//! An admin API to talk to, and the talking: requests as bytes, so that they can be wrong.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use etna_proxy::admin;
use etna_proxy::config::{AdminAddress, Config};
use etna_proxy::control::{Control, State};
use etna_proxy::listener::Listeners;
use etna_store::engine::Options;
use etna_store::{Op, Txn};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

pub struct Etna {
    pub address: AdminAddress,
    pub state: Arc<State>,
    pub tasks: Vec<JoinHandle<()>>,
    _dir: TempDir,
}

impl Drop for Etna {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

pub fn config(admin: AdminAddress, dir: &Path) -> Config {
    Config { workers: 0, ..Config::bare("memory:".into(), dir.into(), admin) }
}

pub fn loopback() -> AdminAddress {
    AdminAddress::Tcp("127.0.0.1:0".parse().unwrap())
}

/// An admin API whose control loop does not run.
pub async fn start_alone(change: impl FnOnce(&mut Config)) -> Etna {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(loopback(), dir.path());
    change(&mut config);
    let engine = etna_store::open("memory:", &Options::default()).await.unwrap();
    let state = Arc::new(State::new(engine));
    let admin = admin::bind(&config, state.clone()).await.unwrap();
    let address = admin.address().clone();
    let tasks = vec![tokio::spawn(admin.serve())];
    Etna { address, state, tasks, _dir: dir }
}

pub async fn start() -> Etna {
    let mut etna = start_alone(|_| ()).await;
    let control = Control::new(etna.state.clone(), Listeners::new(Vec::new()));
    etna.tasks.push(tokio::spawn(async move { drop(control.run().await) }));
    let mut store = etna.state.subscribe_store();
    tokio::time::timeout(Duration::from_secs(20), store.wait_for(|store| store.following)).await.unwrap().unwrap();
    etna
}

pub async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?} is no response"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    Answer { status, head: head.to_lowercase(), body: if chunked { unchunk(body) } else { body.to_owned() } }
}

pub fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    body
}

impl Etna {
    pub async fn raw(&self, request: &str) -> Answer {
        match &self.address {
            AdminAddress::Tcp(address) => talk(TcpStream::connect(address).await.unwrap(), request).await,
            AdminAddress::Unix(path) => talk(UnixStream::connect(path).await.unwrap(), request).await,
        }
    }

    pub fn host(&self) -> String {
        match &self.address {
            AdminAddress::Tcp(address) => address.to_string(),
            AdminAddress::Unix(_) => "localhost".into(),
        }
    }

    pub async fn ask(&self, method: &str, path: &str, fields: &str, body: &str) -> Answer {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let host = self.host();
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}{fields}\r\n{body}"
        ))
        .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, "Content-Type: application/json\r\n", &body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, "", "").await
    }

    pub async fn put_key(&self, key: &str, value: &str) {
        let txn = Txn { compares: Vec::new(), ops: vec![Op::Put(key.into(), value.to_owned().into(), None)] };
        let revision = self.state.engine.commit(txn).await.unwrap();
        // Told last: what is wrong with it is known by then.
        let mut store = self.state.subscribe_store();
        let is_told = store.wait_for(|store| store.revision >= Some(revision));
        tokio::time::timeout(Duration::from_secs(20), is_told).await.unwrap().unwrap();
    }

    pub async fn blog(&self) {
        for (path, body) in [
            ("/v2/backends", json!({ "Backend": { "Id": "b", "Type": "http" } })),
            ("/v2/backends/b/servers", json!({ "Server": { "Id": "s1", "URL": "http://127.0.0.1:81" } })),
            ("/v2/backends/b/servers", json!({ "Server": { "Id": "s10", "URL": "http://127.0.0.1:82" } })),
            (
                "/v2/frontends",
                json!({ "Frontend": { "Id": "f", "Type": "http", "BackendId": "b", "Route": "Host(\"blog.test\")" } }),
            ),
        ] {
            let answer = self.post(path, &body).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        }
    }
}
