//! The floor: a relay that copies bytes between a connection and one of its own to the server, on the runtime that Etna
//! runs on. It parses nothing, chooses nothing and pools nothing; what it costs are sockets and their scheduling.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;

use super::{Running, Setup};
use crate::bed::{Bed, eventually};
use crate::drive::servers;
use crate::process::Process;

pub(super) async fn start(bed: &Bed, home: &Path, setup: &Setup) -> anyhow::Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--relay").arg(bed.public(setup)[0].to_string());
    let log = home.join("log");
    let mut process = Process::start(bed.cores.proxy, command, &log)?;
    let address = || std::fs::read_to_string(&log).ok()?.trim().parse::<SocketAddr>().ok();
    eventually(&mut process, async || Ok(address().is_some())).await?;
    let address = address().ok_or_else(|| anyhow::anyhow!("the relay's address went away"))?;
    Ok(Running::at(process, address, None))
}

/// The relay itself, in a process of its own: prints its address, then serves until killed.
pub(crate) async fn relay(to: SocketAddr) -> anyhow::Result<()> {
    let listener = servers::listener()?;
    {
        use std::io::Write as _;
        let mut out = std::io::stdout();
        writeln!(out, "{}", listener.local_addr()?)?;
        out.flush()?;
    }
    loop {
        let (down, _) = listener.accept().await?;
        tokio::spawn(pass_on(down, to));
    }
}

/// One connection; how it ended concerns only the client.
async fn pass_on(mut down: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let mut up = TcpStream::connect(to).await?;
    down.set_nodelay(true)?;
    up.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut down, &mut up, BUFFER, BUFFER).await?;
    Ok(())
}

/// Bigger ones move big bodies no cheaper.
const BUFFER: usize = 128 * 1024;
