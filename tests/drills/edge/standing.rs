//! Somebody else: TLS connections that stand, asked fifty times a second in turn, from a thread that does nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etna_tests::client::Connection;
use etna_tests::tls::TlsClient;
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
    pub(super) async fn start(client: &TlsClient, at: SocketAddr) -> Standing {
        let (stop, stand) = (CancellationToken::new(), Arc::new(Notify::new()));
        let (stopped, client, ready) = (stop.clone(), client.clone(), stand.clone());
        let runner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(async {
                let mut connections = Vec::new();
                for _ in 0..MANY {
                    connections.push(client.open(at, HOST).await.expect("a connection that stands"));
                }
                ready.notify_one();
                ask(&mut connections, &stopped).await
            })
        });
        stand.notified().await;
        Standing { stop, runner }
    }

    /// For so long.
    pub(super) async fn during(client: &TlsClient, at: SocketAddr, time: Duration) -> Probed {
        let standing = Standing::start(client, at).await;
        tokio::time::sleep(time).await;
        standing.stop().await
    }

    /// Stops it.
    pub(super) async fn stop(self) -> Probed {
        self.stop.cancel();
        tokio::task::spawn_blocking(|| self.runner.join().expect("they stood")).await.expect("they ended")
    }
}

async fn ask(connections: &mut [Connection], stopped: &CancellationToken) -> Probed {
    let mut probed = Probed::default();
    let (began, many) = (Instant::now(), connections.len() as u64);
    loop {
        let due = began + PERIOD * u32::try_from(probed.sent).unwrap_or(u32::MAX);
        if stopped.run_until_cancelled(tokio::time::sleep_until(due.into())).await.is_none() {
            return probed;
        }
        let connection = &mut connections[usize::try_from(probed.sent % many).unwrap_or_default()];
        probed.sent += 1;
        match connection.get(HOST, "/").await {
            Ok(answer) if answer.status == 200 => probed.latencies.push(due.elapsed().as_secs_f64() * 1000.0),
            Ok(answer) => probed.wrong.push(format!("answered {}", answer.status)),
            Err(why) => probed.wrong.push(format!("after {:.1?}: {why}", began.elapsed())),
        }
    }
}

const MANY: usize = 8;
const PERIOD: Duration = Duration::from_millis(20);
