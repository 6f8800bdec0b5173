//! A Docker engine of a few lines on a unix socket: containers are JSON, events are lines, and it can be unwell.
//!
//! It answers what the sidekick asks and nothing else, and remembers every request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio_util::task::AbortOnDropHandle;

/// The engine; it ends when dropped.
pub struct Daemon {
    state: Arc<Mutex<State>>,
    dir: tempfile::TempDir,
    _serving: AbortOnDropHandle<()>,
}

struct State {
    containers: BTreeMap<String, Value>,
    requests: Vec<String>,
    /// `GET /containers/json` fails.
    list_fails: bool,
    /// Bytes for every open event stream; replaced when the streams are to end.
    events: broadcast::Sender<Bytes>,
}

impl Daemon {
    pub fn start() -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let (events, _) = broadcast::channel(1024);
        let state = State { containers: BTreeMap::new(), requests: Vec::new(), list_fails: false, events };
        let state = Arc::new(Mutex::new(state));
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let serving = AbortOnDropHandle::new(tokio::spawn(serve(listener, state.clone())));
        Daemon { state, dir, _serving: serving }
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    /// A place for a lease file.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Every request so far, as `GET /path`.
    pub fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    /// How many event streams are open.
    pub fn streams(&self) -> usize {
        self.lock().events.receiver_count()
    }

    /// Adds a container (or replaces one) without a word.
    pub fn put(&self, container: Value) {
        let id = container["Id"].as_str().unwrap().to_owned();
        self.lock().containers.insert(id, container);
    }

    /// Changes a container by a JSON pointer, without a word.
    pub fn set(&self, id: &str, pointer: &str, value: Value) {
        *self.lock().containers.get_mut(id).unwrap().pointer_mut(pointer).unwrap() = value;
    }

    /// Takes a container away without a word.
    pub fn take(&self, id: &str) -> Value {
        self.lock().containers.remove(id).unwrap()
    }

    /// Lets lists fail, or not.
    pub fn list_fails(&self, fails: bool) {
        self.lock().list_fails = fails;
    }

    /// Sends an event of a container.
    pub fn event(&self, id: &str, action: &str, attributes: Value) {
        let line = json!({"Type": "container", "Action": action, "status": action, "id": id,
                          "Actor": {"ID": id, "Attributes": attributes}, "scope": "local"});
        self.raw(&format!("{line}\n"));
    }

    /// Sends bytes into the event streams, in chunks that cut lines anywhere.
    pub fn raw(&self, text: &str) {
        let state = self.lock();
        for chunk in text.as_bytes().chunks(7) {
            let _ = state.events.send(Bytes::copy_from_slice(chunk));
        }
    }

    /// Ends every event stream, as a restart of the engine does.
    pub fn end_streams(&self) {
        self.lock().events = broadcast::channel(1024).0;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// A container as inspected, published on a loopback port.
pub fn container(id: &str, name: &str, host_port: u16) -> Value {
    json!({
        "Id": id, "Name": format!("/{name}"),
        "State": {"Running": true, "Paused": false, "Restarting": false, "StartedAt": "2026-11-21T06:03:00.1Z",
                  "Health": null},
        "Config": {"Image": "wp", "Env": [], "Labels": {}, "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGWINCH"},
        "HostConfig": {"NetworkMode": "default", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}},
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": host_port.to_string()}]},
            "Networks": {"bridge": {"IPAddress": "172.17.0.2", "Gateway": "172.17.0.1"}}}
    })
}

type Body = BoxBody<Bytes, Infallible>;

async fn serve(listener: UnixListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        tokio::spawn(async move {
            let answer = move |request| std::future::ready(Ok::<_, Infallible>(answer(&request, &state)));
            let service = hyper::service::service_fn(answer);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(request: &Request<Incoming>, state: &Mutex<State>) -> Response<Body> {
    let mut state = state.lock().unwrap();
    let path = request.uri().path().to_owned();
    state.requests.push(format!("{} {path}", request.method()));
    let inspected = path.strip_prefix("/containers/").and_then(|rest| rest.strip_suffix("/json"));
    match (path.as_str(), inspected) {
        ("/version", _) => json_body(StatusCode::OK, &json!({"Version": "20.10.24", "ApiVersion": "1.41"})),
        ("/events", _) => Response::new(follow(state.events.subscribe())),
        ("/containers/json", _) if state.list_fails => {
            json_body(StatusCode::INTERNAL_SERVER_ERROR, &json!({"message": "the disk is on fire"}))
        }
        ("/containers/json", _) => {
            let running = state.containers.values().filter(|container| container["State"]["Running"] == true);
            json_body(StatusCode::OK, &running.map(|container| json!({"Id": container["Id"]})).collect())
        }
        (_, Some(name)) => {
            let found = state.containers.values().find(|container| {
                container["Id"] == name || container["Name"].as_str().map(|name| &name[1..]) == Some(name)
            });
            match found {
                Some(container) => json_body(StatusCode::OK, container),
                None => json_body(StatusCode::NOT_FOUND, &json!({"message": format!("No such container: {name}")})),
            }
        }
        _ => json_body(StatusCode::NOT_FOUND, &json!({"message": "page not found"})),
    }
}

fn follow(events: broadcast::Receiver<Bytes>) -> Body {
    let frames = stream::unfold(events, |mut events| async move {
        let bytes = events.recv().await.ok()?;
        Some((Ok(Frame::data(bytes)), events))
    });
    StreamBody::new(frames).boxed()
}

fn json_body(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed());
    *response.status_mut() = status;
    response
}
