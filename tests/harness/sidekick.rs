//! A real `etna-sidekick` on the Docker engine of the tests.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::binaries::binary;
use crate::process::Process;

/// A running sidekick.
pub struct Sidekick {
    process: Process,
}

impl Sidekick {
    /// Starts one. Containers publish their ports on loopback, so that is this host's address.
    pub async fn start(name: &str, store: &str, flags: &[&str], folder: &Path) -> Sidekick {
        let process = Process::start(name, &mut command(name, store, flags, folder), folder);
        Sidekick { process }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Everything it logged so far.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// Tells it to stop.
    pub fn terminate(&self) {
        self.process.signal("TERM");
    }

    /// Waits until it has ended.
    pub async fn end(&mut self, within: Duration) -> ExitStatus {
        self.process.end(within).await
    }

    /// Ends it as a power cut does.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// The command line of a sidekick whose machine is called `name`.
pub fn command(name: &str, store: &str, flags: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(binary("etna-sidekick"));
    command
        .args(["--store", store, "--host-ip", "127.0.0.1", "--machine-id", name, "--state-dir"])
        .arg(folder.join(format!("{name}-state")))
        .args(flags);
    command
}
