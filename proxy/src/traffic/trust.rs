//! Whose word about the client counts.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use ipnet::IpNet;

use crate::message::fields::Fields;

/// Networks whose forwarding headers are believed. None by default.
#[derive(Clone, Debug, Default)]
pub struct Trusted(Vec<IpNet>);

impl Trusted {
    /// Trusts these networks.
    pub fn new(networks: Vec<IpNet>) -> Trusted {
        Trusted(networks)
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this address is trusted.
    pub fn contains(&self, address: IpAddr) -> bool {
        !self.0.is_empty() && self.0.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// The client behind trusted proxies: the last address of `X-Forwarded-For` that is not one of them.
    pub fn client(&self, peer: IpAddr, fields: &Fields) -> IpAddr {
        if !self.contains(peer) {
            return peer;
        }
        let values: Vec<&str> =
            fields.get_all("x-forwarded-for").filter_map(|value| std::str::from_utf8(value).ok()).collect();
        let mut client = peer;
        for text in values.iter().rev().flat_map(|value| value.rsplit(',')) {
            let Ok(address) = text.trim().parse::<IpAddr>() else { break };
            client = address.to_canonical();
            if !self.contains(client) {
                break;
            }
        }
        client
    }
}

/// What is known of a client from its connection; made once per connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the connection comes from, as a PROXY protocol header says where one is believed.
    pub address: IpAddr,
    /// The port it comes from.
    pub from_port: u16,
    /// What the client connected to.
    pub to: SocketAddr,
    /// The same in text.
    pub text: Rc<str>,
    /// `http` or `https`.
    pub proto: &'static str,
    /// The port it came to, in text.
    pub port: Rc<str>,
}

impl Peer {
    /// Whether the original request came over TLS, as far as a believed header says.
    pub fn is_secure(&self, fields: &Fields, believe: bool) -> bool {
        let said = if believe { fields.get("x-forwarded-proto") } else { None };
        said.unwrap_or(self.proto.as_bytes()) == b"https"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{HeaderMap, HeaderValue};

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        let trusted = Trusted::new(vec!["192.0.2.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", HeaderValue::from_static("8.8.8.8, 203.0.113.9, 10.1.1.1"));
        assert_eq!(trusted.client(ip("192.0.2.7"), &Fields::from(&headers)), ip("203.0.113.9"));
        assert_eq!(trusted.client(ip("198.51.100.1"), &Fields::from(&headers)), ip("198.51.100.1"));
        headers.append("x-forwarded-for", HeaderValue::from_static("garbage"));
        assert_eq!(trusted.client(ip("192.0.2.7"), &Fields::from(&headers)), ip("192.0.2.7"));
        assert_eq!(Trusted::default().client(ip("192.0.2.7"), &Fields::from(&headers)), ip("192.0.2.7"));
    }
}
