//! Somebody else: connections of HTTP/2 that stand, asked fifty times a second in turn, from a thread that does nothing
//! else.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::bed::HOST;
use crate::denial::Probed;

/// Connections that are asked until they are told to stop.
pub(super) struct Standing {
    stop: CancellationToken,
    runner: JoinHandle<Probed>,
}

impl Standing {
    /// Once all stand.
    pub(super) async fn start(at: SocketAddr) -> Standing {
        let (stop, stand) = (CancellationToken::new(), Arc::new(Notify::new()));
        let (stopped, ready) = (stop.clone(), stand.clone());
        let runner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(async {
                let mut connections = Vec::new();
                for _ in 0..MANY {
                    let stream = TcpStream::connect(at).await.expect("a connection that stands");
                    let _ = stream.set_nodelay(true);
                    let (client, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
                    tokio::spawn(connection);
                    connections.push(client);
                }
                ready.notify_one();
                ask(&mut connections, &stopped).await
            })
        });
        stand.notified().await;
        Standing { stop, runner }
    }

    /// Stops it.
    pub(super) async fn stop(self) -> Probed {
        self.stop.cancel();
        tokio::task::spawn_blocking(|| self.runner.join().expect("they stood")).await.expect("they ended")
    }
}

async fn ask(connections: &mut [SendRequest<Bytes>], stopped: &CancellationToken) -> Probed {
    let mut probed = Probed::default();
    let (began, many) = (Instant::now(), connections.len() as u64);
    loop {
        let due = began + PERIOD * u32::try_from(probed.sent).unwrap_or(u32::MAX);
        if stopped.run_until_cancelled(tokio::time::sleep_until(due.into())).await.is_none() {
            return probed;
        }
        let client = &mut connections[usize::try_from(probed.sent % many).unwrap_or_default()];
        probed.sent += 1;
        match tokio::time::timeout(PATIENCE, get(client)).await {
            Ok(Ok(200)) => probed.latencies.push(due.elapsed().as_secs_f64() * 1000.0),
            Ok(Ok(status)) => probed.wrong.push(format!("answered {status}")),
            Ok(Err(error)) => probed.wrong.push(format!("after {:.1?}: {error}", began.elapsed())),
            Err(_) => probed.wrong.push(format!("after {:.1?}: no answer in {PATIENCE:?}", began.elapsed())),
        }
    }
}

/// Asks once, and reads the whole answer.
async fn get(client: &mut SendRequest<Bytes>) -> Result<u16, h2::Error> {
    poll_fn(|cx| client.poll_ready(cx)).await?;
    let request = Request::get(format!("http://{HOST}/")).body(()).expect("a valid request");
    let (head, mut body) = client.send_request(request, true)?.0.await?.into_parts();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    Ok(head.status.as_u16())
}

const MANY: usize = 4;
const PERIOD: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(5);
