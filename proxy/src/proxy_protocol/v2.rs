//! Version 2: sixteen bytes, addresses, TLVs (`proxy-protocol.txt`, section 2.2).

use std::net::{IpAddr, SocketAddr};

use etna_store::object::ProxyVersion;

use super::{Ends, Header, Origin, Refused, ends};

/// What every header begins with.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of the longest header that is read.
pub(super) const LONGEST: usize = FIXED + MOST;
/// The part whose length is known.
const FIXED: usize = 16;
/// What may follow it, in bytes: far more than is ever sent.
const MOST: usize = 4096;

/// Reads a header that begins with the signature.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Header>, Refused> {
    let Some(&command) = bytes.get(SIGNATURE.len()) else { return Ok(None) };
    let is_own = match command {
        LOCAL => true,
        PROXY => false,
        _ => return Err(Refused::Malformed("not version 2, or a command that does not exist")),
    };
    let Some(&[family, high, low]) = bytes.get(SIGNATURE.len() + 1..FIXED) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MOST {
        return Err(Refused::Malformed("it is longer than 4096 bytes"));
    }
    let taken = match family {
        // The proxy's own connection has no addresses, whatever follows.
        _ if is_own => 0,
        UNSPEC => 0,
        TCP4 | UDP4 => IPV4,
        TCP6 | UDP6 => IPV6,
        UNIX_STREAM | UNIX_DATAGRAM => UNIX,
        _ => return Err(Refused::Malformed("an address family or transport that does not exist")),
    };
    if length < taken {
        return Err(Refused::Malformed("it is too short for its addresses"));
    }
    let Some(block) = bytes.get(FIXED..FIXED + length) else { return Ok(None) };
    let header = |origin| Ok(Some(Header { length: FIXED + length, version: ProxyVersion::V2, origin }));
    if is_own || family == UNSPEC {
        return header(None);
    }
    let tlvs = Tlvs::read(&block[taken..])?;
    if let Some(at) = tlvs.checksum {
        let (before, after) = bytes[..FIXED + length].split_at(FIXED + taken + at);
        let (said, after) = after.split_at(CHECKSUM);
        let sum = [before, &[0; CHECKSUM], after].into_iter().fold(!0, crc32c);
        if said != (!sum).to_be_bytes() {
            return Err(Refused::Malformed("its checksum is wrong"));
        }
    }
    header(addresses(&block[..taken]).map(|(from, to)| Origin { from, to, tls: tlvs.tls }))
}

/// Writes a header.
pub(super) fn write(out: &mut Vec<u8>, origin: Option<&Origin>) {
    out.extend_from_slice(SIGNATURE);
    let Some(origin) = origin else {
        out.extend_from_slice(&[LOCAL, UNSPEC, 0, 0]);
        return;
    };
    let tls: &[u8] = if origin.tls { &SPOKE_TLS } else { &[] };
    match ends(origin) {
        Ends::V4(from, to) => {
            out.extend_from_slice(&[PROXY, TCP4, 0, (2 * (4 + 2) + tls.len()) as u8]);
            out.extend_from_slice(&from.ip().octets());
            out.extend_from_slice(&to.ip().octets());
        }
        Ends::V6(from, to) => {
            out.extend_from_slice(&[PROXY, TCP6, 0, (2 * (16 + 2) + tls.len()) as u8]);
            out.extend_from_slice(&from.ip().octets());
            out.extend_from_slice(&to.ip().octets());
        }
    }
    out.extend_from_slice(&origin.from.port().to_be_bytes());
    out.extend_from_slice(&origin.to.port().to_be_bytes());
    out.extend_from_slice(tls);
}

/// What is understood of the TLVs.
#[derive(Default)]
struct Tlvs {
    tls: bool,
    /// Where the checksum stands.
    checksum: Option<usize>,
}

impl Tlvs {
    fn read(block: &[u8]) -> Result<Tlvs, Refused> {
        let mut tlvs = Tlvs::default();
        let mut rest = block;
        while let [kind, high, low, tail @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some((value, next)) = tail.split_at_checked(length) else { return Err(TLV) };
            match (*kind, value) {
                (TLV_TLS, [client, _, _, _, _, ..]) => tlvs.tls = client & CLIENT_TLS != 0,
                (TLV_CHECKSUM, [_, _, _, _]) if tlvs.checksum.is_none() => {
                    tlvs.checksum = Some(block.len() - tail.len());
                }
                (TLV_TLS | TLV_CHECKSUM, _) => return Err(TLV),
                _ => {}
            }
            rest = next;
        }
        if rest.is_empty() { Ok(tlvs) } else { Err(TLV) }
    }
}

/// Two addresses, then two ports; of a unix socket none.
fn addresses(block: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (ips, ports) = match block.len() {
        IPV4 => {
            let (from, rest) = block.split_first_chunk::<4>()?;
            let (to, ports) = rest.split_first_chunk::<4>()?;
            ([IpAddr::from(*from), IpAddr::from(*to)], ports)
        }
        IPV6 => {
            let (from, rest) = block.split_first_chunk::<16>()?;
            let (to, ports) = rest.split_first_chunk::<16>()?;
            ([IpAddr::from(*from).to_canonical(), IpAddr::from(*to).to_canonical()], ports)
        }
        _ => return None,
    };
    let &[a, b, c, d] = ports else { return None };
    let [from, to] = ips;
    Some((SocketAddr::new(from, u16::from_be_bytes([a, b])), SocketAddr::new(to, u16::from_be_bytes([c, d]))))
}

