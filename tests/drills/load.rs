//! The load of the drills: open loop, every answer checked against its id, nothing ever sent again.
//!
//! A request is sent when it is due, on a kept connection that is free or on a new one, so that servers that hang do
//! not spare the proxy what would have come meanwhile. Beside it a stream of clients that come once may run.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use etna_tests::client::Connection;
use etna_tests::load::{Report, percentile};
use http::HeaderValue;
use http::header::{COOKIE, SET_COOKIE};
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use crate::load_shape;

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    /// Where to.
    pub(crate) to: SocketAddr,
    /// The route.
    pub(crate) host: String,
    /// What the ids of the servers that may answer start with.
    pub(crate) servers: String,
    /// Requests a second over kept connections.
    pub(crate) rate: u64,
    /// Kept connections.
    pub(crate) connections: usize,
    /// Requests a second that each bring a connection of their own, beside the others.
    pub(crate) fresh: u64,
    /// Whether kept connections send back the cookies they got.
    pub(crate) cookies: bool,
    /// The first id; no two loads of a bed share one.
    pub(crate) first: u64,
}

/// A load that runs until it is told to stop.
pub(crate) struct Load {
    /// In a few words.
    pub(crate) says: String,
    /// When it began.
    pub(crate) began: Instant,
    stop: CancellationToken,
    answered: Arc<AtomicU64>,
    runner: std::thread::JoinHandle<Traffic>,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    /// In a few words, and whether the load itself was late, for want of a processor or of answers.
    pub(crate) says: String,
    /// All requests, in the order of their ids within each stream.
    pub(crate) samples: Vec<Sample>,
    /// In sum; `wrong` holds ids.
    pub(crate) report: Report,
    /// Times a kept connection's answers came from another server than before; only where cookies are sent back.
    pub(crate) moves: Vec<Move>,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Its id.
    pub(crate) id: u64,
    /// When it was due, since the load began.
    pub(crate) due: Duration,
    /// From then until it was answered, or had failed.
    pub(crate) latency: Duration,
    /// The server that answered; none if it failed.
    pub(crate) server: Option<Arc<str>>,
}

/// A kept connection's change of servers.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    /// When, since the load began.
    pub(crate) at: Duration,
    /// From which server.
    pub(crate) from: String,
    /// To which.
    pub(crate) to: String,
}

impl Load {
    /// Starts it, on a thread of its own.
    pub(crate) fn start(mix: Mix) -> Load {
        let (stop, answered) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), answered.clone());
        let mut says = format!("{}/s, {} connections", mix.rate, mix.connections);
        if mix.fresh > 0 {
            says.push_str(&format!(", {} new/s", mix.fresh));
        }
        let began = Instant::now();
        let runner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            LocalSet::new().block_on(&runtime, run(mix, began, stopped, count))
        });
        Load { says, began, stop, answered, runner }
    }

    /// Requests answered so far, rightly or not.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Lets it go on for a while.
    pub(crate) async fn go_on(&self, time: Duration) {
        tokio::time::sleep(time).await;
        assert!(!self.runner.is_finished(), "the load ended by itself");
    }

    /// Stops it once what was sent is answered.
    pub(crate) async fn stop(self) -> Traffic {
        self.stop.cancel();
        let joined = tokio::task::spawn_blocking(|| self.runner.join().expect("the load ran")).await;
        let mut traffic = joined.expect("the load ended");
        traffic.says.insert_str(0, &self.says);
        traffic
    }
}

impl Traffic {
    /// Latency in milliseconds that this share of the right answers kept which were due in a span of the load.
    pub(crate) fn latency_ms(&self, share: f64, from: Duration, to: Duration) -> f64 {
        let within = |sample: &&Sample| sample.server.is_some() && sample.due >= from && sample.due < to;
        let mut latencies: Vec<Duration> = self.samples.iter().filter(within).map(|sample| sample.latency).collect();
        latencies.sort_unstable();
        percentile(&latencies, share).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
    }

    /// The failed requests that may be sent twice without harm: a proxy has no excuse for those.
    pub(crate) fn failed_idempotent(&self) -> usize {
        self.report.wrong.iter().filter(|(id, ..)| !load_shape::is_once(*id)).count()
    }

    /// When the last request that matches was due.
    pub(crate) fn last(&self, matches: impl Fn(&Sample) -> bool) -> Option<Duration> {
        self.samples.iter().filter(|sample| matches(sample)).map(|sample| sample.due).max()
    }

    /// When the first request that matches was due.
    pub(crate) fn first(&self, matches: impl Fn(&Sample) -> bool) -> Option<Duration> {
        self.samples.iter().filter(|sample| matches(sample)).map(|sample| sample.due).min()
    }

    /// Adds a failure that only the servers have seen.
    pub(crate) fn accuse(&mut self, id: u64, why: String) {
        self.report.wrong.push((id, self.report.took, why));
    }
}

/// What the requests of a load share.
struct Shared {
    mix: Mix,
    began: Instant,
    answered: Arc<AtomicU64>,
    idle: RefCell<VecDeque<Client>>,
    /// How late a request was sent at most.
    late: Cell<Duration>,
    traffic: RefCell<Traffic>,
}

