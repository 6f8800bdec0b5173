//! A proxy from start to end: open the store, start the workers, follow, serve, drain, or be replaced.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use etna_store::Engine;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access::{self, Access};
use crate::acme;
use crate::admin::{self, Admin};
use crate::announce::Announcer;
use crate::config::Config;
use crate::control::{Control, State};
use crate::handover::Inherited;
use crate::handover::activation::DEFAULT;
use crate::handover::give::Giver;
use crate::handover::program::Program;
use crate::handover::take::{Link, Predecessor};
use crate::listener::admission::{Admission, connections_for};
use crate::listener::drain::Drain;
use crate::listener::worker::{Handle, Shared};
use crate::listener::{HTTPS, Listeners};
use crate::pulse::Pulse;
use crate::signals::{Signals, Told, signals};
use crate::systemd;
use crate::tls::terms::Terms;
use crate::traffic::trust::Trusted;

/// Opens the store, and serves until the process is told to stop or is replaced. Settings that cannot work are
/// [`crate::config::Unusable`].
pub async fn run(config: Config, inherited: Inherited) -> anyhow::Result<()> {
    // Before anything is opened, bound or made.
    config.check(inherited.admin.as_ref().is_some_and(|admin| admin.wanted.is_none()))?;
    let program = Program::running().context("cannot tell which program this is")?;
    let link = match &inherited.predecessor {
        Some(predecessor) => {
            let mut link = predecessor.link().context("cannot talk to the process to be replaced")?;
            link.ask_for_store().await.context("the process to be replaced does not let go of the store")?;
            Some(link)
        }
        None => None,
    };
    let engine = etna_store::open(&config.store, &config.store_options)
        .await
        .with_context(|| format!("cannot open the store {}", config.store))?;
    start(config, engine, inherited, link, Some(program)).await
}

/// Serves what a store holds until the process is told to stop and everything that ran has ended. It cannot be
/// replaced.
pub async fn serve(config: Config, engine: Arc<dyn Engine>) -> anyhow::Result<()> {
    start(config, engine, Inherited::default(), None, None).await
}

