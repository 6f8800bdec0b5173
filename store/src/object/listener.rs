//! A listener: an address we accept on, and its protocol.

use std::sync::Arc;

use super::certificate::authorities;
use super::tls::End;
use super::{Id, ProxyProtocol, TlsSettings, at, some, word};
use crate::json::{self, Fields, Node, clip};
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
    /// vulcand's `Settings.TLS`, of https alone; `None`: the defaults.
    pub tls: Option<TlsSettings>,
    /// Ours, `Settings.UnknownHost`: what a client gets that asks for a name of no host.
    pub unknown_host: UnknownHost,
    /// Ours, `Settings.ClientAuth`: whether clients show certificates.
    pub client_auth: Option<Arc<ClientAuth>>,
    /// Ours, `Settings.HTTP2`: whether HTTP/2 is offered by ALPN; always false for http.
    pub http2: bool,
    /// Ours, `Settings.H2C`: whether HTTP/2 is understood in the clear, with prior knowledge; always false for https.
    pub h2c: bool,
    /// Whether connections begin with a header of the PROXY protocol.
    pub proxy_protocol: Option<Arc<ProxyProtocol>>,
}

/// What a client gets that asks, in SNI, for a name that no host has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownHost {
    /// `default`: the default host's certificate.
    #[default]
    Default,
    /// `refuse`: the alert `unrecognized_name`.
    Refuse,
}

/// Whether clients show certificates, and who vouches for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// `Mode`, `require` (default) or `optional`: whether a client without one is refused.
    pub required: bool,
    /// `CA`: the authorities that are believed, PEM, at least one certificate.
    pub ca: String,
    /// `Headers`: whether servers are told who the client is.
    pub headers: bool,
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
        let settings = fields.object("Settings")?;
        let is_https = protocol == Protocol::Https;
        if !is_https {
            of_https_alone(&settings, notes)?;
        }
        let tls = settings.get("TLS").filter(|_| is_https);
        Ok(Listener {
            id,
            protocol,
            network,
            address,
            scope: some(fields.string("Scope")?),
            tls: tls.map(|node| TlsSettings::decode(&node.fields()?, End::Server, notes)).transpose()?,
            unknown_host: UnknownHost::decode(&settings)?,
            client_auth: ClientAuth::decode(&settings)?.map(Arc::new),
            http2: is_https && settings.get("HTTP2").map_or(Ok(true), |node| node.boolean())?,
            h2c: h2c(&settings, is_https)?,
            proxy_protocol: ProxyProtocol::decode(&fields)?.map(Arc::new),
        })
    }
}

impl UnknownHost {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            UnknownHost::Default => "default",
            UnknownHost::Refuse => "refuse",
        }
    }

    fn decode(settings: &Fields<'_>) -> Result<UnknownHost, Flaw> {
        let known = [UnknownHost::Default, UnknownHost::Refuse].map(|choice| (choice.name(), choice));
        settings.get("UnknownHost").map_or(Ok(UnknownHost::default()), |node| word(&node, &known))
    }
}

impl ClientAuth {
    fn decode(settings: &Fields<'_>) -> Result<Option<ClientAuth>, Flaw> {
        let Some(node) = settings.get("ClientAuth") else { return Ok(None) };
        let fields = node.fields()?.ours();
        fields.only(&["Mode", "CA", "Headers"])?;
        let required = match fields.get("Mode") {
            Some(node) => word(&node, &[("require", true), ("optional", false)])?,
            None => true,
        };
        let ca = fields.get("CA").ok_or_else(|| {
            fields.flaw(format!("{}.CA is missing", node.name()), "write the PEM of the authority of the clients")
        })?;
        Ok(Some(ClientAuth { required, ca: authorities(ca)?, headers: fields.boolean("Headers")? }))
    }
}

