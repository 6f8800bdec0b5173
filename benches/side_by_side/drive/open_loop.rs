//! The open loop: requests are sent when they are due, whether or not those before were answered, and an answer's
//! latency counts from when its request was due. So a proxy that stalls is charged for all that would have come
//! meanwhile (no coordinated omission).
//!
//! Of the latency is taken away for how long the server says that it held the request: what is left are the proxy, the
//! kernel, and this process, which is the same for all peers. As a closed loop it finds out how many requests get
//! through.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinSet, LocalSet};

use super::http::Incoming;
use super::servers::HELD;
use super::{WARM_UP, begin};
use crate::statistics::usual;

/// What is sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct OpenLoop {
    pub(crate) to: SocketAddr,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) pace: Pace,
    pub(crate) seconds: u32,
}

/// How much.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum Pace {
    /// Requests a second.
    Rate(u32),
    /// As many as so many connections bring: a closed loop.
    Connections(usize),
}

/// What came back.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Latencies {
    pub(crate) answered: usize,
    pub(crate) seconds: f64,
    /// Added latency in microseconds, of the median second: half of its answers had less, 99 %, 99.9 %. A machine that has
    /// something else to do every few seconds does not show in these.
    pub(crate) added: [f64; 3],
    /// The longest of all, in microseconds.
    pub(crate) longest: f64,
}

struct Shared {
    order: OpenLoop,
    /// Connections that wait for a request, how many there are, and who wants one.
    idle: RefCell<Vec<Incoming<TcpStream>>>,
    open: Cell<usize>,
    freed: Notify,
    /// When each request was due, and how many nanoseconds its answer took more than its server.
    added: RefCell<Vec<(Instant, u64)>>,
}

impl OpenLoop {
    pub(super) async fn run(self) -> anyhow::Result<Latencies> {
        let shared = Rc::new(Shared {
            order: self,
            idle: RefCell::default(),
            open: Cell::default(),
            freed: Notify::new(),
            added: RefCell::default(),
        });
        LocalSet::new().run_until(shared.all()).await
    }
}

impl Shared {
    async fn all(self: Rc<Self>) -> anyhow::Result<Latencies> {
        self.clone().phase(WARM_UP).await?;
        self.added.borrow_mut().clear();
        begin()?;
        let began = Instant::now();
        self.clone().phase(Duration::from_secs(self.order.seconds.into())).await?;
        let added = self.added.take();
        anyhow::ensure!(!added.is_empty(), "no request was answered");
        let mut seconds: Vec<Vec<u64>> = Vec::new();
        for (due, nanoseconds) in &added {
            let second = due.saturating_duration_since(began).as_secs() as usize;
            seconds.resize_with(seconds.len().max(second + 1), Vec::new);
            seconds[second].push(*nanoseconds);
        }
        seconds.iter_mut().for_each(|second| second.sort_unstable());
        let usual = |share| usual(&seconds, share).map_or(f64::NAN, |nanoseconds| nanoseconds / 1e3);
        Ok(Latencies {
            answered: added.len(),
            seconds: began.elapsed().as_secs_f64(),
            added: [usual(0.5), usual(0.99), usual(0.999)],
            longest: added.iter().map(|(_, nanoseconds)| *nanoseconds).max().unwrap_or_default() as f64 / 1e3,
        })
    }

    /// Sends for a while, and waits for the answers.
    async fn phase(self: Rc<Self>, time: Duration) -> anyhow::Result<()> {
        let mut under_way = JoinSet::new();
        let began = Instant::now();
        match self.order.pace {
            Pace::Rate(rate) => {
                let mut dues = schedule(rate, time)?;
                while let Some(due) = dues.recv().await {
                    let connection = self.connection().await?;
                    under_way.spawn_local(self.clone().exchange(connection, due));
                    while let Some(done) = under_way.try_join_next() {
                        done??;
                    }
                }
            }
            Pace::Connections(number) => {
                for _ in 0..number {
                    let shared = self.clone();
                    under_way.spawn_local(async move {
                        while began.elapsed() < time {
                            let connection = shared.connection().await?;
                            shared.clone().exchange(connection, Instant::now()).await?;
                        }
                        Ok(())
                    });
                }
            }
        }
        while let Some(done) = under_way.join_next().await {
            done??;
        }
        Ok(())
    }

    /// One that waits, or a new one; where there are as many as may be, the next that is free.
    async fn connection(&self) -> anyhow::Result<Incoming<TcpStream>> {
        loop {
            if let Some(idle) = self.idle.borrow_mut().pop() {
                return Ok(idle);
            }
            if self.open.get() < MOST {
                self.open.set(self.open.get() + 1);
                let stream = TcpStream::connect(self.order.to).await.context("connect")?;
                stream.set_nodelay(true)?;
                return Ok(Incoming::new(stream));
            }
            self.freed.notified().await;
        }
    }

    async fn exchange(self: Rc<Self>, mut connection: Incoming<TcpStream>, due: Instant) -> anyhow::Result<()> {
        let OpenLoop { host, path, .. } = &self.order;
        connection.stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
        let answer = connection.head().await?.context("closed instead of an answer")?;
        connection.skip(answer.length()?, |_| ()).await?;
        let took = due.elapsed().as_nanos() as u64;
        answer.expect("200")?;
        let held =
            answer.field(HELD).and_then(|held| held.parse().ok()).context("an answer without how long it took")?;
        self.added.borrow_mut().push((due, took.saturating_sub(held)));
        self.idle.borrow_mut().push(connection);
        self.freed.notify_one();
        Ok(())
    }
}

/// When requests are due, each as it is: a few every [`TICK`], for a turn of the load's for each of them would take more of
/// its core than what it asks. A thread waits for the kernel's timer, as tokio's own know only whole milliseconds. What
/// nobody has taken waits, as the requests would.
fn schedule(rate: u32, time: Duration) -> anyhow::Result<mpsc::Receiver<Instant>> {
    let (dues, due) = mpsc::channel(1 << 16);
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    let began = Instant::now();
    std::thread::Builder::new().name("schedule".to_owned()).spawn(move || {
        let mut sent = 0;
        for at in (0..).map(|tick| TICK * tick).take_while(|at| *at < time) {
            // Who does not listen any more has failed, and says so.
            if wait(&timer, began + at).is_err() {
                return;
            }
            let by_now = (at + TICK).as_nanos() * u128::from(rate) / 1_000_000_000;
            while sent < by_now {
                if dues.blocking_send(began + at).is_err() {
                    return;
                }
                sent += 1;
            }
        }
    })?;
    Ok(due)
}

fn wait(timer: &OwnedFd, until: Instant) -> rustix::io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    // What is so near is reached on the way there.
    if left < NEAR {
        return Ok(());
    }
    let once = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() },
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    rustix::io::read(timer, &mut [0_u8; 8]).map(drop)
}

/// Connections at most; beyond that a request waits for one.
const MOST: usize = 5000;
/// With 25,000 requests a second six are due at once.
const TICK: Duration = Duration::from_micros(250);
const NEAR: Duration = Duration::from_micros(5);
