//! What signals do. Each is an order to somebody else; nothing happens here.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access;
use crate::admin::Shown;
use crate::control::State;

/// What signals act on.
pub(crate) struct Told {
    /// Cancelled to drain.
    pub(crate) draining: CancellationToken,
    /// Cancelled, before that, to drain without a grace period.
    pub(crate) interrupted: CancellationToken,
    /// Cancelled to cut what still runs.
    pub(crate) force: CancellationToken,
    /// Asks to replace the process.
    pub(crate) upgrade: mpsc::Sender<()>,
    /// Read again.
    pub(crate) token: Arc<Shown>,
    /// Reads again what else there is.
    pub(crate) state: Arc<State>,
    /// Opened anew.
    pub(crate) access: Option<Arc<access::Status>>,
}

/// The signals that are handled: from when this is made, none of them ends the process by itself.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr2: Signal,
}

impl Signals {
    /// Handles them from now on; those that come early wait.
    pub(crate) fn handle() -> io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }
}

/// TERM and INT drain, a second one ends at once; USR2 replaces the process; HUP reads files again.
pub(crate) async fn signals(signals: Signals, told: Told) {
    let Signals { mut term, mut int, mut hup, mut usr2 } = signals;
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => if !told.draining.is_cancelled() {
                told.interrupted.cancel();
            },
            _ = hup.recv() => {
                if let Some(access) = &told.access {
                    access.reopen();
                }
                match told.token.read_again() {
                    Ok(true) => tracing::info!("SIGHUP: read the admin token file again"),
                    Ok(false) => {}
                    Err(error) => tracing::error!(error = format!("{error:#}"), "SIGHUP: the admin token stays as it was"),
                }
                told.state.read_again();
                continue;
            }
            _ = usr2.recv() => {
                match told.upgrade.try_send(()) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(())) => tracing::warn!("SIGUSR2: being replaced already"),
                    Err(mpsc::error::TrySendError::Closed(())) => {
                        tracing::warn!("SIGUSR2: this process cannot be replaced, or has been");
                    }
                }
                continue;
            }
        }
        if told.draining.is_cancelled() {
            tracing::warn!("told to stop while draining: cutting what still runs");
            told.force.cancel();
        }
        told.draining.cancel();
    }
}
