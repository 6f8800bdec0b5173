//! B1, B2, B4, B9: a server is there no more, or not now, or only seems to be.

use std::cell::Cell;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use etna_tests::process::{output_of, try_output_of};
use etna_tests::scene::{server_at, server_key};
use serde_json::{Value, json};

use crate::bed::{BACKEND, Bed, Needs, Rate};
use crate::drill::{Length, Outcome};
use crate::load_shape;
use crate::servers_handle::Echo;

/// B1: what may be repeated is, the rest fails only where the server may have begun it.
pub(crate) async fn killed(length: Length) -> Outcome {
    let mut bed = Bed::start("b1", length).await;
    // Executed at once and answered later, so that a kill always finds some that are done but not answered.
    let delay = length.pick("delay=20", "delay=100");
    for server in &bed.servers {
        server.set(delay).await;
    }
    let load = bed.load(Rate::L5k).await;
    let (times, apart) = length.pick((5, Duration::from_secs(3)), (2, Duration::from_millis(500)));
    let mut kills = Vec::new();
    for n in 0..times {
        let place = n % bed.servers.len();
        let before = load.began.elapsed();
        bed.servers[place].kill();
        kills.push((before, load.began.elapsed()));
        load.go_on(apart).await;
        bed.servers[place].restart().await;
        bed.servers[place].set(delay).await;
        load.go_on(apart).await;
    }
    let traffic = bed.finish(load).await;
    // Due before a server was gone, not answered before it went: that is what may have been under way there.
    let may_fail =
        |due: Duration, ended: Duration| kills.iter().any(|(before, after)| due <= *after && ended >= *before);
    let once: Vec<_> = traffic.report.wrong.iter().filter(|(id, ..)| load_shape::is_once(*id)).collect();
    let excused = once.iter().filter(|(id, ended, _)| {
        traffic.samples.iter().find(|sample| sample.id == *id).is_some_and(|sample| may_fail(sample.due, *ended))
    });
    let excused = excused.count();
    let figure = format!(
        "{times} kills: {} idempotent failed, {} others, {excused} of them in flight; 0 executed twice; p99 {:.1} ms",
        traffic.failed_idempotent(),
        once.len(),
        traffic.report.latency_ms(0.99)
    );
    let twice = traffic.report.wrong.iter().any(|(_, _, why)| why.contains("executed"));
    let figure = if twice { figure.replace("0 executed twice", "SOME EXECUTED TWICE") } else { figure };
    traffic.outcome_if(figure, traffic.failed_idempotent() == 0 && excused == once.len() && !twice)
}

/// B2: it takes connections and requests, and never answers.
pub(crate) async fn stopped(length: Length) -> Outcome {
    let check = json!({ "Path": "/health", "Interval": "1s", "Timeout": "1s", "Fall": 2, "Rise": 2 });
    let backend = json!({ "Settings": { "Timeouts": { "Read": "1s" } }, "HealthCheck": check });
    let bed = Bed::with("b2", length, Needs { backend, ..Needs::default() }).await;
    let load = bed.load(Rate::L2k).await;
    load.go_on(length.pick(Duration::from_secs(5), Duration::from_secs(1))).await;
    let stop = load.began.elapsed();
    bed.servers[2].signal("STOP");
    load.go_on(length.pick(Duration::from_secs(30), Duration::from_secs(6))).await;
    let go_on = load.began.elapsed();
    bed.servers[2].signal("CONT");
    load.go_on(Duration::from_secs(11)).await;
    let traffic = bed.finish(load).await;

    // A request that met the stopped server failed, or took as long as the server was waited for.
    let met = |sample: &&crate::load::Sample| {
        let stopped = sample.due + sample.latency > stop && sample.due < go_on;
        stopped && (sample.server.is_none() || sample.latency >= Duration::from_millis(900))
    };
    let first_timeout = stop + Duration::from_secs(1);
    let ejected_by = first_timeout + Duration::from_secs(3);
    let in_flight = traffic.samples.iter().filter(met).filter(|sample| sample.due <= ejected_by).count();
    let probes: Vec<Duration> =
        traffic.samples.iter().filter(met).map(|sample| sample.due).filter(|due| *due > ejected_by).collect();
    // One request a probe, and never two within a second.
    let crowded = probes.windows(2).filter(|pair| pair[1].saturating_sub(pair[0]) < Duration::from_secs(1)).count();
    let last = traffic.last(|sample| met(&sample) && sample.due <= ejected_by);
    let ejected = last.map_or(Duration::ZERO, |last| last.saturating_sub(first_timeout));
    let back =
        traffic.first(|sample| sample.due > go_on && sample.server.as_deref() == Some(bed.servers[2].id.as_str()));
    let back = back.map(|at| at.saturating_sub(go_on));
    let before = traffic.latency_ms(0.99, Duration::from_millis(500), stop);
    let during = traffic.latency_ms(0.99, ejected_by, go_on);
    let failed = traffic.report.wrong.len();
    let figure = format!(
        "ejected {ejected:.1?} after the first time-out (<= 3 s); {in_flight} met it before, {} later; {failed} failed, {} \
         of them idempotent; back after {} (<= 10 s); others' p99 {before:.1} -> {during:.1} ms",
        probes.len(),
        traffic.failed_idempotent(),
        back.map_or("never".into(), |back| format!("{back:.1?}")),
    );
    let pass = in_flight > 0
        && ejected <= Duration::from_secs(3)
        && crowded == 0
        && failed <= in_flight + probes.len()
        && back.is_some_and(|back| back <= Duration::from_secs(10))
        && length.fast(during <= (before * 2.0).max(before + JITTER_MS));
    traffic.outcome_if(figure, pass)
}

