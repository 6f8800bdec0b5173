//! Version 1: a line such as `PROXY TCP4 192.0.2.7 192.0.2.8 56324 443` (`proxy-protocol.txt`, section 2.1).

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etna_store::object::ProxyVersion;
use memchr::memmem;

use super::{Ends, Header, Origin, Refused, ends};

/// What every line begins with.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";
/// Bytes of the longest line, its end included.
const LONGEST: usize = 107;

/// Reads a line that begins with the signature.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Header>, Refused> {
    let possible = &bytes[..bytes.len().min(LONGEST)];
    let Some(end) = memmem::find(possible, b"\r\n") else {
        let said = &possible[SIGNATURE.len()..];
        return if possible.len() == LONGEST {
            Err(Refused::Malformed("the line is longer than 107 bytes"))
        } else if PROTOCOLS.iter().any(|word| word.starts_with(said) || said.starts_with(word)) {
            Ok(None)
        } else {
            Err(UNKNOWN_PROTOCOL)
        };
    };
    let origin = origin(&possible[SIGNATURE.len()..end])?;
    Ok(Some(Header { length: end + 2, version: ProxyVersion::V1, origin }))
}

/// Writes a line.
pub(super) fn write(out: &mut Vec<u8>, origin: Option<&Origin>) {
    // Writing into memory does not fail.
    let _ = match origin.map(ends) {
        None => out.write_all(b"PROXY UNKNOWN\r\n"),
        Some(Ends::V4(from, to)) => {
            write!(out, "PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
        }
        Some(Ends::V6(from, to)) => {
            write!(out, "PROXY TCP6 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
        }
    };
}

fn origin(said: &[u8]) -> Result<Option<Origin>, Refused> {
    // Anything may follow the word, and says nothing.
    if said == b"UNKNOWN" || said.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let text = std::str::from_utf8(said).map_err(|_| UNKNOWN_PROTOCOL)?;
    let words: Vec<&str> = text.splitn(WORDS + 1, ' ').collect();
    let [protocol, from, to, from_port, to_port] = words[..] else {
        return Err(Refused::Malformed("the line has not the words it should have"));
    };
    let address = |text: &str| match protocol {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| ADDRESS),
        "TCP6" => text.parse::<Ipv6Addr>().map(|ip| IpAddr::V6(ip).to_canonical()).map_err(|_| ADDRESS),
        _ => Err(UNKNOWN_PROTOCOL),
    };
    Ok(Some(Origin {
        from: SocketAddr::new(address(from)?, port(from_port)?),
        to: SocketAddr::new(address(to)?, port(to_port)?),
        tls: false,
    }))
}

/// Decimal, without the zeros in front that others might read as octal.
fn port(text: &str) -> Result<u16, Refused> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical).ok_or(Refused::Malformed("a port is not a number up to 65535"))
}

const PROTOCOLS: [&[u8]; 3] = [b"TCP4 ", b"TCP6 ", b"UNKNOWN"];
const WORDS: usize = 5;
const ADDRESS: Refused = Refused::Malformed("an address is not of the family that is named");
const UNKNOWN_PROTOCOL: Refused = Refused::Malformed("the protocol is none of TCP4, TCP6 and UNKNOWN");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_specification() {
        let read = |line: &str| read(line.as_bytes()).unwrap().unwrap();
        let header = read("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n");
        let origin = header.origin.unwrap();
        assert_eq!((header.length, header.version, origin.tls), (47, ProxyVersion::V1, false));
        assert_eq!(
            (origin.from.to_string(), origin.to.to_string()),
            ("192.168.0.1:56324".into(), "192.168.0.11:443".into())
        );
        let worst = |rest: &str| format!("{rest}{}\r\n", " ".repeat(LONGEST - 2 - rest.len()));
        let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert!(read(&format!("PROXY TCP6 {all} {all} 65535 65535\r\n")).origin.is_some());
        let longest = worst(&format!("PROXY UNKNOWN {all} {all} 65535 65535"));
        assert_eq!((read(&longest).length, read(&longest).origin), (107, None));
        assert_eq!(read("PROXY UNKNOWN\r\n").length, 15);
        assert_eq!(read("PROXY TCP6 ::ffff:192.0.2.7 ::1 0 0\r\n").origin.unwrap().from.to_string(), "192.0.2.7:0");
    }

    #[test]
    fn what_is_not_quite_a_line_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 192.0.2.8 1\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.8 1 2 \r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.8 1 2 3\r\n",
            "PROXY TCP4  192.0.2.7 192.0.2.8 1 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.8 01 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.8 +1 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.8 65536 2\r\n",
            "PROXY TCP4 192.0.2.07 192.0.2.8 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 192.0.2.8 1 2\r\n",
            "PROXY TCP6 fe80::1%1 ::1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.8 1 2\n\r\n",
            "PROXY TCP4 192.0.2.7\t192.0.2.8 1 2\r\n",
            "PROXY TCP5 192.0.2.7 192.0.2.8 1 2\r\n",
            "PROXY UDP4",
            "PROXY \r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY  TCP4 ",
            "PROXY / HTTP/1.1\r\n",
        ] {
            assert!(matches!(read(line.as_bytes()), Err(Refused::Malformed(_))), "{line:?}");
        }
        let endless = format!("PROXY UNKNOWN{}", " ".repeat(200));
        assert_eq!(read(&endless.as_bytes()[..106]), Ok(None));
        assert!(read(&endless.as_bytes()[..107]).is_err());
    }
}
