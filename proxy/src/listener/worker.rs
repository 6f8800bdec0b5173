//! A worker: one thread that accepts, proxies and owns its upstream connections.
//!
//! Workers share the table and atomics, nothing else. The accept loop never ends by an error, never waits for a
//! client, and backs off when accepting fails. What it does once a second is in `worker/second.rs`.

mod counted;
mod second;

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::{Duration, Instant};

use etna_store::object::{Id, ProxyProtocol};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};
use tokio_util::sync::CancellationToken;

use super::accept::{Accepting, open};
use super::admission::{Admission, LOOK_EVERY, Overload};
use super::configs::Configs;
use super::drain::{Drain, finish, turn};
use super::watch::{Order, Watch};
use crate::access::{Access, Lines};
use crate::backend::pool::Pool;
use crate::spare::Spare;
use crate::stats::Process;
use crate::table::LiveTable;
use crate::tls::terms::Terms;
use crate::tls::tickets::Tickets;
use crate::traffic::h1::wire::Scratch;
use crate::traffic::h2::known::Known;
use crate::traffic::h2::seats::Seats;
use crate::traffic::mark::Mark;
use crate::traffic::trust::Trusted;

pub use counted::{Running, Watched};

/// What all workers share.
#[derive(Clone)]
pub struct Shared {
    /// The table in force.
    pub live: Arc<LiveTable>,
    /// What the process counts.
    pub process: Arc<Process>,
    /// Whose forwarding headers are believed.
    pub trusted: Arc<Trusted>,
    /// What tells a request that comes back.
    pub mark: Arc<Mark>,
    /// Who is let in.
    pub admission: Arc<Admission>,
    /// How sessions of TLS go on.
    pub tickets: Arc<Tickets>,
    /// On which terms listeners of the command line speak TLS that do.
    pub terms: Arc<Terms>,
    /// Where lines of the access log go, where there is one.
    pub access: Option<Access>,
    /// Cancelled when a drain must end at once.
    pub force: CancellationToken,
    /// Cancelled when connections may be accepted. Until then they wait in the kernel's queues.
    pub gate: CancellationToken,
}

/// What a worker's thread knows.
pub struct Worker {
    /// The table in force.
    pub live: Arc<LiveTable>,
    /// What the process counts.
    pub process: Arc<Process>,
    /// Whose forwarding headers are believed.
    pub trusted: Arc<Trusted>,
    /// What tells a request that comes back.
    pub mark: Arc<Mark>,
    /// Who is let in.
    pub admission: Arc<Admission>,
    /// What TLS works with.
    pub(super) tls: Configs,
    /// Lines of the access log, where there is one.
    pub access: Option<Rc<Lines>>,
    /// Idle connections to servers.
    pub pool: Rc<Pool>,
    /// Cancelled when a drain's time is over: what still runs is cut.
    pub cut: CancellationToken,
    /// Seconds since the worker started.
    clock: Rc<Cell<u32>>,
    /// The same, for others to see.
    beat: Arc<AtomicU32>,
    connections: RefCell<HashMap<u64, Rc<Watch>, foldhash::fast::RandomState>>,
    next_connection: Cell<u64>,
    random: RefCell<fastrand::Rng>,
    draining: Cell<bool>,
    /// Whether another process accepts on its sockets.
    pub(super) handed_over: Cell<bool>,
    /// Connections whose tasks have not ended.
    pub(super) serving: Cell<usize>,
    buffers: Spare<Vec<u8>>,
    /// Who tells connections that are late.
    telling: RefCell<Option<JoinHandle<()>>>,
    /// The time, as responses say it.
    date: RefCell<String>,
    /// Where its connections read.
    pub scratch: Rc<Scratch>,
    /// Tasks that serve streams of HTTP/2.
    pub seats: Rc<Seats>,
    /// Fields of its responses over HTTP/2 that came before.
    pub known: Known,
    overload: RefCell<Overload>,
    /// Connections that are being turned away.
    turning_away: Cell<u32>,
}

/// A request's head, written.
pub struct HeadBuffer<'w> {
    bytes: Vec<u8>,
    worker: &'w Worker,
}

impl std::ops::Deref for HeadBuffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for HeadBuffer<'_> {
    fn drop(&mut self) {
        self.worker.give_buffer(std::mem::take(&mut self.bytes));
    }
}

/// What the control side tells a worker.
pub enum Command {
    /// Accept on sockets; they replace the listener's former ones.
    Open {
        /// The listener.
        id: Id,
        /// What it is.
        place: Place,
        /// This worker's sockets.
        sockets: Vec<std::net::TcpListener>,
    },
    /// Stop accepting on a listener. Its connections stay.
    Close(Id),
    /// Finish: answer with `Connection: close`, accept for a while and what waits then, end when nothing runs or the
    /// time is over.
    Drain(Drain),
}

/// What kind of place a listener accepts at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub address: SocketAddr,
    /// What its connections begin with.
    pub prelude: Prelude,
}

/// What comes on a connection before HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prelude {
    /// First of all: a header of the PROXY protocol.
    pub proxy_protocol: Option<Arc<ProxyProtocol>>,
    /// Then TLS.
    pub tls: bool,
}

/// A worker, seen from the control side.
pub struct Handle {
    commands: mpsc::Sender<Command>,
    beat: Arc<AtomicU32>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Handle {
    /// Starts a worker's thread.
    pub fn start(number: usize, shared: Shared) -> io::Result<Handle> {
        let (commands, inbox) = mpsc::channel(64);
        let beat = Arc::<AtomicU32>::default();
        let its = beat.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            // In a task of its own: what a set runs until is polled each time that any of its tasks is.
            let worker = async { tokio::task::spawn_local(run(shared, its, inbox)).await };
            if let Err(error) = runtime.block_on(LocalSet::new().run_until(worker))
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        })?;
        Ok(Handle { commands, beat, thread: Some(thread) })
    }

    /// Goes up every second as long as the worker works.
    pub fn beat(&self) -> Arc<AtomicU32> {
        self.beat.clone()
    }

    /// Tells the worker what to do.
    pub async fn tell(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::error!("a worker has ended before its time");
        }
    }

    /// Waits until the worker has drained. Blocks: not for the control runtime's own threads.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker panicked");
        }
    }
}

