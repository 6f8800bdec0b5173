//! The drills' hold on one of their servers: ends with it, and reads what it wrote down.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use etna_tests::client;
use etna_tests::process::Process;
use etna_tests::wait::eventually;

use crate::servers::{COMMAND, REFUSED};

/// A server in a process of its own.
pub(crate) struct Echo {
    /// What it calls itself in its answers.
    pub(crate) id: String,
    /// Where it serves; also after it was started again.
    pub(crate) address: SocketAddr,
    record: PathBuf,
    folder: PathBuf,
    process: Process,
}

impl Echo {
    /// Starts one, and waits until it answers.
    pub(crate) async fn start(id: &str, folder: &Path) -> Echo {
        // An address from which nobody connects anywhere, so that the port is still free when it starts again.
        let held = TcpListener::bind("127.0.1.1:0").expect("a port is free");
        let address = held.local_addr().expect("it is bound");
        drop(held);
        let record = folder.join(format!("{id}.ids"));
        let process = spawn(id, address, &record, folder);
        let echo = Echo { id: id.to_owned(), address, record, folder: folder.to_owned(), process };
        echo.until_up().await;
        echo
    }

    /// Ends it as a power cut does; the kernel resets its connections.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again where it was.
    pub(crate) async fn restart(&mut self) {
        self.process = spawn(&self.id, self.address, &self.record, &self.folder);
        self.until_up().await;
    }

    /// Sends it a signal: `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// From now on, e.g. `status=503`, `health=500`, `spin=300` (microseconds), `delay=20` (milliseconds).
    pub(crate) async fn set(&self, conduct: &str) {
        self.order(&format!("set?{conduct}")).await;
    }

    /// Serves under another name at another address, too.
    pub(crate) async fn open(&self, name: &str) -> SocketAddr {
        self.order(&format!("open?name={name}")).await.parse().expect("it says an address")
    }

    /// Ends that, and the connections to it.
    pub(crate) async fn close(&self, address: SocketAddr) {
        self.order(&format!("close?at={address}")).await;
    }

    /// The ids of all requests it executed, in order, whichever name it was asked by.
    pub(crate) fn executed(&self) -> Vec<u64> {
        self.written().into_iter().filter(|id| id & REFUSED == 0).collect()
    }

    /// Requests it got whole, whether it executed or refused them.
    pub(crate) fn attempts(&self) -> u64 {
        std::fs::metadata(&self.record).map_or(0, |file| file.len()) / 8
    }

    fn written(&self) -> Vec<u64> {
        let bytes = std::fs::read(&self.record).unwrap_or_default();
        bytes.as_chunks::<8>().0.iter().map(|id| u64::from_le_bytes(*id)).collect()
    }

    async fn order(&self, order: &str) -> String {
        let answer = client::get(self.address, "bed", &format!("/_bed/{order}")).await.expect("the server obeys");
        assert_eq!(answer.status, 200, "{order}: {}", answer.text());
        answer.text()
    }

    async fn until_up(&self) {
        eventually(&format!("{} serves", self.id), SOON, async || client::get(self.address, "bed", "/_bed/").await)
            .await;
    }
}

fn spawn(id: &str, address: SocketAddr, record: &Path, folder: &Path) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("the drills know their own path"));
    command.args([COMMAND, id, &address.to_string()]).arg(record);
    Process::start(id, &mut command, folder)
}

const SOON: Duration = Duration::from_secs(10);
