//! A process of a peer: started on one core, looked at through `/proc`, ended with all its children when dropped.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// A running process and its children.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` on `cores` (`0`, or `0,1`); what it prints goes to `log`.
    pub(crate) fn start(cores: impl Display, mut command: Command, log: &Path) -> anyhow::Result<Process> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        // taskset becomes the program, so the process id is the program's.
        let mut pinned = Command::new("taskset");
        pinned.arg("--cpu-list").arg(cores.to_string()).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => pinned.env(name, value),
                None => pinned.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            pinned.current_dir(dir);
        }
        pinned.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        command = pinned;
        let child = command.spawn().context("cannot start taskset (package util-linux)")?;
        Ok(Process { child, log: log.to_owned() })
    }

    /// Ends it the polite way, so that it can clear away its own children; after three seconds the other way.
    pub(crate) async fn end(mut self) {
        let _ = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).stderr(Stdio::null()).status();
        let deadline = Instant::now() + Duration::from_secs(3);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Fails if it has ended, with what it said.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("ended with {status}:\n{}", self.said()),
        }
    }

    /// The end of what it printed.
    pub(crate) fn said(&self) -> String {
        let text = String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Time on the CPU so far, user and system, of the process and its children that still run.
    pub(crate) fn cpu(&self) -> Duration {
        let ticks: u64 = self.tree().iter().filter_map(|pid| Some(Stat::read(*pid)?.ticks)).sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// Resident memory in bytes, summed; pages that processes share count for each.
    pub(crate) fn resident(&self) -> u64 {
        let of = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        self.tree().iter().filter_map(of).sum::<u64>() * 1024
    }

    /// The process and everything below it.
    fn tree(&self) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(stat) = Stat::read(pid) {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        let mut tree = vec![self.child.id()];
        let mut next = 0;
        while let Some(pid) = tree.get(next) {
            tree.extend(children.remove(pid).unwrap_or_default());
            next += 1;
        }
        tree
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // A child is ours until waited for, also if it has just ended: none of these ids can be somebody else's.
        let pids = self.tree().into_iter().map(|pid| pid.to_string());
        let _ = Command::new("kill").arg("-KILL").args(pids).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is used of `/proc/PID/stat` (proc(5)).
struct Stat {
    parent: u32,
    /// User and system time.
    ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Stat> {
        Stat::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(line: &str) -> Option<Stat> {
        // The second field is the program's name in parentheses, and may hold both spaces and parentheses.
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat { parent: number(4)?.try_into().ok()?, ticks: number(14)? + number(15)? })
    }
}

/// What a program says when asked for its version: the first line of its output.
pub(crate) fn version(program: impl AsRef<OsStr>, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
}

/// `USER_HZ`, which is 100 on every architecture that Linux shows to programs.
const TICKS_PER_SECOND: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_no_field() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 200";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 300));
        assert!(Stat::parse("42 (a").is_none());
    }

    #[test]
    fn children_are_looked_at_and_ended_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo $! && wait"]);
        let process = Process::start(0, command, &dir.path().join("log")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while process.tree().len() < 2 {
            assert!(Instant::now() < deadline, "the child does not show up");
            std::thread::yield_now();
        }
        let child = process.tree()[1];
        assert!(process.resident() > 0);
        drop(process);
        // It may stay for a moment as a zombie of whoever adopts it.
        let gone =
            || Stat::read(child).is_none() || std::fs::read(format!("/proc/{child}/cmdline")).unwrap().is_empty();
        while !gone() {
            assert!(Instant::now() < deadline, "the child still runs");
            std::thread::yield_now();
        }
    }
}
