//! Where the access log goes: opened, opened anew, and written to without ever being stuck in a write.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use super::Target;
use super::lines::Chunk;
use super::status::{Failing, Status};

/// What is written to.
pub(super) struct Output {
    target: Target,
    status: Arc<Status>,
    file: Option<File>,
    /// Whether a line is there in part, of which the rest will not follow.
    torn: bool,
    /// Whether opening it failed the last time.
    closed: bool,
    /// When it was last looked whether it is fast enough, and how many lines were lost then.
    judged: Instant,
    lost: u64,
    /// When it was last said that lines are lost.
    said: Option<Instant>,
}

impl Output {
    pub(super) fn new(target: Target, status: Arc<Status>) -> Output {
        let judged = Instant::now();
        Output { target, status, file: None, torn: false, closed: true, judged, lost: 0, said: None }
    }

    /// Opens what is not open, or is to be opened anew, and says what was lost. Called every second.
    pub(super) fn look(&mut self, now: Instant) {
        if self.status.take_reopen() || self.closed {
            self.open();
        }
        self.judge(now);
    }

    /// Says what was lost because it is too slow.
    fn judge(&mut self, now: Instant) {
        self.judged = now;
        let slow = self.status.slow.get();
        self.status.lags(slow > self.lost, now);
        if slow > self.lost && self.said.is_none_or(|said| now.saturating_duration_since(said) >= SAY_EVERY) {
            tracing::warn!(to = %self.target, lines = slow - self.lost, "lines of the access log are lost: it is written too slowly");
            self.said = Some(now);
        }
        self.lost = slow;
    }

    /// Writes whole lines, or counts those that it cannot write.
    pub(super) fn write(&mut self, chunk: &Chunk) {
        let mut rest = &chunk.bytes[..];
        if self.torn && self.file.is_some() {
            match self.push(b"\n") {
                Ok(_) => self.torn = false,
                Err(error) => return self.lose(rest, &error),
            }
        }
        while !rest.is_empty() {
            if self.status.is_to_reopen() && self.status.take_reopen() {
                // A line is in one file as a whole, or lost.
                if rest.len() < chunk.bytes.len() && chunk.bytes[chunk.bytes.len() - rest.len() - 1] != b'\n' {
                    rest = &rest[rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1)..];
                    self.status.unwritten.add(1);
                }
                self.open();
                continue;
            }
            match self.push(rest) {
                Ok(0) => {
                    let now = Instant::now();
                    if now.saturating_duration_since(self.judged) >= JUDGE_EVERY {
                        self.judge(now);
                    }
                }
                Ok(written) => {
                    self.status.lines.add(lines(&rest[..written]));
                    rest = &rest[written..];
                }
                Err(error) => {
                    self.torn |= rest.len() < chunk.bytes.len() && !ends_line(&chunk.bytes, rest);
                    return self.lose(rest, &error);
                }
            }
        }
        if !self.closed {
            self.works();
        }
    }

    /// Writes some of it; nothing if the reader had no room for a while.
    fn push(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let mut ready = [PollFd::new(&*file, PollFlags::OUT)];
        match poll(&mut ready, Some(&PATIENCE)) {
            Ok(0) => return Ok(0),
            Ok(_) => {}
            Err(error) if io::Error::from(error).kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error.into()),
        }
        // So much a pipe takes at once that is ready for any.
        let most = if matches!(self.target, Target::Stdout) { PIPE } else { bytes.len() };
        match file.write(&bytes[..bytes.len().min(most)]) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            written => written,
        }
    }

    fn lose(&mut self, bytes: &[u8], error: &io::Error) {
        self.status.unwritten.add(lines(bytes));
        // What was not opened has been told of.
        if self.file.is_some() {
            self.fails(error, false);
        }
    }

    fn open(&mut self) {
        match open(&self.target) {
            Ok(file) => {
                self.file = Some(file);
                self.torn = false;
                tracing::info!(to = %self.target, "access log opened");
                if std::mem::take(&mut self.closed) {
                    self.works();
                }
            }
            Err(error) => {
                // The one that was open, if one was, takes what comes.
                self.closed = true;
                self.fails(&error, self.file.is_some());
            }
        }
    }

    fn fails(&self, error: &io::Error, goes_on: bool) {
        if !self.status.tell(Some(Failing { error: error.to_string(), goes_on })) {
            return;
        }
        if goes_on {
            tracing::error!(to = %self.target, %error, "the access log cannot be opened anew; the file that was open takes its lines");
        } else {
            tracing::error!(to = %self.target, %error, "the access log cannot be written; its lines are lost and counted");
        }
    }

    fn works(&self) {
        if self.status.tell(None) {
            tracing::info!(to = %self.target, "the access log is written again");
        }
    }
}

fn open(target: &Target) -> io::Result<File> {
    match target {
        // Without the lock and the buffer that `println` has.
        Target::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        Target::File(path) => {
            let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
            if is_pipe(path) {
                // For both, so that it need not have a reader yet, and a reader that leaves is no error.
                return OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(path);
            }
            match OpenOptions::new().append(true).create_new(true).mode(MODE).open(path) {
                // Whatever the process's mask is: who reads logs is in its group.
                Ok(file) => file.set_permissions(Permissions::from_mode(MODE)).map(|()| file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    OpenOptions::new().append(true).custom_flags(nonblocking).open(path)
                }
                Err(error) => Err(error),
            }
        }
    }
}

fn is_pipe(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.file_type().is_fifo())
}

fn ends_line(chunk: &[u8], rest: &[u8]) -> bool {
    chunk[..chunk.len() - rest.len()].last() == Some(&b'\n')
}

fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

const MODE: u32 = 0o640;
/// How long a reader without room is waited for before it is looked whether something else is wanted.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// POSIX's least PIPE_BUF is 512; Linux's is this.
const PIPE: usize = 4096;
const JUDGE_EVERY: Duration = Duration::from_secs(1);
const SAY_EVERY: Duration = Duration::from_secs(10);
