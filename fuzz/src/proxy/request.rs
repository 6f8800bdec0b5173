//! `etna_proxy::traffic::h1::head` and `headers`: a client's request, wherever the network cuts it, and as a server gets
//! it: one request, framed as the body will be.

use std::net::IpAddr;

use bytes::BytesMut;
use etna_proxy::backend::framing::Framing;
use etna_proxy::error::Error;
use etna_proxy::rule::host_of;
use etna_proxy::traffic::h1::head::{Head, read};
use etna_proxy::traffic::headers::{self, Outbound};
use etna_proxy::traffic::trust::{Peer, Trusted};
use http::Method;

use super::chunks;

/// A byte that decides how the rest, a request, is cut and passed on.
pub fn check(data: &[u8]) {
    let Some((how, wire)) = data.split_first() else { return };
    let piece = usize::from(how >> 1) + 1;
    let mut buffer = BytesMut::from(wire);
    let whole = read(&mut buffer, &mut 0);
    let pieces = in_pieces(wire, piece);
    match (whole, pieces) {
        (Ok(Some(head)), Ok(Some((in_pieces, rest)))) => {
            assert_eq!(format!("{head:?}"), format!("{in_pieces:?}"));
            assert_eq!(buffer, rest);
            if matches!(head.framing, Framing::Chunked(_)) {
                chunks::check(&buffer, piece);
            }
            assert!(!matches!(head.framing, Framing::UntilClose));
            passed_on(&head, how & 1 == 1);
        }
        (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
        (whole, pieces) => panic!("{whole:?} at once is {:?} in pieces", pieces.map(|read| read.map(|(head, _)| head))),
    }
}

fn in_pieces(wire: &[u8], piece: usize) -> Result<Option<(Head, BytesMut)>, Error> {
    let mut buffer = BytesMut::new();
    let mut scanned = 0;
    let mut pieces = wire.chunks(piece);
    while let Some(next) = pieces.next() {
        buffer.extend_from_slice(next);
        // As the wire does: what is empty is not looked at.
        if buffer.is_empty() {
            continue;
        }
        if let Some(head) = read(&mut buffer, &mut scanned)? {
            pieces.for_each(|rest| buffer.extend_from_slice(rest));
            return Ok(Some((head, buffer)));
        }
    }
    Ok(None)
}

fn passed_on(head: &Head, believe: bool) {
    let parts = &head.parts;
    let Ok(host) = parts.host() else { return };
    // More would not fit into what we read of it again.
    if parts.method == Method::CONNECT || parts.fields.len() > 80 {
        return;
    }
    let address = IpAddr::from([192, 0, 2, 7]);
    let trusted = Trusted::new(if believe { vec![address.into()] } else { Vec::new() });
    let client = trusted.client(address, &parts.fields);
    assert!(believe || client == address, "a stranger says who he is");
    let _ = host_of(host);
    let framing = match head.framing {
        Framing::Done | Framing::UntilClose => headers::Framing::None,
        Framing::Length(length) => headers::Framing::Length(length),
        Framing::Chunked(_) => headers::Framing::Chunked,
    };
    let to = (address, 80).into();
    let peer = Peer { address, from_port: 1, to, text: address.to_string().into(), proto: "http", port: "80".into() };
    let how = Outbound {
        peer: &peer,
        believe,
        trusted: believe,
        certificate: None,
        server_name: Some("etna"),
        host: None,
        authority: b"192.0.2.1:80",
        mark: b"",
        websocket: headers::wants_websocket(&parts.fields),
        expect: head.expects_continue && !matches!(head.framing, Framing::Done),
        framing,
    };
    let mut out = Vec::new();
    headers::write(&mut out, parts, &how);
    if out.len() >= 32 * 1024 {
        return;
    }
    let mut buffer = BytesMut::from(&out[..]);
    let again = read(&mut buffer, &mut 0).expect("a request that is passed on is one").expect("and it is whole");
    assert!(buffer.is_empty(), "a request that is passed on is only one");
    assert_eq!(again.parts.method, parts.method);
    let target = |head: &Head| (head.parts.uri.path().to_owned(), head.parts.uri.query().map(str::to_owned));
    assert_eq!(target(&again), target(head));
    assert_eq!(format!("{:?}", again.framing), format!("{:?}", head.framing), "a body that is framed otherwise");
    let count = |name: &str| again.parts.fields.get_all(name).count();
    assert!(count("host") == 1 && count("x-forwarded-for") == 1);
    assert!(believe || again.parts.fields.get("x-real-ip") == Some(b"192.0.2.7"), "a stranger's word is passed on");
    for never in ["proxy", "keep-alive", "proxy-authorization", "proxy-connection"] {
        assert_eq!(count(never), 0, "{never}");
    }
    assert!(again.parts.fields.iter().all(|field| !field.name().contains(&b'_')));
}
