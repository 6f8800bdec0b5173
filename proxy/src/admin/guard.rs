//! What every request to the admin API passes before an endpoint sees it.
//!
//! Against browsers that were talked into it (DNS rebinding, cross-site requests): `Host` must be an address of ours,
//! `Origin` ourselves, a change must be declared as JSON; there is no CORS. Against strangers: the token, where there
//! is one. Health needs none, and may be asked by name: it has no effect and gives nothing away. So may metrics with
//! the token, which no page has. Every change that is asked for leaves a line in the audit trail.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::audit::{self, Peer, Touched};
use super::reply::{self, Refusal};
use super::token::Shown;

/// Where a request came in, put beside it by the accept loop.
#[derive(Clone, Debug)]
pub(super) struct Via {
    /// Who sent it.
    pub(super) peer: Peer,
    /// Our address on that connection; `None` on a unix socket, which no browser reaches.
    pub(super) local: Option<IpAddr>,
}

/// The rules of one admin API.
#[derive(Clone)]
pub(super) struct Guard {
    /// What callers show, where they must.
    pub(super) token: Arc<Shown>,
}

/// Runs the checks, the endpoint within its time limit, and the audit.
pub(super) async fn pass(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let Some(via) = request.extensions().get::<Via>().cloned() else {
        return Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the connection is unknown").into_response();
    };
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = match guard.check(&via, &request) {
        Ok(()) => match tokio::time::timeout(LONGEST_REQUEST, next.run(request)).await {
            Ok(response) => reply::as_refusal(response).await,
            Err(_) => timed_out().into_response(),
        },
        Err(refusal) => refusal.into_response(),
    };
    // A lease that is kept changes nothing, and is kept every few seconds.
    let keeps = path == "/v3/store/keep" && response.status().is_success();
    if !audit::is_safe(&method) && !keeps {
        audit::record(&via.peer, &method, &path, response.extensions().get::<Touched>(), response.status());
    }
    response
}

impl Guard {
    fn check(&self, via: &Via, request: &Request) -> Result<(), Refusal> {
        let headers = request.headers();
        let path = request.uri().path();
        let is_health = matches!(path, "/healthz" | "/readyz") && audit::is_safe(request.method());
        let is_scrape = path == "/metrics" && self.token.is_set() && self.token.allows(headers);
        if let Some(local) = via.local
            && !is_health
            && !is_scrape
        {
            check_host(local, request.uri(), headers)?;
        }
        check_origin(headers)?;
        if has_token(request.uri()) {
            return Err(Refusal::bad(
                "a token in the URL ends up in logs: send it as `Authorization: Bearer …`, and make a new one",
            ));
        }
        if is_health {
            return Ok(());
        }
        if !self.token.allows(headers) {
            return Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "the token is missing or wrong: send `Authorization: Bearer …` with what the admin token file holds",
            ));
        }
        check_content(request.method(), headers)
    }
}

/// The name a client used must be an address of ours: a name that only resolves to us is somebody else's site.
fn check_host(local: IpAddr, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let refused = |what: &str| {
        let hint = "call the admin API by its IP address instead of a name or, on the same host, as localhost";
        Refusal::new(StatusCode::FORBIDDEN, format!("{what}: {hint}"))
    };
    let mut fields = headers.get_all(HOST).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Err(refused("there must be exactly one Host header"));
    };
    let ours = |text: &str| is_ours(local, text);
    if !field.to_str().is_ok_and(ours) || uri.authority().is_some_and(|authority| !ours(authority.as_str())) {
        return Err(refused("the Host header names another site"));
    }
    Ok(())
}

/// Whether `host[:port]` is us on a connection that came to `local`.
fn is_ours(local: IpAddr, host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    // A host with a port that is none reads as one without.
    if authority.port_u16().is_none() && authority.host() != host {
        return false;
    }
    if host.contains('@') {
        return false;
    }
    let local = local.to_canonical();
    let name = authority.host();
    if name.eq_ignore_ascii_case("localhost") {
        return local.is_loopback();
    }
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    match name.parse::<IpAddr>() {
        // Behind a port mapping we do not know our outer address. Any address is safe there: an address cannot be
        // made to resolve to us, and what is not loopback asks for the token.
        Ok(address) => address.to_canonical() == local || !local.is_loopback(),
        Err(_) => false,
    }
}

fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    // Whether that host is ours was looked at before: here it only has to be the same one.
    let own = origin.as_bytes().strip_prefix(b"http://");
    let same = headers.get(HOST).is_some_and(|host| own.is_some_and(|own| own.eq_ignore_ascii_case(host.as_bytes())));
    if same && headers.get_all(ORIGIN).iter().count() == 1 {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::FORBIDDEN, "a page of another site sent this request"))
}

