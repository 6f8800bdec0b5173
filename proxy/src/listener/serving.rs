//! What a worker that drains waits for.

use std::rc::Rc;

use super::worker::Worker;

/// Something that runs: a connection from when it is accepted, before its task runs for the first time, or a request
/// that goes on without one. Counted as long as this value lives.
pub struct Serving(Rc<Worker>);

impl Serving {
    /// It begins.
    pub fn begin(worker: &Rc<Worker>) -> Serving {
        worker.serving.set(worker.serving.get() + 1);
        Serving(worker.clone())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.set(self.0.serving.get() - 1);
    }
}
