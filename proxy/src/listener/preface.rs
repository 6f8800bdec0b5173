//! Which HTTP a client in the clear begins with: HTTP/2 if that is its preface, else HTTP/1.1 (RFC 9113 section 3.3).

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::traffic::h2::PREFACE;

/// What a client begins with.
pub(super) enum Begun {
    /// HTTP/2: all of its preface was read.
    H2(Bytes),
    /// HTTP/1.1, as far as one can tell: this was read.
    H1(Bytes),
}

/// Reads as much as it takes to tell; `None` when the client ends before.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Begun> {
    let mut ahead = BytesMut::with_capacity(PREFACE.len());
    while PREFACE.starts_with(&ahead) {
        let missing = PREFACE.len() - ahead.len();
        if missing == 0 {
            return Some(Begun::H2(ahead.freeze()));
        }
        let mut room = (&mut ahead).limit(missing);
        if !matches!(stream.read_buf(&mut room).await, Ok(1..)) {
            return None;
        }
    }
    Some(Begun::H1(ahead.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn begun(mut wire: &[u8]) -> Option<(bool, usize)> {
        let begun = read(&mut wire).await;
        begun.map(|begun| match begun {
            Begun::H2(ahead) => (true, ahead.len() + wire.len()),
            Begun::H1(ahead) => (false, ahead.len() + wire.len()),
        })
    }

    #[tokio::test]
    async fn a_preface_is_told_from_a_request() {
        let frames = [PREFACE.as_slice(), b"\0\0\0\x04\0\0\0\0\0"].concat();
        assert_eq!(begun(&frames).await, Some((true, frames.len())));
        for other in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"PRI * HTTP/1.1\r\n\r\n", b"P\r\n", b"\r\nGET /"] {
            assert_eq!(begun(other).await, Some((false, other.len())));
        }
        assert_eq!(begun(&PREFACE[..20]).await, None);
    }

    #[tokio::test]
    async fn a_preface_may_come_in_pieces() {
        let (mut client, mut server) = tokio::io::duplex(1);
        let sending = async {
            let sent = tokio::io::AsyncWriteExt::write_all(&mut client, PREFACE).await;
            assert!(sent.is_ok());
        };
        let ((), begun) = tokio::join!(sending, read(&mut server));
        assert!(matches!(begun, Some(Begun::H2(_))));
    }
}
