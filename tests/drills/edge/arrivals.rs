//! New TLS connections at a rate that does not depend on how they fare: each shakes hands, asks once and goes.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etna_tests::client::Connection;
use etna_tests::tls::TlsClient;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bed::HOST;

/// Clients that come until they are told to stop.
pub(super) struct Arrivals {
    stop: CancellationToken,
    runner: JoinHandle<Vec<Arrival>>,
}

/// One of them.
pub(super) struct Arrival {
    /// Which address.
    pub(super) at: usize,
    /// When it began to connect.
    pub(super) began: Instant,
    /// The certificate it got, DER, once it was answered 200, or why not.
    pub(super) leaf: Result<Vec<u8>, String>,
}

impl Arrivals {
    /// So many a second, at the addresses in turn.
    pub(super) fn start(client: &TlsClient, addresses: &[SocketAddr], rate: u64) -> Arrivals {
        let stop = CancellationToken::new();
        let (stopped, client, addresses) = (stop.clone(), client.clone(), addresses.to_vec());
        let runner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(async {
                let mut clients = JoinSet::new();
                let (began, mut n) = (Instant::now(), 0);
                loop {
                    let due = began + Duration::from_secs(1).mul_f64(n as f64 / rate as f64);
                    if stopped.run_until_cancelled(tokio::time::sleep_until(due.into())).await.is_none() {
                        return clients.join_all().await;
                    }
                    let at = n % addresses.len();
                    n += 1;
                    clients.spawn(arrive(client.clone(), at, addresses[at]));
                }
            })
        });
        Arrivals { stop, runner }
    }

    /// All that came, once the last is gone.
    pub(super) async fn stop(self) -> Vec<Arrival> {
        self.stop.cancel();
        tokio::task::spawn_blocking(|| self.runner.join().expect("they came")).await.expect("they went")
    }
}

async fn arrive(client: TlsClient, at: usize, to: SocketAddr) -> Arrival {
    let began = Instant::now();
    Arrival { at, began, leaf: ask(&client, to).await }
}

/// Shakes hands, asks once; the certificate.
async fn ask(client: &TlsClient, to: SocketAddr) -> Result<Vec<u8>, String> {
    let stream = client.connect(to, HOST).await?;
    let chain = stream.get_ref().1.peer_certificates().ok_or("no certificate")?;
    let leaf = chain.first().ok_or("an empty chain")?.to_vec();
    let answer = Connection::over(stream).await?.get(HOST, "/").await?;
    if answer.status == 200 { Ok(leaf) } else { Err(format!("answered {}", answer.status)) }
}

/// How many a second clients and proxy can do together here and now.
pub(super) async fn saturation(client: &TlsClient, to: SocketAddr) -> f64 {
    let client = client.clone();
    let runner = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        runtime.block_on(async {
            let until = Instant::now() + MEASURED;
            let mut clients = JoinSet::new();
            for _ in 0..8 {
                let client = client.clone();
                clients.spawn(async move {
                    let mut done = 0_u32;
                    while Instant::now() < until && ask(&client, to).await.is_ok() {
                        done += 1;
                    }
                    done
                });
            }
            f64::from(clients.join_all().await.iter().sum::<u32>())
        })
    });
    runner.await.expect("they came") / MEASURED.as_secs_f64()
}

const MEASURED: Duration = Duration::from_secs(2);
