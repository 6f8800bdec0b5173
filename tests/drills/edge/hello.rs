//! Hellos of clients, made by hand where no library would make them, and what is said to them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A ClientHello (RFC 5246 section 7.4.1.2). Unless it is changed, of TLS 1.2, with nothing unusual.
#[derive(Clone, Debug)]
pub(super) struct Hello {
    /// In the record's head.
    pub(super) record_version: u16,
    /// In the message.
    pub(super) version: u16,
    pub(super) suites: Vec<u16>,
    pub(super) compressions: Vec<u8>,
    /// The extension `server_name` (RFC 6066 section 3), if there is one.
    pub(super) names: Option<Vec<u8>>,
    /// What follows the others, with number and length.
    pub(super) more: Vec<u8>,
}

impl Default for Hello {
    fn default() -> Hello {
        Hello {
            record_version: 0x0301,
            version: 0x0303,
            // ECDHE with ECDSA and RSA, AES-GCM.
            suites: vec![0xc02b, 0xc02f, 0xc02c, 0xc030],
            compressions: vec![0],
            names: None,
            more: Vec::new(),
        }
    }
}

impl Hello {
    /// Asks for a name.
    pub(super) fn of(name: &[u8]) -> Hello {
        let entry = [&[0][..], &length16(name)].concat();
        Hello { names: Some(length16(&entry)), ..Hello::default() }
    }

    /// The record.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let suites: Vec<u8> = self.suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        let mut extensions = Vec::new();
        if let Some(names) = &self.names {
            extensions.extend(extension(0, names));
        }
        // supported_groups, ec_point_formats, signature_algorithms, extended_master_secret, renegotiation_info
        extensions.extend(extension(10, &length16(&[0, 0x1d, 0, 0x17])));
        extensions.extend(extension(11, &[1, 0]));
        extensions.extend(extension(13, &length16(&[4, 3, 8, 4, 4, 1])));
        extensions.extend(extension(23, &[]));
        extensions.extend(extension(0xff01, &[0]));
        extensions.extend(&self.more);
        let message = [
            &self.version.to_be_bytes()[..],
            &[7; 32],
            &[0],
            &length16(&suites),
            &[u8::try_from(self.compressions.len()).expect("few")],
            &self.compressions,
            &length16(&extensions),
        ]
        .concat();
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        record(22, self.record_version, &[&[1], &length[1..], &message].concat())
    }
}

/// An extension.
pub(super) fn extension(number: u16, content: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &length16(content)].concat()
}

/// The extension of ALPN (RFC 7301) with these protocols.
pub(super) fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = protocols
        .iter()
        .flat_map(|name| [&[u8::try_from(name.len()).expect("a short name")], *name].concat())
        .collect();
    extension(16, &length16(&list))
}

/// Bytes behind their number.
pub(super) fn length16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("it fits");
    [&length.to_be_bytes()[..], bytes].concat()
}

/// One record.
pub(super) fn record(kind: u8, version: u16, content: &[u8]) -> Vec<u8> {
    [&[kind], &version.to_be_bytes()[..], &length16(content)].concat()
}

/// What a server says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It goes on, with this certificate (DER).
    Certificate(Vec<u8>),
    /// A fatal alert.
    Alert(u8),
    /// It closes without a word.
    Closed,
    /// Nothing, for longer than it should take.
    Nothing,
    /// What no server should say.
    Other(String),
}

/// Sends bytes; what is said to them.
pub(super) async fn said_to(to: SocketAddr, bytes: &[u8], within: Duration) -> (Said, Option<TcpStream>) {
    let Ok(mut stream) = TcpStream::connect(to).await else { return (Said::Closed, None) };
    if stream.write_all(bytes).await.is_err() {
        return (Said::Closed, None);
    }
    let mut got = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer).await {
                Ok(n @ 1..) => got.extend_from_slice(&buffer[..n]),
                Ok(0) | Err(_) => return Said::Closed,
            }
            if let Some(said) = read(&got) {
                return said;
            }
        }
    };
    let said = tokio::time::timeout(within, reading).await.unwrap_or(Said::Nothing);
    (said, Some(stream))
}

/// Records of a TLS 1.2 server as far as it has spoken; none while its certificate is not all there.
fn read(mut bytes: &[u8]) -> Option<Said> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
        let content = rest.get(..usize::from(u16::from_be_bytes([head[3], head[4]])))?;
        bytes = &rest[content.len()..];
        match (head[0], content) {
            (21, [2, description]) => return Some(Said::Alert(*description)),
            (22, _) => messages.extend_from_slice(content),
            (kind, _) => return Some(Said::Other(format!("a record of kind {kind}: {content:?}"))),
        }
        let mut rest = messages.as_slice();
        while let Some((head, after)) = rest.split_first_chunk::<4>() {
            let Some(message) = after.get(..length24(&head[1..])) else { break };
            rest = &after[message.len()..];
            // Certificate: the length of all, then that of the first.
            if head[0] == 11 {
                let first = message.get(6..6 + length24(message.get(3..6)?))?;
                return Some(Said::Certificate(first.to_vec()));
            }
        }
    }
    None
}

fn length24(bytes: &[u8]) -> usize {
    bytes.iter().take(3).fold(0, |length, byte| length << 8 | usize::from(*byte))
}
