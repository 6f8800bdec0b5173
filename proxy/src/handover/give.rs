//! The old process's side: starts the new one, and goes when that is ready.
//!
//! Nothing is given away before: the sockets are shared, the store is only lent. A new process that ends, says nothing
//! in time, or says something wrong is killed, and everything is as it was; the next attempt may work.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::AdminSocket;
use super::channel::{self, Hello, Words};
use super::health::Saved;
use super::program::Program;
use crate::control::{State, Upgraded};
use crate::listener::held::Sockets;

/// What is needed to replace this process.
pub struct Giver {
    /// What runs.
    pub state: Arc<State>,
    /// What is started.
    pub program: Program,
    /// How long the new process may take to be ready.
    pub within: Duration,
    /// The listeners' sockets.
    pub held: Arc<Sockets>,
    /// The admin API's.
    pub admin: AdminSocket,
    /// Ends this process's admin API.
    pub admin_stop: CancellationToken,
    /// Cancelled, before the drain begins, when another process has taken over.
    pub handed_over: CancellationToken,
}

impl Giver {
    /// Replaces this process when asked, until that has worked or the process drains for another reason.
    pub async fn run(self, mut asked: mpsc::Receiver<()>) {
        while asked.recv().await.is_some() {
            if self.state.draining.is_cancelled() {
                tracing::warn!("told to replace the binary while draining: refused");
                continue;
            }
            tracing::info!(program = %self.program.path.display(), "replacing the running binary");
            let mut states = vec![NotifyState::Reloading, NotifyState::Status("replacing the running binary")];
            // systemd 253 and later want to know when.
            states.extend(NotifyState::monotonic_usec_now().ok());
            let _ = sd_notify::notify(&states);
            match self.attempt().await {
                Ok(pid) => {
                    tracing::info!(pid, "the new process has taken over: finishing what runs here");
                    return;
                }
                Err(reason) => {
                    tracing::error!(program = %self.program.path.display(), reason, "not replaced: this process goes on serving");
                    self.state.upgrades.fail(reason);
                    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status("not replaced: see the log")]);
                }
            }
        }
    }

    /// One attempt: the new process's id, or why nothing has changed.
    async fn attempt(&self) -> Result<u32, String> {
        if std::process::id() == 1 {
            return Err("this is process 1, with which its container ends: replace the container instead".into());
        }
        let (ours, theirs) = UnixStream::pair().map_err(said("cannot make a channel"))?;
        let (hello, sockets) = self.hello().map_err(said("cannot share the sockets"))?;
        let mut child = self.start(theirs).await.map_err(said("cannot start the new binary"))?;
        let asked = tokio::select! {
            asked = tokio::time::timeout(self.within, self.persuade(&mut child, ours, hello, sockets)) => {
                asked.unwrap_or_else(|_| Err(format!("the new process was not ready within {:?}", self.within)))
            }
            () = self.state.draining.cancelled() => Err("this process was told to stop meanwhile".into()),
        };
        if asked.is_err() {
            // It must be gone before this process goes on: it may have the store open.
            let _ = child.kill().await;
            self.state.engine.resume().await;
        }
        asked
    }

    fn hello(&self) -> io::Result<(Hello, Vec<OwnedFd>)> {
        let mut sockets: Vec<OwnedFd> = Vec::new();
        let mut listeners = Vec::new();
        for (id, held) in self.held.try_clone()? {
            let listener = channel::Listener {
                id: id.to_string(),
                wanted: held.wanted,
                own: held.own,
                sockets: held.sockets.len(),
            };
            listeners.push(listener);
            sockets.extend(held.sockets.into_iter().map(OwnedFd::from));
        }
        sockets.push(self.admin.socket.try_clone()?);
        let upgraded: Upgraded = self.state.upgrades.now();
        let health = Saved::of(&self.state.live.table());
        let admin = Some(channel::Admin { wanted: self.admin.wanted.clone() });
        Ok((Hello { version: channel::VERSION, listeners, admin, upgraded, health }, sockets))
    }

    /// Starts the new binary; one that somebody is just writing is waited for a little.
    async fn start(&self, theirs: UnixStream) -> io::Result<Child> {
        let mut command = Command::new(&self.program.path);
        command.args(&self.program.arguments).stdin(Stdio::from(OwnedFd::from(theirs)));
        command.env(channel::VARIABLE, std::process::id().to_string());
        // Those of this process name it by its id.
        for variable in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(variable);
        }
        let patience = Instant::now() + WRITTEN_WITHIN;
        loop {
            match command.spawn() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < patience => {
                    tokio::time::sleep(WRITTEN_WITHIN / 50).await;
                }
                started => return started,
            }
        }
    }

    /// Talks to the new process until the sockets are its own.
    async fn persuade(
        &self,
        child: &mut Child,
        ours: UnixStream,
        hello: Hello,
        sockets: Vec<OwnedFd>,
    ) -> Result<u32, String> {
        let pid = child.id().ok_or("the new process ended at once")?;
        ours.set_write_timeout(Some(self.within)).map_err(said("cannot set up the channel"))?;
        let sending = tokio::task::spawn_blocking(move || channel::send(&ours, &hello, &sockets).map(|()| ours));
        let mut words = tokio::select! {
            ended = child.wait() => return Err(of_end(ended)),
            sent = sending => match sent.map_err(io::Error::other).and_then(|sent| sent) {
                Ok(ours) => Words::after_hello(ours).map_err(said("cannot set up the channel"))?,
                Err(error) => return Err(why(child, &format!("it did not take the sockets: {error}")).await),
            },
        };
        tracing::info!(pid, "the sockets were given to the new process");
        loop {
            let word = tokio::select! {
                biased;
                ended = child.wait() => return Err(of_end(ended)),
                word = words.hear() => word.map_err(said("the new process cannot be understood"))?,
            };
            let answered = match word.as_deref() {
                Some(channel::STORE) => {
                    self.state.engine.release().await;
                    words.say(channel::CLOSED).await
                }
                Some(channel::READY) => {
                    // First, because systemd listens to the main process only.
                    let _ = sd_notify::notify(&[NotifyState::MainPid(pid)]);
                    let answered = words.say(channel::YOURS).await;
                    if answered.is_ok() {
                        self.handed_over.cancel();
                        self.admin_stop.cancel();
                        self.state.draining.cancel();
                        return Ok(pid);
                    }
                    answered
                }
                Some(word) => return Err(format!("the new process says `{word}`")),
                None => return Err(why(child, "it closed its channel").await),
            };
            if let Err(error) = answered {
                return Err(why(child, &format!("it does not listen: {error}")).await);
            }
        }
    }
}

/// Why the new process went wrong: how it ended, if it does so at once, or else what was seen of it.
async fn why(child: &mut Child, seen: &str) -> String {
    match tokio::time::timeout(MOMENT, child.wait()).await {
        Ok(ended) => of_end(ended),
        Err(_) => format!("the new process went wrong: {seen}"),
    }
}

fn of_end(ended: io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => format!("the new process ended before it was ready: {status}; its log says why"),
        Err(error) => format!("the new process was lost: {error}"),
    }
}

fn said(what: &'static str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// How long a process that closed its channel may take to end.
const MOMENT: Duration = Duration::from_secs(1);
/// How long a new binary that is still being written is waited for.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);