/// CRC-32C (RFC 3720, appendix B.4) of a part after others.
fn crc32c(sum: u32, part: &[u8]) -> u32 {
    part.iter().fold(sum, |sum, byte| (sum >> 8) ^ TABLE[usize::from((sum as u8) ^ byte)])
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < table.len() {
        let mut sum = at as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
            bit += 1;
        }
        table[at] = sum;
        at += 1;
    }
    table
}

const TABLE: [u32; 256] = table();
/// Version and command.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Address family and transport.
const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const UDP4: u8 = 0x12;
const TCP6: u8 = 0x21;
const UDP6: u8 = 0x22;
const UNIX_STREAM: u8 = 0x31;
const UNIX_DATAGRAM: u8 = 0x32;
/// Bytes of the addresses and ports.
const IPV4: usize = 12;
const IPV6: usize = 36;
const UNIX: usize = 216;
const TLV_CHECKSUM: u8 = 0x03;
const TLV_TLS: u8 = 0x20;
/// The bit of its first byte that says that the client spoke TLS to the proxy.
const CLIENT_TLS: u8 = 0x01;
/// Bytes of the checksum.
const CHECKSUM: usize = 4;
/// The TLV that says so, and that no certificate of the client was verified.
const SPOKE_TLS: [u8; 8] = [TLV_TLS, 0, 5, CLIENT_TLS, 0, 0, 0, 1];
const TLV: Refused = Refused::Malformed("a TLV does not fit, or says what it cannot");

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, block].concat()
    }

    const V4: [u8; IPV4] = [192, 0, 2, 7, 192, 0, 2, 8, 0x12, 0x34, 0, 80];

    fn origin(bytes: &[u8]) -> Option<Origin> {
        let header = read(bytes).unwrap().unwrap();
        assert_eq!(header.length, bytes.len());
        header.origin
    }

    fn refused(bytes: &[u8]) -> bool {
        matches!(read(bytes), Err(Refused::Malformed(_)))
    }

    #[test]
    fn each_family() {
        let v4 = origin(&header(PROXY, TCP4, &V4)).unwrap();
        assert_eq!((v4.from.to_string(), v4.to.to_string()), ("192.0.2.7:4660".into(), "192.0.2.8:80".into()));
        assert_eq!(origin(&header(PROXY, UDP4, &V4)), Some(v4));
        assert_eq!(origin(&header(PROXY, TCP6, &[0; IPV6])).unwrap().from.to_string(), "[::]:0");
        assert_eq!(origin(&header(PROXY, UNIX_STREAM, &[b'x'; UNIX])), None);
        assert_eq!(origin(&header(PROXY, UNSPEC, b"whatever")), None);
        assert_eq!(origin(&header(LOCAL, UNSPEC, b"")), None);
        // What comes with it is discarded, the family too.
        assert_eq!(origin(&header(LOCAL, 0xff, b"whatever")), None);
    }

    #[test]
    fn what_does_not_exist_is_refused_as_soon_as_it_is_seen() {
        assert!(refused(&[SIGNATURE, &[0x11]].concat()), "version 1");
        assert!(refused(&[SIGNATURE, &[0x22]].concat()), "a command");
        for family in [0x01, 0x10, 0x13, 0x20, 0x33, 0x41, 0xff] {
            assert!(refused(&header(PROXY, family, &V4)), "{family:x}");
        }
        assert!(refused(&header(PROXY, TCP4, &V4[..11])) && refused(&header(PROXY, TCP6, &V4)));
        let too_long = [SIGNATURE, &[PROXY, TCP4, 0x10, 0x01]].concat();
        assert!(refused(&too_long));
        assert!(refused(&[SIGNATURE, &[LOCAL, UNSPEC, 0xff, 0xff]].concat()));
        assert_eq!(read(&[SIGNATURE, &[LOCAL, UNSPEC, 0x10, 0]].concat()), Ok(None));
    }

    #[test]
    fn tlvs_are_bounded_and_skipped() {
        let with = |tlvs: &[u8]| header(PROXY, TCP4, &[&V4, tlvs].concat());
        assert!(origin(&with(&[0x01, 0, 2, b'h', b'2', 0x04, 0, 0, 0xe0, 0, 1, 7])).is_some());
        for wrong in [&[1][..], &[1, 0], &[1, 0, 1], &[1, 0, 0, 9], &[TLV_TLS, 0, 1, 1], &[TLV_CHECKSUM, 0, 2, 1, 2]] {
            assert!(refused(&with(wrong)), "{wrong:?}");
        }
        assert!(origin(&with(&SPOKE_TLS)).unwrap().tls);
        assert!(!origin(&with(&[TLV_TLS, 0, 5, 0x06, 0, 0, 0, 0])).unwrap().tls, "a certificate without TLS");
    }

    #[test]
    fn a_checksum_that_is_there_is_right() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        let mut bytes = header(PROXY, TCP4, &[&V4[..], &[0x04, 0, 1, 7, TLV_CHECKSUM, 0, 4, 0, 0, 0, 0]].concat());
        let sum = !crc32c(!0, &bytes);
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&sum.to_be_bytes());
        assert!(origin(&bytes).is_some());
        for at in FIXED..bytes.len() {
            bytes[at] ^= 1;
            // What is no longer a checksum is not looked at.
            let is_kind = at == bytes.len() - 7;
            assert!(refused(&bytes) != is_kind, "{at}");
            bytes[at] ^= 1;
        }
        let twice = [&V4[..], &[TLV_CHECKSUM, 0, 4, 0, 0, 0, 0], &[TLV_CHECKSUM, 0, 4, 0, 0, 0, 0]].concat();
        assert!(refused(&header(PROXY, TCP4, &twice)));
    }
}
