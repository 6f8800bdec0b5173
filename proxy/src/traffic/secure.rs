//! Clients that should come over TLS are sent there, and what servers answer to those who did is made to fit.
//!
//! Nothing here is done for a frontend whose `Https` is `off`.

use std::net::IpAddr;

use etna_store::object::HttpsMode;
use http::header::{HeaderName, HeaderValue, LOCATION};
use http::{StatusCode, Uri};

use super::body::ResponseBody;
use crate::acme::challenge::PATH;
use crate::listener::conn::Client;
use crate::message::RequestHead;
use crate::middleware::Response;
use crate::rule::host_of;
use crate::table::{Frontend, Route};

/// What is remembered of a request until its answer is there, if that may have to be made to fit.
pub(super) struct Asked {
    host: Box<str>,
    uri: Uri,
    hsts: u32,
}

impl Asked {
    /// Of a request that came over TLS, to a frontend that cares.
    pub(super) fn of(client: &Client, frontend: &Frontend, head: &RequestHead) -> Option<Asked> {
        let hsts = frontend.hsts();
        if frontend.digest.https == HttpsMode::Off && hsts == 0 || !is_secure(client, frontend, head) {
            return None;
        }
        let host = head.host().ok()?;
        Some(Asked { host: host_of(host).into(), uri: head.uri.clone(), hsts })
    }

    /// Makes the answer fit.
    pub(super) fn fit(&self, response: &mut Response) {
        if let Some(location) = response.fields.get("location")
            && let Some(fitting) = self.location(location)
        {
            response.fields.set(&LOCATION, &fitting);
        }
        if self.hsts > 0
            && !response.fields.contains(HSTS.as_str())
            && let Ok(value) = HeaderValue::from_str(&format!("max-age={}", self.hsts))
        {
            response.fields.append(&HSTS, &value);
        }
    }

    /// A server that does not know of the TLS before it sends clients to http: the same place over https. Unless that is
    /// where the client is: then the server insists, and to hide it would send the client round in circles.
    fn location(&self, location: &[u8]) -> Option<HeaderValue> {
        let rest = std::str::from_utf8(location).ok()?.strip_prefix("http://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, place) = rest.split_at(end);
        if !matches!(authority.rsplit_once(':'), None | Some((_, "80"))) || *host_of(authority) != *self.host {
            return None;
        }
        let asked = self.uri.path_and_query().map_or("/", |asked| asked.as_str());
        if asked == if place.is_empty() { "/" } else { place } {
            return None;
        }
        HeaderValue::from_str(&format!("https://{}{place}", host_part(authority))).ok()
    }
}

/// Whether the client came over TLS, to us or to a proxy that is believed.
fn is_secure(client: &Client, frontend: &Frontend, head: &RequestHead) -> bool {
    let believe = frontend.digest.trust_forward_header || client.worker.trusted.contains(client.peer.address);
    client.peer.is_secure(&head.fields, believe)
}

/// The redirect for a client that should come over TLS and did not. Not for an authority that looks whether a name is
/// ours (RFC 8555 section 8.3), nor for the site's own servers, which call it by whatever address they know.
pub(super) fn redirect(client: &Client, address: IpAddr, route: &Route, head: &RequestHead) -> Option<Response> {
    let frontend = &*route.frontend;
    if !route.wants_tls || is_secure(client, frontend, head) {
        return None;
    }
    if client.worker.live.table().is_own_server(frontend, address) {
        return None;
    }
    let location = over_tls(head)?;
    let mut response = Response::new(StatusCode::PERMANENT_REDIRECT, ResponseBody::whole(""));
    response.fields.append(&LOCATION, &location);
    Some(response)
}

/// Where a request in the clear is sent that wants TLS.
pub(crate) fn over_tls(head: &RequestHead) -> Option<HeaderValue> {
    if head.uri.path().starts_with(PATH) {
        return None;
    }
    let host = head.host().ok()?;
    let place = head.uri.path_and_query().map_or("/", |place| place.as_str());
    HeaderValue::from_str(&format!("https://{}{place}", host_part(host))).ok()
}

/// An authority without its port: https has its own.
fn host_part(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

const HSTS: HeaderName = http::header::STRICT_TRANSPORT_SECURITY;

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(uri: &str, location: &str) -> String {
        let asked = Asked { host: "a.test".into(), uri: uri.parse().unwrap(), hsts: 0 };
        let mut response = Response::new(StatusCode::FOUND, ResponseBody::whole(""));
        response.fields.append(&LOCATION, &HeaderValue::from_str(location).unwrap());
        asked.fit(&mut response);
        String::from_utf8(response.fields.get("location").unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_redirect_to_http_on_the_same_host_stays_on_https() {
        for (location, wanted) in [
            ("http://a.test/wp-admin/?x=1", "https://a.test/wp-admin/?x=1"),
            ("http://A.Test:80/x", "https://A.Test/x"),
            ("http://a.test", "https://a.test"),
            ("http://a.test?x", "https://a.test?x"),
            ("http://a.test:8080/x", "http://a.test:8080/x"),
            ("http://b.test/x", "http://b.test/x"),
            ("http://a.test.b.test/x", "http://a.test.b.test/x"),
            ("http://a.test@b.test/x", "http://a.test@b.test/x"),
            ("/x", "/x"),
            ("https://a.test/x", "https://a.test/x"),
        ] {
            assert_eq!(fitted("/asked", location), wanted, "{location}");
        }
    }

    #[test]
    fn a_server_that_insists_on_http_is_not_hidden() {
        assert_eq!(fitted("/x?y=1", "http://a.test/x?y=1"), "http://a.test/x?y=1");
        assert_eq!(fitted("/", "http://a.test"), "http://a.test");
        assert_eq!(fitted("/", "http://a.test/x"), "https://a.test/x");
    }

    #[test]
    fn ports_go_and_addresses_stay() {
        for (authority, wanted) in
            [("a.test:8080", "a.test"), ("a.test", "a.test"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")]
        {
            assert_eq!(host_part(authority), wanted);
        }
    }
}
