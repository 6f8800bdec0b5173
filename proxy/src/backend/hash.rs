//! Hashing for balancing: what a request's key is, and which server a key belongs to. Pure.
//!
//! Rendezvous hashing: every server draws a number from the key and its own name, scaled by its weight; the best draw
//! wins. A server that goes takes only its own keys along, one that comes takes its share of everybody's. The functions
//! are fixed for ever: every proxy, of any version, must come to the same server.

use std::net::IpAddr;

use etna_store::object::HashOn;
use http::HeaderName;

use super::sticky;
use crate::message::RequestHead;

/// What a backend hashes, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Client,
    /// The path as written, without the query.
    Path,
    /// The first value of a header field.
    Header(HeaderName),
    /// The first value of a cookie.
    Cookie(Box<str>),
}

impl HashKey {
    /// Compiles what is stored; `None` if it names no header after all.
    pub fn new(on: &HashOn) -> Option<HashKey> {
        Some(match on {
            HashOn::Client => HashKey::Client,
            HashOn::Path => HashKey::Path,
            HashOn::Header(name) => HashKey::Header(name.parse().ok()?),
            HashOn::Cookie(name) => HashKey::Cookie(name.as_str().into()),
        })
    }

    /// A request's key; `None` if it has no such thing.
    pub fn of(&self, head: &RequestHead, client: IpAddr) -> Option<u64> {
        Some(match self {
            HashKey::Client => match client {
                IpAddr::V4(ip) => bytes(&ip.octets()),
                IpAddr::V6(ip) => bytes(&ip.octets()),
            },
            HashKey::Path => bytes(head.uri.path().as_bytes()),
            HashKey::Header(name) => bytes(head.fields.get(name.as_str())?),
            HashKey::Cookie(name) => bytes(sticky::cookie_value(&head.fields, name)?),
        })
    }
}

/// FNV-1a, stirred.
pub fn bytes(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Every bit of the result depends on every bit given (the finalizer of splitmix64).
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What a server draws for a key; the least wins. With weights, an exponential variate of that rate: a server wins in
/// proportion to its weight.
pub fn draw(key: u64, server: u64, weight: u32) -> f64 {
    let uniform = ((mix(key ^ server) >> 11) + 1) as f64 / (1u64 << 53) as f64;
    -uniform.ln() / f64::from(weight.max(1))
}

/// The same where all weights are equal: orders servers as [`draw`] does, without a logarithm.
pub fn draw_evenly(key: u64, server: u64) -> u64 {
    u64::MAX - mix(key ^ server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn winner(key: u64, servers: &[(u64, u32)]) -> u64 {
        let draws = servers.iter().map(|(server, weight)| (draw(key, *server, *weight), *server));
        draws.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1
    }

    fn servers(count: u64) -> Vec<(u64, u32)> {
        (0..count).map(|n| (bytes(format!("server-{n}").as_bytes()), 1)).collect()
    }

    #[test]
    fn keys_never_change_their_hash() {
        assert_eq!(bytes(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(bytes(b"tenant-7"), bytes(b"tenant-7"));
        assert_ne!(bytes(b"tenant-7"), bytes(b"tenant-8"));
    }

    #[test]
    fn shares_follow_weights() {
        let servers: Vec<(u64, u32)> = servers(3).into_iter().zip([1, 2, 5]).map(|((id, _), w)| (id, w)).collect();
        let won = |server: u64| (0..8000u64).filter(|n| winner(mix(*n), &servers) == server).count();
        for ((server, _), share) in servers.iter().zip([1000, 2000, 5000]) {
            let won = won(*server);
            assert!(won.abs_diff(share) < 200, "{won} instead of {share}");
        }
    }

    proptest! {
        #[test]
        fn a_server_that_comes_takes_its_share_and_one_that_goes_only_its_own(count in 2u64..20, salt in any::<u64>()) {
            let many = servers(count);
            let fewer = &many[1..];
            let mut moved = 0;
            for n in 0..1000u64 {
                let key = mix(n ^ salt);
                let (before, after) = (winner(key, fewer), winner(key, &many));
                if before != after {
                    prop_assert_eq!(after, many[0].0, "only the new server takes keys");
                    moved += 1;
                }
            }
            // At most its share, with room for chance.
            prop_assert!(moved <= 1000 / count + 100, "{} of 1000 moved among {}", moved, count);
        }

        #[test]
        fn both_draws_order_alike(key in any::<u64>(), a in any::<u64>(), b in any::<u64>()) {
            let (x, y) = (draw(key, a, 3), draw(key, b, 3));
            prop_assume!((x - y).abs() > 1e-12);
            prop_assert_eq!(x < y, draw_evenly(key, a) < draw_evenly(key, b));
        }
    }
}
