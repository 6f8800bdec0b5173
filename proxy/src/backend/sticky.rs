//! Stickiness: the cookie that brings a client back to the server it was on.
//!
//! The cookie's value is a digest of the backend's and the server's names: every proxy computes the same one, nothing
//! about the server can be read from it, and it can only ever name a server of the backend it is looked up in.
//! Nothing is kept in memory per client.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use etna_store::object::ServerState;
use http::header::HeaderValue;
use sha2::{Digest, Sha256};

use super::{Backend, Live};
use crate::message::fields::Fields;
use crate::rule::cookies;

/// The value that names a server: 96 bits, 16 characters.
pub fn token(backend: &str, server: &str) -> Arc<str> {
    let mut digest = Sha256::new();
    digest.update(b"etna sticky 1\0");
    digest.update(backend.as_bytes());
    digest.update(b"\0");
    digest.update(server.as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.finalize()[..12]).into()
}

/// The cookie name of a backend whose settings give none: two backends under one host must not share one.
pub fn default_cookie(backend: &str) -> Arc<str> {
    let digest = Sha256::digest(backend.as_bytes());
    let mut name = String::from("etna-");
    for byte in &digest[..4] {
        name.push_str(&format!("{byte:02x}"));
    }
    name.into()
}

/// Where the server stands that a request is stuck to: the cookie's, if it still serves. A draining server keeps its
/// clients for the backend's `DrainTimeout`; one that was given the weight 0 does not, and an ill one only while all are
/// ill. `now` is asked for only where it matters.
pub fn find(backend: &Backend, cookie: &str, fields: &Fields, now: impl FnOnce() -> Instant) -> Option<u16> {
    let value = cookie_value(fields, cookie)?;
    let is_named = |server: &super::Server| server.live.token.as_bytes() == value && server.spec.weight > 0;
    let at = backend.servers.iter().position(is_named)?;
    let server = &backend.servers[at];
    let keeps = server.spec.state == ServerState::Up
        || server.live.draining_for(now()).is_none_or(|time| time < backend.spec.drain);
    let serves = server.live.health.is_serving() || !backend.servers.iter().any(|other| other.live.health.is_serving());
    if keeps && serves { u16::try_from(at).ok() } else { None }
}

/// `Set-Cookie` that sticks a client to a server for its browser session.
pub fn set_cookie(cookie: &str, server: &Live, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{cookie}={}; Path=/; HttpOnly; SameSite=Lax{secure}", server.token);
    HeaderValue::from_str(&text).ok()
}

/// The first cookie of that name.
pub fn cookie_value<'h>(fields: &'h Fields, name: &str) -> Option<&'h [u8]> {
    cookies(fields).find_map(|(key, value)| (key == name.as_bytes()).then_some(value))
}

#[cfg(test)]
mod tests {
    use http::header::{COOKIE, HeaderMap};

    use super::*;
    use crate::backend::test;

    #[test]
    fn a_token_depends_on_backend_and_server_and_nothing_else() {
        assert_eq!(token("b", "s1"), token("b", "s1"));
        assert_ne!(token("b", "s1"), token("b", "s2"));
        assert_ne!(token("b", "s1"), token("c", "s1"));
        assert_ne!(token("ab", "c"), token("a", "bc"));
        assert_eq!(token("b", "s1").len(), 16);
    }

    #[test]
    fn a_draining_server_keeps_its_clients_for_a_time() {
        let servers = vec![test::server("a", r#","State":"draining""#), test::server("b", "")];
        let backend = test::backend(servers, r#","DrainTimeout":"60s""#, None);
        let cookie = |at: usize| {
            let mut headers = HeaderMap::new();
            let token = &backend.servers[at].live.token;
            headers.append(COOKIE, HeaderValue::from_str(&format!("etna={token}")).unwrap());
            Fields::from(&headers)
        };
        let now = Instant::now();
        let find = |at, seconds| find(&backend, "etna", &cookie(at), || now + std::time::Duration::from_secs(seconds));
        assert_eq!((find(0, 30), find(1, 30)), (Some(0), Some(1)));
        assert_eq!((find(0, 90), find(1, 90)), (None, Some(1)));
    }

    #[test]
    fn a_cookie_of_another_backend_names_nobody() {
        let backend = test::backend(vec![test::server("a", "")], "", None);
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_str(&format!("etna={}", token("other", "a"))).unwrap());
        assert_eq!(find(&backend, "etna", &Fields::from(&headers), Instant::now), None);
    }

    #[test]
    fn cookies_are_found_among_others_and_across_fields() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; etna=x"));
        headers.append(COOKIE, HeaderValue::from_bytes(b"name=J\xc3\xb6rg; b=2").unwrap());
        let headers = Fields::from(&headers);
        assert_eq!(cookie_value(&headers, "etna"), Some(&b"x"[..]));
        assert_eq!(cookie_value(&headers, "b"), Some(&b"2"[..]), "a cookie that is no ASCII hides none");
        assert_eq!(cookie_value(&headers, "tna"), None);
    }
}
