//! The commands: each puts the parts together, runs them, and says how it ended.

mod explain;
mod log;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::CommandFactory;
use etna_store::Engine;
use etna_store::pace::{Backoff, Throttle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cli::{Announce, Cli, Command, Deregister, Once, Settings, Usage};
use crate::docker::Docker;
use crate::follow::{Follower, Tracker};
use crate::notify::{self, Beat, Board};
use crate::register::{Keeper, Registrar, deregister};

/// Exit status of wrong usage (EX_USAGE of sysexits.h).
pub const USAGE: u8 = 64;

/// Runs what the command line says. The error carries [`Usage`] where that is the cause.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let settings = cli.settings;
    log::start(&settings)?;
    match cli.command.unwrap_or(Command::Watch) {
        Command::Watch => watch(&settings, None).await,
        Command::Announce(announce) => announced(&settings, announce).await,
        Command::Once(once) => run_once(&settings, &once).await,
        Command::Explain(explain) => explain::run(&settings, &explain.container).await,
        Command::Deregister(options) => run_deregister(&settings, options).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "etna-sidekick", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { command } => {
            let mut all = Cli::command();
            all.build();
            let shown = match &command {
                Some(word) => all.find_subcommand(word).ok_or_else(|| Usage(format!("there is no command {word}")))?,
                None => &all,
            };
            clap_mangen::Man::new(shown.clone()).render(&mut std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn open(settings: &Settings) -> anyhow::Result<Arc<dyn Engine>> {
    match etna_store::open(&settings.store, &settings.store_options()).await {
        Ok(engine) => Ok(engine),
        Err(etna_store::Error::Invalid { reason }) => {
            Err(Usage(format!("--store {}: {reason}", settings.store)).into())
        }
        Err(error) => Err(error).with_context(|| format!("opening the store {}", settings.store)),
    }
}

/// The same for who has time: a store that does not answer yet is waited for.
async fn open_patiently(settings: &Settings) -> anyhow::Result<Arc<dyn Engine>> {
    let (mut backoff, mut throttle) = (Backoff::default(), Throttle::default());
    loop {
        match open(settings).await {
            Err(error) if matches!(error.downcast_ref(), Some(etna_store::Error::Unavailable { .. })) => {
                if throttle.admits(std::time::Instant::now()) {
                    tracing::warn!(
                        event = "store-trouble",
                        error = etna_store::with_causes(&*error),
                        "waiting for the store"
                    );
                }
                sleep(backoff.failed()).await;
            }
            opened => return opened,
        }
    }
}

/// Follows everything, or one container, until SIGTERM or SIGINT.
async fn watch(settings: &Settings, only: Option<String>) -> anyhow::Result<ExitCode> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (docker, host_ip, policy, machine) =
        (settings.docker()?, settings.host_ip()?, settings.policy()?, settings.machine()?);
    notify::ready();
    let engine = tokio::select! {
        engine = open_patiently(settings) => engine?,
        _ = term.recv() => return Ok(ExitCode::SUCCESS),
        _ = int.recv() => return Ok(ExitCode::SUCCESS),
    };
    tracing::info!(
        event = "start",
        version = env!("CARGO_PKG_VERSION"),
        store = engine.describe(),
        docker = docker.describe(),
        machine = machine.id,
        host_ip = policy.addressing.host_ip.map(|ip| ip.to_string()),
        "starting"
    );
    let notebook = settings.notebook(&machine, &engine.describe(), only.as_deref());
    let board = Board::default();
    let beats = [Beat::default(), Beat::default()];
    let (keeper, lease) = Keeper::new(engine.clone(), settings.ttl, notebook);
    let tracker = Tracker::new(policy, only.clone(), !settings.no_probe);
    let (follower, wanted) = Follower::new(docker, host_ip, tracker, board.clone());
    let registrar = Registrar::new(engine.clone(), machine.clone(), lease, board.clone(), only.clone());

    let stop = CancellationToken::new();
    let keeper = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
    let follower = AbortOnDropHandle::new(tokio::spawn(follower.run(stop.clone(), beats[0].clone())));
    let registrar = AbortOnDropHandle::new(tokio::spawn(registrar.run(wanted, stop.clone(), beats[1].clone())));
    let notify = AbortOnDropHandle::new(tokio::spawn(notify::run(board, beats)));
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    notify::stopping();
    drop(notify);
    stop.cancel();
    let (followed, registered) = (follower.await, registrar.await);
    drop(keeper);
    if settings.deregister_on_exit {
        deregister(engine.as_ref(), &machine, only.as_deref()).await.context("deregistering")?;
    }
    tracing::info!(
        event = "stop",
        deregistered = settings.deregister_on_exit,
        ttl_s = settings.ttl.as_secs(),
        "stopped"
    );
    followed.and(registered).context("a part of the sidekick failed")?;
    Ok(ExitCode::SUCCESS)
}

/// Waits until the container runs, then follows it.
async fn announced(settings: &Settings, announce: Announce) -> anyhow::Result<ExitCode> {
    let docker = settings.docker()?;
    let end = Instant::now() + announce.wait;
    let mut backoff = Backoff::default();
    while !runs(&docker, &announce.container).await {
        anyhow::ensure!(Instant::now() < end, "{} does not run after {:?}", announce.container, announce.wait);
        sleep(backoff.failed().min(end.saturating_duration_since(Instant::now()))).await;
    }
    watch(settings, Some(announce.container)).await
}

async fn runs(docker: &Docker, container: &str) -> bool {
    match docker.inspect(container).await {
        Ok(found) => found.is_some_and(|found| found.runs()),
        Err(error) => {
            tracing::debug!(event = "docker-trouble", error = &error as &dyn std::error::Error, "waiting for Docker");
            false
        }
    }
}

async fn run_once(settings: &Settings, once: &Once) -> anyhow::Result<ExitCode> {
    let (docker, host_ip, policy, machine) =
        (settings.docker()?, settings.host_ip()?, settings.policy()?, settings.machine()?);
    let engine = open(settings).await?;
    let notebook = settings.notebook(&machine, &engine.describe(), None);
    let tracker = Tracker::new(policy, None, !settings.no_probe);
    let (mut follower, _) = Follower::new(docker, host_ip, tracker, Board::default());
    let wanted = follower.once(once.wait).await?;
    if once.dry_run {
        let noted = notebook.read();
        let (_keeper, lease) = Keeper::new(engine.clone(), settings.ttl, notebook);
        let mut registrar = Registrar::new(engine, machine, lease, Board::default(), None);
        explain::print_plan(&registrar.plan(&wanted, noted).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (keeper, lease) = Keeper::new(engine.clone(), settings.ttl, notebook);
    keeper.once().await.context("getting a lease")?;
    Registrar::new(engine, machine, lease, Board::default(), None).settle(&wanted).await?;
    Ok(ExitCode::SUCCESS)
}

async fn run_deregister(settings: &Settings, options: Deregister) -> anyhow::Result<ExitCode> {
    let machine = settings.machine()?;
    let engine = open(settings).await?;
    let container = options.container.as_deref();
    let deleted = deregister(engine.as_ref(), &machine, container).await.context("deregistering")?;
    if deleted.is_empty() {
        tracing::info!(event = "nothing-registered", container, "nothing was registered");
    }
    Ok(ExitCode::SUCCESS)
}
