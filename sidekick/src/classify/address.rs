//! Where a container is reached. Pure and deterministic; the first of these that it has:
//!
//! * the label `etna.addr`, which names an address of the container, a port of it on this host, or what `--allow-addr`
//!   allows, and never another's (labels are part of images, which strangers make);
//! * on the host's own network: `--host-ip` and the port;
//! * by `--address-mode`: `host`, the published port on the address it is bound to, or on `--host-ip` where that is any
//!   (on a loopback address only where `--host-ip` is one too); `container` and `network:NAME`, its own address;
//! * in mode `host` its own address as a last resort, with a warning, since only this machine reaches it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use ipnet::IpNet;

use super::Trail;
use super::hosts::ip;
use crate::docker::{Binding, Container};

/// Which address of a container is registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Its published port on this host.
    #[default]
    Host,
    /// Its own address: for networks that proxies on every host are part of.
    Container,
    /// Its own address in one network.
    Network(String),
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        match text.split_once(':') {
            None if text == "host" => Ok(Mode::Host),
            None if text == "container" => Ok(Mode::Container),
            Some(("network", name)) if !name.is_empty() => Ok(Mode::Network(name.to_owned())),
            _ => Err("say host, container or network:NAME".into()),
        }
    }
}

/// The address under which other machines reach this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostIp {
    /// As the operator says.
    Fixed(IpAddr),
    /// The one that packets along the default route carry.
    Auto,
}

impl std::str::FromStr for HostIp {
    type Err = String;

    fn from_str(text: &str) -> Result<HostIp, String> {
        // Empty is what a unit's `--host-ip ${COREOS_PRIVATE_IPV4}` becomes where that is not set.
        if text.is_empty() || text == "auto" {
            return Ok(HostIp::Auto);
        }
        let ip = ip(text).ok_or("say an IP address, or auto")?;
        if ip.is_unspecified() { Err("say one address of this host, or auto".into()) } else { Ok(HostIp::Fixed(ip)) }
    }
}

impl HostIp {
    /// The address; `None` while there is no default route. Asks the kernel's routing table, sends nothing.
    pub fn resolve(self) -> Option<IpAddr> {
        // Addresses for documentation (RFC 5737, RFC 3849): routed like any other.
        let toward = |from: &str, to: &str| {
            let socket = UdpSocket::bind((from, 0)).ok()?;
            socket.connect((to, 9)).ok()?;
            Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
        };
        match self {
            HostIp::Fixed(ip) => Some(ip),
            HostIp::Auto => toward("0.0.0.0", "192.0.2.1").or_else(|| toward("::", "2001:db8::1")),
        }
    }
}

/// How to reach containers.
#[derive(Clone, Debug, Default)]
pub struct Addressing {
    /// Which address.
    pub mode: Mode,
    /// This host's; `None`: not known.
    pub host_ip: Option<IpAddr>,
    /// Which addresses labels may name besides the container's own.
    pub allow: Vec<IpNet>,
}

/// What was found.
pub(super) struct Found {
    pub(super) port: u16,
    pub(super) address: Option<SocketAddr>,
    pub(super) waiting: bool,
    pub(super) warnings: Vec<String>,
}

/// The error says whether it is a mistake.
pub(super) fn find(container: &Container, addressing: &Addressing, trail: &mut Trail) -> Result<Found, bool> {
    let port = port(container, trail)?;
    let mut found = Found { port, address: None, waiting: false, warnings: Vec::new() };
    if let Some(label) = container.label("etna.addr") {
        found.address = labelled(label, port, container, addressing, trail);
        return if found.address.is_some() { Ok(found) } else { Err(true) };
    }
    if container.host_config.network_mode == "host" {
        found.address = addressing.host_ip.map(|ip| SocketAddr::new(ip, port));
        match addressing.host_ip {
            Some(ip) => trail.note("network", "host", format!("host address {ip}, port {port}")),
            None => found.warn("network", "host", "no address of this host is known: say --host-ip", trail),
        }
        return Ok(found);
    }
    match &addressing.mode {
        Mode::Host => published(container, addressing, &mut found, trail),
        Mode::Container => own(container, None, addressing, &mut found, trail),
        Mode::Network(name) => own(container, Some(name), addressing, &mut found, trail),
    }
    Ok(found)
}

impl Found {
    fn warn(&mut self, rule: &'static str, saw: impl Into<String>, then: impl Into<String>, trail: &mut Trail) {
        let then = then.into();
        self.warnings.push(then.clone());
        trail.note(rule, saw, then);
    }
}