/// Somebody who keeps a connection.
#[derive(Default)]
struct Client {
    connection: Option<Connection>,
    cookie: Option<HeaderValue>,
    server: Option<Arc<str>>,
}

async fn run(mix: Mix, began: Instant, stop: CancellationToken, answered: Arc<AtomicU64>) -> Traffic {
    let idle = RefCell::new((0..mix.connections).map(|_| Client::default()).collect());
    let shared = Rc::new(Shared { mix, began, answered, idle, late: Cell::default(), traffic: RefCell::default() });
    let fresh = tokio::task::spawn_local(dispatch(shared.clone(), true, stop.clone()));
    dispatch(shared.clone(), false, stop).await;
    fresh.await.expect("the stream of new connections ends");
    let mut traffic = shared.traffic.take();
    if shared.late.get() > PUNCTUAL {
        traffic.says = format!(", sent up to {:.1?} late", shared.late.get());
    }
    let Traffic { samples, report, .. } = &mut traffic;
    samples.sort_unstable_by_key(|sample| sample.id);
    report.sent = samples.len() as u64;
    for sample in samples.iter() {
        let Some(server) = &sample.server else { continue };
        report.right += 1;
        report.latencies_us.push(u32::try_from(sample.latency.as_micros()).unwrap_or(u32::MAX));
        *report.by_server.entry(server.to_string()).or_default() += 1;
    }
    report.latencies_us.sort_unstable();
    report.wrong.sort_unstable();
    report.took = began.elapsed();
    traffic
}

/// Sends a stream's requests when they are due.
async fn dispatch(shared: Rc<Shared>, fresh: bool, stop: CancellationToken) {
    let mix = &shared.mix;
    let (rate, first) = if fresh { (mix.fresh, mix.first + FRESH) } else { (mix.rate, mix.first) };
    if rate == 0 {
        return;
    }
    let mut under_way = JoinSet::new();
    for n in 0.. {
        let due = shared.began + Duration::from_nanos(n * 1_000_000_000 / rate);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(due.into()) => {}
        }
        shared.late.set(shared.late.get().max(due.elapsed()));
        while under_way.try_join_next().is_some() {}
        if under_way.len() >= MOST_UNDER_WAY {
            under_way.join_next().await;
        }
        under_way.spawn_local(one(shared.clone(), first + n, due, fresh));
    }
    while under_way.join_next().await.is_some() {}
}

async fn one(shared: Rc<Shared>, id: u64, due: Instant, fresh: bool) {
    let waiting = if fresh { None } else { shared.idle.borrow_mut().pop_front() };
    let mut client = waiting.unwrap_or_default();
    let result = tokio::time::timeout(PATIENCE, client.exchange(&shared, id)).await;
    let result = result.unwrap_or_else(|_| {
        client.connection = None;
        Err(format!("{} not answered within {PATIENCE:?}", load_shape::method(id)))
    });
    shared.record(id, due, result);
    let mut idle = shared.idle.borrow_mut();
    if !fresh && idle.len() < shared.mix.connections {
        idle.push_back(client);
    }
}

impl Client {
    async fn exchange(&mut self, shared: &Shared, id: u64) -> Result<Arc<str>, String> {
        let mix = &shared.mix;
        // Taken out, so that a connection on which anything goes wrong is not used again.
        let mut connection = match self.connection.take().filter(Connection::is_open) {
            Some(open) => open,
            None => Connection::open(mix.to).await?,
        };
        let mut request = load_shape::request(&mix.host, id);
        if let Some(cookie) = &self.cookie {
            request.headers_mut().insert(COOKIE, cookie.clone());
        }
        let answer = connection.send(request).await?;
        load_shape::check(&mix.host, &mix.servers, id, &answer)?;
        self.connection = Some(connection);
        let server: Arc<str> = answer.server().into();
        if mix.cookies {
            if let Some(set) = answer.headers.get(SET_COOKIE) {
                let pair = set.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
                self.cookie = HeaderValue::from_bytes(pair).ok();
            }
            if let Some(before) = self.server.replace(server.clone()).filter(|before| *before != server) {
                let change = Move { at: shared.began.elapsed(), from: before.to_string(), to: server.to_string() };
                shared.traffic.borrow_mut().moves.push(change);
            }
        }
        Ok(server)
    }
}

impl Shared {
    fn record(&self, id: u64, due: Instant, result: Result<Arc<str>, String>) {
        let mut traffic = self.traffic.borrow_mut();
        let server = match result {
            Ok(server) => Some(server),
            Err(why) => {
                traffic.report.wrong.push((id, self.began.elapsed(), why));
                None
            }
        };
        traffic.samples.push(Sample { id, due: due - self.began, latency: due.elapsed(), server });
        self.answered.fetch_add(1, Relaxed);
    }
}

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most at once: all that is due within three seconds, where a third of 2,000 a second is not answered. Beyond that
/// what is due waits, and its latency shows it.
const MOST_UNDER_WAY: usize = 2000;
/// The load may send so late without saying so.
const PUNCTUAL: Duration = Duration::from_millis(250);
/// Added to the ids of the stream of new connections.
const FRESH: u64 = 1 << 32;
