//! A request's head as a server gets it: what is for one hop stays there, what strangers claim is replaced.
//!
//! Written straight from the client's head into one buffer. Framing is never copied but written anew from the body
//! that is really sent, and what a client nominates in `Connection` is left out before our own fields are added, so
//! that it can never remove those.

use super::trust::Peer;
use crate::message::fields::Fields;
use crate::message::found::tokens;
use crate::message::{RequestHead, is_for_one_hop};

/// How a head is written.
#[derive(Clone, Copy, Debug)]
pub struct Outbound<'a> {
    /// Who sent it.
    pub peer: &'a Peer,
    /// Whether the peer's forwarding fields are kept and extended.
    pub believe: bool,
    /// Whether the peer is a trusted proxy, whose word counts for a client's certificate too.
    pub trusted: bool,
    /// Fields of ours that tell of the client's certificate.
    pub certificate: Option<&'a str>,
    /// `X-Forwarded-Server`, where the frontend names one.
    pub server_name: Option<&'a str>,
    /// `Host` for the server; `None`: the client's.
    pub host: Option<&'a [u8]>,
    /// A field of ours by which we know the request if it comes back.
    pub mark: &'a [u8],
    /// The server's own, for clients that have none.
    pub authority: &'a [u8],
    /// Whether it asks for a WebSocket.
    pub websocket: bool,
    /// Whether the server is asked to say first whether it wants the body.
    pub expect: bool,
    /// How the body is framed.
    pub framing: Framing,
}

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none, and none is expected.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// Writes a request's head.
pub fn write(out: &mut Vec<u8>, head: &RequestHead, how: &Outbound<'_>) {
    let fields = &head.fields;
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    // Path and query, whatever form the client used (RFC 9112 section 3.2.1): `http://a?b` has an empty path.
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    if target.starts_with('?') {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let client_host = fields.get("host");
    let client_host = client_host.or_else(|| head.uri.authority().map(|authority| authority.as_str().as_bytes()));
    // A client of HTTP/1.0 may name none; a server of HTTP/1.1 must be given one.
    if let Some(host) = how.host.or(client_host.filter(|host| !host.is_empty())).or(Some(how.authority)) {
        field(out, b"host: ", host);
    }
    // What browsers say, `keep-alive`, names a field that is left out anyway: nothing is allocated for it.
    let mut nominated: Vec<&[u8]> = Vec::new();
    for value in fields.get_all("connection").filter(|value| !value.eq_ignore_ascii_case(b"keep-alive")) {
        nominated.extend(tokens(value));
    }
    let mut wants_trailers = false;
    let mut forwarded = false;
    for field in fields.iter() {
        let goes_on = match Kind::of(field.name()) {
            Kind::Any => true,
            Kind::OneHop | Kind::Never => {
                wants_trailers |= field.name() == b"te" && field.value().eq_ignore_ascii_case(b"trailers");
                false
            }
            Kind::Claim => {
                forwarded |= field.name() == b"forwarded";
                how.believe && field.name() != b"x-forwarded-for"
            }
            Kind::Certificate => how.trusted && how.certificate.is_none(),
        };
        if goes_on && !nominated.iter().any(|nominated| nominated.eq_ignore_ascii_case(field.name())) {
            field.write(out);
        }
    }
    if wants_trailers {
        field(out, b"te: ", b"trailers");
    }
    forwarding(out, fields, client_host, how);
    // Only where it was spoken of: a server that reads it must not be left with a stranger's.
    if forwarded {
        self::forwarded(out, how.peer, client_host);
    }
    out.extend_from_slice(how.certificate.unwrap_or_default().as_bytes());
    out.extend_from_slice(how.mark);
    if how.websocket {
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
    }
    if how.expect {
        out.extend_from_slice(b"expect: 100-continue\r\n");
    }
    match how.framing {
        Framing::None => {}
        Framing::Length(length) => field(out, b"content-length: ", length.to_string().as_bytes()),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether the client asks for a WebSocket. No other upgrade is ever forwarded, and none with a body.
pub fn wants_websocket(fields: &Fields) -> bool {
    fields.get("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
        && fields.get_all("connection").flat_map(tokens).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
        && !fields.contains("content-length")
        && !fields.contains("transfer-encoding")
}

fn forwarding(out: &mut Vec<u8>, fields: &Fields, host: Option<&[u8]>, how: &Outbound<'_>) {
    let peer = how.peer;
    let absent = |name: &str| !how.believe || !fields.contains(name);
    out.extend_from_slice(b"x-forwarded-for: ");
    if how.believe {
        for value in fields.get_all("x-forwarded-for") {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
    out.extend_from_slice(peer.text.as_bytes());
    out.extend_from_slice(b"\r\n");
    if absent("x-real-ip") {
        field(out, b"x-real-ip: ", peer.text.as_bytes());
    }
    if absent("x-forwarded-proto") {
        field(out, b"x-forwarded-proto: ", peer.proto.as_bytes());
    }
    if absent("x-forwarded-port") {
        field(out, b"x-forwarded-port: ", peer.port.as_bytes());
    }
    if let Some(host) = host.filter(|_| absent("x-forwarded-host")) {
        field(out, b"x-forwarded-host: ", host);
    }
    if let Some(name) = how.server_name.filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic())) {
        field(out, b"x-forwarded-server: ", name.as_bytes());
    }
}

/// RFC 7239.
fn forwarded(out: &mut Vec<u8>, peer: &Peer, host: Option<&[u8]>) {
    let node = if peer.address.is_ipv6() { format!("\"[{}]\"", peer.text) } else { peer.text.to_string() };
    out.extend_from_slice(format!("forwarded: for={node};proto={}", peer.proto).as_bytes());
    if let Some(host) = host.filter(|host| !host.iter().any(|byte| matches!(byte, b'"' | b'\\'))) {
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(host);
        out.push(b'"');
    }
    out.extend_from_slice(b"\r\n");
}

/// `begin` is the name, the colon and a space.
#[inline(always)]
fn field(out: &mut Vec<u8>, begin: &[u8], value: &[u8]) {
    out.extend_from_slice(begin);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What a field is, by its name.
enum Kind {
    /// RFC 9110 section 7.6.1; and what is written anew.
    OneHop,
    /// `Proxy` becomes `HTTP_PROXY` in CGI, and so does `X_Forwarded_For` become what `X-Forwarded-For` is; `X-Accel-*`
    /// are orders to a proxy.
    Never,
    /// What only a proxy that we trust may say.
    Claim,
    /// About a client's certificate (RFC 9440).
    Certificate,
    /// None of these.
    Any,
}

impl Kind {
    fn of(name: &[u8]) -> Kind {
        match name {
            b"host" | b"content-length" | b"http2-settings" | b"expect" => Kind::OneHop,
            _ if is_for_one_hop(name) => Kind::OneHop,
            b"proxy" => Kind::Never,
            _ if name.contains(&b'_') => Kind::Never,
            [b'x', ..] if name.starts_with(b"x-accel-") => Kind::Never,
            b"forwarded" | b"x-real-ip" => Kind::Claim,
            [b'x', ..] if name.starts_with(b"x-forwarded-") => Kind::Claim,
            [b'c', ..] if name.starts_with(b"client-cert") => Kind::Certificate,
            _ => Kind::Any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn peer() -> Peer {
        Peer {
            address: "192.0.2.7".parse().unwrap(),
            from_port: 1234,
            to: "192.0.2.8:80".parse().unwrap(),
            text: "192.0.2.7".into(),
            proto: "http",
            port: "80".into(),
        }
    }

    fn sent(fields: &[(&str, &str)], believe: bool, framing: Framing) -> BTreeMap<String, String> {
        let mut request = http::Request::get("/a?b");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let head = RequestHead::from(request.body(()).unwrap().into_parts().0);
        let peer = peer();
        let how = Outbound {
            peer: &peer,
            believe,
            trusted: believe,
            certificate: None,
            server_name: None,
            host: None,
            mark: b"cdn-loop: etna-1\r\n",
            authority: b"s",
            websocket: wants_websocket(&head.fields),
            expect: false,
            framing,
        };
        let mut out = Vec::new();
        write(&mut out, &head, &how);
        let text = String::from_utf8(out).unwrap();
        let text = text.strip_suffix("\r\n\r\n").unwrap();
        assert!(text.starts_with("GET /a?b HTTP/1.1\r\n"));
        let fields: Vec<(&str, &str)> = text.split("\r\n").skip(1).map(|line| line.split_once(": ").unwrap()).collect();
        let map: BTreeMap<String, String> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(map.len(), fields.len(), "a field twice: {text}");
        map
    }

    #[test]
    fn a_strangers_claims_are_replaced() {
        let sent = sent(
            &[
                ("host", "a.test"),
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-prefix", "/x"),
                ("forwarded", "for=10.0.0.1"),
                ("x-real-ip", "10.0.0.1"),
                ("x_forwarded_for", "10.0.0.1"),
                ("proxy", "evil"),
                ("client-cert-subject", "CN=admin"),
                ("accept", "*/*"),
            ],
            false,
            Framing::None,
        );
        assert_eq!(sent["x-forwarded-for"], "192.0.2.7");
        assert_eq!(sent["x-real-ip"], "192.0.2.7");
        assert_eq!(sent["x-forwarded-proto"], "http");
        assert_eq!(sent["x-forwarded-host"], "a.test");
        assert_eq!(sent["forwarded"], "for=192.0.2.7;proto=http;host=\"a.test\"");
        for gone in ["x-forwarded-prefix", "x_forwarded_for", "proxy", "client-cert-subject"] {
            assert!(!sent.contains_key(gone), "{gone}");
        }
        assert_eq!((sent["accept"].as_str(), sent["cdn-loop"].as_str()), ("*/*", "etna-1"));
    }

    #[test]
    fn nominated_fields_go_and_cannot_take_ours_with_them() {
        let sent = sent(
            &[
                ("host", "a.test"),
                ("connection", "close, X-Secret, X-Forwarded-For, Host"),
                ("x-secret", "1"),
                ("te", "trailers"),
                ("content-length", "3"),
            ],
            false,
            Framing::Length(4),
        );
        assert!(!sent.contains_key("x-secret"));
        assert!(!sent.contains_key("connection"));
        assert_eq!(sent["content-length"], "4");
        assert_eq!(sent["x-forwarded-for"], "192.0.2.7");
        assert_eq!(sent["host"], "a.test");
        assert_eq!(sent["te"], "trailers");
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_extended() {
        let fields = [("host", "a"), ("x-forwarded-for", "203.0.113.9, 10.1.1.1"), ("x-forwarded-proto", "https")];
        let sent = sent(&fields, true, Framing::None);
        assert_eq!(sent["x-forwarded-for"], "203.0.113.9, 10.1.1.1, 192.0.2.7");
        assert_eq!(sent["x-forwarded-proto"], "https");
        assert_eq!(sent["x-forwarded-port"], "80");
    }

    #[test]
    fn a_target_without_a_path_gets_one() {
        for (target, line) in
            [("http://a?b", "GET /?b HTTP/1.1"), ("http://a", "GET / HTTP/1.1"), ("*", "GET * HTTP/1.1")]
        {
            let head = RequestHead::from(http::Request::get(target).body(()).unwrap().into_parts().0);
            let peer = peer();
            let how = Outbound {
                peer: &peer,
                believe: false,
                trusted: false,
                certificate: None,
                server_name: None,
                host: None,
                mark: b"",
                authority: b"s1:80",
                websocket: false,
                expect: false,
                framing: Framing::None,
            };
            let mut out = Vec::new();
            write(&mut out, &head, &how);
            let text = String::from_utf8_lossy(&out);
            assert!(text.starts_with(line), "{text}");
            let host = if target == "*" { "s1:80" } else { "a" };
            assert!(text.contains(&format!("\r\nhost: {host}\r\n")), "{text}");
        }
    }

    #[test]
    fn only_websockets_upgrade() {
        let fields = [("host", "a"), ("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        let asked = sent(&fields, false, Framing::None);
        assert_eq!((asked["connection"].as_str(), asked["upgrade"].as_str()), ("upgrade", "websocket"));
        for other in [
            &[("host", "a"), ("connection", "upgrade"), ("upgrade", "h2c")][..],
            &[("host", "a"), ("upgrade", "websocket")],
            &[("host", "a"), ("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "1")],
        ] {
            let asked = sent(other, false, Framing::None);
            assert!(!asked.contains_key("upgrade") && !asked.contains_key("connection"), "{other:?}");
        }
    }
}
