//! `etna demo`: a proxy, two public containers and one admin container, in one process tree on the embedded engine.
//!
//! Where a Docker engine answers, the containers are real and the sidekick registers them. Elsewhere they are child
//! processes, and the demo registers them itself. Ctrl-C takes everything away again.

mod containers;
mod docker;
mod processes;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use etna_proxy::config::{AdminAddress, Config};
use etna_store::engine::Options;

use super::logging;

/// Flags of `etna demo`.
#[derive(Args)]
#[command(after_help = "Example:\n  etna demo --listen 127.0.0.1:9000")]
pub(super) struct Flags {
    /// Address to serve on.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8888")]
    listen: SocketAddr,
    /// Use child processes even where a Docker engine runs.
    #[arg(long)]
    no_docker: bool,
    /// Leave by itself after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// Runs the demo until Ctrl-C.
pub(super) fn run(flags: Flags) -> ExitCode {
    if logging::start("warn").is_err() {
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(demo(flags))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("etna demo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn demo(flags: Flags) -> anyhow::Result<()> {
    let home = Home::new()?;
    let admin = home.path.join("etna.sock");
    let engine = etna_store::open(&format!("embedded:{}", home.path.join("store").display()), &Options::default())
        .await
        .context("cannot open a store")?;
    // What goes in a demo goes on purpose: nothing is held.
    let config = Config {
        listen: vec![flags.listen],
        workers: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        drain: Duration::from_secs(2),
        ..Config::bare(String::new(), home.path.clone(), AdminAddress::Unix(admin.clone()))
    };
    // It listens for Ctrl-C itself, and comes back when it has drained.
    let mut proxy = tokio::spawn(etna_proxy::serve(config, engine.clone()));
    step("store and proxy", "embedded engine");

    let with_docker = !flags.no_docker && docker::answers().await;
    let containers = async {
        if with_docker {
            docker::start(&home.path, &admin).await.map(|docker| Containers::Docker(Box::new(docker)))
        } else {
            processes::start(&*engine).await.map(Containers::Processes)
        }
    };
    // Stopping must also work while the containers start.
    let containers = tokio::select! {
        containers = containers => containers,
        ended = &mut proxy => return ended.context("the proxy broke")?,
    };
    let result = match &containers {
        Ok(_) => show(&flags, &admin, with_docker, &mut proxy).await,
        Err(_) => Ok(()),
    };
    match containers {
        Ok(Containers::Docker(mut docker)) => docker.stop().await,
        Ok(Containers::Processes(_)) => {}
        Err(error) => return Err(error),
    }
    say("Stopped. Nothing is left behind.");
    result
}

enum Containers {
    Docker(Box<docker::Docker>),
    /// Held until the demo ends: dropping them ends them.
    #[expect(dead_code, reason = "held for its drop")]
    Processes(processes::Processes),
}

async fn show(
    flags: &Flags,
    admin: &Path,
    with_docker: bool,
    proxy: &mut tokio::task::JoinHandle<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let listen = flags.listen;
    tokio::select! {
        served = containers::wait_until_served(listen) => served?,
        ended = &mut *proxy => return ended.context("the proxy broke")?,
    }
    step("serving", "2 public containers, 1 admin container");
    let what = if with_docker { "container" } else { "stand-in" };
    say(&format!(
        "\n  Open       http://{listen}/            refresh: the {what}'s name changes\n  \
           and        http://{listen}/wp-admin/   refresh: it does not\n  \
           Look       etnactl --admin unix:{} status\n\n  Ctrl-C stops everything.\n",
        admin.display()
    ));
    let limit = async {
        match flags.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = proxy => ended.context("the proxy broke")?,
        () = limit => Ok(()),
    }
}

/// A directory of the demo's own, gone when it ends.
struct Home {
    path: PathBuf,
}

impl Home {
    fn new() -> anyhow::Result<Home> {
        let path = std::env::temp_dir().join(format!("etna-demo-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Home { path })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The binary beside this one, or the one on the PATH.
fn beside(name: &str) -> PathBuf {
    let here = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    here.map(|dir| dir.join(name)).filter(|path| path.exists()).unwrap_or_else(|| name.into())
}

fn step(what: &str, detail: &str) {
    say(&format!("  {what:<20} {detail}"));
}

#[expect(clippy::print_stdout, reason = "this is what the demo is for")]
fn say(line: &str) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}
