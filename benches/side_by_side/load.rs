//! The closed loop: wrk, pinned beside the servers, and what it counted.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::peer::{BLOG, Running};

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    /// Connections at a time.
    pub(crate) connections: u32,
    /// Host header.
    pub(crate) host: &'static str,
    /// Path.
    pub(crate) path: &'static str,
    /// Whether every request gets a connection of its own.
    pub(crate) close: bool,
    /// If there are any: for each request one of so many frontends' hosts is drawn.
    pub(crate) frontends: usize,
    /// A cookie that is sent, if there is one.
    pub(crate) cookie: Option<&'a str>,
}

/// What most scenarios send: small bodies of the blog over 64 kept connections.
pub(crate) const SMALL: Load<'static> =
    Load { connections: 64, host: BLOG, path: "/", close: false, frontends: 0, cookie: None };

/// What wrk counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// Requests that failed.
    pub(crate) failed: u64,
    /// For how long it asked.
    pub(crate) duration: Duration,
}

impl Load<'_> {
    /// Runs for whole seconds. Any failed request is an error: a peer that fails is not compared.
    pub(crate) async fn run(self, core: usize, to: &Running, seconds: u32, dir: &Path) -> anyhow::Result<Counted> {
        let counted = self.count(core, to, seconds, dir).await?;
        anyhow::ensure!(counted.failed == 0, "{} requests failed of {}", counted.failed, counted.requests);
        Ok(counted)
    }

    /// Runs for whole seconds, and says how many requests failed, too.
    pub(crate) async fn count(self, core: usize, to: &Running, seconds: u32, dir: &Path) -> anyhow::Result<Counted> {
        let script = dir.join("count.lua");
        let request = match self.frontends {
            0 => String::new(),
            number => DRAW.replace("NUMBER", &number.to_string()).replace("PATH", self.path),
        };
        std::fs::write(&script, request + SCRIPT)?;
        let mut command = Command::new("taskset");
        command.arg("--cpu-list").arg(core.to_string()).arg("wrk").arg("--threads=1");
        command.arg(format!("--connections={}", self.connections)).arg(format!("--duration={seconds}s"));
        command.arg("--script").arg(&script).arg("--header").arg(format!("Host: {}", self.host));
        if self.close {
            command.args(["--header", "Connection: close"]);
        }
        if let Some(cookie) = self.cookie {
            command.args(["--header", &format!("Cookie: {cookie}")]);
        }
        let scheme = if to.is_tls { "https" } else { "http" };
        command.arg(format!("{scheme}://{}{}", to.address, self.path));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = timeout(Duration::from_secs(u64::from(seconds) + 15), command.output())
            .await
            .context("wrk does not end")?
            .context("cannot start wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default();
        let counted: Value = serde_json::from_str(last)
            .with_context(|| format!("wrk did not count: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
        let number = |name: &str| counted.get(name).and_then(Value::as_u64).unwrap_or_default();
        let failed = ["connect", "read", "write", "status", "timeout"].iter().map(|kind| number(kind)).sum();
        anyhow::ensure!(number("requests") > 0, "no request was answered");
        Ok(Counted { requests: number("requests"), failed, duration: Duration::from_micros(number("duration")) })
    }
}

/// Has wrk ask for another frontend each time.
const DRAW: &str = r#"
request = function()
  return "GET PATH HTTP/1.1\r\nHost: h" .. math.random(0, NUMBER - 1) .. ".test\r\n\r\n"
end
"#;

/// Has wrk end with one line of JSON.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\n',
    summary.requests, summary.duration, e.connect, e.read, e.write, e.status, e.timeout))
end
"#;
