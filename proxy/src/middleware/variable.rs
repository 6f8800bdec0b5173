//! What limits count by: vulcand's limiting variables.

use http::header::{HOST, HeaderName};

use super::{BadSettings, Request};

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

    /// A request's value. IPv6 clients count by their /64: one customer has that many addresses.
    pub(super) fn of(&self, request: &Request) -> String {
        let header = |name: &HeaderName| {
            String::from_utf8_lossy(request.head.headers.get(name).map_or(b"".as_slice(), |value| value.as_bytes()))
                .into_owned()
        };
        match self {
            Variable::ClientIp => match request.client {
                std::net::IpAddr::V4(ip) => ip.to_string(),
                std::net::IpAddr::V6(ip) => {
                    let [a, b, c, d, ..] = ip.segments();
                    format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
                }
            },
            Variable::Host => header(&HOST),
            Variable::Header(name) => header(name),
        }
    }
}
