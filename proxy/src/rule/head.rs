//! A request as rules see it: borrowed, made once, and what few rules ask for only computed when one does.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

use http::Method;
use http::header::HeaderName;
use percent_encoding::percent_decode_str;

use super::segments::Segments;
use crate::message::fields::Fields;

/// What rules look at.
pub struct Head<'a> {
    pub(crate) method: &'a Method,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) client: IpAddr,
    pub(crate) fields: &'a Fields,
    query: Option<&'a str>,
    segments: OnceCell<Segments<'a>>,
}

impl<'a> Head<'a> {
    /// A request. `host` is what [`host_of`] made of its authority; `path` is as it was sent, escapes included, without
    /// the query (vulcand matches the decoded path unless it has escapes: that is the same). An IPv4 `client` mapped
    /// into IPv6, as dual-stack sockets report it, counts as the IPv4 address.
    pub fn new(
        method: &'a Method,
        host: &'a str,
        path: &'a str,
        query: Option<&'a str>,
        fields: &'a Fields,
        client: IpAddr,
    ) -> Head<'a> {
        Head { method, host, path, client: client.to_canonical(), fields, query, segments: OnceCell::new() }
    }

    /// The host, as [`host_of`] made it.
    pub fn host(&self) -> &'a str {
        self.host
    }

    /// The path as it was sent.
    pub(crate) fn path(&self) -> &'a str {
        self.path
    }

    /// The same request for another path.
    pub(crate) fn with_path<'b>(&'b self, path: &'b str) -> Head<'b> {
        Head { path, segments: OnceCell::new(), ..*self }
    }

    /// The first value of a header; empty when it is absent, as in vulcand.
    pub(crate) fn header(&self, name: &HeaderName) -> Cow<'a, str> {
        self.fields.get(name.as_str()).map_or(Cow::Borrowed(""), String::from_utf8_lossy)
    }

    /// The parameters of the query, decoded as forms are.
    pub(crate) fn query(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        let pairs = self.query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
    }

    /// Names and values of the cookies.
    pub(crate) fn cookies(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        cookies(self.fields)
    }

    /// The segments of the path, normalised.
    pub(crate) fn segments(&self) -> &Segments<'a> {
        self.segments.get_or_init(|| Segments::of(self.path))
    }
}

/// Names and values of the cookies (RFC 6265 section 5.4; a request may carry several fields), as bytes: one odd cookie
/// must not hide the others. One without `=` has an empty value, as PHP reads it.
pub(crate) fn cookies(fields: &Fields) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = fields.get_all("cookie").flat_map(|value| value.split(|byte| *byte == b';'));
    let named = pairs.map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = equals.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
        (name.trim_ascii(), value.trim_ascii())
    });
    named.filter(|(name, _)| !name.is_empty())
}

/// The host name of an authority: lower case, without port, without the brackets of an IPv6 address and without the dot
/// that ends a full name. Allocates only for upper case.
pub fn host_of(authority: &str) -> Cow<'_, str> {
    // Most are as they should be.
    if !authority.bytes().any(|byte| byte.is_ascii_uppercase() | matches!(byte, b':' | b'[')) {
        return Cow::Borrowed(authority.strip_suffix('.').unwrap_or(authority));
    }
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.bytes().position(|byte| byte == b':').map_or(authority, |colon| &authority[..colon]),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn decode(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        let spaced = text.replace('+', " ");
        Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
    } else {
        Cow::Borrowed(text)
    }
}
