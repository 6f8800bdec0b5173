//! `etna_proxy::backend::wire` and `framing`: a server's answer, wherever the network cuts it, and as it is passed on.

use bytes::BytesMut;
use etna_proxy::backend::framing::Framing;
use etna_proxy::backend::wire::{Head, parse};
use etna_proxy::traffic::h1::answer::{self, Asked, Delimiter};
use http::{Method, Version};

use super::chunks;

/// A byte that decides how the rest, an answer, is asked for and cut.
pub fn check(data: &[u8]) {
    let Some((how, wire)) = data.split_first() else { return };
    let method = if how & 1 == 0 { Method::GET } else { Method::HEAD };
    let piece = usize::from(how >> 1) + 1;
    let mut buffer = BytesMut::from(wire);
    let whole = parse(&mut buffer, &method);
    let pieces = in_pieces(wire, &method, piece);
    let Ok(Some(head)) = whole else {
        assert!(!matches!(pieces, Some((_, _))), "an answer in pieces is one that is none at once");
        return;
    };
    let (in_pieces, rest) = pieces.expect("an answer at once is one in pieces");
    assert_eq!(format!("{head:?}"), format!("{in_pieces:?}"));
    let fields = |head: &Head| head.fields.iter().map(|field| field.value().to_vec()).collect::<Vec<_>>();
    assert_eq!(fields(&head), fields(&in_pieces));
    assert_eq!(buffer, rest);
    assert!(!head.fields.contains("transfer-encoding") && !head.fields.contains("connection"));
    match head.framing {
        Framing::Chunked(_) => drop(chunks::check(&buffer, piece)),
        Framing::Done | Framing::Length(_) | Framing::UntilClose => {}
    }
    passed_on(&head, &method);
}

fn in_pieces(wire: &[u8], method: &Method, piece: usize) -> Option<(Head, BytesMut)> {
    let mut buffer = BytesMut::new();
    let mut pieces = wire.chunks(piece);
    while let Some(next) = pieces.next() {
        buffer.extend_from_slice(next);
        if let Some(head) = parse(&mut buffer, method).ok()? {
            pieces.for_each(|rest| buffer.extend_from_slice(rest));
            return Some((head, buffer));
        }
    }
    None
}

/// What a client gets is one answer, with the same fields, framed as the body will be.
fn passed_on(head: &Head, method: &Method) {
    if head.status.is_informational() || head.fields.len() > 150 {
        return;
    }
    for (version, length) in [(Version::HTTP_11, None), (Version::HTTP_11, Some(7)), (Version::HTTP_10, None)] {
        let asked = Asked { method: method.clone(), version };
        let delimiter = Delimiter::of(&asked, head.status, length);
        let mut out = Vec::new();
        answer::write(&mut out, (head.status, &head.fields), &asked, delimiter, true, "Thu, 01 Jan 1970 00:00:00 GMT");
        let mut buffer = BytesMut::from(&out[..]);
        let again = parse(&mut buffer, method).unwrap().expect("an answer that is passed on is one");
        assert!(buffer.is_empty(), "an answer that is passed on is only one");
        let same = matches!(
            (delimiter, &again.framing),
            (Delimiter::Nothing, Framing::Done)
                | (Delimiter::Length(7), Framing::Length(7))
                | (Delimiter::Chunks, Framing::Chunked(_))
                | (Delimiter::Close, Framing::UntilClose)
        );
        assert!(same, "{delimiter:?} is read as {:?}", again.framing);
        assert_eq!(again.status, head.status);
        let fields = |head: &Head| {
            let all = head.fields.iter().filter(|field| field.name() != b"content-length" && field.name() != b"date");
            all.map(|field| (field.name().to_vec(), field.value().to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(fields(head), fields(&again));
    }
}
