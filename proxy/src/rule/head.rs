//! A request as rules see it: borrowed, made once, and what few rules ask for only computed when one does.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

use http::Method;
use http::header::{COOKIE, HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

/// What rules look at.
pub struct Head<'a> {
    pub(crate) method: &'a Method,
    /// Lower case, no port.
    pub(crate) host: &'a str,
    /// As it was sent: vulcand matches the escaped path when it has escapes, and without there is no difference.
    pub(crate) path: &'a str,
    pub(crate) client: IpAddr,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
    segments: OnceCell<Segments>,
}

/// The segments of a normalised path.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    bytes: Vec<u8>,
    /// Where each segment ends in `bytes`.
    ends: Vec<usize>,
}

impl<'a> Head<'a> {
    /// A request with its host already put in order by [`host_of`].
    pub fn new(
        method: &'a Method,
        host: &'a str,
        path: &'a str,
        query: Option<&'a str>,
        headers: &'a HeaderMap,
        client: IpAddr,
    ) -> Head<'a> {
        Head { method, host, path, client, query, headers, segments: OnceCell::new() }
    }

    /// The host, as rules see it.
    pub(crate) fn host(&self) -> &str {
        self.host
    }

    /// The path, as rules see it.
    pub(crate) fn path(&self) -> &str {
        self.path
    }

    pub(crate) fn header(&self, name: &HeaderName) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The parameters of the query, decoded as forms are.
    pub(crate) fn query(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        let pairs = self.query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
    }

    /// Names and values of the cookies (RFC 6265 section 5.4; a request may carry several fields).
    pub(crate) fn cookies(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let fields = self.headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let pairs = fields.flat_map(|field| field.split(';'));
        pairs.filter_map(|pair| pair.trim().split_once('='))
    }

    /// The path as an application sees it: percent-decoded once, empty segments dropped, `.` and `..` resolved.
    pub(crate) fn segments(&self) -> &Segments {
        self.segments.get_or_init(|| Segments::of(self.path))
    }
}

impl Segments {
    fn of(path: &str) -> Segments {
        let mut segments = Segments::default();
        let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
        for segment in decoded.split(|byte| *byte == b'/') {
            match segment {
                b"" | b"." => {}
                b".." => segments.pop(),
                name => {
                    segments.bytes.extend_from_slice(name);
                    segments.ends.push(segments.bytes.len());
                }
            }
        }
        segments
    }

    fn pop(&mut self) {
        self.ends.pop();
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    pub(crate) fn last(&self) -> Option<&[u8]> {
        self.iter().last()
    }
}

/// The host name of an authority: lower case, without port and without the dot of a full name. Allocates only for
/// upper case.
pub fn host_of(authority: &str) -> Cow<'_, str> {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
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