async fn start(
    config: Config,
    engine: Arc<dyn Engine>,
    inherited: Inherited,
    link: Option<Link>,
    program: Option<Program>,
) -> anyhow::Result<()> {
    let handled = Signals::handle().context("cannot handle signals")?;
    std::fs::create_dir_all(&config.state_dir)
        .with_context(|| format!("cannot create the state directory {}", config.state_dir.display()))?;
    tracing::info!(store = %engine.describe(), workers = config.workers, "starting");
    let mut state = State::new(engine);
    state.log_lost = config.log_lost.clone();
    state.set_keyring(config.keyring.clone());
    let access = config.access_log.as_ref().map(access::start).transpose().context("cannot write an access log")?;
    let (access, access_writer) = access.unzip();
    state.access = access.as_ref().map(Access::status);
    state.acme = acme::Status::new(config.acme.clone());
    let state = Arc::new(state);
    let (force, gate, handed_over) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let trusted = Arc::new(Trusted::new(config.trusted_proxies.clone()));
    let workers = start_workers(&config, &state, &trusted, access, (&force, &gate))?;
    let pulse = pulse(&workers, &state);
    let mut listeners = Listeners::new(workers).behind(trusted, config.proxy_protocol.clone());
    let passed = !inherited.sockets.is_empty();
    listeners.inherit(inherited.sockets);
    listen(&config, &mut listeners).await?;
    let admin = admin::bind_or_adopt(&config, state.clone(), inherited.admin).await?;
    tracing::info!(address = %admin.address(), "admin API");
    state.set_admin(admin.address());

    let (upgrade, asked) = mpsc::channel(1);
    if let Some(program) = program {
        let giver = Giver {
            state: state.clone(),
            program,
            within: config.upgrade,
            held: listeners.held(),
            admin: admin.share().context("cannot share the admin API's socket")?,
            admin_stop: admin.stop(),
            handed_over: handed_over.clone(),
        };
        tokio::spawn(giver.run(asked));
    }
    let interrupted = CancellationToken::new();
    let told = Told {
        draining: state.draining.clone(),
        interrupted: interrupted.clone(),
        force,
        upgrade,
        token: admin.token(),
        state: state.clone(),
        access: state.access.clone(),
    };
    tokio::spawn(signals(handled, told));
    let mut control = Control::new(state.clone(), listeners)
        .in_zone(config.zone.clone())
        .with_certificates_in(config.certificates.clone())
        .reading_again(config.seal_key.clone())
        .holding(config.hold);
    if is_elsewhere(&state.engine.describe()) {
        control = control.keeping_in(config.state_dir.clone());
    }
    let announcer = Announcer::start(&config, &state, &gate);
    let beginning = Beginning { state: state.clone(), pulse, state_dir: config.state_dir.clone(), gate, passed };
    let admin = tokio::spawn(begin(beginning, admin, inherited.predecessor.zip(link)));
    tokio::spawn(crate::health::run(state.clone()));
    let certificates = tokio::spawn(acme::run(state.clone()));
    let control = tokio::spawn(control.run());

    let (listeners, kept) = control.await.context("the control loop broke")?;
    let mut announcer = Some(announcer);
    let drain = if handed_over.is_cancelled() {
        // It goes on with the lease that this process leaves alone from now on.
        announcer = None;
        after_upgrade(&config)
    } else {
        let grace = if interrupted.is_cancelled() { Duration::ZERO } else { config.drain_grace };
        // The grace is for those who read it: it begins when they can.
        if let Some(announcer) = &announcer {
            announcer.drain(grace.min(ANNOUNCING)).await;
        }
        Drain { grace, limit: config.drain, quiet: QUIET, spread: SPREAD, handed_over: false }
    };
    tracing::info!(seconds = drain.limit.as_secs(), connections = state.process.connections.get(), "draining");
    if !drain.handed_over {
        let _ = sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    }
    let report = tokio::spawn(systemd::report_drain(state.process.clone(), drain.handed_over));
    listeners.drain(drain).await;
    report.abort();
    if let Some(writer) = access_writer {
        writer.end(LONGEST_LOG).await;
    }
    if let Some(announcer) = announcer {
        announcer.end(ANNOUNCING).await;
    }
    let _ = kept.await;
    // What it has claimed, another proxy can have at once.
    let _ = tokio::time::timeout(LONGEST_RELEASE, certificates).await;
    // Last, so that its readiness could be asked for until the end.
    admin.abort();
    let _ = admin.await;
    systemd::remove_addresses(&config.state_dir);
    tracing::info!("stopped");
    Ok(())
}

fn start_workers(
    config: &Config,
    state: &State,
    trusted: &Arc<Trusted>,
    access: Option<Access>,
    (force, gate): (&CancellationToken, &CancellationToken),
) -> anyhow::Result<Vec<Handle>> {
    let shared = Shared {
        live: state.live.clone(),
        process: state.process.clone(),
        trusted: trusted.clone(),
        mark: Arc::default(),
        admission: Arc::new(admission(config)),
        tickets: state.tickets.clone(),
        terms: Arc::new(Terms::usual()),
        access,
        force: force.clone(),
        gate: gate.clone(),
    };
    (0..config.workers)
        .map(|number| Handle::start(number, shared.clone()))
        .collect::<Result<Vec<Handle>, _>>()
        .context("cannot start a worker")
}

/// What moves as long as all is well. Workers beat once a second; the control loop several times, but may be busy with a
/// large table or a slow store.
fn pulse(workers: &[Handle], state: &State) -> Pulse {
    let mut pulse = Pulse::default();
    for (number, worker) in workers.iter().enumerate() {
        pulse.add(format!("worker-{number}"), worker.beat(), WORKERS_PATIENCE);
    }
    pulse.add("control".into(), state.beat.clone(), CONTROLS_PATIENCE);
    pulse
}

