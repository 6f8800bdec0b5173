//! Somebody else: a request on a fresh connection fifty times a second, from a thread that does nothing else.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etna_tests::load::percentile;

/// A probe that asks until it is told to stop.
pub(crate) struct Probe {
    stop: Sender<()>,
    runner: JoinHandle<Probed>,
}

/// What it got.
#[derive(Debug, Default)]
pub(crate) struct Probed {
    pub(crate) sent: u64,
    pub(crate) wrong: Vec<String>,
    /// In milliseconds, since the request was due, in order.
    pub(crate) latencies: Vec<f64>,
}

impl Probe {
    /// Starts one for a host whose `/` is answered 200.
    pub(crate) fn start(to: SocketAddr, host: &'static str) -> Probe {
        let (stop, stopped) = channel();
        let runner = std::thread::spawn(move || {
            let mut probed = Probed::default();
            let began = Instant::now();
            loop {
                let due = began + PERIOD * u32::try_from(probed.sent).unwrap_or(u32::MAX);
                if stopped.recv_timeout(due.saturating_duration_since(Instant::now())) != Err(RecvTimeoutError::Timeout)
                {
                    return probed;
                }
                probed.sent += 1;
                match ask(to, host) {
                    Ok(()) => probed.latencies.push(due.elapsed().as_secs_f64() * 1000.0),
                    Err(why) => probed.wrong.push(format!("after {:.1?}: {why}", began.elapsed())),
                }
            }
        });
        Probe { stop, runner }
    }

    /// Asks for so long.
    pub(crate) async fn during(to: SocketAddr, host: &'static str, time: Duration) -> Probed {
        let probe = Probe::start(to, host);
        tokio::time::sleep(time).await;
        probe.stop().await
    }

    /// Stops it.
    pub(crate) async fn stop(self) -> Probed {
        drop(self.stop);
        tokio::task::spawn_blocking(|| self.runner.join().expect("the probe ran")).await.expect("the probe ended")
    }
}

impl Probed {
    /// The median over five parts of the time of what 99 of 100 requests kept, in milliseconds.
    pub(crate) fn p99(&self) -> f64 {
        let size = self.latencies.len().div_ceil(5).max(1);
        let mut parts: Vec<f64> = self
            .latencies
            .chunks(size)
            .filter_map(|part| {
                let mut part = part.to_vec();
                part.sort_by(f64::total_cmp);
                percentile(&part, 0.99)
            })
            .collect();
        parts.sort_by(f64::total_cmp);
        percentile(&parts, 0.5).unwrap_or(f64::NAN)
    }
}

fn ask(to: SocketAddr, host: &str) -> Result<(), String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|error| format!("connect: {error}"))?;
    let limits = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_nodelay(true));
    limits.map_err(|error| error.to_string())?;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| format!("write: {error}"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|error| format!("read: {error}"))?;
    let line = String::from_utf8_lossy(&answer[..answer.len().min(40)]).into_owned();
    if line.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(format!("answered {line:?}")) }
}

const PERIOD: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(5);
