//! Requests out of text, as rules see them.
//!
//! The first line is `METHOD HOST PATH QUERY CLIENT`, each but the method may be left out; then a header field a line.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use etna_proxy::message::fields::Fields;
use etna_proxy::rule::{Head, host_of};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// A request.
pub struct Asked<'a> {
    method: Method,
    host: Cow<'a, str>,
    path: &'a str,
    query: Option<&'a str>,
    client: IpAddr,
    fields: Fields,
}

impl<'a> Asked<'a> {
    /// Reads one; what cannot be part of a request is left out.
    pub fn read(text: &'a str) -> Asked<'a> {
        let mut lines = text.split('\n');
        let mut words = lines.next().unwrap_or_default().split(' ');
        let mut word = || words.next().unwrap_or_default();
        let method = word().parse().unwrap_or(Method::GET);
        let host = host_of(word());
        let path = Some(word()).filter(|path| path.starts_with('/') && !path.contains('?')).unwrap_or("/");
        let query = Some(word()).filter(|query| !query.is_empty());
        let client = word().parse().unwrap_or(Ipv4Addr::LOCALHOST.into());
        let mut headers = HeaderMap::new();
        for (name, value) in lines.take(100).filter_map(|line| line.split_once(": ")) {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
                headers.append(name, value);
            }
        }
        Asked { method, host, path, query, client, fields: Fields::from(&headers) }
    }

    /// As rules see it.
    pub fn head(&self) -> Head<'_> {
        Head::new(&self.method, &self.host, self.path, self.query, &self.fields, self.client)
    }
}
