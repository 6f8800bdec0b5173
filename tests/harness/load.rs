//! A checking load: requests at a fixed rate over keep-alive connections, each answer looked at, none ever retried.
//!
//! The rate does not depend on the answers (open loop), and latency counts from when a request was due, so that a
//! proxy that stalls is not spared the requests it would have got meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::{Answer, Connection, request};

/// What is sent, and what must come back.
pub struct Plan {
    /// Where requests go, in turn by connection.
    pub to: Vec<SocketAddr>,
    /// Requests a second, over all connections; 0: as many as are answered (closed loop).
    pub rate: u64,
    /// Keep-alive connections.
    pub connections: usize,
    /// The n-th request.
    pub request: fn(&str, u64) -> Request<Full<Bytes>>,
    /// Given to `request`: the host, most of the time.
    pub host: String,
    /// Whether the n-th request's answer is right.
    pub check: fn(u64, &Answer) -> Result<(), String>,
}

/// A load that runs until it is told to stop.
pub struct Load {
    stop: CancellationToken,
    answered: Arc<AtomicU64>,
    runner: std::thread::JoinHandle<Report>,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests sent; they have the numbers from 0 to one less.
    pub sent: u64,
    /// Those answered as they should be.
    pub right: u64,
    /// Those that were not: number, when, and why.
    pub wrong: Vec<(u64, Duration, String)>,
    /// Right answers by server.
    pub by_server: BTreeMap<String, u64>,
    /// Latencies of right answers in microseconds since they were due, sorted.
    pub latencies_us: Vec<u32>,
    /// How long it ran.
    pub took: Duration,
}

impl Load {
    /// Starts it, on a thread of its own.
    pub fn start(plan: Plan) -> Load {
        let stop = CancellationToken::new();
        let answered = Arc::new(AtomicU64::new(0));
        let (stopped, counter) = (stop.clone(), answered.clone());
        let runner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(run(plan, stopped, counter))
        });
        Load { stop, answered, runner }
    }

    /// One on keep-alive connections and one of connections of a request each, to `a.test` on a stand-in, at such rates.
    pub fn both(to: SocketAddr, rates: [u64; 2], kept_connections: usize) -> [Load; 2] {
        let plan = |rate, connections, request| {
            Load::start(Plan { to: vec![to], rate, connections, request, host: "a.test".into(), check: right })
        };
        [plan(rates[0], kept_connections, kept), plan(rates[1], 8, fresh)]
    }

    /// Answers so far, right or wrong.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Waits until so many more requests have been answered.
    pub async fn more(&self, answers: u64) {
        let goal = self.answered() + answers;
        crate::wait::eventually("the load goes on", Duration::from_secs(60), async || {
            crate::wait::ensure(self.answered() >= goal, format!("{} answers", self.answered()))
        })
        .await;
    }

    /// Stops it once what was sent is answered.
    pub async fn stop(self) -> Report {
        self.stop.cancel();
        tokio::task::spawn_blocking(|| self.runner.join().expect("the load ran")).await.expect("the load ended")
    }
}

impl Report {
    /// Latency in milliseconds that this share of the right answers kept, e.g. 0.99.
    pub fn latency_ms(&self, share: f64) -> f64 {
        percentile(&self.latencies_us, share).map_or(f64::NAN, |us| f64::from(us) / 1000.0)
    }

    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.right as f64 / self.took.as_secs_f64()
    }

    /// Panics, with the first few, if any answer was wrong.
    pub fn assert_all_right(&self) {
        let shown: Vec<String> =
            self.wrong.iter().take(8).map(|(n, at, why)| format!("#{n} after {at:?}: {why}")).collect();
        assert!(self.wrong.is_empty(), "{} of {} requests failed:\n{}", self.wrong.len(), self.sent, shown.join("\n"));
    }

    /// In one line.
    pub fn summary(&self) -> String {
        format!(
            "{} requests in {:.1} s ({:.0}/s), {} failed; latency ms p50 {:.1}, p99 {:.1}, max {:.1}",
            self.sent,
            self.took.as_secs_f64(),
            self.rate(),
            self.wrong.len(),
            self.latency_ms(0.5),
            self.latency_ms(0.99),
            self.latency_ms(1.0)
        )
    }
}

/// The value that this share of sorted values does not exceed.
pub fn percentile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// A request that names itself, for a kept connection.
pub fn kept(host: &str, n: u64) -> Request<Full<Bytes>> {
    request("GET", host, &format!("/{n}")).header("x-test-id", n).body(Full::default()).expect("a valid request")
}

