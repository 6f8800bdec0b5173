//! A real `etna serve` on ports of the kernel's choice.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use http_body_util::Full;
use serde_json::Value;

use crate::binaries::binary;
use crate::client::{self, Answer};
use crate::metrics::Metrics;
use crate::process::Process;
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
        let state_dir = folder.join(format!("{name}-state"));
        let mut command = Command::new(binary("etna"));
        command.args(["serve", "--store", store, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        if !flags.contains(&"--workers") {
            command.args(["--workers", "2"]);
        }
        command.arg("--state-dir").arg(&state_dir).args(flags);
        let mut process = Process::start(name, &mut command, folder);
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
        Proxy { listen, admin, state_dir, process }
    }

    /// Waits until it is ready.
    pub async fn until_ready(&self, within: Duration) {
        eventually("the proxy is ready", within, async || {
            let answer = self.admin_get("/readyz").await?;
            ensure(answer.status == 200, answer.text())
        })
        .await;
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Everything it logged so far.
    pub fn said(&self) -> String {
        self.process.said()
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

    /// Tells it to drain.
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
/// Until a change is in force, on a machine that does other things, too.
const SOON: Duration = Duration::from_secs(5);
