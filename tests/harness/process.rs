//! A child process: its output goes to a file, it dies with its handle, and a test that fails shows what it said.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::wait::eventually;

/// A running child.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it. Output is appended to `NAME.log` in `folder`.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> Process {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("the log can be written");
        let errors = file.try_clone().expect("a file handle can be cloned");
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: cannot start {command:?}: {error}"));
        Process { name: name.to_owned(), child, log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it said so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
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
        let status =
            Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status().expect("sh runs");
        assert!(status.success(), "{} (process {}) cannot be sent {name}", self.name, self.pid());
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
