//! What Etna promises, each promise a file, on real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here fails a test, and says where")]

mod access_log;
mod acme;
mod activation;
mod admin;
mod bad_keys;
mod balancing;
mod certificate_files;
mod client_certificates;
mod clients;
mod demo;
mod draining;
mod failures;
mod h2;
mod h2_attacks;
mod h2_endings;
mod h2_vectors;
mod headers;
mod health;
mod hot_swap;
mod proxy_protocol;
mod routing;
mod scale;
mod secrets;
mod servers_h2;
mod servers_h2_hostile;
mod servers_tls;
mod sidekick;
mod store_fails;
mod store_gone;
mod tls;
mod tunnels;
mod two_tiers;
mod upgrade;
mod wordpress;
mod wordpress_https;
