//! A request's head as HTTP/2 carries it, made one as HTTP/1.1 would have it, as strictly. Pure.
//!
//! What RFC 9113 section 8 forbids and the `h2` crate lets pass is refused here, before anything is matched or
//! forwarded. A WebSocket (RFC 8441) becomes the upgrade that servers know.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::request::Parts;
use http::uri::{self, Authority, Uri};
use http::{Method, Request, Version};

use crate::backend::framing::parse_length;
use crate::error::Error;
use crate::message::RequestHead;
use crate::message::fields::Fields;
use crate::traffic::h1::head::{MAX_FIELDS, MAX_METHOD, MAX_TARGET, check_target};

/// A request's head.
#[derive(Debug)]
pub(super) struct Head {
    /// Method, target and fields, with a path for a target and a `Host`.
    pub(super) head: RequestHead,
    /// Bytes of its body, where it says so.
    pub(super) length: Option<u64>,
    /// Whether it waits for `100 Continue` before it sends its body.
    pub(super) expects_continue: bool,
    /// Whether it asks for a WebSocket.
    pub(super) websocket: bool,
}

/// Bytes of a head, 32 for each field included (RFC 9113 section 6.5.2).
pub(super) fn size<T>(request: &Request<T>) -> usize {
    request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum::<usize>()
        + request.uri().path_and_query().map_or(0, |target| target.as_str().len())
        + request.uri().authority().map_or(0, |authority| authority.as_str().len())
}

/// Reads a request's head. `random` makes the key of a WebSocket's handshake, which HTTP/2 does not have.
pub(super) fn read(parts: Parts, random: impl FnMut() -> u64) -> Result<Head, Error> {
    let Parts { method, uri, version, headers, mut extensions, .. } = parts;
    if method.as_str().len() > MAX_METHOD {
        return Err(Error::BadRequest("the method is too long"));
    }
    if uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(Error::BadRequest("the scheme is neither http nor https"));
    }
    let Carried { fields, length, expects_continue } = carried(&headers, uri.authority())?;
    let mut head = RequestHead { method, uri, version, fields };
    let protocol = extensions.remove::<Protocol>();
    if head.method == Method::CONNECT && protocol.is_none() {
        // It is refused later, whatever it names.
        return Ok(Head { head, length, expects_continue: false, websocket: false });
    }
    let target = head.uri.path_and_query().cloned().ok_or(Error::BadRequest("the request has no path"))?;
    let text = target.as_str();
    if text.len() > MAX_TARGET {
        return Err(Error::TargetTooLong);
    }
    check_target(text.as_bytes())?;
    if !(text.starts_with('/') || (text == "*" && head.method == Method::OPTIONS)) {
        return Err(Error::BadRequest("the path does not begin with a slash"));
    }
    let mut origin = uri::Parts::default();
    origin.path_and_query = Some(target);
    head.uri = Uri::from_parts(origin).map_err(|_| Error::BadRequest("the request target is malformed"))?;
    if let Some(protocol) = protocol {
        if protocol.as_str() != "websocket" || length.is_some() {
            return Err(Error::Method);
        }
        upgrade(&mut head, random);
        return Ok(Head { head, length: None, expects_continue: false, websocket: true });
    }
    Ok(Head { head, length, expects_continue, websocket: false })
}

/// What a head's fields say.
struct Carried {
    fields: Fields,
    length: Option<u64>,
    expects_continue: bool,
}

/// Takes over fields. What a client may have sent in crumbs is joined (RFC 9113 section 8.2.3). The request names its
/// host in `Host`, as servers expect it; where that is there and the authority, they must agree (section 8.3.1). What is
/// wrong with either is found later.
fn carried(headers: &HeaderMap, authority: Option<&Authority>) -> Result<Carried, Error> {
    let authority = authority.map(|authority| authority.as_str().as_bytes());
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    let named = HOST.as_str().len() + authority.map_or(0, <[u8]>::len);
    let mut fields = Fields::with_room(headers.len() + 1, bytes + named);
    let (mut length, mut expects_continue, mut crumbs, mut hosts) = (None, false, false, false);
    for (name, value) in headers {
        if is_padded(value) {
            return Err(Error::BadRequest("a field's value begins or ends with a space"));
        }
        if name == COOKIE {
            // All of a name come together.
            if std::mem::replace(&mut crumbs, true) {
                fields.extend_last(b"; ", value);
                continue;
            }
        } else if name == CONTENT_LENGTH {
            let said = parse_length(value.as_bytes()).ok_or(Error::BadRequest("Content-Length is not a number"))?;
            if length.replace(said).is_some() {
                return Err(Error::BadRequest("more than one Content-Length"));
            }
        } else if name == EXPECT {
            if !std::mem::replace(&mut expects_continue, true) && !value.as_bytes().eq_ignore_ascii_case(CONTINUE) {
                return Err(Error::Expectation);
            }
        } else if name == HOST {
            hosts = true;
            if authority.is_some_and(|authority| !value.as_bytes().eq_ignore_ascii_case(authority)) {
                return Err(Error::BadRequest("Host and :authority name different hosts"));
            }
        }
        if fields.len() == MAX_FIELDS {
            return Err(Error::HeadTooLarge);
        }
        fields.append(name, value);
    }
    if let Some(authority) = authority.filter(|_| !hosts)
        && !fields.try_append(&HOST, authority)
    {
        return Err(Error::BadRequest("the :authority is malformed"));
    }
    Ok(Carried { fields, length, expects_continue })
}

