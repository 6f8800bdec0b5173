//! The thread that writes the access log, the only one that ever waits for it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Settings;
use super::lines::{Access, Chunk};
use super::output::Output;
use super::status::Status;

/// The writer, seen from the control side.
#[derive(Debug)]
pub struct Writer {
    ended: oneshot::Receiver<()>,
}

/// Starts the writer. A place that cannot be written to is a problem, and tried again every second; it is no reason not
/// to serve.
///
/// # Errors
/// Without a thread.
pub fn start(settings: &Settings) -> io::Result<(Access, Writer)> {
    let (queue, handed) = sync_channel(QUEUE);
    let status = Arc::new(Status::new(settings.target.to_string()));
    let (said, ended) = oneshot::channel();
    let output = Output::new(settings.target.clone(), status.clone());
    std::thread::Builder::new().name("access-log".into()).spawn(move || {
        write(&handed, output);
        // Nobody may wait for it any more.
        let _ = said.send(());
    })?;
    Ok((Access { queue, status, query: settings.query }, Writer { ended }))
}

impl Access {
    /// How it stands.
    pub fn status(&self) -> Arc<Status> {
        self.status.clone()
    }
}

impl Writer {
    /// Waits until everything is written, but not for longer than that. Every [`Access`] and every worker has ended.
    pub async fn end(self, within: Duration) {
        if tokio::time::timeout(within, self.ended).await.is_err() {
            tracing::warn!("the access log takes nothing; its last lines are lost");
        }
    }
}

fn write(handed: &Receiver<Chunk>, mut output: Output) {
    output.look(Instant::now());
    let mut due = Instant::now() + LOOK_EVERY;
    loop {
        match handed.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(chunk) => output.write(&chunk),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        if now >= due {
            output.look(now);
            due = now + LOOK_EVERY;
        }
    }
}

/// Chunks that wait to be written: 16 MiB.
const QUEUE: usize = 256;
const LOOK_EVERY: Duration = Duration::from_secs(1);
