//! A real `etna serve` on ports of the kernel's choice.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use http_body_util::Full;
use serde_json::Value;

use crate::binaries::binary;
use crate::client::{self, Answer};
use crate::metrics::Metrics;
use crate::process::{Process, signal};
use crate::wait::{ensure, eventually};

/// A running proxy.
pub struct Proxy {
    /// Where it serves.
    pub listen: SocketAddr,
    /// Where its admin API is.
    pub admin: SocketAddr,
    /// Where it keeps what it must find again.
    pub state_dir: PathBuf,
    process: Process,
    /// The process that serves now, where it is not the one that was started.
    successor: Option<u32>,
}

impl Proxy {
    /// Starts one in `folder`, and waits until it is ready.
    pub async fn start(name: &str, store: &str, flags: &[&str], folder: &Path) -> Proxy {
        Proxy::start_within(name, store, flags, folder, READY).await
    }

    /// The same with another patience.
    pub async fn start_within(name: &str, store: &str, flags: &[&str], folder: &Path, within: Duration) -> Proxy {
        let proxy = Proxy::launch(name, store, flags, folder, within).await;
        proxy.until_ready(within).await;
        proxy
    }

    /// Starts one, and waits until it listens, ready or not.
    pub async fn launch(name: &str, store: &str, flags: &[&str], folder: &Path, within: Duration) -> Proxy {
        // A folder may hold a program of its own, which a test replaces.
        let own = folder.join("etna");
        let program = if own.is_file() { own } else { binary("etna") };
        Proxy::run(name, Proxy::command_of(&program, name, store, flags, folder), folder, within).await
    }

    /// Starts one from a program of the test's own, at a path where another may be put, in order to be upgraded.
    pub async fn start_upgradable(name: &str, program: &Path, store: &str, flags: &[&str], folder: &Path) -> Proxy {
        let mut command = Proxy::command_of(program, name, store, flags, folder);
        command.stdin(Stdio::null());
        let proxy = Proxy::run_by(name, command, folder, READY, Process::start_group).await;
        proxy.until_ready(READY).await;
        proxy
    }

    /// The command line of a proxy that keeps its state in `folder`.
    pub fn command(name: &str, store: &str, flags: &[&str], folder: &Path) -> Command {
        Proxy::command_of(&binary("etna"), name, store, flags, folder)
    }

    fn command_of(program: &Path, name: &str, store: &str, flags: &[&str], folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(["serve", "--store", store, "--listen", "127.0.0.1:0"]);
        if !flags.contains(&"--admin") {
            command.args(["--admin", "127.0.0.1:0"]);
        }
        if !flags.contains(&"--workers") {
            command.args(["--workers", "2"]);
        }
        command.arg("--state-dir").arg(folder.join(format!("{name}-state"))).args(flags);
        command
    }

    /// Starts a command of [`Proxy::command`], changed or not, and waits until it listens, ready or not.
    pub async fn run(name: &str, command: Command, folder: &Path, within: Duration) -> Proxy {
        Proxy::run_by(name, command, folder, within, Process::start).await
    }