/// RFC 9113 section 8.2.1.
fn is_padded(value: &HeaderValue) -> bool {
    let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    space(value.as_bytes().first()) || space(value.as_bytes().last())
}

/// Makes it the request by which HTTP/1.1 opens a WebSocket (RFC 8441 section 5).
fn upgrade(head: &mut RequestHead, mut random: impl FnMut() -> u64) {
    head.method = Method::GET;
    head.version = Version::HTTP_11;
    let fields = &mut head.fields;
    fields.set(&CONNECTION, &HeaderValue::from_static("upgrade"));
    fields.set(&UPGRADE, &HeaderValue::from_static("websocket"));
    fields.retain(|field| field.name() != EXPECT.as_str().as_bytes());
    let key = [random().to_be_bytes(), random().to_be_bytes()].concat();
    if let Ok(key) = HeaderValue::from_str(&STANDARD.encode(key)) {
        fields.set(&SEC_WEBSOCKET_KEY, &key);
    }
}

/// What a client expects that waits to be asked for its body.
const CONTINUE: &[u8] = b"100-continue";

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri).version(Version::HTTP_2);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn get(uri: &str, fields: &[(&str, &str)]) -> Result<Head, Error> {
        read(parts("GET", uri, fields), || 7)
    }

    #[test]
    fn a_request_names_its_host_once() {
        let head = get("https://a.test:8443/x?y", &[]).unwrap();
        assert_eq!(head.head.fields.get("host"), Some(&b"a.test:8443"[..]));
        assert_eq!(head.head.uri, "/x?y");
        assert!(head.head.uri.authority().is_none());
        assert_eq!(get("http://a.test/", &[("host", "A.test")]).unwrap().head.fields.len(), 1);
        assert_eq!(get("/", &[("host", "a.test")]).unwrap().head.fields.get("host"), Some(&b"a.test"[..]));
        assert!(matches!(get("http://a.test/", &[("host", "b.test")]), Err(Error::BadRequest(_))));
        assert!(matches!(get("http://a.test/", &[("host", "a.test"), ("host", "b.test")]), Err(Error::BadRequest(_))));
    }

    #[test]
    fn crumbs_become_a_cookie() {
        let head = get("/", &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]).unwrap();
        assert_eq!(head.head.fields.get("cookie"), Some(&b"a=1; b=2; c=3"[..]));
        assert_eq!(head.head.fields.len(), 2);
        let many: Vec<(&str, &str)> = (0..500).map(|_| ("cookie", "a=1")).collect();
        assert!(get("/", &many).is_ok());
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for fields in [
            &[("content-length", "1"), ("content-length", "1")][..],
            &[("content-length", "+1")],
            &[("content-length", "01")],
            &[("content-length", "")],
            &[("x", " a")],
            &[("x", "a\t")],
        ] {
            assert!(matches!(get("/", fields), Err(Error::BadRequest(_))), "{fields:?}");
        }
        assert_eq!(get("/", &[("expect", "y")]).unwrap_err(), Error::Expectation);
        for uri in ["ftp://a/", "/wp-admin%00.png", "*"] {
            assert!(matches!(get(uri, &[]), Err(Error::BadRequest(_))), "{uri}");
        }
        assert!(read(parts("OPTIONS", "*", &[]), || 7).is_ok());
    }

    #[test]
    fn sizes_are_bounded() {
        let many: Vec<(&str, &str)> = (0..=MAX_FIELDS).map(|_| ("a", "b")).collect();
        assert_eq!(get("/", &many).unwrap_err(), Error::HeadTooLarge);
        assert!(get("/", &many[1..]).is_ok());
        let long = "a".repeat(MAX_TARGET);
        assert_eq!(get(&format!("/{long}"), &[]).unwrap_err(), Error::TargetTooLong);
        assert_eq!(
            size(&Request::from_parts(parts("GET", "http://ab/c", &[("a", "b"), ("c", "de")]), ())),
            34 + 35 + 2 + 2
        );
    }

    #[test]
    fn a_websocket_is_asked_for_as_servers_know_it() {
        let mut asked = parts("CONNECT", "https://a.test/chat", &[("sec-websocket-version", "13")]);
        asked.extensions.insert(Protocol::from_static("websocket"));
        let head = read(asked, || 7).unwrap();
        assert!(head.websocket);
        assert_eq!((&head.head.method, head.head.version), (&Method::GET, Version::HTTP_11));
        assert!(crate::traffic::headers::wants_websocket(&head.head.fields));
        assert_eq!(head.head.fields.get("sec-websocket-key").unwrap().len(), 24);
        let mut other = parts("CONNECT", "https://a.test/chat", &[]);
        other.extensions.insert(Protocol::from_static("connect-udp"));
        assert_eq!(read(other, || 7).unwrap_err(), Error::Method);
        let plain = read(parts("CONNECT", "a.test:80", &[]), || 7).unwrap();
        assert!(!plain.websocket && plain.head.method == Method::CONNECT);
    }
}
