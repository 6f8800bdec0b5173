//! Loads of our own, for what wrk and h2load cannot do. Each is this program itself, in a process of its own on the
//! load's core (`--drive`): it does what it is ordered, warms up, says that it begins, and in the end what it counted.
//!
//! One file a load; here is how they are started and listened to.

pub(crate) mod bulk;
pub(crate) mod changes;
pub(crate) mod hold;
pub(crate) mod http;
pub(crate) mod open_loop;
pub(crate) mod servers;
pub(crate) mod sockets;

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What a load is to do.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Order {
    /// Move big bodies.
    Bulk(bulk::Bulk),
    /// Change what is stored.
    Changes(changes::Changes),
    /// Hold connections.
    Hold(hold::Hold),
    /// Send when it is due.
    OpenLoop(open_loop::OpenLoop),
    /// Talk over WebSockets.
    Sockets(sockets::Sockets),
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

    /// Ends one that runs until it is told to.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    /// Fails if it has ended: for loads that run until dropped.
    pub(crate) async fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(_) => self.line().await.map(drop),
        }
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
        Order::Changes(changes) => say(&changes.run().await?),
        Order::Hold(hold) => hold.run().await,
        Order::OpenLoop(open_loop) => say(&open_loop.run().await?),
        Order::Sockets(sockets) => say(&sockets.run().await?),
    }
}

/// Lets connections go on for a while. None of them ends by itself but by a failure.
async fn until(time: Duration, connections: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    match timeout(time, connections.join_next()).await {
        Err(_) => Ok(()),
        Ok(ended) => ended.context("there is no connection")??.context("a connection ended"),
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