    async fn run_by(
        name: &str,
        mut command: Command,
        folder: &Path,
        within: Duration,
        start: impl FnOnce(&str, &mut Command, &Path) -> Process,
    ) -> Proxy {
        let state_dir = folder.join(format!("{name}-state"));
        let mut process = start(name, &mut command, folder);
        let file = state_dir.join("addresses.json");
        let pid = process.pid();
        let (listen, admin) = eventually(&format!("{name} says its addresses"), within, async || {
            if let Some(status) = process.ended() {
                panic!("{name} ended: {status}: {}", process.said());
            }
            let text = std::fs::read(&file).map_err(|error| error.to_string())?;
            let said: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
            // One of an earlier process with the same folder may still lie there.
            ensure(said["pid"] == pid, "another process wrote it")?;
            let address = |name: &str| said[name].as_str().and_then(|text| text.parse().ok()).ok_or("no address yet");
            Ok::<(SocketAddr, SocketAddr), String>((address("listen")?, address("admin")?))
        })
        .await;
        Proxy { listen, admin, state_dir, process, successor: None }
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Waits until it is ready.
    pub async fn until_ready(&self, within: Duration) {
        eventually("the proxy is ready", within, async || {
            let answer = self.admin_get("/readyz").await?;
            ensure(answer.status == 200, answer.text())
        })
        .await;
    }

    /// The process that serves.
    pub fn pid(&self) -> u32 {
        self.successor.unwrap_or_else(|| self.process.pid())
    }

    /// Tells it to replace itself by what lies at its program's path now.
    pub fn replace(&self) {
        signal(self.pid(), "USR2");
    }

    /// Replaces it, and waits until the new process serves; the former one's id.
    pub async fn upgrade(&mut self) -> u32 {
        let former = self.pid();
        self.replace();
        let file = self.state_dir.join("addresses.json");
        let said = eventually("the new process says its addresses", READY, async || {
            let text = std::fs::read(&file).map_err(|error| error.to_string())?;
            let said: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
            let named = self.said();
            ensure(said["pid"] != former, format!("the former process wrote it; log:\n{named}"))?;
            Ok::<Value, String>(said)
        })
        .await;
        self.successor = said["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        assert_eq!(said["listen"], self.listen.to_string());
        assert_eq!(said["admin"], self.admin.to_string());
        eventually("the new process is ready", READY, async || {
            ensure(self.admin_get("/readyz").await?.status == 200, "not ready")?;
            let status: Value = self.admin_get("/v3/status").await?.json();
            ensure(status["pid"] == said["pid"], format!("process {} answers", status["pid"]))
        })
        .await;
        former
    }

    /// Waits until an attempt to replace it has failed, which is the n-th; why.
    pub async fn not_replaced(&self, n: u64) -> String {
        eventually("the attempt fails", READY, async || {
            let status: Value = self.admin_get("/v3/status").await?.json();
            ensure(status["upgrades"]["failed"] == n, format!("{}", status["upgrades"]))?;
            ensure(status["pid"] == self.pid(), "another process serves")?;
            Ok::<String, String>(status["last_upgrade"]["reason"].as_str().unwrap_or_default().to_owned())
        })
        .await
    }

    /// Its last table on disk, if it has written one.
    pub fn last_table(&self) -> Option<PathBuf> {
        let files = std::fs::read_dir(&self.state_dir).ok()?.flatten().map(|entry| entry.path());
        let is_newest = |path: &PathBuf| {
            path.extension().is_none()
                && path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("last-"))
        };
        files.into_iter().find(is_newest)
    }

    /// Everything it logged so far.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// Waits until it logged this.
    pub async fn until_said(&self, what: &str) {
        self.process.until_said(what).await;
    }

    /// One request to a host it serves, on a connection of its own.
    pub async fn get(&self, host: &str, path: &str) -> Result<Answer, String> {
        client::get(self.listen, host, path).await
    }

    /// Waits until a request is answered with this status.
    pub async fn until_status(&self, host: &str, path: &str, status: u16) -> Answer {
        eventually(&format!("{host}{path} is answered {status}"), SOON, async || {
            let answer = self.get(host, path).await?;
            let got = format!("{} {}", answer.status, answer.text());
            if answer.status == status { Ok(answer) } else { Err(got) }
        })
        .await
    }

    /// One request to its admin API.
    pub async fn admin_get(&self, path: &str) -> Result<Answer, String> {
        client::get(self.admin, &self.admin.to_string(), path).await
    }

    /// A change asked of its admin API, as JSON.
    pub async fn admin_post(&self, path: &str, body: &Value) -> Result<Answer, String> {
        let request = client::request("POST", &self.admin.to_string(), path).header("content-type", "application/json");
        let request = request.body(Full::new(body.to_string().into())).expect("a valid request");
        client::send(self.admin, request).await
    }

    /// A JSON document of its admin API.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.admin_get(path).await.expect("the admin API answers");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.text()))
    }

    /// What it counts.
    pub async fn metrics(&self) -> Metrics {
        let answer = self.admin_get("/metrics").await.expect("the admin API answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Metrics::parse(&answer.text())
    }

    /// The problems it reports.
    pub async fn problems(&self) -> Vec<Value> {
        match self.json("/v3/problems").await {
            Value::Array(problems) => problems,
            Value::Object(mut object) => match object.remove("problems") {
                Some(Value::Array(problems)) => problems,
                other => panic!("/v3/problems holds no list: {other:?}"),
            },
            other => panic!("/v3/problems is no list: {other}"),
        }
    }

    /// Where a stored listener listens, once it does.
    pub async fn listener(&self, id: &str) -> SocketAddr {
        eventually(&format!("it listens at {id}"), SOON, async || {
            let status = self.json("/v3/status").await;
            let address = status["listeners"][id].as_str().and_then(|text| text.parse().ok());
            let problems = self.problems().await;
            address.ok_or_else(|| format!("{} {problems:?}", status["listeners"]))
        })
        .await
    }

    /// The revision in force.
    pub async fn revision(&self) -> i64 {
        let status = self.json("/v3/status").await;
        status["revision"].as_i64().unwrap_or_else(|| panic!("/v3/status has no revision: {status}"))
    }

    /// Waits until a revision is in force.
    pub async fn until_revision(&self, revision: i64) {
        eventually(&format!("revision {revision} is in force"), READY, async || {
            let now = self.revision().await;
            ensure(now >= revision, format!("{now} is"))
        })
        .await;
    }

    /// Waits until the last table is on disk at a revision, or a later one that is in force.
    pub async fn until_kept(&self, revision: i64) {
        eventually(&format!("revision {revision} is on disk"), KEPT, async || {
            let metrics = self.metrics().await;
            let [kept, now] = ["etna_last_table_revision", "etna_store_revision"].map(|name| metrics.sum(name, &[]));
            ensure(kept >= Some(revision as f64) && kept <= now, format!("{kept:?} is, {now:?} is in force"))
        })
        .await;
    }

    /// Tells it to drain.
    pub fn terminate(&self) {
        signal(self.pid(), "TERM");
    }

    /// Waits until the process that was started has ended.
    pub async fn end(&mut self, within: Duration) -> ExitStatus {
        self.process.end(within).await
    }

    /// Ends it as a power cut does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel says VmRSS");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("VmRSS is a number");
        kib * 1024
    }
}

/// Until a proxy is ready, its store being there.
const READY: Duration = Duration::from_secs(20);
/// A proxy on a slow disk rests ten seconds between writing its table and writing it again.
const KEPT: Duration = Duration::from_secs(30);
/// Until a change is in force, on a machine that does other things, too.
const SOON: Duration = Duration::from_secs(20);
