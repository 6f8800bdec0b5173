//! Lines of one worker, on their way to the thread that writes them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use super::clock::Clock;
use super::json::Query;
use super::record::Recorder;
use super::status::Status;

/// Whole lines.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u32,
}

/// The access log, for a worker that is to start.
#[derive(Clone, Debug)]
pub struct Access {
    pub(super) queue: SyncSender<Chunk>,
    pub(super) status: Arc<Status>,
    pub(super) query: Query,
}

/// A worker's lines that were not handed over yet. They are when this value is dropped.
#[derive(Debug)]
pub struct Lines {
    access: Access,
    pub(super) clock: Clock,
    gathered: RefCell<Vec<u8>>,
    count: Cell<u32>,
    /// Buffers that lines are put together in.
    spare: RefCell<Vec<Vec<u8>>>,
}

impl Lines {
    /// The lines of one worker.
    pub fn new(access: Access) -> Rc<Lines> {
        Rc::new(Lines {
            access,
            clock: Clock::default(),
            gathered: RefCell::default(),
            count: Cell::new(0),
            spare: RefCell::default(),
        })
    }

    /// What puts together the lines of a connection or stream.
    pub fn recorder(self: &Rc<Lines>, http2: bool) -> Rc<Recorder> {
        Rc::new(Recorder::new(self.clone(), http2))
    }

    /// What is shown of queries.
    pub(super) fn query(&self) -> Query {
        self.access.query
    }

    pub(super) fn buffer(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(LINE))
    }

    /// Takes a line.
    pub(super) fn push(&self, mut line: Vec<u8>) {
        let is_enough = {
            let mut gathered = self.gathered.borrow_mut();
            gathered.extend_from_slice(&line);
            gathered.len() >= CHUNK
        };
        self.count.set(self.count.get() + 1);
        if is_enough {
            self.flush();
        }
        let mut spare = self.spare.borrow_mut();
        if line.capacity() <= LARGEST_BUFFER && spare.len() < MOST_BUFFERS {
            line.clear();
            spare.push(line);
        }
    }

    /// Hands over what has gathered, or loses it if the writer is too far behind.
    pub fn flush(&self) {
        let lines = self.count.replace(0);
        if lines == 0 {
            return;
        }
        let room = Vec::with_capacity((self.gathered.borrow().len() + LARGEST_BUFFER).min(CHUNK + LARGEST_BUFFER));
        let bytes = self.gathered.replace(room);
        match self.access.queue.try_send(Chunk { bytes, lines }) {
            Ok(()) => {}
            Err(TrySendError::Full(chunk) | TrySendError::Disconnected(chunk)) => {
                self.access.status.too_slow(u64::from(chunk.lines));
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Bytes of a buffer for a line; most are far shorter.
const LINE: usize = 1024;
/// Bytes of a buffer that is kept.
const LARGEST_BUFFER: usize = 8 * 1024;
/// Buffers kept for the next lines.
const MOST_BUFFERS: usize = 256;
/// Bytes that are handed over before a second has passed.
const CHUNK: usize = 64 * 1024;
