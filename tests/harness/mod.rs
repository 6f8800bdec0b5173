//! The parts of the harness: one idea a file.

pub mod binaries;
pub mod browser;
pub mod client;
pub mod docker;
pub mod etcd;
pub mod h2;
pub mod load;
pub mod metrics;
pub mod process;
pub mod proxy;
pub mod relay;
pub mod report;
pub mod scene;
pub mod sidekick;
pub mod site;
pub mod stand_in;
pub mod tls;
pub mod turn;
pub mod wait;
