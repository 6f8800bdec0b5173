//! What systemd and tools on this host are told of a process: where it listens, that it is ready, how it goes, and that
//! it lives.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::control::State;
use crate::pulse::Pulse;
use crate::stats::Process;

/// Says where the process listens, in a file, that it is ready, to systemd, and then how it goes.
pub(crate) async fn tell(state: Arc<State>, mut pulse: Pulse, state_dir: &Path, admin: &str) {
    write_addresses(&state, &state_dir.join(ADDRESSES), admin);
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
    write_addresses(&state, &state_dir.join(ADDRESSES), admin);
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tracing::info!("ready");
    let every = sd_notify::watchdog_enabled().map_or(Duration::from_secs(10), |watchdog| watchdog / 3);
    let mut all_move = true;
    while !state.draining.is_cancelled() {
        // Another process with the same directory may have taken its own away.
        if !state_dir.join(ADDRESSES).exists() {
            write_addresses(&state, &state_dir.join(ADDRESSES), admin);
        }
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
            table.router.len(),
            state.problems().len(),
            match state.suspects().count {
                0 => String::new(),
                keys => format!(" · {keys} keys held as suspect"),
            }
        );
        let still = pulse.still(Instant::now());
        match still {
            None => {
                let _ = sd_notify::notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
            }
            Some(part) => {
                if all_move {
                    tracing::error!(part, "stands still: the watchdog is not told that all is well");
                }
                let _ = sd_notify::notify(&[NotifyState::Status(&format!("{part} stands still; {status}"))]);
            }
        }
        all_move = still.is_none();
        // It may have been the whole process that did not run.
        tokio::time::sleep(if all_move { every } else { LOOK_AGAIN }).await;
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

/// Only what this process has written: another one may have replaced it, or have the same directory.
pub(crate) fn remove_addresses(state_dir: &Path) {
    let path = state_dir.join(ADDRESSES);
    let said = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    if said.is_some_and(|said| said["pid"] == std::process::id()) {
        let _ = std::fs::remove_file(path);
    }
}

/// Says how a drain goes.
pub(crate) async fn report_drain(process: Arc<Process>, replaced: bool) {
    let mut tick = tokio::time::interval(if replaced { REPORT_REPLACED } else { REPORT });
    tick.tick().await;
    loop {
        tick.tick().await;
        let (connections, tunnels) = (process.connections.get(), process.tunnels.get());
        tracing::info!(connections, tunnels, "still draining");
        if !replaced {
            let status = format!("draining, {connections} connections left");
            let _ = sd_notify::notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
        }
    }
}

/// Where tools on this host find what was bound.
const ADDRESSES: &str = "addresses.json";
/// How soon those that stood still are looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often a drain says how it goes.
const REPORT: Duration = Duration::from_secs(5);
const REPORT_REPLACED: Duration = Duration::from_secs(60);
