//! Heads of messages, as everything else sees them: a request's, whatever the client speaks, and fields. Pure.

pub mod fields;
pub mod found;
pub mod host;

use http::request::Parts;
use http::{Method, Uri, Version};

use fields::Fields;

/// What a client asks, but for the body.
#[derive(Debug)]
pub struct RequestHead {
    /// What is to be done.
    pub method: Method,
    /// With what: a path, or a whole URL.
    pub uri: Uri,
    /// What the client speaks.
    pub version: Version,
    /// Everything else.
    pub fields: Fields,
}

impl From<Parts> for RequestHead {
    fn from(parts: Parts) -> RequestHead {
        let fields = Fields::from(&parts.headers);
        RequestHead { method: parts.method, uri: parts.uri, version: parts.version, fields }
    }
}

/// Whether a field, its name in lower case, is for one hop and never forwarded (RFC 9110 section 7.6.1, and what proxies
/// were told before it). What `Connection` names is so, too; a length is not, but for who writes a message anew.
pub fn is_for_one_hop(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"keep-alive"
            | b"proxy-connection"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"te"
            | b"transfer-encoding"
            | b"upgrade"
    )
}
