//! Changes put into a store, and how long each takes until a proxy serves by it: from the moment its put is begun to
//! the answer that shows it.
//!
//! One at a time with nothing else going on, or so many a second, of which some are watched.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use etna_store::{Engine, Txn};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::begin;
use super::http::Incoming;

/// What is changed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Changes {
    /// URL of the store.
    pub(crate) store: String,
    /// Where the proxy serves that follows it; none: nobody does.
    pub(crate) proxy: Option<SocketAddr>,
    /// Two servers, and with what their bodies begin.
    pub(crate) servers: [(SocketAddr, String); 2],
    /// Frontends `h0`, `h1`, … that there are.
    pub(crate) frontends: usize,
    /// Changes a second; none: one at a time.
    pub(crate) rate: Option<u32>,
    pub(crate) seconds: u32,
}

/// What it took.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Took {
    /// Changes that the store took.
    pub(crate) made: u64,
    pub(crate) seconds: f64,
    /// Milliseconds until another server answers: half took less, 99 %.
    pub(crate) server: [f64; 2],
    /// Milliseconds until a new frontend answers.
    pub(crate) frontend: [f64; 2],
    /// Milliseconds of these, of both kinds, until the store had taken them.
    pub(crate) put: [f64; 2],
}

impl Changes {
    pub(super) async fn run(self) -> anyhow::Result<Took> {
        let engine = etna_store::open(&self.store, &etna_store::engine::Options::default()).await?;
        let flip = json!({"Type": "http", "BackendId": "flip", "Route": "Host(`flip.test`)"});
        put(&engine, "frontends/flip/frontend", &flip).await?;
        let mut probe =
            Probe { engine: engine.clone(), changes: &self, connection: None, flips: 0, news: 0, puts: vec![] };
        probe.flip().await?;
        probe.appear().await?;
        begin()?;
        probe.puts.clear();
        let began = Instant::now();
        let until = began + Duration::from_secs(self.seconds.into());
        let stream = self.rate.map(|rate| tokio::spawn(stream(engine, self.frontends, rate, until)));
        let (mut server, mut frontend) = (Vec::new(), Vec::new());
        while Instant::now() < until {
            server.push(probe.flip().await?);
            tokio::time::sleep(BETWEEN).await;
            frontend.push(probe.appear().await?);
            tokio::time::sleep(BETWEEN).await;
        }
        let seconds = began.elapsed().as_secs_f64();
        let put = shares(probe.puts);
        let others = match stream {
            Some(stream) => stream.await??,
            None => 0,
        };
        let made = others + (server.len() + frontend.len()) as u64;
        Ok(Took { made, seconds, server: shares(server), frontend: shares(frontend), put })
    }
}

/// A change that is watched.
struct Probe<'a> {
    engine: Arc<dyn Engine>,
    changes: &'a Changes,
    connection: Option<Incoming<TcpStream>>,
    flips: usize,
    news: usize,
    /// How long the store needed for each.
    puts: Vec<Duration>,
}

impl Probe<'_> {
    /// Puts the other server in a server's place.
    async fn flip(&mut self) -> anyhow::Result<Duration> {
        let (address, name) = &self.changes.servers[self.flips % 2];
        self.flips += 1;
        let began = Instant::now();
        put(&self.engine, "backends/flip/servers/s", &json!({"URL": format!("http://{address}")})).await?;
        self.puts.push(began.elapsed());
        self.seen("flip.test", name, began).await
    }

    /// Puts a frontend, and deletes it once it was seen.
    async fn appear(&mut self) -> anyhow::Result<Duration> {
        self.news += 1;
        let (host, key) = (format!("new{}.test", self.news), format!("frontends/new{}/frontend", self.news));
        let frontend = json!({"Type": "http", "BackendId": "flip", "Route": format!("Host(`{host}`)")});
        let began = Instant::now();
        put(&self.engine, &key, &frontend).await?;
        self.puts.push(began.elapsed());
        let took = self.seen(&host, "", began).await;
        self.engine.commit(Txn::delete(&key)).await?;
        took
    }

    /// Asks until a server answers whose body begins so.
    async fn seen(&mut self, host: &str, begins: &str, began: Instant) -> anyhow::Result<Duration> {
        let Some(proxy) = self.changes.proxy else { return Ok(began.elapsed()) };
        loop {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => {
                    let stream = TcpStream::connect(proxy).await?;
                    stream.set_nodelay(true)?;
                    Incoming::new(stream)
                }
            };
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            connection.stream.write_all(request.as_bytes()).await?;
            let answer = connection.head().await?.context("closed instead of an answer")?;
            let mut body = vec![0; answer.length()?.try_into()?];
            connection.take(&mut body).await?;
            let took = began.elapsed();
            if answer.field("connection").is_none_or(|connection| !connection.eq_ignore_ascii_case("close")) {
                self.connection = Some(connection);
            }
            if answer.word(1) == "200" && body.starts_with(begins.as_bytes()) {
                return Ok(took);
            }
            anyhow::ensure!(took < LONGEST, "{host} is not served after {LONGEST:?}: {}", answer.word(1));
        }
    }
}

/// Changes frontends that are there, adds some, and deletes those again; how many.
async fn stream(engine: Arc<dyn Engine>, frontends: usize, rate: u32, until: Instant) -> anyhow::Result<u64> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let a_tick = u64::from(rate) * TICK.as_millis() as u64 / 1000;
    let (mut number, mut under_way) = (0, JoinSet::new());
    while Instant::now() < until {
        ticks.tick().await;
        for _ in 0..a_tick {
            if under_way.len() >= AT_ONCE {
                under_way.join_next().await.context("nothing is under way")???;
            }
            under_way.spawn(change(engine.clone(), frontends as u64, number));
            number += 1;
        }
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(number)
}

async fn change(engine: Arc<dyn Engine>, frontends: u64, number: u64) -> anyhow::Result<()> {
    let value = |route: String| json!({"Type": "http", "BackendId": "public", "Route": route});
    match number % 4 {
        0 => put(&engine, &key("added", number), &value(format!("Host(`added{number}.test`)"))).await,
        // Some while after it was added.
        2 if number >= 402 => {
            engine.commit(Txn::delete(key("added", number - 402))).await?;
            Ok(())
        }
        _ => {
            let which = number.wrapping_mul(7919) % frontends.max(1);
            let path = if number.is_multiple_of(3) { "/" } else { "/p" };
            put(&engine, &key("h", which), &value(format!("Host(`h{which}.test`) && PathPrefix(`{path}`)"))).await
        }
    }
}

fn key(name: &str, number: u64) -> String {
    format!("frontends/{name}{number}/frontend")
}

async fn put(engine: &Arc<dyn Engine>, key: &str, value: &serde_json::Value) -> anyhow::Result<()> {
    engine.commit(Txn::put(key, value.to_string())).await.map_err(|error| anyhow::anyhow!("{key}: {error}"))?;
    Ok(())
}

fn shares(mut took: Vec<Duration>) -> [f64; 2] {
    took.sort_unstable();
    [0.5, 0.99].map(|share| {
        let at = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
        took.get(at).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    })
}

/// Between watched changes.
const BETWEEN: Duration = Duration::from_millis(5);
const TICK: Duration = Duration::from_millis(10);
/// Changes on their way to the store.
const AT_ONCE: usize = 64;
const LONGEST: Duration = Duration::from_secs(10);
