//! The control loop: store → model → table → publish. The only publisher.
//!
//! It takes whatever waits and never waits for more. It does not end: while the store is away the last table serves,
//! and the loop tries again; a start without the store serves the last table on disk (`disk.rs`, `keep.rs`). Deletions
//! in a mass are held as suspect (`suspect.rs`, `probe.rs`); lost events are looked for (`resync.rs`); `tell.rs` says how it stands. Traffic is not
//! its business; it runs on a runtime of its own.

mod begin;
mod certificates;
mod chores;
pub mod disk;
mod follow;
mod keep;
mod probe;
mod reread;
mod resync;
mod state;
pub mod suspect;
mod tell;
mod tickets;
mod upgrades;

pub use follow::Control;
pub use state::{State, StoreStatus, SuspectStatus};
pub use upgrades::{Last, Upgraded, Upgrades};