/// What only TLS can give is refused for a listener in the clear, where serving without it would fail open.
fn of_https_alone(settings: &Fields<'_>, notes: &mut Vec<Flaw>) -> Result<(), Flaw> {
    for name in ["ClientAuth", "UnknownHost"] {
        if let Some(node) = settings.get(name) {
            let reason = format!("{} means nothing to an http listener", node.name());
            return Err(node.flaw(reason, r#"remove it, or write "Protocol":"https""#));
        }
    }
    if let Some(node) = settings.get("HTTP2")
        && node.boolean()?
    {
        let reason = format!("{} is HTTP/2 over TLS, and this listener is http", node.name());
        return Err(node.flaw(reason, r#"write "H2C":true for HTTP/2 in the clear, or "Protocol":"https""#));
    }
    // vulcand does not look at it.
    if let Some(node) = settings.get("TLS") {
        let reason = format!("{} means nothing to an http listener", node.name());
        notes.push(node.flaw(reason, r#"remove it, or write "Protocol":"https""#));
    }
    Ok(())
}

fn h2c(settings: &Fields<'_>, is_https: bool) -> Result<bool, Flaw> {
    let Some(node) = settings.get("H2C") else { return Ok(false) };
    let wanted = node.boolean()?;
    if wanted && is_https {
        let reason = format!("{} is HTTP/2 in the clear, and this listener is https", node.name());
        return Err(node.flaw(reason, "remove it; over TLS it is HTTP2, which is the default"));
    }
    Ok(wanted)
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
    use super::super::{ProxyVersions, TlsVersion};
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
        let proxy = ProxyProtocol { versions: ProxyVersions::V1, required: false, from: Vec::new() };
        let expected = Listener {
            id: "l1".into(),
            protocol: Protocol::Https,
            network: Network::Tcp,
            address: "0.0.0.0:443".into(),
            scope: None,
            tls: Some(TlsSettings::default()),
            unknown_host: UnknownHost::Default,
            client_auth: None,
            http2: true,
            h2c: false,
            proxy_protocol: Some(Arc::new(proxy)),
        };
        assert_eq!((listener, notes), (expected, Vec::new()));
    }

    fn with(protocol: &str, more: &str) -> Result<Listener, Flaw> {
        let address = r#""Address":{"Network":"tcp","Address":":1"}"#;
        decode(&format!(r#"{{"Protocol":"{protocol}",{address},{more}}}"#))
    }

    #[test]
    fn our_additions() {
        let https = with(
            "https",
            r#""Settings":{"UnknownHost":"refuse","HTTP2":false,"TLS":{"Policy":"modern"},"ClientAuth":{"mode":"optional",
            "CA":"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n","Headers":true}}"#,
        )
        .unwrap();
        assert_eq!((https.unknown_host, https.http2, https.h2c), (UnknownHost::Refuse, false, false));
        let auth = https.client_auth.unwrap();
        assert!(!auth.required && auth.headers && https.tls.unwrap().min == TlsVersion::Tls13);
        let http = with("http", r#""Settings":{"H2C":true,"HTTP2":false}"#).unwrap();
        assert!(http.h2c && !http.http2);
        assert!(!with("http", r#""Settings":null"#).unwrap().h2c);
        let proxy = |more: &str| with("http", more).unwrap().proxy_protocol;
        let full = r#""ProxyProtocol":"proxy","ProxyProtocolRequired":true,"ProxyProtocolFrom":["10.1.2.3/8","::1"]"#;
        let from = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        assert_eq!(
            proxy(full).as_deref(),
            Some(&ProxyProtocol { versions: ProxyVersions::Either, required: true, from })
        );
        assert_eq!(proxy(r#""ProxyProtocol":"none","ProxyProtocolRequired":false"#), None);
    }

    #[test]
    fn tls_in_the_clear_is_said() {
        let mut notes = Vec::new();
        let json =
            br#"{"Protocol":"http","Address":{"Network":"tcp","Address":":1"},"Settings":{"TLS":{"MinVersion":"x"}}}"#;
        assert_eq!(Listener::decode("l".into(), json, &mut notes).unwrap().tls, None);
        assert_eq!(notes[0].reason, "Settings.TLS means nothing to an http listener");
    }

    #[test]
    fn flaws_of_our_additions() {
        for (protocol, more, reason) in [
            ("https", r#""Settings":{"UnknownHost":"drop"}"#, "Settings.UnknownHost is \"drop\""),
            ("https", r#""Settings":{"H2C":true}"#, "Settings.H2C is HTTP/2 in the clear"),
            ("https", r#""Settings":{"HTTP2":"yes"}"#, "Settings.HTTP2 must be true or false"),
            ("https", r#""Settings":{"ClientAuth":{}}"#, "Settings.ClientAuth.CA is missing"),
            ("https", r#""Settings":{"ClientAuth":{"Ca":"x"}}"#, "Settings.ClientAuth.CA has no certificate"),
            ("https", r#""Settings":{"ClientAuth":{"Mode":"must"}}"#, "Settings.ClientAuth.Mode is \"must\""),
            ("https", r#""Settings":{"ClientAuth":{"Crl":"x"}}"#, "unknown field \"Settings.ClientAuth.Crl\""),
            ("https", r#""Settings":{"ClientAuth":true}"#, "Settings.ClientAuth must be an object"),
            ("http", r#""Settings":{"ClientAuth":{}}"#, "Settings.ClientAuth means nothing to an http"),
            ("http", r#""Settings":{"UnknownHost":"refuse"}"#, "Settings.UnknownHost means nothing to an http"),
            ("http", r#""Settings":{"HTTP2":true}"#, "Settings.HTTP2 is HTTP/2 over TLS"),
            ("http", r#""ProxyProtocolRequired":true"#, "ProxyProtocolRequired without ProxyProtocol"),
            ("http", r#""ProxyProtocolFrom":["::1"]"#, "ProxyProtocolFrom without ProxyProtocol"),
            ("http", r#""ProxyProtocol":"PROXY","ProxyProtocolFrom":["a"]"#, "\"a\" is not a network"),
            ("http", r#""ProxyProtocol":"PROXY","ProxyProtocolFrom":["1.2.3.4/33"]"#, "\"1.2.3.4/33\" is not"),
        ] {
            let flaw = with(protocol, more).unwrap_err();
            assert!(flaw.reason.starts_with(reason), "{more}: {}", flaw.reason);
            assert!(flaw.line.is_some() && !flaw.hint.is_empty());
        }
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
        assert_eq!(decode(json).unwrap_err().reason, "ProxyProtocol is \"V2\"");
    }
}
