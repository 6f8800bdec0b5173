//! The audit trail: one line per request that wants to change something, refused ones too.
//!
//! Target `audit`, so that it can be filtered and kept apart. Everything a client can choose is escaped: a line is one
//! line, and shows what was sent. Values are never logged; they may hold secrets.

use std::fmt;
use std::net::SocketAddr;

use axum::http::{Method, StatusCode};

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// A TCP connection.
    Tcp(SocketAddr),
    /// A unix socket's peer, as the kernel tells: user and process.
    Unix {
        /// Its user id, where the kernel told.
        uid: Option<u32>,
        /// Its process id, where the kernel told.
        pid: Option<i32>,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix { uid, pid } => {
                f.write_str("unix")?;
                uid.map_or(Ok(()), |uid| write!(f, " uid={uid}"))?;
                pid.map_or(Ok(()), |pid| write!(f, " pid={pid}"))
            }
        }
    }
}

/// What a request changed or wanted to change; endpoints put it into their response for the audit trail.
#[derive(Clone, Debug)]
pub(super) struct Touched(pub(super) String);

/// Whether requests of this method only look.
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Writes one line of the trail.
pub(super) fn record(peer: &Peer, method: &Method, path: &str, touched: Option<&Touched>, status: StatusCode) {
    let key = touched.map_or_else(String::new, |touched| escape(&touched.0));
    let result = if status.is_success() { "done" } else { "refused" };
    tracing::info!(
        target: "audit",
        peer = %peer,
        method = %escape(method.as_str()),
        path = %escape(path),
        key = %key,
        status = status.as_u16(),
        result,
        "change asked for"
    );
}

/// Text for one line of a log or a terminal: control characters and what changes the direction or the breaking of
/// lines become `\u{…}`, at most 256 characters are shown.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (count, character) in text.chars().enumerate() {
        if count == LONGEST {
            escaped.push('…');
            break;
        }
        if is_harmful(character) {
            escaped.extend(character.escape_unicode());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

const LONGEST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_forge_a_line_is_escaped() {
        assert_eq!(escape("a\r\nb"), "a\\u{d}\\u{a}b");
        assert_eq!(escape("\u{1b}[31m"), "\\u{1b}[31m");
        assert_eq!(escape("a\u{202e}b\u{2066}\u{85}\u{7f}"), "a\\u{202e}b\\u{2066}\\u{85}\\u{7f}");
        assert_eq!(escape("Wörter bleiben"), "Wörter bleiben");
        assert_eq!(escape(&"x".repeat(1000)).chars().count(), 257);
    }

    #[test]
    fn a_peer_is_shown_with_what_is_known() {
        assert_eq!(Peer::Unix { uid: Some(0), pid: Some(7) }.to_string(), "unix uid=0 pid=7");
        assert_eq!(Peer::Unix { uid: None, pid: None }.to_string(), "unix");
    }
}
