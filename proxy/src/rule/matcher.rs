//! Matchers: the leaves of a rule, each a question about one part of a request.

use std::fmt;

use http::header::HeaderName;
use ipnet::IpNet;
use regex::Regex;

use super::literal::quote;
use super::{Head, Pattern};

/// What a matcher looks at, and what it asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Matcher {
    /// `Host`: in lower case, without port.
    Host(Pattern),
    /// `HostRegexp`: in any case.
    HostRegexp(Expression),
    /// `Path`: whole.
    Path(Pattern),
    /// `PathPrefix`: whole segments.
    PathPrefix(Box<str>),
    /// `PathRegexp`: anywhere in the path.
    PathRegexp(Expression),
    /// `Method`
    Method(Pattern),
    /// `MethodRegexp`
    MethodRegexp(Expression),
    /// `Header`: its first value; an absent header counts as empty, as in vulcand.
    Header(HeaderName, Pattern),
    /// `HeaderRegexp`: likewise.
    HeaderRegexp(HeaderName, Expression),
    /// `Query`: present, or with this value.
    Query(Box<str>, Option<Box<str>>),
    /// `QueryOnly`: with this value, and never with another.
    QueryOnly(Box<str>, Box<str>),
    /// `QueryRegexp`
    QueryRegexp(Box<str>, Expression),
    /// `Cookie`: present, or with this value.
    Cookie(Box<str>, Option<Box<str>>),
    /// `CookieRegexp`: a cookie with such a name.
    CookieRegexp(Expression),
    /// `ClientIP`
    ClientIp(Box<[IpNet]>),
    /// `Segment`: some segment of the normalised path is one of these.
    Segment(Box<[Box<str>]>),
    /// `LastSegment`: the last one is.
    LastSegment(Box<[Box<str>]>),
}

/// A regular expression that compares by its source.
#[derive(Clone, Debug)]
pub(crate) struct Expression(pub(crate) Regex);

impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Expression {
    fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl Matcher {
    pub(super) fn matches(&self, head: &Head<'_>) -> bool {
        match self {
            Matcher::Host(pattern) => pattern.matches(head.host),
            Matcher::HostRegexp(expression) => expression.matches(head.host),
            Matcher::Path(pattern) => pattern.matches(head.path),
            Matcher::PathPrefix(prefix) => has_prefix(head.path, prefix),
            Matcher::PathRegexp(expression) => expression.matches(head.path),
            Matcher::Method(pattern) => pattern.matches(head.method.as_str()),
            Matcher::MethodRegexp(expression) => expression.matches(head.method.as_str()),
            Matcher::Header(name, pattern) => pattern.matches(&head.header(name)),
            Matcher::HeaderRegexp(name, expression) => expression.matches(&head.header(name)),
            Matcher::Query(name, None) => head.query().any(|(key, _)| key == **name),
            Matcher::Query(name, Some(value)) => head.query().any(|(key, is)| key == **name && is == **value),
            Matcher::QueryOnly(name, value) => {
                let mut named = head.query().filter(|(key, _)| variable(key) == &**name).peekable();
                named.peek().is_some() && named.all(|(key, is)| key == **name && is == **value)
            }
            Matcher::QueryRegexp(name, expression) => {
                head.query().any(|(key, value)| key == **name && expression.matches(&value))
            }
            Matcher::Cookie(name, None) => head.cookies().any(|(key, _)| key == name.as_bytes()),
            Matcher::Cookie(name, Some(value)) => {
                head.cookies().any(|(key, is)| key == name.as_bytes() && is == value.as_bytes())
            }
            Matcher::CookieRegexp(expression) => {
                head.cookies().any(|(key, _)| expression.matches(&String::from_utf8_lossy(key)))
            }
            Matcher::ClientIp(networks) => networks.iter().any(|network| network.contains(&head.client)),
            Matcher::Segment(names) => head.segments().any(|segment| is_one_of(segment, names)),
            Matcher::LastSegment(names) => head.segments().last().is_some_and(|segment| is_one_of(segment, names)),
        }
    }
}

/// Whether a path is below a prefix: `/x` holds `/x` and `/x/…`, not `/xy`; a prefix that ends in `/` is just one.
fn has_prefix(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}

/// The variable that PHP makes of a parameter: of `a[x]`, `a` with a NUL behind it and spaces before, it is `a`.
fn variable(key: &str) -> &str {
    key.trim_start_matches(' ').split(['[', '\0']).next().unwrap_or_default()
}

fn is_one_of(segment: &[u8], names: &[Box<str>]) -> bool {
    names.iter().any(|name| segment == name.as_bytes())
}

/// Prints the matcher anew, as it may be parsed.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, arguments) = match self {
            Matcher::Host(pattern) => ("Host", one(pattern.source())),
            Matcher::HostRegexp(expression) => ("HostRegexp", one(expression.0.as_str())),
            Matcher::Path(pattern) => ("Path", one(pattern.source())),
            Matcher::PathPrefix(prefix) => ("PathPrefix", one(prefix)),
            Matcher::PathRegexp(expression) => ("PathRegexp", one(expression.0.as_str())),
            Matcher::Method(pattern) => ("Method", one(pattern.source())),
            Matcher::MethodRegexp(expression) => ("MethodRegexp", one(expression.0.as_str())),
            Matcher::Header(name, pattern) => ("Header", two(name.as_str(), Some(pattern.source()))),
            Matcher::HeaderRegexp(name, expression) => {
                ("HeaderRegexp", two(name.as_str(), Some(expression.0.as_str())))
            }
            Matcher::Query(name, value) => ("Query", two(name, value.as_deref())),
            Matcher::QueryOnly(name, value) => ("QueryOnly", two(name, Some(value))),
            Matcher::QueryRegexp(name, expression) => ("QueryRegexp", two(name, Some(expression.0.as_str()))),
            Matcher::Cookie(name, value) => ("Cookie", two(name, value.as_deref())),
            Matcher::CookieRegexp(expression) => ("CookieRegexp", one(expression.0.as_str())),
            Matcher::ClientIp(networks) => {
                ("ClientIP", networks.iter().map(|network| quote(&network.to_string())).collect())
            }
            Matcher::Segment(names) => ("Segment", names.iter().map(|name| quote(name)).collect()),
            Matcher::LastSegment(names) => ("LastSegment", names.iter().map(|name| quote(name)).collect()),
        };
        write!(f, "{name}({})", arguments.join(", "))
    }
}

fn one(text: &str) -> Vec<String> {
    vec![quote(text)]
}

fn two(first: &str, second: Option<&str>) -> Vec<String> {
    std::iter::once(first).chain(second).map(quote).collect()
}
