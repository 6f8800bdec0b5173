//! What stands around a measured peer: the servers behind it, a directory for its files, free ports.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cli::Cores;
use crate::etcd::Etcd;
use crate::http;
use crate::peer::{Setup, Store};
use crate::process::Process;
use crate::stored;
use crate::tls::{Key, Pair};

/// The servers and the directory, until dropped.
pub(crate) struct Bed {
    pub(crate) cores: Cores,
    pub(crate) etna: PathBuf,
    /// Addresses of the public servers, and of servers of ours in their place.
    public: [SocketAddr; 2],
    own: Option<Own>,
    etcd: Option<Etcd>,
    /// Address of the admin server.
    pub(crate) admin: SocketAddr,
    ecdsa: Pair,
    rsa: Pair,
    /// What a scenario's first measurement found out for the others.
    notes: RefCell<HashMap<String, f64>>,
    // In this order: the servers end before their directory goes.
    servers: Process,
    dir: tempfile::TempDir,
}

/// Servers of ours, and what they were started with.
struct Own {
    addresses: Vec<SocketAddr>,
    process: Process,
}

impl Bed {
    /// Starts what some setups need. The servers: one nginx with three addresses, which answers from memory, and some
    /// of ours.
    pub(crate) async fn start(cores: Cores, etna: &Path, setups: &[Setup]) -> anyhow::Result<Bed> {
        let dir = tempfile::Builder::new().prefix("etna-bench-").tempdir().context("cannot make a directory")?;
        let [one, two, admin] = [free_port()?, free_port()?, free_port()?];
        let home = dir.path().join("servers");
        std::fs::create_dir(&home)?;
        std::fs::write(home.join("10k"), "x".repeat(10 * 1024))?;
        std::fs::write(home.join("10m"), "x".repeat(10 << 20))?;
        std::fs::write(home.join("nginx.conf"), servers(&home, &[(one, "public"), (two, "public"), (admin, "admin")]))?;
        let mut process = Process::start(cores.load, nginx(&home), &home.join("log")).context("the servers")?;
        for address in [one, two, admin] {
            eventually(&mut process, async || Ok(http::get(address, "any", "/").await?.status == 200))
                .await
                .context("the servers (nginx)")?;
        }
        let most = setups.iter().map(|setup| setup.servers.of_ours()).max().unwrap_or_default();
        let own = if most > 0 { Some(own(most, &dir.path().join("own"), cores).await?) } else { None };
        let wants_etcd = setups.iter().any(|setup| setup.etna.store == Store::Etcd);
        let etcd = if wants_etcd { Some(Etcd::start(cores.load, &dir.path().join("etcd")).await?) } else { None };
        let pair = |kind: Key, name: &str| {
            let home = dir.path().join(name);
            std::fs::create_dir(&home)?;
            Pair::make(kind, &home).context("certificates")
        };
        let (ecdsa, rsa) = (pair(Key::Ecdsa, "ecdsa")?, pair(Key::Rsa, "rsa")?);
        let (etna, public, notes) = (etna.to_owned(), [one, two], RefCell::default());
        Ok(Bed { cores, etna, public, own, etcd, admin, ecdsa, rsa, notes, servers: process, dir })
    }

    /// The public servers of a setup.
    pub(crate) fn public(&self, setup: &Setup) -> &[SocketAddr] {
        match (setup.servers.of_ours(), &self.own) {
            (number @ 1.., Some(own)) => &own.addresses[..number.min(own.addresses.len())],
            _ => &self.public,
        }
    }

    /// The `--store` of a setup, with its frontends in it. An embedded one lies in `home`.
    pub(crate) async fn store(&self, setup: &Setup, home: &Path) -> anyhow::Result<String> {
        let frontends = setup.etna.frontends;
        match setup.etna.store {
            Store::Embedded => {
                let dir = home.join("store");
                let url = format!("embedded:{}", dir.display());
                if frontends > 0 {
                    // Written once, for that takes its time.
                    let written = self.dir.path().join(format!("stored-{frontends}"));
                    if !written.exists() {
                        let url = format!("embedded:{}", written.display());
                        stored::fill(&url, frontends, self.public(setup)).await?;
                    }
                    stored::copy(&written, &dir)?;
                }
                Ok(url)
            }
            Store::Etcd => {
                let etcd = self.etcd.as_ref().context("no etcd was started")?;
                let (name, url) = (format!("frontends-{frontends}"), etcd.store(&format!("frontends-{frontends}")));
                let fill = async || stored::fill(&url, frontends, self.public(setup)).await.map(|()| 0.0);
                self.noted(&name, fill).await?;
                Ok(url)
            }
        }
    }

