//! A proxy from start to end: open the store, start the workers, follow, serve, drain.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use etna_store::Engine;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config::Config;
use crate::control::{Control, State};
use crate::listener::Listeners;
use crate::listener::admission::{Admission, connections_for};
use crate::listener::worker::{Handle, Shared};
use crate::traffic::trust::Trusted;

/// Opens the store, and serves until the process is told to stop.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let engine = etna_store::open(&config.store, &config.store_options)
        .await
        .with_context(|| format!("cannot open the store {}", config.store))?;
    serve(config, engine).await
}

/// Serves what a store holds until the process is told to stop and everything that ran has ended.
pub async fn serve(config: Config, engine: Arc<dyn Engine>) -> anyhow::Result<()> {
    std::fs::create_dir_all(&config.state_dir)
        .with_context(|| format!("cannot create the state directory {}", config.state_dir.display()))?;
    tracing::info!(store = %engine.describe(), workers = config.workers, "starting");
    let state = Arc::new(State::new(engine));

    let force = CancellationToken::new();
    let shared = Shared {
        live: state.live.clone(),
        process: state.process.clone(),
        trusted: Arc::new(Trusted::new(config.trusted_proxies.clone())),
        admission: Arc::new(admission(&config)),
        force: force.clone(),
    };
    let workers = (0..config.workers)
        .map(|number| Handle::start(number, shared.clone()))
        .collect::<Result<Vec<Handle>, _>>()
        .context("cannot start a worker")?;
    let mut listeners = Listeners::new(workers);
    for (number, address) in config.listen.iter().enumerate() {
        let id = if number == 0 { "default".to_owned() } else { format!("default-{number}") };
        let bound = listeners
            .open_own(id.as_str().into(), *address)
            .await
            .with_context(|| format!("cannot listen on {address}: free it, or give another address with --listen"))?;
        tracing::info!(listener = id, address = %bound, "listening");
    }
    let admin = admin::bind(&config, state.clone()).await?;
    let admin_address = admin.address().to_string();
    tracing::info!(address = %admin_address, "admin API");
    let admin = tokio::spawn(admin.serve());

    tokio::spawn(signals(state.draining.clone(), force.clone()));
    let mut control = Control::new(state.clone(), listeners).in_zone(config.zone).holding(config.hold);
    if is_elsewhere(&state.engine.describe()) {
        control = control.keeping_in(config.state_dir.clone());
    }
    tokio::spawn(announce(state.clone(), config.state_dir.clone(), admin_address));
    tokio::spawn(crate::health::run(state.clone()));
    let control = tokio::spawn(control.run());

    let listeners = control.await.context("the control loop broke")?;
    tracing::info!(seconds = config.drain.as_secs(), "draining");
    let _ = sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    listeners.drain(config.drain).await;
    // Last, so that its readiness could be asked for until the end.
    admin.abort();
    let _ = std::fs::remove_file(config.state_dir.join(ADDRESSES));
    tracing::info!("stopped");
    Ok(())
}

/// As many connections as files may be open, after that limit was raised as far as it goes.
fn admission(config: &Config) -> Admission {
    let mut files = getrlimit(Resource::Nofile);
    if files.current < files.maximum
        && setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }).is_ok()
    {
        files.current = files.maximum;
    }
    let possible = connections_for(files.current.unwrap_or(MOST_FILES));
    let most = config.max_connections.map_or(possible, |wanted| wanted.min(possible));
    if config.max_connections.is_some_and(|wanted| wanted > possible) {
        tracing::warn!(connections = most, "fewer connections than asked for: raise the limit of open files");
    }
    tracing::info!(connections = most, of_one_client = config.max_connections_per_client, "limits");
    Admission::new(most, config.max_connections_per_client)
}

/// Whether a store can be away while this process starts: an embedded one is opened with it, from the same disk, and
/// needs no second copy there.
fn is_elsewhere(store: &str) -> bool {
    !store.starts_with("embedded:") && !store.starts_with("memory:")
}

/// TERM and INT drain, a second one ends at once.
async fn signals(draining: CancellationToken, force: CancellationToken) {
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        tracing::error!("cannot handle signals: stop this process with SIGKILL only");
        return;
    };
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {
                // Nothing of the command line is read from a file that could have changed.
                tracing::info!("SIGHUP: nothing to read again");
                continue;
            }
        }
        if draining.is_cancelled() {
            tracing::warn!("told to stop a second time: cutting what still runs");
            force.cancel();
        }
        draining.cancel();
    }
}

/// Says where the process listens, in a file, that it is ready, to systemd, and then how it goes.
async fn announce(state: Arc<State>, state_dir: std::path::PathBuf, admin: String) {
    write_addresses(&state, &state_dir.join(ADDRESSES), &admin);
    let mut store = state.subscribe_store();
    loop {
        let status = match &*store.borrow_and_update() {
            store if store.revision.is_some() => break,
            store => match &store.error {
                Some(error) => format!("waiting for the store: {error}"),
                None => "reading the store".to_owned(),
            },
        };
        let _ = sd_notify::notify(&[NotifyState::Status(&status)]);
        if store.changed().await.is_err() {
            return;
        }
    }
    // Once more, with the listeners of the store.
    write_addresses(&state, &state_dir.join(ADDRESSES), &admin);
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tracing::info!("ready");
    let every = sd_notify::watchdog_enabled().map_or(Duration::from_secs(10), |watchdog| watchdog / 3);
    let mut tick = tokio::time::interval(every);
    while !state.draining.is_cancelled() {
        tick.tick().await;
        let store = state.store();
        let table = state.live.table();
        let status = format!(
            "{} revision {} · {} frontends · {} problems{}",
            match (store.from_disk, store.following) {
                (Some(_), _) => "store away, last table from disk,",
                (None, true) => "following,",
                (None, false) => "store away,",
            },
            table.revision.0,
            table.frontends.len(),
            state.problems().len(),
            match state.suspects().count {
                0 => String::new(),
                keys => format!(" · {keys} keys held as suspect"),
            }
        );
        let _ = sd_notify::notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    }
}

fn write_addresses(state: &State, path: &Path, admin: &str) {
    let addresses = state.addresses();
    let text = serde_json::json!({
        "pid": std::process::id(),
        "listen": addresses.get("default"),
        "admin": admin,
        "listeners": addresses.iter().map(|(id, address)| (id.to_string(), address.to_string())).collect::<std::collections::BTreeMap<_, _>>(),
    });
    // Whole or not at all: whoever waits for the file reads it as soon as it is there.
    let temporary = path.with_extension("new");
    let written = std::fs::write(&temporary, text.to_string() + "\n").and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "cannot write the addresses");
    }
}

/// Open files where there is no limit.
const MOST_FILES: u64 = 1 << 20;
/// Where tools on this host find what was bound.
const ADDRESSES: &str = "addresses.json";
