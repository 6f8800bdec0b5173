//! Heads of messages, as everything else sees them: a request's, whatever the client speaks, and fields. Pure.

pub mod fields;

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