/// Opens the listeners of the command line.
async fn listen(config: &Config, listeners: &mut Listeners) -> anyhow::Result<()> {
    for (name, option, addresses) in
        [(DEFAULT, "--listen", &config.listen), (HTTPS, "--listen-https", &config.listen_https)]
    {
        for (number, address) in addresses.iter().enumerate() {
            let id = if number == 0 { name.to_owned() } else { format!("{name}-{number}") };
            let bound = listeners
                .open_own(id.as_str().into(), *address, name == HTTPS)
                .await
                .with_context(|| format!("cannot listen on {address}: free it, or give another one with {option}"))?;
            tracing::info!(listener = id, address = %bound, "listening");
        }
    }
    for (id, address) in listeners.open_inherited().await.context("cannot use a socket that came with the process")? {
        tracing::info!(listener = %id, %address, "listening");
    }
    Ok(())
}

/// A process that was replaced is in nobody's way: it can wait for its clients.
fn after_upgrade(config: &Config) -> Drain {
    Drain {
        grace: Duration::ZERO,
        limit: config.upgrade_drain,
        quiet: QUIET_REPLACED,
        spread: SPREAD_REPLACED,
        handed_over: true,
    }
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

/// What a process begins with.
struct Beginning {
    state: Arc<State>,
    pulse: Pulse,
    state_dir: PathBuf,
    gate: CancellationToken,
    /// Whether its sockets were listening before it started.
    passed: bool,
}

/// Lets connections in and serves the admin API: at once, or, where clients already wait on sockets that came with the
/// process, when it can answer them.
async fn begin(beginning: Beginning, admin: Admin, predecessor: Option<(Predecessor, Link)>) {
    let Beginning { state, pulse, state_dir, gate, passed } = beginning;
    let address = admin.address().to_string();
    let mut store = state.subscribe_store();
    let mut ready = async move || store.wait_for(|store| store.revision.is_some()).await.is_ok();
    if let Some((predecessor, mut link)) = predecessor {
        if !ready().await {
            return;
        }
        let taken = predecessor.health.restore(&state.live.table());
        tracing::info!(servers = taken, "took over what the former process knew of its servers");
        if let Err(error) = link.ready().await {
            // It decides: if it goes on serving, it ends this process.
            tracing::error!(%error, "cannot take over");
            state.draining.cancel();
            return;
        }
        state.upgrades.succeed(predecessor.pid, predecessor.upgraded);
        tracing::info!(from = predecessor.pid, "took over");
        gate.cancel();
    } else if passed {
        let gate = gate.clone();
        tokio::spawn(async move {
            // A store that is away must not keep clients waiting for ever: then they are told so.
            let _ = tokio::time::timeout(LONGEST_WAIT, ready()).await;
            gate.cancel();
        });
    } else {
        gate.cancel();
    }
    tokio::join!(admin.serve(), systemd::tell(state, pulse, &state_dir, &address));
}

/// How long whoever takes the access log may take for its last lines.
const LONGEST_LOG: Duration = Duration::from_secs(1);
/// How long giving back what was claimed in the store may take.
const LONGEST_RELEASE: Duration = Duration::from_secs(3);
/// Open files where there is no limit.
const MOST_FILES: u64 = 1 << 20;
/// How long clients that connected before the process started wait for its first table.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long a drain leaves idle connections open: a client that sends into it gets its answer and is told to go.
const QUIET: Duration = Duration::from_secs(4);
/// Then they are closed within this time, not all at once: their clients come back somewhere.
const SPREAD: Duration = Duration::from_secs(2);
/// The same for a process that was replaced.
const QUIET_REPLACED: Duration = Duration::from_secs(30);
const SPREAD_REPLACED: Duration = Duration::from_secs(30);
/// How long an end waits for the store to take what is announced of it.
const ANNOUNCING: Duration = Duration::from_secs(2);
const WORKERS_PATIENCE: Duration = Duration::from_secs(5);
const CONTROLS_PATIENCE: Duration = Duration::from_secs(60);