impl Worker {
    /// Whether responses should tell clients to go.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// A random number for balancing.
    pub fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// Writes a request's head into a buffer that goes back to the worker when it is dropped.
    pub fn write_head(&self, write: impl FnOnce(&mut Vec<u8>)) -> HeadBuffer<'_> {
        let mut bytes = self.take_buffer();
        write(&mut bytes);
        HeadBuffer { bytes, worker: self }
    }

    /// An empty buffer, most likely one that was used before.
    pub fn take_buffer(&self) -> Vec<u8> {
        self.buffers.take().unwrap_or_else(|| Vec::with_capacity(HEAD_BUFFER))
    }

    /// Takes a buffer back, unless it has grown.
    pub fn give_buffer(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= LARGEST_BUFFER {
            buffer.clear();
            let _ = self.buffers.give(buffer);
        }
    }

    /// The time, as responses say it (RFC 9110 section 5.6.7).
    pub fn date(&self) -> Ref<'_, str> {
        Ref::map(self.date.borrow(), String::as_str)
    }

    /// Whether to turn a request away for want of time.
    pub fn turns_away(&self) -> bool {
        let overload = self.overload.borrow();
        !overload.is_none() && overload.turns_away(self.random())
    }

    /// Whether there is a connection or a tunnel.
    pub(super) fn is_serving(&self) -> bool {
        self.serving.get() > 0 || !self.connections.borrow().is_empty()
    }

    /// Ends what still runs.
    pub(super) fn cut_all(&self) {
        self.cut.cancel();
        for watch in self.connections.borrow().values() {
            watch.order(Order::Close);
        }
    }

    /// The worker's clock: seconds since it started.
    pub fn now(&self) -> u32 {
        self.clock.get()
    }

    /// Ends idle connections whose turn has come between two moments, as shares of the time for all. Their clients
    /// had time to send one more request and be told to go.
    pub(super) fn dismiss(&self, turns: std::ops::Range<f64>) {
        for (number, watch) in self.connections.borrow().iter() {
            if turns.contains(&turn(*number)) {
                watch.order(Order::Finish);
            }
        }
    }
}

async fn run(shared: Shared, beat: Arc<AtomicU32>, mut inbox: mpsc::Receiver<Command>) {
    let worker = Rc::new(Worker {
        live: shared.live,
        process: shared.process,
        trusted: shared.trusted,
        mark: shared.mark,
        admission: shared.admission,
        tls: Configs::new(shared.tickets, shared.terms),
        access: shared.access.map(Lines::new),
        pool: Rc::default(),
        cut: CancellationToken::new(),
        clock: Rc::default(),
        beat,
        connections: RefCell::default(),
        next_connection: Cell::new(0),
        random: RefCell::new(fastrand::Rng::new()),
        draining: Cell::new(false),
        handed_over: Cell::new(false),
        serving: Cell::new(0),
        buffers: Spare::new(MOST_BUFFERS),
        telling: RefCell::default(),
        date: RefCell::new(now()),
        scratch: Rc::default(),
        seats: Rc::default(),
        known: Known::default(),
        overload: RefCell::default(),
        turning_away: Cell::new(0),
    });
    let (force, gate) = (shared.force, shared.gate);
    tokio::task::spawn_local(look(worker.clone()));
    let mut accepting: HashMap<Id, Accepting> = HashMap::new();
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    // Seconds in which the process did not run are nobody's fault.
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let drain = loop {
        let command = tokio::select! {
            command = inbox.recv() => command,
            _ = seconds.tick() => {
                worker.second_passed();
                continue;
            }
        };
        match command {
            Some(Command::Open { id, place, sockets }) => {
                let former = accepting.insert(id.clone(), open(&worker, &gate, &id, place, sockets));
                if let Some(former) = former {
                    former.stop.cancel();
                }
            }
            Some(Command::Close(id)) => {
                worker.tls.forget(&id);
                if let Some(accepting) = accepting.remove(&id) {
                    accepting.stop.cancel();
                }
            }
            Some(Command::Drain(drain)) => break drain,
            None => return,
        }
    };
    worker.draining.set(true);
    let cut = async {
        force.cancelled().await;
        worker.cut_all();
    };
    tokio::select! {
        () = finish(&worker, accepting, drain) => {}
        () = cut => {}
        () = async { loop { seconds.tick().await; worker.second_passed(); } } => {}
    }
    tokio::task::yield_now().await;
}

/// Looks how far behind the worker is: a task among the others, so that it waits as long as they do.
async fn look(worker: Rc<Worker>) {
    let mut used = thread_time();
    loop {
        let due = Instant::now() + LOOK_EVERY;
        tokio::time::sleep_until(due.into()).await;
        let now = thread_time();
        let late = due.elapsed().min(now.saturating_sub(used));
        used = now;
        worker.overload.borrow_mut().behind(late);
    }
}

/// The time this thread has run.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn now() -> String {
    httpdate::fmt_http_date(std::time::SystemTime::now())
}

/// Bytes of a buffer for a request's head; most are far shorter.
const HEAD_BUFFER: usize = 2048;
/// Bytes of a buffer that is kept.
const LARGEST_BUFFER: usize = 32 * 1024;
/// Buffers kept for the next requests.
const MOST_BUFFERS: usize = 256;
