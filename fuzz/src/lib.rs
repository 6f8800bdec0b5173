//! What must hold for any bytes: one check for every parser that sees bytes of the network or of a store.
//!
//! A check takes bytes and panics where the parser breaks its word. `targets/` hand them what the fuzzer invents; the
//! tests of `store`, `proxy` and `sidekick` include these same files and hand them what is in `seeds/`.

pub mod proxy;
pub mod seeds;
pub mod sidekick;
pub mod socket;
pub mod store;
