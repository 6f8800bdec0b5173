//! What floods run on: a bed whose proxy understands HTTP/2, a server that never answers, others who go on meanwhile,
//! and what is measured.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use etna_tests::stand_in::{Manner, StandIn};

use super::standing::Standing;
use crate::bed::{Bed, HOST};
use crate::control::busy;
use crate::denial::{MB, Memory, Probe, Probed, unnoticed};
use crate::drill::{Length, Outcome};

/// The host of a route whose server never answers.
pub(super) const HANGS: &str = "hangs.test";

pub(super) struct Ground {
    pub(super) bed: Bed,
    /// Where both versions of HTTP are understood.
    pub(super) at: SocketAddr,
    /// The server that never answers.
    pub(super) hangs: StandIn,
    length: Length,
    /// Others, while nothing else goes on: over HTTP/1.1, over HTTP/2, and of a core what they cost.
    before: (Probed, Probed, f64),
    requests: u64,
    failed: u64,
    told: Vec<String>,
    wrong: Vec<String>,
}

/// An attack under way.
pub(super) struct Attack {
    http1: Probe,
    http2: Standing,
    memory: Memory,
    began: Instant,
    busy: u64,
}

/// What an attack cost.
pub(super) struct Cost {
    /// Megabytes of memory.
    pub(super) memory: f64,
    /// Seconds of a core, beyond what others cost.
    pub(super) processor: f64,
    /// How long it went on.
    pub(super) took: Duration,
}

impl Ground {
    /// Opens it, and looks at what others get while nothing goes on.
    pub(super) async fn open(name: &str, length: Length) -> Ground {
        let bed = Bed::start(name, length).await;
        let hangs = StandIn::start("hangs").await;
        hangs.set(Manner::Hang);
        bed.scene.route("hangs", HANGS, &[("s", hangs.address)]).await;
        let at = etna_tests::h2::open(&bed.scene, &bed.proxy).await;
        let (began, ticks) = (Instant::now(), busy(bed.proxy.pid()));
        let (http1, http2) = (Probe::start(at, HOST), Standing::start(at).await);
        tokio::time::sleep(length.pick(10, 1) * SECOND).await;
        let (http1, http2) = (http1.stop().await, http2.stop().await);
        let cores = (busy(bed.proxy.pid()) - ticks) as f64 / TICKS / began.elapsed().as_secs_f64();
        let requests = http1.sent + http2.sent;
        let mut ground = Ground {
            bed,
            at,
            hangs,
            length,
            before: (http1, http2, cores),
            requests,
            failed: 0,
            told: Vec::new(),
            wrong: Vec::new(),
        };
        let quiet = ground.before.0.wrong.is_empty() && ground.before.1.wrong.is_empty();
        ground.check("before", quiet, || "others are not served even while nothing goes on".into());
        ground
    }

    /// Others go on, and an attack may begin.
    pub(super) async fn attack(&self) -> Attack {
        let pid = self.bed.proxy.pid();
        Attack {
            http1: Probe::start(self.at, HOST),
            http2: Standing::start(self.at).await,
            memory: Memory::watch(pid),
            began: Instant::now(),
            busy: busy(pid),
        }
    }

    /// An attack is over: what it cost, and others must not have noticed.
    pub(super) async fn over(&mut self, name: &str, attack: Attack) -> Cost {
        let (cost, noticed) = self.end(name, attack).await;
        self.check(name, noticed.is_empty(), || noticed.join("; "));
        cost
    }

    /// The same of one that asks for so much at once as honest clients might: others may have to wait for their turn, but
    /// are all served, and none of its `many` connections may take more than its share of a core.
    pub(super) async fn over_in_turn(&mut self, name: &str, attack: Attack, many: usize) -> Cost {
        let (cost, _) = self.end(name, attack).await;
        let one = cost.processor / many as f64 * 1000.0;
        self.check(name, self.length.fast(one <= MOST_MS), || {
            format!("{one:.1} ms of a core for each connection (<= {MOST_MS})")
        });
        cost
    }

    async fn end(&mut self, name: &str, attack: Attack) -> (Cost, Vec<String>) {
        // As long as nobody could have noticed, there is nothing to be seen.
        tokio::time::sleep((SECOND / 2).saturating_sub(attack.began.elapsed())).await;
        let took = attack.began.elapsed();
        let ticks = busy(self.bed.proxy.pid()) - attack.busy;
        let (http1, http2) = (attack.http1.stop().await, attack.http2.stop().await);
        let memory = attack.memory.stop().await / MB;
        let (quiet1, quiet2, cores) = &self.before;
        let processor = (ticks as f64 / TICKS - cores * took.as_secs_f64()).max(0.0);
        let mut noticed = Vec::new();
        for (version, before, during) in [("HTTP/1.1", quiet1, &http1), ("HTTP/2", quiet2, &http2)] {
            let (others, unharmed) = unnoticed(self.length, before, during);
            if !unharmed {
                noticed.push(format!("over {version} {others}"));
            }
        }
        self.requests += http1.sent + http2.sent;
        self.failed += (http1.wrong.len() + http2.wrong.len()) as u64;
        self.told.push(format!(
            "{name}: CPU {processor:.2} s in {:.1} s, memory +{memory:.1} MB, others' p99 {:.1} and {:.1} ms",
            took.as_secs_f64(),
            http1.p99(),
            http2.p99()
        ));
        (Cost { memory, processor, took }, noticed)
    }

    /// Something that must be so.
    pub(super) fn check(&mut self, name: &str, right: bool, why: impl FnOnce() -> String) {
        if !right {
            self.wrong.push(format!("{name}: {}", why()));
        }
    }

    /// Something to tell.
    pub(super) fn tell(&mut self, said: String) {
        self.told.push(said);
    }

    /// The end: the proxy still serves, and no bug was met.
    pub(super) async fn outcome(mut self, load: impl Into<String>) -> Outcome {
        let panics = self.bed.proxy.metrics().await.sum("etna_panics_total", &[]);
        self.check("afterwards", panics == Some(0.0), || format!("panics: {panics:?}"));
        let answer = self.bed.proxy.get(HOST, "/").await.map(|answer| answer.status);
        self.check("afterwards", answer == Ok(200), || format!("{answer:?}"));
        let (http1, http2, _) = &self.before;
        let wrong = if self.wrong.is_empty() { String::new() } else { format!("; WRONG {}", self.wrong.join("; ")) };
        let figure =
            format!("others' p99 before {:.1} and {:.1} ms; {}{wrong}", http1.p99(), http2.p99(), self.told.join("; "));
        let pass = self.wrong.is_empty() && self.failed == 0;
        Outcome { load: load.into(), requests: self.requests, failed: self.failed, figure, pass }
    }
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
/// Of a core, for all that a connection asks for at once.
const MOST_MS: f64 = 50.0;
/// Of the kernel's clock in a second (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;
