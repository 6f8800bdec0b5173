//! What the end-to-end tests stand on: real processes, started on ports of the kernel's, waited for by asking them,
//! killed by handle when the value that holds them is dropped. Nothing here knows how Etna works inside.
//!
//! - [`scene`]: a test's own corner of a shared etcd, and the proxies and sidekicks it starts
//! - [`process`], [`binaries`], [`wait`], [`turn`], [`report`]: children, and the order among tests
//! - [`etcd`], [`docker`], [`site`]: real parts that can be killed, frozen and brought back
//! - [`tls`]: an authority, its certificates, and clients that know it
//! - [`stand_in`]: servers that misbehave on demand; [`client`], [`h2`], [`load`], [`browser`]: clients that never retry and check all
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here fails a test, and says where")]

pub mod harness;

pub use harness::*;
