//! Names that come from labels: what a host name and a site's name may be, and which hosts may be claimed. Pure.

use std::net::IpAddr;
use std::str::FromStr;

/// The most host names one container may claim.
pub(super) const MAX: usize = 32;

/// A host name as a rule of the proxy compares it: lower case, no port, no wildcard, no trailing dot.
pub fn valid_host(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (1..=253).contains(&host.len()) && host.split('.').all(label)
}

/// A site's name: one segment of a key, and part of the names of its backends.
pub fn valid_site(site: &str) -> bool {
    (1..=100).contains(&site.len())
        && site.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !site.starts_with('.')
}

/// The host of an absolute URL or of `host[:port][/path]`; `None` where there is none.
pub(super) fn of_url(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

/// Which host names may be claimed: `example.com`, `*.example.com` (any depth, not the name itself) or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// Any.
    Any,
    /// This one.
    Exactly(String),
    /// Any below this one; the string starts with a dot.
    Below(String),
}

impl HostPattern {
    /// Whether it allows a valid host name.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Any => true,
            HostPattern::Exactly(name) => host == name,
            HostPattern::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPattern, String> {
        let text = text.trim().to_ascii_lowercase();
        let below = text.strip_prefix("*.");
        match (text.as_str(), below) {
            ("*", _) => Ok(HostPattern::Any),
            (_, Some(name)) if valid_host(name) => Ok(HostPattern::Below(format!(".{name}"))),
            (name, None) if valid_host(name) => Ok(HostPattern::Exactly(name.to_owned())),
            _ => Err("say example.com, *.example.com or *".into()),
        }
    }
}

/// Which sites may be named: `blog`, `blog-*` or `*`. Unlike hosts, sites have names with capital letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SitePattern {
    /// This one.
    Exactly(String),
    /// Those whose names begin so.
    Begins(String),
}

impl SitePattern {
    /// Whether it allows a site.
    pub fn matches(&self, site: &str) -> bool {
        match self {
            SitePattern::Exactly(name) => site == name,
            SitePattern::Begins(name) => site.starts_with(name.as_str()),
        }
    }
}

impl FromStr for SitePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<SitePattern, String> {
        match text.strip_suffix('*') {
            Some("") => Ok(SitePattern::Begins(String::new())),
            Some(name) if valid_site(name) => Ok(SitePattern::Begins(name.to_owned())),
            None if valid_site(text) => Ok(SitePattern::Exactly(text.to_owned())),
            _ => Err("say blog, blog-* or *".into()),
        }
    }
}

/// An address as text, IPv4 inside IPv6 taken for what it is.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    text.trim().trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        for good in ["wordpress.local", "a", "xn--bcher-kva.example", "10.0.0.1", "a_b.c"] {
            assert!(valid_host(good), "{good}");
        }
        for bad in ["", "A.b", "a..b", ".a", "a.", "a:80", "*.a", "a/b", "a b", "-a", "a\"", "é.com", &"a".repeat(64)]
        {
            assert!(!valid_host(bad), "{bad}");
        }
    }

    #[test]
    fn hosts_of_urls() {
        for (url, host) in [
            ("http://wordpress.local:8888", Some("wordpress.local")),
            ("https://u:p@Example.com/path:1?x", Some("example.com")),
            ("example.com:80", Some("example.com")),
            ("http://", None),
            ("", None),
        ] {
            assert_eq!(of_url(url).as_deref(), host, "{url}");
        }
    }

    #[test]
    fn patterns() {
        let matches = |pattern: &str, host: &str| pattern.parse::<HostPattern>().unwrap().matches(host);
        assert!(matches("*", "a.b"));
        assert!(matches("*.Example.com", "a.b.example.com"));
        assert!(!matches("*.example.com", "example.com"));
        assert!(!matches("*.example.com", "badexample.com"));
        assert!(matches("example.com", "example.com"));
        for bad in ["", "*.", "a*", "**", "a:1"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_of_sites() {
        let matches = |pattern: &str, site: &str| pattern.parse::<SitePattern>().unwrap().matches(site);
        assert!(matches("*", "Blog") && matches("blog-*", "blog-2") && matches("Blog", "Blog"));
        assert!(!matches("blog-*", "blog") && !matches("Blog", "blog") && !matches("blog", "blog2"));
        for bad in ["", "a/b", "*a", "a**", ".*"] {
            assert!(bad.parse::<SitePattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sites() {
        assert!(valid_site("blog") && valid_site("wordpress.local"));
        for bad in ["", ".", "..", "a/b", "a b", "é", &"a".repeat(101)] {
            assert!(!valid_site(bad), "{bad}");
        }
    }
}
