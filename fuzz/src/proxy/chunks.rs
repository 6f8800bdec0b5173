//! A chunked body, read at once and in pieces: both must come to the same.

use bytes::BytesMut;
use etna_proxy::backend::framing::{Chunks, Step};

/// Body, trailers as text, and what follows; `None` if it is broken or not whole.
type Read = Option<(Vec<u8>, String, Vec<u8>)>;

/// Checks it, and returns what was read.
pub fn check(wire: &[u8], piece: usize) -> Read {
    let whole = read(wire, wire.len().max(1));
    if let Some((body, _, rest)) = &whole {
        assert!(body.len() + rest.len() < wire.len(), "more came out than went in");
    }
    let pieces = read(wire, piece);
    assert_eq!(whole, pieces, "it matters where a body is cut");
    whole
}

fn read(wire: &[u8], piece: usize) -> Read {
    let mut chunks = Chunks::default();
    let mut buffer = BytesMut::new();
    let mut body = Vec::new();
    let mut pieces = wire.chunks(piece);
    while let Some(next) = pieces.next() {
        buffer.extend_from_slice(next);
        loop {
            match chunks.step(&mut buffer).ok()? {
                Step::Data(data) => {
                    assert!(!data.is_empty(), "no progress");
                    body.extend_from_slice(&data);
                }
                Step::More => break,
                Step::End(trailers) => {
                    let rest = buffer.iter().chain(pieces.flatten()).copied().collect();
                    return Some((body, format!("{trailers:?}"), rest));
                }
            }
        }
    }
    None
}
