//! A real etcd of one member, beside the load. It does not wait for its disk: what that takes is not the proxy's.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::bed::{eventually, free_port};
use crate::process::Process;

/// A running one.
pub(crate) struct Etcd {
    address: SocketAddr,
    process: Process,
}

impl Etcd {
    /// Starts one with its files below `dir`, and waits until it answers.
    pub(crate) async fn start(core: usize, dir: &Path) -> anyhow::Result<Etcd> {
        let (address, peers) = (free_port()?, free_port()?);
        std::fs::create_dir_all(dir)?;
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(dir.join("data"));
        for (flag, address) in [("client-urls", address), ("peer-urls", peers)] {
            let advertise = if flag == "client-urls" { "--advertise-" } else { "--initial-advertise-peer-urls" };
            let advertise = if flag == "client-urls" { format!("{advertise}{flag}") } else { advertise.to_owned() };
            command.arg(format!("--listen-{flag}")).arg(format!("http://{address}"));
            command.arg(advertise).arg(format!("http://{address}"));
        }
        command.arg("--initial-cluster").arg(format!("default=http://{peers}"));
        command.args(["--unsafe-no-fsync", "--log-level", "error", "--quota-backend-bytes", "8589934592"]);
        let process = Process::start(core, command, &dir.join("log")).context("etcd (package etcd-server)")?;
        let mut etcd = Etcd { address, process };
        let url = etcd.store("ready");
        let ask = async || {
            let engine = etna_store::open(&url, &etna_store::engine::Options::default()).await?;
            Ok(engine.get("any").await.is_ok())
        };
        eventually(&mut etcd.process, ask).await.context("etcd")?;
        Ok(etcd)
    }

    /// The `--store` of a prefix.
    pub(crate) fn store(&self, prefix: &str) -> String {
        format!("etcd://{}/{prefix}", self.address)
    }

    /// Ends it.
    pub(crate) async fn end(self) {
        self.process.end().await;
    }
}
