//! Who may run beside whom: most tests side by side, a test that measures alone.
//!
//! A turn is the last thing a test waits for before it begins, and it never takes a second one: whoever waits to be
//! alone holds up everybody who comes later.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A test's turn; it ends when dropped.
pub enum Turn {
    /// Others may run meanwhile.
    Shared(#[allow(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    /// Nobody else does.
    Alone(#[allow(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

impl Turn {
    /// Waits until nobody runs alone.
    pub async fn shared() -> Turn {
        Turn::Shared(MACHINE.read().await)
    }

    /// Waits until the machine is this test's own.
    pub async fn alone() -> Turn {
        Turn::Alone(MACHINE.write().await)
    }
}

static MACHINE: RwLock<()> = RwLock::const_new(());
