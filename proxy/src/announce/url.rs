//! Under which URL the tier in front reaches this proxy, where nobody has said it.
//!
//! The address the first listener is bound to; where that is any address, the one of `COREOS_PRIVATE_IPV4`, which the
//! sidekick goes by too, or else the one that packets along the default route carry. Asked anew each time: addresses
//! come and go.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use etna_store::object::Id;

use crate::handover::activation::DEFAULT;

/// The URL.
///
/// # Errors
/// Why it cannot be known.
pub(super) fn find(listeners: &BTreeMap<Id, SocketAddr>) -> Result<String, &'static str> {
    let private = std::env::var(PRIVATE).ok().filter(|text| !text.trim().is_empty());
    of(listeners, private.as_deref(), routed)
}

fn of(
    listeners: &BTreeMap<Id, SocketAddr>,
    private: Option<&str>,
    routed: impl FnOnce(bool) -> Option<IpAddr>,
) -> Result<String, &'static str> {
    let first = listeners.get(DEFAULT).or_else(|| listeners.values().next()).ok_or("it listens nowhere yet")?;
    let address = match (first.ip(), private) {
        (bound, _) if !bound.is_unspecified() => bound,
        (_, Some(text)) => text.trim().parse().map_err(|_| "COREOS_PRIVATE_IPV4 is no IP address")?,
        (any, None) => routed(any.is_ipv6()).ok_or("this machine has no default route that would tell its address")?,
    };
    Ok(format!("http://{}", SocketAddr::new(address.to_canonical(), first.port())))
}

/// Asks the kernel's routing table; nothing is sent. The addresses are for documentation (RFC 5737, RFC 3849), routed
/// like any other.
fn routed(both: bool) -> Option<IpAddr> {
    let toward = |from: &str, to: &str| {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
    };
    toward("0.0.0.0", "192.0.2.1").or_else(|| if both { toward("::", "2001:db8::1") } else { None })
}

const PRIVATE: &str = "COREOS_PRIVATE_IPV4";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_listener_where_the_host_is_reached() {
        let listeners = |list: &[(&str, &str)]| -> BTreeMap<Id, SocketAddr> {
            list.iter().map(|(id, address)| (Id::from(*id), address.parse().unwrap())).collect()
        };
        let route = |_| Some("10.0.0.7".parse().unwrap());
        let default = |address: &str| listeners(&[("a", "10.0.0.1:1"), ("default", address)]);
        for (bound, private, url) in [
            ("10.0.0.5:80", Some("10.0.0.9"), "http://10.0.0.5:80"),
            ("127.0.0.1:81", None, "http://127.0.0.1:81"),
            ("0.0.0.0:82", Some(" 10.0.0.9 "), "http://10.0.0.9:82"),
            ("0.0.0.0:83", None, "http://10.0.0.7:83"),
            ("[::]:84", None, "http://10.0.0.7:84"),
            ("[fd00::1]:85", None, "http://[fd00::1]:85"),
        ] {
            assert_eq!(of(&default(bound), private, route).as_deref(), Ok(url));
        }
        assert_eq!(of(&listeners(&[("web", "10.0.0.1:1")]), None, route).as_deref(), Ok("http://10.0.0.1:1"));
        assert!(of(&listeners(&[]), None, route).is_err());
        assert!(of(&default("0.0.0.0:1"), None, |_| None).is_err());
        assert!(of(&default("0.0.0.0:1"), Some("host"), route).is_err());
    }
}
