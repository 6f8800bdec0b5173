//! How much memory a process takes; and E16: attacks on a process that has 128 MB.

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{MB, slow_head};
use crate::bed::{Bed, HOST, Rate};
use crate::drill::{Length, Outcome};

/// Looks at a process's resident memory ten times a second.
pub(crate) struct Memory {
    stop: Sender<()>,
    runner: JoinHandle<f64>,
}

impl Memory {
    /// Begins.
    pub(crate) fn watch(pid: u32) -> Memory {
        let (stop, stopped) = channel();
        let first = resident(pid).unwrap_or_default();
        let runner = std::thread::spawn(move || {
            let mut most = first;
            while stopped.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
                most = most.max(resident(pid).unwrap_or_default());
            }
            (most - first) as f64
        });
        Memory { stop, runner }
    }

    /// By how many bytes it was larger than at the beginning, at most.
    pub(crate) async fn stop(self) -> f64 {
        drop(self.stop);
        tokio::task::spawn_blocking(|| self.runner.join().expect("it ran")).await.expect("it ended")
    }
}

/// Resident memory that is the process's own, in bytes; none once it has ended. What it maps of its program's file, page by
/// page as rare code runs, is the kernel's, and goes when it is wanted.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Slow heads, heads of 30 KiB that never end, and a load, all at once, in a group of processes that is ended by the
/// kernel when it takes more. Where such groups cannot be made, resident memory is looked at instead.
pub(super) async fn run(length: Length) -> Outcome {
    let bed = Bed::start("memory", length).await;
    let group = Group::of(bed.proxy.pid(), 128 << 20);
    let load = bed.load(Rate::L2k).await;
    let memory = Memory::watch(bed.proxy.pid());
    let at_rest = resident(bed.proxy.pid()).unwrap_or_default() as f64;
    let more: &'static [u8] = Box::leak([b"X: ".as_slice(), &vec![b'x'; 30 * 1024]].concat().into_boxed_slice());
    let (slow, large) = tokio::join!(
        slow_head::attack(bed.proxy.listen, length.pick(10_000, 500), b""),
        slow_head::attack(bed.proxy.listen, length.pick(1000, 50), more),
    );
    let most = (memory.stop().await + at_rest) / MB;
    let traffic = bed.finish(load).await;
    let alive = resident(bed.proxy.pid()).is_some();
    let served = match alive {
        true => bed.proxy.get(HOST, "/").await.map(|answer| answer.status).unwrap_or_default(),
        false => 0,
    };
    // Shedding is allowed; being ended is not.
    let shed = traffic.report.wrong.iter().filter(|(_, _, why)| why.contains("503")).count();
    let lost = traffic.report.wrong.len() - shed;
    let how = if group.is_some() { "cgroup" } else { "no cgroup: by resident memory" };
    let figure = format!(
        "{how} of 128 MB; at most {most:.0} MB resident, {}; {} slow and {} large heads; {shed} shed, {lost} lost",
        if alive { "alive" } else { "ENDED" },
        slow.len(),
        large.len()
    );
    let pass = alive && served == 200 && lost == 0 && (group.is_some() || most < 128.0);
    Outcome { pass, ..Outcome::of(&traffic.says, &traffic.report, figure, pass) }
}

/// A memory group of the kernel's with one process in it; it goes when the process has.
struct Group(PathBuf);

impl Group {
    fn of(pid: u32, bytes: u64) -> Option<Group> {
        let (root, limit) = match PathBuf::from("/sys/fs/cgroup/memory") {
            first if first.is_dir() => (first, "memory.limit_in_bytes"),
            _ => (PathBuf::from("/sys/fs/cgroup"), "memory.max"),
        };
        let group = Group(root.join(format!("etna-drill-{pid}")));
        std::fs::create_dir(&group.0).ok()?;
        std::fs::write(group.0.join(limit), bytes.to_string()).ok()?;
        std::fs::write(group.0.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Whoever is still in it is the proxy, which ends later: it is put back first.
        if let Some(pid) = self.0.file_name().and_then(|name| name.to_str()?.strip_prefix("etna-drill-")) {
            let _ = self.0.parent().map(|root| std::fs::write(root.join("cgroup.procs"), pid));
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}
