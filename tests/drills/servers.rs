//! The servers behind the proxy, each a process of its own, so that they can be killed, frozen and started again.
//!
//! This is the process: the drills' binary told to `serve-echo`. It answers as `load_shape` says, writes down every
//! request it executed before it answers, and takes orders under `/_bed/`. `servers_handle` is the other side.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::process::parent_id;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use crate::load_shape::{self, ASKED_HOST, DIGEST, ID};

/// The first argument that makes this binary such a server; then come its id, its address and its file.
pub(crate) const COMMAND: &str = "serve-echo";
/// Set in the file beside the id of a request that was refused instead of executed.
pub(crate) const REFUSED: u64 = 1 << 63;

/// Serves until killed, or until whoever started it is gone.
pub(crate) fn serve(arguments: &[String]) -> ExitCode {
    let [id, address, file] = arguments else { return ExitCode::from(64) };
    let record = File::options().create(true).append(true).open(file).expect("the record can be written");
    let server = Rc::new(Server {
        id: id.clone(),
        record: RefCell::new(record),
        conduct: Cell::new(Conduct::default()),
        more: RefCell::default(),
    });
    let address: SocketAddr = address.parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        tokio::task::spawn_local(accept(server, id.as_str().into(), listener, CancellationToken::new()));
        let parent = parent_id();
        while parent_id() == parent {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    ExitCode::SUCCESS
}

struct Server {
    id: String,
    record: RefCell<File>,
    conduct: Cell<Conduct>,
    /// What it serves beside its address, under other names.
    more: RefCell<BTreeMap<SocketAddr, CancellationToken>>,
}

/// How it treats requests.
#[derive(Clone, Copy)]
struct Conduct {
    status: u16,
    /// What `/health` is answered with.
    health: u16,
    /// Time it computes on each request.
    spin: Duration,
    /// Time it waits before it answers.
    delay: Duration,
}

impl Default for Conduct {
    fn default() -> Conduct {
        Conduct { status: 200, health: 200, spin: Duration::ZERO, delay: Duration::ZERO }
    }
}

async fn accept(server: Rc<Server>, name: Rc<str>, listener: TcpListener, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (server, name, stop) = (server.clone(), name.clone(), stop.clone());
                tokio::task::spawn_local(async move {
                    stop.run_until_cancelled(connection(server, name, stream)).await;
                });
            }
        }
    }
}

async fn connection(server: Rc<Server>, name: Rc<str>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| server.clone().answer(name.clone(), request));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Server {
    async fn answer(
        self: Rc<Server>,
        name: Rc<str>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let conduct = self.conduct.get();
        let path = request.uri().path();
        if let Some(order) = path.strip_prefix("/_bed/") {
            return Ok(plain(200, self.clone().obey(order, request.uri().query().unwrap_or_default()).await));
        }
        if path == "/health" {
            return Ok(plain(conduct.health, self.id.clone()));
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let Some(id) = header(ID).and_then(|id| id.parse::<u64>().ok()) else {
            return Ok(plain(200, format!("{name}\n")));
        };
        let refused = if conduct.status == 200 { 0 } else { REFUSED };
        let _ = self.record.borrow_mut().write_all(&(id | refused).to_le_bytes());
        if !conduct.spin.is_zero() {
            let began = Instant::now();
            while began.elapsed() < conduct.spin {
                std::hint::spin_loop();
            }
        }
        if !conduct.delay.is_zero() {
            tokio::time::sleep(conduct.delay).await;
        }
        let response = Response::builder().status(conduct.status).header("x-backend", &*name).header(ID, id);
        let response =
            response.header(DIGEST, load_shape::digest(&body)).header(ASKED_HOST, header("host").unwrap_or(""));
        Ok(response.body(Full::new(load_shape::reply(id))).expect("a valid response"))
    }

    /// `/_bed/set?status=503&delay=20`, `/_bed/open?name=NAME` and `/_bed/close?at=ADDRESS`.
    async fn obey(self: Rc<Server>, order: &str, query: &str) -> String {
        let mut conduct = self.conduct.get();
        let mut answer = String::new();
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let number = value.parse::<u64>().unwrap_or_default();
            match (order, key) {
                ("set", "status") => conduct.status = number as u16,
                ("set", "health") => conduct.health = number as u16,
                ("set", "spin") => conduct.spin = Duration::from_micros(number),
                ("set", "delay") => conduct.delay = Duration::from_millis(number),
                ("open", "name") => answer = self.clone().open(value).await,
                ("close", "at") => {
                    let stop = value.parse().ok().and_then(|at| self.more.borrow_mut().remove(&at));
                    stop.inspect(CancellationToken::cancel);
                }
                _ => answer.push_str("no such order\n"),
            }
        }
        self.conduct.set(conduct);
        answer
    }

    async fn open(self: Rc<Server>, name: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let stop = CancellationToken::new();
        self.more.borrow_mut().insert(address, stop.clone());
        tokio::task::spawn_local(accept(self.clone(), name.into(), listener, stop));
        address.to_string()
    }
}

fn plain(status: u16, text: String) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::from(text)).expect("a valid response")
}