/// The port inside the container.
fn port(container: &Container, trail: &mut Trail) -> Result<u16, bool> {
    if let Some(label) = container.label("etna.port") {
        let port = label.parse::<u16>().ok().filter(|&port| port > 0);
        trail.note(
            "etna.port",
            label,
            port.map_or("not ours: say a port from 1 to 65535".into(), |port| format!("port {port}")),
        );
        return port.ok_or(true);
    }
    let tcp = |key: &String| {
        let port = match key.split_once('/') {
            Some((port, "tcp")) => port,
            None => key,
            Some(_) => return None,
        };
        port.parse::<u16>().ok().filter(|port| *port > 0)
    };
    let bound = |bindings: &Option<Vec<Binding>>| bindings.as_ref().is_some_and(|bindings| !bindings.is_empty());
    let settings = &container.network_settings;
    let published: BTreeSet<u16> = settings
        .ports
        .iter()
        .filter(|(_, bindings)| bound(bindings))
        .map(|(key, _)| key)
        .chain(container.host_config.port_bindings.keys())
        .filter_map(tcp)
        .collect();
    let exposed: BTreeSet<u16> =
        settings.ports.keys().chain(container.config.exposed_ports.keys()).filter_map(tcp).collect();
    let (rule, ports) = if published.is_empty() { ("exposed ports", exposed) } else { ("published ports", published) };
    let seen = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    match ports.first() {
        None => {
            trail.note(rule, "none", "port 80");
            Ok(80)
        }
        Some(_) if ports.contains(&80) => {
            trail.note(rule, seen, "port 80");
            Ok(80)
        }
        Some(&port) if ports.len() == 1 => {
            trail.note(rule, seen, format!("port {port}"));
            Ok(port)
        }
        Some(_) => {
            trail.note(rule, seen, "not ours: several ports and none is 80; label it etna.port=PORT");
            Err(true)
        }
    }
}

/// `ADDRESS` or `ADDRESS:PORT`.
fn labelled(
    label: &str,
    port: u16,
    container: &Container,
    addressing: &Addressing,
    trail: &mut Trail,
) -> Option<SocketAddr> {
    let address = match label.parse::<SocketAddr>() {
        Ok(address) => Some(SocketAddr::new(address.ip().to_canonical(), address.port())),
        Err(_) => ip(label).map(|ip| SocketAddr::new(ip, port)),
    };
    let Some(address) = address.filter(|address| address.port() > 0) else {
        trail.note("etna.addr", label, "not ours: say ADDRESS or ADDRESS:PORT");
        return None;
    };
    if let Some(what) = forbidden(address.ip(), container, addressing) {
        trail.note("etna.addr", label, format!("not ours: {what} is never registered"));
        return None;
    }
    if !is_its_own(address, port, container, addressing)
        && !addressing.allow.iter().any(|net| net.contains(&address.ip()))
    {
        let then = "not ours: neither an address of the container nor a port of it on this host; see --allow-addr";
        trail.note("etna.addr", label, then);
        return None;
    }
    trail.note("etna.addr", label, format!("address {address}"));
    Some(address)
}

/// Whether the container itself answers there: at its own address, or at this host's on a port that is the container's.
fn is_its_own(address: SocketAddr, port: u16, container: &Container, addressing: &Addressing) -> bool {
    let settings = &container.network_settings;
    let in_networks = settings.networks.values().flat_map(|at| [&at.ip_address, &at.global_ipv6_address]);
    if in_networks.chain([&settings.ip_address]).any(|own| ip(own) == Some(address.ip())) {
        return true;
    }
    if container.host_config.network_mode == "host" {
        return Some(address.ip()) == addressing.host_ip && address.port() == port;
    }
    let bound = settings.ports.iter().chain(&container.host_config.port_bindings);
    let mut bound = bound.filter(|(key, _)| !key.ends_with("/udp")).flat_map(|(_, bindings)| bindings).flatten();
    bound.any(|binding| {
        let on = ip(&binding.host_ip).filter(|on| !on.is_unspecified()).or(addressing.host_ip);
        binding.host_port == address.port().to_string() && on == Some(address.ip())
    })
}

/// A binding as far as it can be used: its address, or `None` for any, and its port.
struct Bound {
    ip: Option<IpAddr>,
    any_v6: bool,
    port: u16,
}