fn fresh(host: &str, n: u64) -> Request<Full<Bytes>> {
    let request = request("GET", host, &format!("/{n}")).header("x-test-id", n).header("connection", "close");
    request.body(Full::default()).expect("a valid request")
}

fn right(n: u64, answer: &Answer) -> Result<(), String> {
    let is_right = answer.status == 200 && answer.header("x-test-id") == n.to_string();
    if is_right { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
}

async fn run(plan: Plan, stop: CancellationToken, answered: Arc<AtomicU64>) -> Report {
    let plan = Arc::new(plan);
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut connections = JoinSet::new();
    for number in 0..plan.connections {
        connections.spawn(one(plan.clone(), number, start, next.clone(), stop.clone(), answered.clone()));
    }
    let mut whole = Report::default();
    while let Some(part) = connections.join_next().await {
        let part = part.expect("a connection's task ends");
        whole.sent += part.sent;
        whole.right += part.right;
        whole.wrong.extend(part.wrong);
        whole.latencies_us.extend(part.latencies_us);
        for (server, count) in part.by_server {
            *whole.by_server.entry(server).or_default() += count;
        }
    }
    whole.latencies_us.sort_unstable();
    whole.wrong.sort_unstable();
    whole.took = start.elapsed();
    whole
}

async fn one(
    plan: Arc<Plan>,
    number: usize,
    start: Instant,
    next: Arc<AtomicU64>,
    stop: CancellationToken,
    answered: Arc<AtomicU64>,
) -> Report {
    let to = plan.to[number % plan.to.len()];
    let mut report = Report::default();
    let mut connection = None;
    while !stop.is_cancelled() {
        let n = next.fetch_add(1, Relaxed);
        let due = match (n * 1_000_000_000).checked_div(plan.rate) {
            Some(nanos) => start + Duration::from_nanos(nanos),
            None => Instant::now(),
        };
        // A number that was taken is sent, also when it is time to stop: the numbers have no holes.
        tokio::time::sleep_until(due.into()).await;
        report.sent += 1;
        let result = exchange(&mut connection, to, (plan.request)(&plan.host, n)).await;
        answered.fetch_add(1, Relaxed);
        match result.and_then(|answer| (plan.check)(n, &answer).map(|()| answer)) {
            Ok(answer) => {
                report.right += 1;
                report.latencies_us.push(u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX));
                *report.by_server.entry(answer.server().to_owned()).or_default() += 1;
            }
            Err(why) => report.wrong.push((n, start.elapsed(), why)),
        }
    }
    report
}

async fn exchange(
    connection: &mut Option<Connection>,
    to: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let mut open = match connection.take().filter(Connection::is_open) {
        Some(open) => open,
        None => Connection::open(to).await?,
    };
    let answer = open.send(request).await?;
    *connection = Some(open);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::request;
    use crate::stand_in::{Manner, StandIn};

    fn plan(to: SocketAddr, rate: u64) -> Plan {
        Plan {
            to: vec![to],
            rate,
            connections: 8,
            request: |host, n| request("GET", host, "/").header("x-test-id", n).body(Full::default()).unwrap(),
            host: "a.test".into(),
            check: |n, answer| match answer.header("x-test-id") == n.to_string() && answer.status == 200 {
                true => Ok(()),
                false => Err(answer.status.to_string()),
            },
        }
    }

    #[tokio::test]
    async fn keeps_its_rate_and_numbers_every_request_once() {
        let server = StandIn::start("a").await;
        let load = Load::start(plan(server.address, 200));
        load.more(100).await;
        let report = load.stop().await;
        report.assert_all_right();
        assert_eq!(report.sent, server.requests());
        assert_eq!(report.by_server, BTreeMap::from([("a".to_owned(), report.right)]));
        assert!(report.rate() < 250.0, "{}", report.rate());
    }

    #[tokio::test]
    async fn a_single_failure_is_reported() {
        let server = StandIn::start("a").await;
        let load = Load::start(plan(server.address, 0));
        load.more(100).await;
        server.set(Manner::Close);
        load.more(20).await;
        server.set(Manner::Answer);
        load.more(100).await;
        let report = load.stop().await;
        assert!(!report.wrong.is_empty());
        assert_eq!(report.sent, report.right + report.wrong.len() as u64);
    }
}
