//! What limits count by: vulcand's limiting variables.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::net::IpAddr;

use http::header::HeaderName;

use super::BadSettings;
use crate::message::RequestHead;
use crate::rule::host_of;

/// `client.ip`, `request.host` or `request.header.<Name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    ClientIp,
    Host,
    Header(HeaderName),
}

impl Variable {
    pub(super) fn parse(text: &str) -> Result<Variable, BadSettings> {
        match text {
            "client.ip" => return Ok(Variable::ClientIp),
            "request.host" => return Ok(Variable::Host),
            _ => {}
        }
        let header = text.strip_prefix("request.header.").and_then(|name| name.parse().ok());
        header.map(Variable::Header).ok_or_else(|| BadSettings {
            reason: format!("unsupported limiting variable {text:?}"),
            hint: "use client.ip, request.host or request.header.<Name>".into(),
        })
    }

    /// A request's value, as a number that takes no more room for a long one; nobody without the keys can find two
    /// values of one number. IPv6 clients count by their /64: one customer has that many addresses.
    pub(super) fn of(&self, head: &RequestHead, client: IpAddr, keys: &RandomState) -> u64 {
        let mut hasher = keys.build_hasher();
        match self {
            Variable::ClientIp => match client {
                IpAddr::V4(ip) => ip.hash(&mut hasher),
                IpAddr::V6(ip) => ip.segments()[..4].hash(&mut hasher),
            },
            // However it is spelled, it leads to the same frontend.
            Variable::Host => host_of(head.host().unwrap_or_default()).hash(&mut hasher),
            Variable::Header(name) => {
                head.fields.get(name.as_str()).unwrap_or_default().hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_the_same_however_it_is_spelled() {
        let keys = RandomState::new();
        let of = |host: &str| {
            let (head, ()) = http::Request::get("/").header("host", host).body(()).unwrap().into_parts();
            let client = "192.0.2.1".parse().unwrap();
            Variable::Host.of(&head.into(), client, &keys)
        };
        for spelled in ["A.test", "a.test:1", "a.test.", "a.TEST.:80"] {
            assert_eq!(of(spelled), of("a.test"), "{spelled}");
        }
        assert_ne!(of("b.test"), of("a.test"));
    }
}