fn published(container: &Container, addressing: &Addressing, found: &mut Found, trail: &mut Trail) {
    const RULE: &str = "published port";
    let key = format!("{}/tcp", found.port);
    let bindings = container.network_settings.ports.get(&key).cloned().flatten().unwrap_or_default();
    let seen = bindings.iter().map(|b| format!("{}:{}", b.host_ip, b.host_port)).collect::<Vec<_>>().join(", ");
    let bound: Vec<Bound> = bindings.iter().filter_map(read).collect();
    if bound.is_empty() {
        let asked = container.host_config.publish_all_ports || container.host_config.port_bindings.contains_key(&key);
        found.waiting = asked;
        let then = if asked { "not bound yet" } else { "not published" };
        trail.note(RULE, format!("{key}: none"), then);
        last_resort(container, addressing, found, trail);
        return;
    }
    // One server a container, however many addresses it is bound to: the host's own first, IPv4 before IPv6.
    let specific = bound
        .iter()
        .filter_map(|bound| Some(SocketAddr::new(bound.ip?, bound.port)))
        .filter(|address| forbidden(address.ip(), container, addressing).is_none())
        .min_by_key(|address| (Some(address.ip()) != addressing.host_ip, address.is_ipv6(), *address));
    if let Some(address) = specific {
        trail.note(RULE, seen, format!("address {address}"));
        found.address = Some(address);
        return;
    }
    let any = bound.iter().filter(|bound| bound.ip.is_none());
    if let Some(any) = any.min_by_key(|any| (addressing.host_ip.is_some_and(|ip| ip.is_ipv6() != any.any_v6), any.port))
    {
        match addressing.host_ip {
            Some(ip) => {
                let address = SocketAddr::new(ip, any.port);
                trail.note(RULE, seen, format!("address {address}, by --host-ip"));
                found.address = Some(address);
            }
            None => {
                found.warn(RULE, seen, "no address of this host is known: say --host-ip", trail);
                last_resort(container, addressing, found, trail);
            }
        }
        return;
    }
    trail.note(RULE, seen, "not reachable from other machines");
    last_resort(container, addressing, found, trail);
}

fn read(binding: &Binding) -> Option<Bound> {
    let port = binding.host_port.parse::<u16>().ok().filter(|&port| port > 0)?;
    if binding.host_ip.is_empty() {
        return Some(Bound { ip: None, any_v6: false, port });
    }
    let ip = ip(&binding.host_ip)?;
    Some(Bound { ip: Some(ip).filter(|ip| !ip.is_unspecified()), any_v6: ip.is_ipv6(), port })
}

/// The container's own address where a published one was asked for.
fn last_resort(container: &Container, addressing: &Addressing, found: &mut Found, trail: &mut Trail) {
    own(container, None, addressing, found, trail);
    if let Some(address) = found.address {
        let key = found.port;
        let then = format!("address {address}, which only this machine reaches: publish the port with -p {key}");
        found.warn("last resort", "the container's own address", then, trail);
    }
}

/// The container's own address, in one network or in its only one.
fn own(container: &Container, network: Option<&str>, addressing: &Addressing, found: &mut Found, trail: &mut Trail) {
    const RULE: &str = "container address";
    let settings = &container.network_settings;
    let usable = |v4: &str, v6: &str| {
        [v4, v6].into_iter().filter_map(ip).find(|&ip| forbidden(ip, container, addressing).is_none())
    };
    let mut candidates: Vec<(&str, IpAddr)> = settings
        .networks
        .iter()
        .filter(|(name, _)| network.is_none_or(|wanted| wanted == name.as_str()))
        .filter_map(|(name, at)| Some((name.as_str(), usable(&at.ip_address, &at.global_ipv6_address)?)))
        .collect();
    if candidates.is_empty() && network.is_none_or(|wanted| wanted == "bridge") {
        candidates.extend(usable(&settings.ip_address, "").map(|ip| ("bridge", ip)));
    }
    let names = candidates.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    match candidates.first() {
        None => {
            let wanted = network.map_or("any network".to_owned(), |name| format!("network {name}"));
            found.warn(RULE, "none", format!("it has no address in {wanted} that can be registered"), trail);
        }
        Some(&(name, ip)) => {
            found.address = Some(SocketAddr::new(ip, found.port));
            if candidates.len() > 1 {
                found.warn(
                    RULE,
                    names,
                    format!("several networks: {name} is used; say --address-mode network:NAME"),
                    trail,
                );
            } else {
                trail.note(RULE, format!("{name}: {ip}"), format!("address {}", SocketAddr::new(ip, found.port)));
            }
        }
    }
}

/// What an address is, if it must never be registered, wherever it comes from: it is nobody's, everybody's, or this
/// machine's own.
fn forbidden(ip: IpAddr, container: &Container, addressing: &Addressing) -> Option<&'static str> {
    let ip = ip.to_canonical();
    let host_is_loopback = addressing.host_ip.is_some_and(|host| host.is_loopback());
    let gateway = || {
        let networks = container.network_settings.networks.values();
        networks.flat_map(|at| [&at.gateway, &at.ipv6_gateway]).any(|text| super::hosts::ip(text) == Some(ip))
    };
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_unspecified() {
        Some("the unspecified address")
    } else if ip.is_loopback() && !(host_is_loopback && ip.is_ipv4()) {
        Some("a loopback address")
    } else if link_local {
        Some("a link-local address")
    } else if ip.is_multicast() || broadcast {
        Some("a multicast address")
    } else if Some(ip) != addressing.host_ip && gateway() {
        Some("a bridge's own address")
    } else {
        None
    }
}