fn has_token(uri: &Uri) -> bool {
    let names = uri.query().into_iter().flat_map(|query| query.split('&'));
    names.filter_map(|pair| pair.split('=').next()).any(|name| {
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase();
        matches!(&*name, "token" | "access_token" | "auth_token" | "authorization" | "bearer")
    })
}

/// A page can send forms and plain text across sites without asking, but not JSON.
fn check_content(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if audit::is_safe(method) {
        return Ok(());
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > LONGEST_BODY as u64) {
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {LONGEST_BODY} bytes: send less at once"),
        ));
    }
    // A DELETE across sites is asked for beforehand, which is refused; vulcand's clients send it bare.
    let bare = length.unwrap_or(0) == 0 && !headers.contains_key(TRANSFER_ENCODING);
    if (*method == Method::DELETE && bare) || headers.get(CONTENT_TYPE).is_some_and(is_json) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send JSON and say so: `Content-Type: application/json`"))
}

fn is_json(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    text.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn timed_out() -> Refusal {
    let seconds = LONGEST_REQUEST.as_secs();
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("not done within {seconds} s: is the store reachable?"))
}

/// The longest body of a request, in bytes.
pub(super) const LONGEST_BODY: usize = 2 << 20;
const LONGEST_REQUEST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn is_local(host: &str) -> bool {
        is_ours(IpAddr::from([127, 0, 0, 1]), host)
    }

    #[test]
    fn only_our_own_names_are_ours() {
        for host in ["127.0.0.1", "127.0.0.1:8182", "localhost", "LOCALHOST:1", "[::ffff:127.0.0.1]:8182"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "evil.test",
            "127.evil.com",
            "127.0.0.1.evil.com",
            "localhost.",
            "localhost.evil.com",
            "[::1]",
            "127.0.0.2",
            "0.0.0.0",
            "2130706433",
            "127.1",
            "",
            ":8182",
            "127.0.0.1:",
            "127.0.0.1:x",
            "127.0.0.1:99999",
            "a@127.0.0.1",
            "127.0.0.1 ",
            "10.0.0.1",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn away_from_loopback_any_address_but_no_name_is_ours() {
        let local = IpAddr::from([10, 0, 0, 1]);
        assert!(is_ours(local, "10.0.0.1:8182"));
        assert!(is_ours(local, "192.0.2.1:80"));
        for host in ["localhost", "core-01", "evil.test:8182"] {
            assert!(!is_ours(local, host), "{host}");
        }
        assert!(is_ours("::1".parse().unwrap(), "[::1]:8182"));
    }

    #[test]
    fn an_origin_must_be_the_host_itself() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1:8182"));
        assert!(check_origin(&headers).is_ok());
        headers.insert(ORIGIN, HeaderValue::from_static("http://127.0.0.1:8182"));
        assert!(check_origin(&headers).is_ok());
        for foreign in
            ["http://evil", "null", "https://127.0.0.1:8182", "http://127.0.0.1:8182.evil", "http://127.0.0.1"]
        {
            headers.insert(ORIGIN, HeaderValue::from_static(foreign));
            assert!(check_origin(&headers).is_err(), "{foreign}");
        }
    }

    #[test]
    fn changes_are_json_or_a_bare_delete() {
        let with = |kind: &'static str| HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        assert!(check_content(&Method::POST, &with("application/json; charset=utf-8")).is_ok());
        assert!(check_content(&Method::DELETE, &HeaderMap::new()).is_ok());
        assert!(check_content(&Method::GET, &HeaderMap::new()).is_ok());
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            assert!(check_content(&Method::POST, &with(kind)).is_err(), "{kind}");
        }
        assert!(check_content(&Method::POST, &HeaderMap::new()).is_err());
        let mut long = with("application/json");
        long.insert(CONTENT_LENGTH, HeaderValue::from_static("2097153"));
        assert!(check_content(&Method::PUT, &long).is_err());
        let chunked = HeaderMap::from_iter([(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))]);
        assert!(check_content(&Method::DELETE, &chunked).is_err());
    }

    #[test]
    fn tokens_in_urls_are_seen_however_they_are_spelled() {
        for uri in ["/v3/status?token=x", "/?a=b&access_token=x", "/?%74oken=x", "/?TOKEN"] {
            assert!(has_token(&uri.parse().unwrap()), "{uri}");
        }
        assert!(!has_token(&"/v3/explain?url=http://a/?token%3Dx".parse().unwrap()));
    }
}
