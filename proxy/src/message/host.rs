//! The host that a request is for. Whether anything is served for it is not asked here.

use super::RequestHead;

impl RequestHead {
    /// The one host a request is for: `Host`, or the target's authority, which must agree (RFC 9112 section 3.2).
    pub fn host(&self) -> Result<&str, &'static str> {
        let mut fields = self.fields.get_all("host");
        let field = match fields.next() {
            Some(value) => Some(std::str::from_utf8(value).map_err(|_| "the Host field is not text")?),
            None => None,
        };
        if fields.next().is_some() {
            return Err("more than one Host field");
        }
        if field.is_some_and(|field| !is_host(field)) {
            return Err("the Host field is malformed");
        }
        match (field, self.uri.authority()) {
            (Some(field), None) => Ok(field),
            (Some(field), Some(authority)) if field.eq_ignore_ascii_case(authority.as_str()) => Ok(field),
            (Some(_), Some(_)) => Err("Host and target name different hosts"),
            (None, _) if self.version >= http::Version::HTTP_11 => Err("no Host field"),
            (None, Some(authority)) if !is_host(authority.as_str()) => Err("the target's host is malformed"),
            (None, Some(authority)) => Ok(authority.as_str()),
            (None, None) => Ok(""),
        }
    }
}

/// `host [ ":" port ]` of names and addresses as they are used for servers; a name is at most 253 bytes long.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("", port),
            _ => return false,
        },
        None => text.split_at(text.bytes().position(|byte| !OF_NAME[usize::from(byte)]).unwrap_or(text.len())),
    };
    let is_port = |digits: &str| {
        digits.is_empty() || (digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok())
    };
    host.len() <= 254 && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// What may be in a host's name.
const OF_NAME: [bool; 256] = {
    let mut of_name = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        of_name[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~');
        byte += 1;
    }
    of_name
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in ["a", "a.test", "A_b.test:80", "127.0.0.1:8080", "[::1]", "[fd00::1]:443", "", "a.", "a:"] {
            assert!(is_host(good), "{good}");
        }
        let long = "a".repeat(255);
        for bad in [
            "a b", "a,b", "a/x", "a?x", "a#x", "u@a", "a:port", "a:99999", "a:80:80", "[::1", "::1]", "::1", "a\\b",
            "<a>", "a\"b", "a|b", "a%41", "[::1]x", "[a]", &long,
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn a_request_is_for_one_host() {
        let parts = |request: http::request::Builder| RequestHead::from(request.body(()).unwrap().into_parts().0);
        let ok = parts(http::Request::get("/").header("host", "a.test:8080"));
        assert_eq!(ok.host(), Ok("a.test:8080"));
        assert!(parts(http::Request::get("http://a.test/").header("host", "b.test")).host().is_err());
        assert!(parts(http::Request::get("/").header("host", "a").header("host", "a")).host().is_err());
        assert!(parts(http::Request::get("/")).host().is_err());
        assert_eq!(parts(http::Request::get("/").version(http::Version::HTTP_10)).host(), Ok(""));
        let old = |target: &str| parts(http::Request::get(target).version(http::Version::HTTP_10));
        assert_eq!(old("http://a.test/").host(), Ok("a.test"));
        assert!(old("http://u@a.test/").host().is_err());
    }
}
