//! The new process's side: takes what the old one hands over, and tells it when to go.
//!
//! Before that it does nothing that others see: it accepts nothing, writes no addresses, and leaves the admin API's
//! path alone. If the old process dies meanwhile, the new one carries on alone.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::channel::{self, Words};
use super::health::Saved;
use super::{AdminSocket, Inherited, activation};
use crate::control::Upgraded;
use crate::listener::held::Held;

/// The process that this one replaces.
#[derive(Debug)]
pub struct Predecessor {
    /// Its process id.
    pub pid: u32,
    /// What it knows of its servers' health.
    pub health: Saved,
    /// How upgrades went until now.
    pub upgraded: Upgraded,
    stream: UnixStream,
}

/// The same, listening to what this process says.
pub struct Link {
    pid: u32,
    words: Words,
}

impl Inherited {
    /// What came with this process: from the one it replaces, or from the service manager. Call it once, before there
    /// are threads.
    pub fn take() -> anyhow::Result<Inherited> {
        match std::env::var(channel::VARIABLE).ok().and_then(|named| named.parse().ok()) {
            Some(pid) if is_channel_of(pid) => {
                from_process(pid).with_context(|| format!("cannot take over from process {pid}"))
            }
            _ => activation::take(),
        }
    }
}

/// Whether the standard input is a channel that this process made: a variable that was passed on to somebody else says
/// nothing. The process may be gone already.
fn is_channel_of(pid: u32) -> bool {
    let maker = rustix::net::sockopt::socket_peercred(io::stdin());
    maker.is_ok_and(|maker| u32::try_from(maker.pid.as_raw_nonzero().get()).is_ok_and(|maker| maker == pid))
}

fn from_process(pid: u32) -> anyhow::Result<Inherited> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // The channel ends with the two processes, not with a copy of it in this one's standard input.
    let nothing = std::fs::File::open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&nothing).context("cannot replace the standard input")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (hello, sockets) = channel::receive(&stream)?;
    let mut sockets = sockets.into_iter();
    let mut inherited = Inherited::default();
    for listener in hello.listeners {
        let taken: Vec<TcpListener> = sockets.by_ref().take(listener.sockets).map(TcpListener::from).collect();
        if taken.is_empty() {
            bail!("it holds no socket of listener {}", listener.id);
        }
        let held = Held { wanted: listener.wanted, own: listener.own, sockets: taken };
        inherited.sockets.insert(listener.id.into(), held);
    }
    inherited.admin = hello
        .admin
        .zip(sockets.next())
        .map(|(admin, socket): (_, OwnedFd)| AdminSocket { wanted: admin.wanted, socket });
    inherited.predecessor = Some(Predecessor { pid, health: hello.health, upgraded: hello.upgraded, stream });
    Ok(inherited)
}

impl Predecessor {
    /// Begins to talk to it. Call it inside a tokio runtime.
    pub fn link(&self) -> io::Result<Link> {
        Ok(Link { pid: self.pid, words: Words::after_hello(self.stream.try_clone()?)? })
    }
}

impl Link {
    /// Asks it to let go of the store; returns when it has.
    pub async fn ask_for_store(&mut self) -> io::Result<()> {
        self.exchange(channel::STORE, channel::CLOSED).await
    }

    /// Says that this process can serve; returns when it accepts no more.
    pub async fn ready(&mut self) -> io::Result<()> {
        self.exchange(channel::READY, channel::YOURS).await
    }

    async fn exchange(&mut self, say: &str, hear: &str) -> io::Result<()> {
        let heard = match self.words.say(say).await {
            Ok(()) => self.words.hear().await?,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Err(error) => return Err(error),
        };
        match heard {
            Some(word) if word == hear => Ok(()),
            Some(word) => Err(io::Error::other(format!("process {} says `{word}` to `{say}`", self.pid))),
            None => {
                tracing::warn!(pid = self.pid, "the process to be replaced is gone: going on without it");
                Ok(())
            }
        }
    }
}

/// How long the old process may take for what it says first.
const PATIENCE: Duration = Duration::from_secs(20);
