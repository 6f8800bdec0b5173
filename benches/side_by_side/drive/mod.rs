//! Loads of our own, for what wrk and h2load cannot do. Each is this program itself, in a process of its own on the
//! load's core (`--drive`): it does what it is ordered, warms up, says that it begins, and in the end what it counted.
//!
//! One file a load; here is how they are started and listened to.

pub(crate) mod bulk;
pub(crate) mod http;
pub(crate) mod servers;

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// What a load is to do.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Order {
    /// Move big bodies.
    Bulk(bulk::Bulk),
}

/// A load that has begun.
pub(crate) struct Driver {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Driver {
    /// Starts a load on a core, and returns when it has warmed up and begins.
    pub(crate) async fn start(core: usize, order: &Order) -> anyhow::Result<Driver> {
        let mut command = Command::new("taskset");
        command.arg("--cpu-list").arg(core.to_string()).arg(std::env::current_exe()?);
        command.arg("--drive").arg(serde_json::to_string(order)?);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start taskset (package util-linux)")?;
        let lines = BufReader::new(child.stdout.take().context("a load without an output")?).lines();
        let mut driver = Driver { child, lines };
        let line = driver.line().await?;
        anyhow::ensure!(line == BEGUN, "a load says {line:?}");
        Ok(driver)
    }

    /// What it counted, once it has ended.
    pub(crate) async fn counted<T: DeserializeOwned>(mut self) -> anyhow::Result<T> {
        let line = self.line().await?;
        serde_json::from_str(&line).with_context(|| format!("a load says {line:?}"))
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let line = timeout(LONGEST, self.lines.next_line()).await.context("a load does not end")??;
        match line {
            Some(line) => Ok(line),
            None => {
                let mut said = String::new();
                if let Some(mut errors) = self.child.stderr.take() {
                    errors.read_to_string(&mut said).await?;
                }
                anyhow::bail!("the load failed: {}", said.trim())
            }
        }
    }
}

/// The load itself, in a process of its own.
pub(crate) async fn drive(order: &str) -> anyhow::Result<()> {
    match serde_json::from_str(order).context("--drive")? {
        Order::Bulk(bulk) => say(&bulk.run().await?),
    }
}

/// Says that what is counted begins now.
fn begin() -> anyhow::Result<()> {
    print(BEGUN)
}

fn say(counted: &impl Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string(counted)?)
}

fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

const BEGUN: &str = "begun";
/// For ten thousand handshakes, or the longest measurement.
const LONGEST: Duration = Duration::from_secs(700);
/// How long each load warms up.
const WARM_UP: Duration = Duration::from_secs(1);
