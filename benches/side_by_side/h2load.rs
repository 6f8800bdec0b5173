//! HTTP/2: h2load, pinned beside the servers, and what it counted.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::load::Counted;
use crate::peer::{BLOG, Running};

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    /// Connections.
    pub(crate) connections: u32,
    /// Requests at a time on each.
    pub(crate) streams: u32,
}

impl Streams {
    /// Runs for whole seconds. Any failed request is an error: a peer that fails is not compared.
    pub(crate) async fn run(self, core: usize, to: &Running, seconds: u32) -> anyhow::Result<Counted> {
        let mut command = Command::new("taskset");
        command.arg("--cpu-list").arg(core.to_string()).args(["h2load", "--threads=1", "--npn-list=h2"]);
        command
            .arg(format!("--clients={}", self.connections))
            .arg(format!("--max-concurrent-streams={}", self.streams));
        command.arg(format!("--duration={seconds}")).arg(format!("--connect-to={}", to.address));
        // Without the port: that is how hosts are named to all peers.
        command.args(["--header", &format!(":authority: {BLOG}")]).arg(format!("https://{BLOG}/"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = timeout(Duration::from_secs(u64::from(seconds) + 15), command.output())
            .await
            .context("h2load does not end")?
            .context("cannot start h2load (package nghttp2-client)")?;
        let said = String::from_utf8_lossy(&output.stdout);
        read(&said, seconds).with_context(|| format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// Takes the counts out of what h2load says.
fn read(said: &str, seconds: u32) -> anyhow::Result<Counted> {
    let line = |begins: &str| said.lines().find_map(|line| line.strip_prefix(begins)).context("h2load did not count");
    let number = |line: &str, name: &str| -> anyhow::Result<u64> {
        let part = line.split(',').find_map(|part| part.trim().strip_suffix(name)).context("a count is missing")?;
        part.trim().parse().context("a count is no number")
    };
    anyhow::ensure!(line("Application protocol: ")? == "h2", "HTTP/2 was not agreed on");
    let requests = line("requests: ")?;
    let (answered, failed) = (number(requests, "succeeded")?, number(requests, "failed")?);
    anyhow::ensure!(failed == 0, "{failed} requests failed of {}", answered + failed);
    anyhow::ensure!(answered > 0, "no request was answered");
    Ok(Counted { requests: answered, failed, duration: Duration::from_secs(seconds.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read() {
        let said = "Application protocol: h2\nfinished in 2.00s, 15 req/s\n\
                    requests: 31 total, 40 started, 31 done, 30 succeeded, 0 failed, 0 errored, 0 timeout\n";
        assert_eq!(read(said, 2).unwrap().requests, 30);
        assert!(read(&said.replace("0 failed", "3 failed"), 2).is_err());
        assert!(read(&said.replace(": h2\n", ": http/1.1\n"), 2).is_err());
        assert!(read("", 2).is_err());
    }
}
