//! A listener: an address we accept on, and its protocol.

use super::{Id, not_in_force, some};
use crate::json::{self, Node, clip};
use crate::problem::Flaw;

/// `listeners/<id>`.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// From the key.
    pub id: Id,
    /// What is spoken there.
    pub protocol: Protocol,
    /// TCP or a unix socket.
    pub network: Network,
    /// `host:port`, or a path.
    pub address: String,
    /// Route expression that requests must match to be served here.
    pub scope: Option<String>,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP in the clear.
    Http,
    /// HTTP over TLS.
    Https,
}

/// What kind of address a listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// `host:port`.
    Tcp,
    /// A path.
    Unix,
}

impl Listener {
    /// Reads `listeners/<id>`. The scope is not parsed here.
    pub fn decode(id: Id, value: &[u8], notes: &mut Vec<Flaw>) -> Result<Listener, Flaw> {
        let text = json::text(value)?;
        let fields = Node::parse(&text)?.fields()?;
        let protocol = one_of(&fields.get("Protocol"), "Protocol", "http", Protocol::Http, "https", Protocol::Https);
        let protocol = protocol.map_err(|reason| at(&fields, "Protocol", reason, r#"write "http" or "https""#))?;
        let place = fields.object("Address")?;
        let network = one_of(&place.get("Network"), "Address.Network", "tcp", Network::Tcp, "unix", Network::Unix);
        let network = network.map_err(|reason| at(&place, "Network", reason, r#"write "tcp" or "unix""#))?;
        let example = match network {
            Network::Tcp => r#""Address":{"Network":"tcp","Address":"0.0.0.0:80"}"#,
            Network::Unix => r#""Address":{"Network":"unix","Address":"/run/etna/http.sock"}"#,
        };
        let address = place.required("Address", example)?;
        if network == Network::Tcp && !has_port(&address) {
            let reason = format!("address {:?} is not a host and a port", clip(&address));
            return Err(at(&place, "Address", reason, "write host:port with a number, like 0.0.0.0:80 or [::]:80"));
        }
        if let Some(node) = fields.get("ProxyProtocol") {
            match node.string()?.to_ascii_uppercase().as_str() {
                "" | "NONE" => {}
                "PROXY_V1" => not_in_force(&fields, "ProxyProtocol", notes),
                other => {
                    let reason = format!("unsupported proxy protocol {:?}", clip(other));
                    return Err(node.flaw(reason, r#"write "PROXY_V1" or "NONE""#));
                }
            }
        }
        not_in_force(&fields.object("Settings")?, "TLS", notes);
        Ok(Listener { id, protocol, network, address, scope: some(fields.string("Scope")?) })
    }
}

fn at(fields: &json::Fields<'_>, name: &str, reason: String, hint: &str) -> Flaw {
    match fields.get(name) {
        Some(node) => node.flaw(reason, hint),
        None => fields.flaw(reason, hint),
    }
}

/// One of two words in any case, as vulcand reads them; the error is the reason alone.
fn one_of<T>(node: &Option<Node<'_>>, name: &str, a: &str, if_a: T, b: &str, if_b: T) -> Result<T, String> {
    let Some(node) = node else { return Err(format!("{name} is missing")) };
    let text = node.string().map_err(|flaw| flaw.reason)?;
    if text.eq_ignore_ascii_case(a) {
        Ok(if_a)
    } else if text.eq_ignore_ascii_case(b) {
        Ok(if_b)
    } else {
        Err(format!("unsupported {name} {:?}", clip(&text)))
    }
}

fn has_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let host_is_fine = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.contains([':', '/', ' ', ']']),
    };
    host_is_fine && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Result<Listener, Flaw> {
        Listener::decode("l1".into(), json.as_bytes(), &mut Vec::new())
    }

    fn tcp(address: &str) -> Result<Listener, Flaw> {
        decode(&format!(r#"{{"Protocol":"http","Address":{{"Network":"tcp","Address":"{address}"}}}}"#))
    }

    #[test]
    fn vulcands_listener() {
        let mut notes = Vec::new();
        let json = br#"{"Id":"l1","Protocol":"HTTPS","Address":{"Network":"Tcp","Address":"0.0.0.0:443"},"Scope":"",
            "Settings":{"TLS":{"MinVersion":"VersionTLS12"}},"ProxyProtocol":"proxy_v1"}"#;
        let listener = Listener::decode("l1".into(), json, &mut notes).unwrap();
        let (protocol, network) = (Protocol::Https, Network::Tcp);
        assert_eq!(
            listener,
            Listener { id: "l1".into(), protocol, network, address: "0.0.0.0:443".into(), scope: None }
        );
        assert_eq!(notes.len(), 2);
    }

    #[test]
    fn an_address_has_a_port() {
        for address in [":80", "0.0.0.0:80", "localhost:8181", "[::]:80", "[::1]:0"] {
            assert!(tcp(address).is_ok(), "{address}");
        }
        for address in ["", "80", "localhost", "localhost:", "localhost:http", "::1:80", "[x]:80", "a:65536", "a:+1"] {
            assert!(tcp(address).is_err(), "{address}");
        }
        assert!(
            decode(r#"{"Protocol":"http","Address":{"Network":"unix","Address":"/run/x.sock"},"Scope":"Host(`a`)"}"#)
                .unwrap()
                .scope
                .is_some()
        );
    }

    #[test]
    fn flaws_name_place_and_remedy() {
        let flaw = decode("{\"Protocol\":\n\"tcp\"}").unwrap_err();
        assert_eq!(flaw.reason, "unsupported Protocol \"tcp\"");
        assert_eq!((flaw.line, flaw.column), (Some(2), Some(1)));
        assert_eq!(decode(r#"{"Protocol":"http"}"#).unwrap_err().reason, "Address.Network is missing");
        assert_eq!(decode(r#"{"Protocol":7}"#).unwrap_err().reason, "Protocol must be a string, not a number");
        let json = r#"{"Protocol":"http","Address":{"Network":"tcp","Address":":1"},"ProxyProtocol":"V2"}"#;
        assert_eq!(decode(json).unwrap_err().reason, "unsupported proxy protocol \"V2\"");
    }
}
