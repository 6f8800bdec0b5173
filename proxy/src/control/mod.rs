//! The control loop: store → model → table → publish. The only publisher.
//!
//! It takes whatever waits and never waits for more. It does not end: while the store is away the last table serves,
//! and the loop tries again. Traffic is not its business; it runs on a runtime of its own.

mod follow;
mod state;
mod upgrades;

pub use follow::Control;
pub use state::{State, StoreStatus};
pub use upgrades::{Last, Upgraded, Upgrades};