    /// The `--store` of a prefix that nobody follows.
    pub(crate) fn other_store(&self) -> anyhow::Result<String> {
        Ok(self.etcd.as_ref().context("no etcd was started")?.store("nobody"))
    }

    /// What was noted under a name; if nothing was, it is found out now.
    pub(crate) async fn noted(
        &self,
        name: &str,
        find_out: impl AsyncFnOnce() -> anyhow::Result<f64>,
    ) -> anyhow::Result<f64> {
        if let Some(known) = self.notes.borrow().get(name) {
            return Ok(*known);
        }
        let found = find_out().await?;
        self.notes.borrow_mut().insert(name.to_owned(), found);
        Ok(found)
    }

    /// A certificate for all peers.
    pub(crate) fn pair(&self, kind: Key) -> &Pair {
        match kind {
            Key::Ecdsa => &self.ecdsa,
            Key::Rsa => &self.rsa,
        }
    }

    /// Ends the servers.
    pub(crate) async fn end(self) {
        self.servers.end().await;
        if let Some(own) = self.own {
            own.process.end().await;
        }
        if let Some(etcd) = self.etcd {
            etcd.end().await;
        }
    }

    /// A new directory below the bed's.
    pub(crate) fn directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir(&path)?;
        Ok(path)
    }
}

/// Starts servers of ours, beside the load.
async fn own(number: usize, log: &Path, cores: Cores) -> anyhow::Result<Own> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--serve").arg(number.to_string());
    let mut process = Process::start(cores.load, command, log)?;
    let addresses = || serde_json::from_slice::<Vec<SocketAddr>>(&std::fs::read(log).ok()?).ok();
    eventually(&mut process, async || Ok(addresses().is_some())).await.context("servers of ours")?;
    Ok(Own { addresses: addresses().context("the servers' addresses went away")?, process })
}

/// Asks until the answer is yes. Fails if the process ends, or after half a minute with the last error.
pub(crate) async fn eventually(
    process: &mut Process,
    ask: impl AsyncFn() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + LONGEST;
    loop {
        process.check()?;
        match ask().await {
            Ok(true) => return Ok(()),
            Ok(false) if Instant::now() > deadline => anyhow::bail!("not ready after {LONGEST:?}:\n{}", process.said()),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("not ready after {LONGEST:?}:\n{}", process.said())));
            }
            Ok(false) | Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// A port on loopback that the kernel has just handed out, for programs that cannot choose one themselves.
pub(crate) fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// How nginx is started with the configuration of a directory.
pub(crate) fn nginx(home: &Path) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(home).arg("-c").arg(home.join("nginx.conf")).args(["-e", "stderr"]);
    command
}

/// Lines that every nginx of ours begins with.
pub(crate) fn nginx_head(home: &Path) -> String {
    let home = home.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("  {what}_temp_path {home}/{what};\n"))
        .collect();
    // Started by root, the worker would otherwise be nobody, who may not look into our directory.
    let user = if is_root() { "user root;\n" } else { "" };
    format!(
        "daemon off;\n{user}worker_processes 1;\npid {home}/pid;\nerror_log stderr crit;\n\
         events {{ worker_connections 15000; multi_accept on; }}\n\
         http {{\n{temporary}  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  tcp_nodelay on;\n  \
         keepalive_requests 1000000000;\n  keepalive_timeout 3600s;\n  default_type text/plain;\n"
    )
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// `/` is a small body, `/10k` and `/10m` are bigger ones, `/check` says what arrived.
fn servers(home: &Path, servers: &[(SocketAddr, &str)]) -> String {
    let mut text = nginx_head(home);
    let home = home.display();
    text += "  open_file_cache max=100;\n";
    for (address, name) in servers {
        let body = format!("{name:.<130}");
        text += &format!(
            "  server {{\n    listen {address} backlog=4096;\n    location / {{ return 200 {body:?}; }}\n    \
             location = /10k {{ alias {home}/10k; }}\n    location = /10m {{ alias {home}/10m; }}\n    \
             location ~ /check$ {{ return 200 \"{name} host=$http_host for=$http_x_forwarded_for\"; }}\n  }}\n"
        );
    }
    text + "}\n"
}

/// A proxy reads a hundred thousand frontends within that.
const LONGEST: Duration = Duration::from_secs(30);
