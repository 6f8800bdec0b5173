//! Makes the store equal to what is wanted: records and keys, the plan, the lease, and the loop around them.
//!
//! Bottom first: [`record`] (what is written), [`plan()`] (pure: wanted − held = transactions), [`Lease`]
//! (one per machine), [`Registrar`] (the only one who writes). Where the wanted set comes from is not its business.

mod plan;
pub mod record;
mod registrar;

#[cfg(test)]
pub(crate) mod fake;

pub use etna_store::lease::{Keeper, Lease, Notebook};
pub use plan::{Held, HeldServer, Step, plan};
pub use record::Machine;
pub use registrar::{Failure, Registrar, deregister, read_own};
