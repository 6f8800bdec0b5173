//! A Docker engine: the machine's own where one answers, else one that `testbed/engine.sh` starts and stops.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Weak};

use crate::process::{output_of, try_output_of};
use crate::report;
use crate::turn::Turn;

/// An engine that answers.
pub struct Docker {
    /// An image with this machine's Debian and nothing else.
    pub base: String,
    host: Option<String>,
    started: bool,
}

impl Docker {
    /// The engine that all tests share. It is stopped, if we started it, with the last test that holds it.
    /// `None`, said aloud and counted, where none can run; on CI that fails.
    pub async fn shared() -> Option<Arc<Docker>> {
        let mut shared = SHARED.lock().await;
        let docker = match shared.upgrade() {
            Some(docker) => docker,
            None => {
                // Starting it would disturb a test that measures. A test takes its own turn after this.
                let _turn = Turn::shared().await;
                match tokio::task::spawn_blocking(Docker::start).await.expect("the scripts run") {
                    Ok(docker) => Arc::new(docker),
                    Err(error) => {
                        report::skipped("docker", &error);
                        return None;
                    }
                }
            }
        };
        *shared = Arc::downgrade(&docker);
        report::ran("docker");
        Some(docker)
    }

    /// Its URL, for `--docker`.
    pub fn url(&self) -> String {
        self.host.clone().unwrap_or_else(|| "unix:///var/run/docker.sock".into())
    }

    /// Runs `docker` with arguments; what it printed. Panics if it fails.
    pub fn run(&self, args: &[&str]) -> String {
        output_of(&mut self.command(args))
    }

    /// The same, without panicking.
    pub fn try_run(&self, args: &[&str]) -> Result<String, String> {
        try_output_of(&mut self.command(args))
    }

    /// Restarts the engine while its containers go on. `false` if it is the machine's own: others may be using it.
    pub fn restart(&self) -> bool {
        if self.started {
            output_of(script("engine.sh").arg("restart"));
        }
        self.started
    }

    /// Runs a script of the testbed; what it printed.
    pub fn script(&self, name: &str, args: &[&str]) -> String {
        output_of(script(name).args(args).env("ETNA_TESTBED_OWNER", std::process::id().to_string()))
    }

    fn start() -> Result<Docker, String> {
        let said = try_output_of(script("engine.sh").arg("up"))?;
        let (how, host) = said.trim().split_once(' ').ok_or("engine.sh did not say where the engine is")?;
        let host = Some(host.to_owned()).filter(|host| host != "default");
        let mut docker = Docker { base: String::new(), host, started: how == "started" };
        let said = try_output_of(script("images.sh").arg("base"))?;
        docker.base = said.split_whitespace().nth(1).ok_or("images.sh did not say the image")?.to_owned();
        // An engine may answer and yet be unable to run anything: inside a container without cgroups of its own, say.
        try_output_of(&mut docker.command(&["run", "--rm", "--network", "none", &docker.base, "true"]))?;
        Ok(docker)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command.args(args);
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if self.started {
            let _ = try_output_of(script("engine.sh").arg("down"));
        }
    }
}

fn script(name: &str) -> Command {
    Command::new(testbed().join(name))
}

fn testbed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testbed")
}

static SHARED: tokio::sync::Mutex<Weak<Docker>> = tokio::sync::Mutex::const_new(Weak::new());
