//! Servers that are this proxy itself: each request to one would come in again, and out again, until nothing is left.
//!
//! Found where it is written: a server at an address where a listener of ours or the admin API answers takes no requests,
//! and is a problem. What can only be seen on the way, a loop over another proxy or a name, ends by a mark
//! (`traffic/mark.rs`).

use std::net::{IpAddr, SocketAddr, UdpSocket};

use etna_store::object::{Id, Server};
use etna_store::{Delta, Key, Model, Problem};

use super::compile::Compiler;

impl Compiler {
    /// The same, for a proxy that answers at these addresses.
    pub fn answering_at(mut self, addresses: Vec<SocketAddr>) -> Compiler {
        self.own = addresses;
        self
    }

    /// From now on it answers at these. What that means for what is compiled already is in the delta.
    pub fn answers_at(&mut self, addresses: Vec<SocketAddr>, model: &Model) -> Delta {
        let mut delta = Delta::default();
        if addresses == self.own {
            return delta;
        }
        let old = std::mem::replace(&mut self.own, addresses);
        let is_moved = |port: u16| {
            let at = |all: &[SocketAddr]| all.iter().filter(|own| own.port() == port).copied().collect::<Vec<_>>();
            at(&old) != at(&self.own)
        };
        for backend in model.backends() {
            if model.servers(&backend.id).any(|server| is_moved(server.port)) {
                delta.backends.insert(backend.id.clone());
            }
        }
        delta
    }

    /// Whether a server is not this proxy itself.
    pub(super) fn is_another(&self, server: &Server, backend: &Id, problems: &mut Vec<Problem>) -> bool {
        let Some(own) = self.own.iter().find(|own| is_at(server, **own)) else { return true };
        problems.push(Problem {
            key: Key::Server(backend.clone(), server.id.clone()).to_string(),
            reason: format!("it is this proxy itself, which answers at {own}"),
            hint: "give it the address of what is to answer, or remove it".into(),
            line: None,
            column: None,
            effect: "it takes no requests from this proxy".into(),
        });
        false
    }
}

/// Whether a connection to a server would come in at an address of ours. Names other than `localhost` are not resolved.
fn is_at(server: &Server, own: SocketAddr) -> bool {
    if server.port != own.port() {
        return false;
    }
    let own = own.ip().to_canonical();
    let address = match server.host.as_str() {
        "localhost" if own.is_ipv6() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        host => match host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical(),
            Err(_) => return false,
        },
    };
    // Who connects to no address in particular comes to this machine's own.
    let is_here = address.is_loopback() || address.is_unspecified();
    match own {
        own if own == address => true,
        own if own.is_loopback() => address.is_unspecified(),
        IpAddr::V4(own) if own.is_unspecified() => address.is_ipv4() && (is_here || is_of_this_machine(address)),
        own if own.is_unspecified() => is_here || is_of_this_machine(address),
        _ => false,
    }
}

/// Whether packets to an address stay on this machine: then the kernel sends them from that address. Nothing is sent. (That
/// one can be bound to says less: where `ip_nonlocal_bind` is set, any can.)
fn is_of_this_machine(address: IpAddr) -> bool {
    let from = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0_u16; 8]) };
    let source = || {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((address, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    source() == Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_ours_if_its_connections_would_come_to_us() {
        let is_own = |url: &str, own: &str| {
            let value = serde_json::json!({ "URL": url }).to_string();
            let server = Server::decode("s".into(), value.as_bytes(), &mut Vec::new()).unwrap();
            is_at(&server, own.parse().unwrap())
        };
        for (url, own) in [
            ("http://127.0.0.1:81", "127.0.0.1:81"),
            ("https://127.0.0.1:81", "0.0.0.0:81"),
            ("http://127.0.0.9:81", "[::]:81"),
            ("http://localhost:81", "0.0.0.0:81"),
            ("http://localhost:81", "[::1]:81"),
            ("http://0.0.0.0:81", "127.0.0.1:81"),
            ("http://[::1]:81", "[::]:81"),
            ("http://[::ffff:10.0.0.5]:81", "10.0.0.5:81"),
        ] {
            assert!(is_own(url, own), "{url} at {own}");
        }
        for (url, own) in [
            ("http://127.0.0.1:82", "127.0.0.1:81"),
            ("http://127.0.0.2:81", "127.0.0.1:81"),
            ("http://10.0.0.6:81", "10.0.0.5:81"),
            ("http://[::1]:81", "0.0.0.0:81"),
            // For documentation (RFC 5737): no machine has it.
            ("http://192.0.2.1:81", "0.0.0.0:81"),
            ("http://other.test:81", "0.0.0.0:81"),
        ] {
            assert!(!is_own(url, own), "{url} at {own}");
        }
    }

    #[test]
    fn what_is_ours_follows_where_we_listen() {
        let (mut model, mut compiler) = (Model::default(), Compiler::default());
        let put = |key: &'static str, value: &'static str| etna_store::Change {
            key: bytes::Bytes::from(key),
            value: Some(bytes::Bytes::from(value)),
        };
        let changes = vec![
            put("backends/b/servers/own", r#"{"URL":"http://127.0.0.1:81"}"#),
            put("backends/b/servers/other", r#"{"URL":"http://127.0.0.1:82"}"#),
            put("backends/c/servers/other", r#"{"URL":"http://127.0.0.1:83"}"#),
        ];
        let delta = model.apply(&etna_store::Batch { revision: etna_store::Revision(1), changes });
        let mut table = compiler.compile(&model, &delta, &super::super::Table::default());
        let servers = |table: &super::super::Table| {
            let mut all: Vec<(String, usize)> = table
                .backends
                .iter()
                .flatten()
                .map(|backend| (backend.id.to_string(), backend.servers.len()))
                .collect();
            all.sort();
            all
        };
        for (listens, left, wrong) in [("0.0.0.0:81", 1, 1), ("0.0.0.0:80", 2, 0)] {
            let delta = compiler.answers_at(vec![listens.parse().unwrap()], &model);
            table = compiler.compile(&model, &delta, &table);
            assert_eq!(servers(&table), [("b".to_owned(), left), ("c".to_owned(), 1)], "{listens}");
            assert_eq!(compiler.problems().count(), wrong);
        }
        assert!(compiler.answers_at(vec!["0.0.0.0:80".parse().unwrap()], &model).is_empty());
    }
}
