//! A child process: its output goes to a file, it dies with its handle, and a test that fails shows what it said.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::wait::eventually;

/// A running child.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Whether it leads a group of its own, with which it dies: for what starts processes that outlive it.
    leads: bool,
}

impl Process {
    /// Starts it. Output is appended to `NAME.log` in `folder`.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> Process {
        Process::spawn(name, command.stdin(Stdio::null()), folder, false)
    }

    /// Starts what may replace itself by another process: all of them die with this handle. The command's standard
    /// input is the caller's choice.
    pub fn start_group(name: &str, command: &mut Command, folder: &Path) -> Process {
        Process::spawn(name, command.process_group(0), folder, true)
    }

    fn spawn(name: &str, command: &mut Command, folder: &Path, leads: bool) -> Process {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("the log can be written");
        let errors = file.try_clone().expect("a file handle can be cloned");
        command.stdout(file).stderr(errors);
        let deadline = Instant::now() + NOT_BUSY;
        let child = loop {
            match command.spawn() {
                // A file that was just written: another thread's child has it open until it becomes another program.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                spawned => break spawned,
            }
        };
        let child = child.unwrap_or_else(|error| panic!("{name}: cannot start {command:?}: {error}"));
        Process { name: name.to_owned(), child, log, leads }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it said so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it said this: programs answer first, and their logs are written behind them.
    pub async fn until_said(&self, what: &str) {
        eventually(&format!("{} says {what:?}", self.name), SAID, async || {
            let said = self.said();
            if said.contains(what) { Ok(()) } else { Err(said) }
        })
        .await;
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until it ends by itself.
    pub async fn end(&mut self, within: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, within, async || self.ended().ok_or("it still runs")).await
    }

    /// Sends a signal by name: `TERM`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        if self.leads {
            // Without the `--` that some shells do not know.
            let group = format!("kill -KILL -{}", self.pid());
            let _ = Command::new("sh").args(["-c", &group]).stderr(Stdio::null()).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a process a signal by name.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().expect("sh runs");
    assert!(status.success(), "process {pid} cannot be sent {name}");
}

/// Makes a pipe, which nobody else may read.
pub fn pipe(path: &Path) {
    let made = Command::new("mkfifo").args(["-m", "600"]).arg(path).status().expect("mkfifo runs");
    assert!(made.success(), "{} cannot be made", path.display());
}

/// Whether a process runs; one that has ended and that nobody has asked about does not.
pub fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // PID (COMMAND) STATE …; the command may hold anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
            let _ = writeln!(std::io::stderr(), "---- {} (process {}) said last:\n{last}\n----", self.name, self.pid());
        }
    }
}

/// Runs a command to its end; what it printed. Panics if it fails.
pub fn output_of(command: &mut Command) -> String {
    match try_output_of(command) {
        Ok(printed) => printed,
        Err(error) => panic!("{error}"),
    }
}

/// Runs a command to its end; what it printed, or how it failed with what it said.
pub fn try_output_of(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

const LINES_SHOWN: usize = 40;
/// Until a log is written, on a machine that does other things, too.
const SAID: Duration = Duration::from_secs(20);
/// How long a program may be open for writing in somebody else's hands.
const NOT_BUSY: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_group_dies_with_its_handle() {
        let folder = crate::etcd::folder("group");
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]).stdin(Stdio::null());
        let group = Process::start_group("group", &mut command, folder.path());
        let other: u32 = eventually("it says whom it started", NOT_BUSY, async || group.said().trim().parse()).await;
        assert!(is_running(other));
        drop(group);
        eventually("all of it is gone", NOT_BUSY, async || if is_running(other) { Err("not yet") } else { Ok(()) })
            .await;
    }
}
