//! The PROXY protocol (haproxy's `proxy-protocol.txt`, versions 1 and 2): how a proxy that passes bytes on says whose
//! connection it is.
//!
//! Pure: bytes to a header and back. Whom to believe, and what becomes of a connection without one, is decided in
//! `listener/proxy_protocol.rs`. What TLVs say is skipped, other than whether the client spoke TLS, and the checksum.

mod v1;
mod v2;

use std::net::SocketAddr;

use etna_store::object::ProxyVersion;

/// Where a connection came from, before a proxy took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client.
    pub from: SocketAddr,
    /// What it connected to.
    pub to: SocketAddr,
    /// Whether it spoke TLS. ProxyVersion 1 cannot say so.
    pub tls: bool,
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it takes: what follows belongs to the connection.
    pub length: usize,
    /// How it is written.
    pub version: ProxyVersion,
    /// Whose connection it is; `None`: the proxy's own (a health check), or it does not say.
    pub origin: Option<Origin>,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// They begin as none does.
    #[error("there is no PROXY protocol header")]
    Absent,
    /// They begin as one, and go wrong.
    #[error("the PROXY protocol header is malformed: {0}")]
    Malformed(&'static str),
}

/// Reads the header at the beginning of `bytes`; `None`: more bytes are needed. What is refused stays refused whatever
/// follows, and what is read does not depend on what follows.
///
/// # Errors
/// When no header can come of these bytes.
pub fn read(bytes: &[u8]) -> Result<Option<Header>, Refused> {
    if bytes.starts_with(v1::SIGNATURE) {
        v1::read(bytes)
    } else if bytes.starts_with(v2::SIGNATURE) {
        v2::read(bytes)
    } else if v1::SIGNATURE.starts_with(bytes) || v2::SIGNATURE.starts_with(bytes) {
        Ok(None)
    } else {
        Err(Refused::Absent)
    }
}

/// Writes a header; without an origin one that says that the connection is the proxy's own.
pub fn write(out: &mut Vec<u8>, version: ProxyVersion, origin: Option<&Origin>) {
    match version {
        ProxyVersion::V1 => v1::write(out, origin),
        ProxyVersion::V2 => v2::write(out, origin),
    }
}

/// Bytes of the longest header that is read.
pub const LONGEST: usize = v2::LONGEST;

/// Both ends in the family that holds both.
fn ends(origin: &Origin) -> Ends {
    match (origin.from, origin.to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => Ends::V4(from, to),
        (from, to) => Ends::V6(mapped(from), mapped(to)),
    }
}

enum Ends {
    V4(std::net::SocketAddrV4, std::net::SocketAddrV4),
    V6(std::net::SocketAddrV6, std::net::SocketAddrV6),
}

fn mapped(address: SocketAddr) -> std::net::SocketAddrV6 {
    match address {
        SocketAddr::V4(address) => std::net::SocketAddrV6::new(address.ip().to_ipv6_mapped(), address.port(), 0, 0),
        SocketAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// What a reader makes of a header and of every beginning of it, with anything after it.
    fn reads(bytes: &[u8]) -> Result<Option<Header>, Refused> {
        let whole = read(bytes);
        for cut in 0..bytes.len() {
            match (read(&bytes[..cut]), whole) {
                (Ok(None), _) => {}
                (Ok(Some(header)), whole) => assert_eq!(Ok(Some(header)), whole),
                (Err(_), whole) => assert!(whole.is_err(), "refused after {cut} bytes, but {whole:?}"),
            }
        }
        if let Ok(Some(header)) = whole {
            assert!(header.length <= bytes.len() && header.length <= LONGEST);
            assert_eq!(read(&bytes[..header.length - 1]), Ok(None));
            assert_eq!(read(&bytes[..header.length]), Ok(Some(header)));
        }
        whole
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
        let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical());
        (prop_oneof![v4, v6], any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(from in address(), to in address(), tls: bool, rest in any::<Vec<u8>>()) {
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let origin = Origin { from, to, tls: tls && version == ProxyVersion::V2 };
                for origin in [Some(origin), None] {
                    let mut out = Vec::new();
                    write(&mut out, version, origin.as_ref());
                    let length = out.len();
                    out.extend_from_slice(&rest);
                    prop_assert_eq!(reads(&out), Ok(Some(Header { length, version, origin })));
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>(), beginning in 0_usize..5) {
            let beginnings: [&[u8]; 5] =
                [b"", v1::SIGNATURE, b"PROXY TCP4 ", v2::SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"];
            let _ = reads(&[beginnings[beginning], &bytes].concat());
        }

        #[test]
        fn a_line_of_its_words_is_read_or_refused(line in "PROXY (TCP4|TCP6|UNKNOWN|)[ 0-9a-f.:\r\n]{0,110}") {
            let _ = reads(line.as_bytes());
        }

        #[test]
        fn a_flipped_bit_never_makes_it_longer_than_it_may_be(at in 0_usize..28, bit in 0_u8..8) {
            let mut out = Vec::new();
            let origin = Origin { from: ([192, 0, 2, 7], 5).into(), to: ([192, 0, 2, 8], 6).into(), tls: true };
            write(&mut out, ProxyVersion::V2, Some(&origin));
            out[at] ^= 1 << bit;
            let _ = reads(&out);
        }
    }

    #[test]
    fn what_begins_otherwise_is_no_header_as_soon_as_it_does() {
        for other in ["GET / HTTP/1.1\r\n", "POST", "PRI * HTTP/2.0\r\n", "\r\nG", "\x16\x03\x01", "proxy "] {
            assert_eq!(reads(other.as_bytes()), Err(Refused::Absent), "{other:?}");
        }
        for beginning in ["", "P", "PROXY", "\r\n", "\r\n\r\n\0\r\nQUIT"] {
            assert_eq!(reads(beginning.as_bytes()), Ok(None), "{beginning:?}");
        }
    }
}
