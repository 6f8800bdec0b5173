//! A store that ends with its process: for tests, and for trying things out.

use std::sync::Arc;

use super::Engine;
use super::core::Core;
use super::local::{self, Local};

/// `memory:`, empty at revision 0. It keeps the last 10,000 revisions for watchers. Call it inside a tokio runtime.
pub fn open() -> Arc<dyn Engine> {
    with_history(HISTORY)
}

/// One that keeps at most `revisions` (at least 1) for watchers.
pub fn with_history(revisions: usize) -> Arc<dyn Engine> {
    Arc::new(Local::start(Core::new(revisions, local::first_lease()), None, "memory:".into()))
}

const HISTORY: usize = 10_000;
