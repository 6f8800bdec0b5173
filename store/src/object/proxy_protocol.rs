//! The PROXY protocol at a listener: whether a client's address is told in front of a connection, by whom, and how.
//!
//! vulcand knows `PROXY_V1`, which it takes from everyone; the rest is ours. What is sent to servers is said by
//! `ProxyVersion` in a backend.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{at, word};
use crate::json::{Fields, Node, clip};
use crate::problem::Flaw;

/// What a listener expects in front of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Which versions are understood.
    pub versions: ProxyVersions,
    /// Ours, `ProxyProtocolRequired`: whether a connection without a header is refused. vulcand serves it.
    pub required: bool,
    /// Ours, `ProxyProtocolFrom`: who may send a header. Empty: the trusted proxies of the command line.
    pub from: Vec<IpNet>,
}

/// Which versions of the header a listener understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersions {
    /// `PROXY_V1`, vulcand's: text.
    V1,
    /// `PROXY_V2`: binary.
    V2,
    /// `PROXY`: either.
    Either,
}

/// Which version of the header is sent to servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    /// `PROXY_V1`: text.
    V1,
    /// `PROXY_V2`: binary.
    V2,
}

impl ProxyVersions {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            ProxyVersions::V1 => "PROXY_V1",
            ProxyVersions::V2 => "PROXY_V2",
            ProxyVersions::Either => "PROXY",
        }
    }
}

impl ProxyVersion {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            ProxyVersion::V1 => "PROXY_V1",
            ProxyVersion::V2 => "PROXY_V2",
        }
    }

    /// Reads the field `ProxyProtocol` of a backend's settings.
    pub(super) fn decode(fields: &Fields<'_>) -> Result<Option<ProxyVersion>, Flaw> {
        let Some(node) = fields.get("ProxyProtocol") else { return Ok(None) };
        if is_none(&node.string()?) {
            return Ok(None);
        }
        word(&node, &[ProxyVersion::V1, ProxyVersion::V2].map(|version| (version.name(), version))).map(Some)
    }
}

impl ProxyProtocol {
    /// Reads the three fields of a listener.
    pub(super) fn decode(fields: &Fields<'_>) -> Result<Option<ProxyProtocol>, Flaw> {
        let versions = match fields.get("ProxyProtocol") {
            Some(node) if !is_none(&node.string()?) => {
                let known = [ProxyVersions::V1, ProxyVersions::V2, ProxyVersions::Either];
                Some(word(&node, &known.map(|versions| (versions.name(), versions)))?)
            }
            _ => None,
        };
        let required = fields.boolean("ProxyProtocolRequired")?;
        let from = fields.get("ProxyProtocolFrom").map_or(Ok(Vec::new()), |node| networks(&node))?;
        match versions {
            Some(versions) => Ok(Some(ProxyProtocol { versions, required, from })),
            // Who wants a header, or names its senders, and has none read is served what was not meant.
            None if required || !from.is_empty() => {
                let name = if required { "ProxyProtocolRequired" } else { "ProxyProtocolFrom" };
                Err(at(fields, name, format!("{name} without ProxyProtocol"), r#"write "ProxyProtocol":"PROXY" too"#))
            }
            None => Ok(None),
        }
    }
}

/// As vulcand has it.
fn is_none(written: &str) -> bool {
    written.is_empty() || written.eq_ignore_ascii_case("NONE")
}

fn networks(list: &Node<'_>) -> Result<Vec<IpNet>, Flaw> {
    let items = list.items()?;
    if items.len() > MOST_NETWORKS {
        let reason = format!("{} has {} elements", list.name(), items.len());
        return Err(list.flaw(reason, format!("give at most {MOST_NETWORKS} networks")));
    }
    let read = |item: &Node<'_>| {
        let written = item.string()?;
        network(&written).ok_or_else(|| {
            let reason = format!("{:?} is not a network", clip(&written));
            item.flaw(reason, "write an address or a network, like 10.0.0.0/8 or fd00::/8")
        })
    };
    items.iter().map(read).collect()
}

/// A network, or an address as the network of it alone.
fn network(written: &str) -> Option<IpNet> {
    written.parse::<IpNet>().ok().or_else(|| written.parse::<IpAddr>().ok().map(IpNet::from)).map(|net| net.trunc())
}

const MOST_NETWORKS: usize = 1_000;