/// B4: it is killed and started again, all the time.
pub(crate) async fn flapping(length: Length) -> Outcome {
    let check = json!({ "Path": "/health", "Interval": "200ms", "Timeout": "200ms", "Fall": 1, "Rise": 1 });
    let mut bed = Bed::with("b4", length, Needs { backend: json!({ "HealthCheck": check }), ..Needs::default() }).await;
    let load = bed.load(Rate::L2k).await;
    let seconds = length.pick(60, 6);
    let mut flapper = bed.servers.pop().expect("there are three");
    let over = Cell::new(false);
    let flap = async {
        for _ in 0..seconds / 2 {
            flapper.kill();
            load.go_on(Duration::from_secs(1)).await;
            flapper.restart().await;
            load.go_on(Duration::from_secs(1)).await;
        }
        over.set(true);
    };
    let name = format!("{BACKEND}-2");
    let watch = async {
        let (mut before, mut changes) = (true, 0);
        while !over.get() {
            if let Some(now) = serving(&bed, &name).await {
                changes += u32::from(now != before);
                before = now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        changes
    };
    let ((), changes) = tokio::join!(flap, watch);
    bed.servers.push(flapper);
    let traffic = bed.finish(load).await;
    let figure = format!(
        "{} idempotent failed, {} others; {changes} changes of health in {seconds} s (<= 1 per 5 s); p99 {:.1} ms",
        traffic.failed_idempotent(),
        traffic.report.wrong.len() - traffic.failed_idempotent(),
        traffic.report.latency_ms(0.99)
    );
    traffic.outcome_if(figure, traffic.failed_idempotent() == 0 && changes >= 1 && changes <= 1 + seconds / 5)
}

/// Whether the proxy holds a server for well.
async fn serving(bed: &Bed, id: &str) -> Option<bool> {
    let health: Value = bed.proxy.admin_get("/v3/health").await.ok().filter(|answer| answer.status == 200)?.json();
    let backends = health["backends"].as_array()?.iter();
    let mut servers =
        backends.filter(|backend| backend["id"] == BACKEND).flat_map(|b| b["servers"].as_array()).flatten();
    servers.find(|server| server["id"] == id)?["serving"].as_bool()
}

/// B9: connecting to a server takes for ever.
pub(crate) async fn vanished(length: Length) -> Outcome {
    let backend = json!({ "Settings": { "Timeouts": { "Dial": "500ms" } } });
    let bed = Bed::with("b9", length, Needs { servers: 2, backend, ..Needs::default() }).await;
    let third = Echo::start(&format!("{BACKEND}-gone"), bed.scene.folder()).await;
    let hole = Hole::dig(&third);
    let load = bed.load(Rate::L2k).await;
    load.go_on(length.pick(Duration::from_secs(3), Duration::from_millis(500))).await;
    let added = load.began.elapsed();
    bed.scene.put(&server_key(BACKEND, &third.id), server_at(third.address)).await;
    load.go_on(length.pick(Duration::from_secs(20), Duration::from_secs(3))).await;
    let traffic = bed.finish(load).await;
    let longest = traffic.latency_ms(1.0, added, Duration::MAX);
    let late = traffic.samples.iter().filter(|sample| sample.latency >= Duration::from_millis(450)).count();
    let reached = third.attempts();
    let figure = format!(
        "by {}; {late} requests waited for it, the longest {longest:.0} ms (<= 1 s + 100 ms); {reached} reached it",
        hole.how()
    );
    traffic.outcome(figure, late > 0 && reached == 0 && length.fast(longest <= 1100.0))
}

/// Where packets that open connections to an address are lost.
enum Hole {
    /// The kernel's filter drops them, until this ends.
    Filter(Vec<String>),
    /// Nobody accepts the connections that fill the listener's queue.
    Queue(#[expect(dead_code, reason = "held")] Vec<TcpStream>),
}

impl Hole {
    fn dig(server: &Echo) -> Hole {
        let address = server.address;
        let rule = format!("INPUT -p tcp -d {} --dport {} --syn -j DROP", address.ip(), address.port());
        let rule: Vec<String> = rule.split(' ').map(str::to_owned).collect();
        if try_output_of(Command::new("iptables").arg("-I").args(&rule)).is_ok() {
            return Hole::Filter(rule);
        }
        // Frozen, it accepts nothing: its queue fills, and then the kernel drops what comes.
        server.signal("STOP");
        let mut held = Vec::new();
        let began = Instant::now();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            held.push(stream);
            assert!(began.elapsed() < Duration::from_secs(20), "the queue does not fill");
        }
        Hole::Queue(held)
    }

    fn how(&self) -> &'static str {
        match self {
            Hole::Filter(_) => "iptables DROP of SYN",
            Hole::Queue(_) => "a full queue of connections",
        }
    }
}

impl Drop for Hole {
    fn drop(&mut self) {
        if let Hole::Filter(rule) = self {
            output_of(Command::new("iptables").arg("-D").args(rule));
        }
    }
}

/// What a p99 of a few milliseconds may change without meaning.
const JITTER_MS: f64 = 10.0;
