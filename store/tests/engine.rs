//! The acceptance suite: what every engine promises, checked on every engine, and what each promises besides.
//!
//! The checks are in `engine/suite.rs`; a remote engine is checked with them by the proxy's `tests/remote_engine.rs`,
//! since that crate has the other side. etcd is a real one, a process per test.

// Helpers of tests are tests too.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "engine/durability.rs"]
mod durability;
#[path = "engine/embedded.rs"]
mod embedded;
#[path = "engine/etcd.rs"]
mod etcd;
#[path = "engine/etcd_auth.rs"]
mod etcd_auth;
#[path = "engine/etcd_faults.rs"]
mod etcd_faults;
#[path = "engine/etcd_process.rs"]
mod etcd_process;
#[path = "engine/memory.rs"]
mod memory;
#[path = "engine/suite.rs"]
mod suite;
