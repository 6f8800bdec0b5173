//! What no request can match: written with vulcand or a browser's address in mind, and better refused than served to
//! nobody. Pure, and only about what is certain: requests whose host, path or method were like that are refused.

use std::net::Ipv6Addr;

use super::Pattern;
use super::literal::quote;

/// Why nothing matches, and what to write instead.
#[derive(Debug)]
pub(super) struct Never {
    pub(super) message: &'static str,
    pub(super) hint: String,
}

fn never<T>(message: &'static str, hint: String) -> Result<T, Never> {
    Err(Never { message, hint })
}

/// A pattern for hosts, in lower case. A request's host is a name or an IPv6 address, without its port.
pub(super) fn host(pattern: &Pattern) -> Result<(), Never> {
    let is_address = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~');
    let fits = match pattern.literal() {
        Some(text) if text.contains(':') => text.parse::<Ipv6Addr>().is_ok(),
        Some(text) => text.bytes().all(is_name),
        None => pattern.literals().all(is_address) || pattern.literals().all(|text| text.bytes().all(is_name)),
    };
    if fits {
        return Ok(());
    }
    let source = pattern.source();
    let has = |what: &[char]| pattern.literals().any(|text| text.contains(what));
    let (scheme, rest) = source.split_once("://").map_or((None, source), |(scheme, rest)| (Some(scheme), rest));
    let (name, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (name, port) = match name.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, Some(port)),
        _ => (name, None),
    };
    let mut hint = format!("write Host({})", quote(name));
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if path.len() > 1 {
        hint.push_str(&format!(" && PathPrefix({})", quote(path)));
    }
    if name.is_empty() || name.contains(['<', '>', '@', '[', ' ']) {
        hint = r#"write a name alone, like Host("example.com")"#.into();
    }
    hint.push_str("; for patterns use HostRegexp");
    match () {
        () if scheme.is_some() => never("a host has no scheme", hint),
        () if has(&['/', '?', '#']) => never("a host has no path", hint),
        () if has(&['*']) => {
            let one = source.replacen('*', "<name>", 1);
            let hint = if one.contains('*') { "for patterns use HostRegexp".into() } else { wildcard(&one) };
            never("there is no wildcard in a host", hint)
        }
        () if port.is_some() => never("a host is compared without its port", hint),
        () if !source.is_ascii() => {
            never("a host is sent in ASCII", "write international names as they are sent: xn--…".into())
        }
        () => never("no host is like that", r#"write a name like "example.com", or an IPv6 address"#.into()),
    }
}

fn wildcard(one: &str) -> String {
    format!("write Host({}) for any one name there; for more use HostRegexp", quote(one))
}

/// A pattern for whole paths. A request's path begins with a slash, or is `*` (of OPTIONS).
pub(super) fn path(pattern: &Pattern) -> Result<(), Never> {
    let source = pattern.source();
    if source != "*" && !pattern.prefix().is_empty() && !pattern.prefix().starts_with('/') {
        let slashed = source.split_once("://").map_or(source, |(_, rest)| rest.trim_start_matches(|c| c != '/'));
        let slash = if slashed.starts_with('/') { "" } else { "/" };
        return never("a path begins with a slash", format!("write {}", quote(&format!("{slash}{slashed}"))));
    }
    if pattern.literals().any(|text| text.contains(['?', '#'])) { query("Path", source) } else { Ok(()) }
}

/// The same for the beginning of a path, which is text.
pub(super) fn prefix(text: &str) -> Result<(), Never> {
    if !text.starts_with('/') {
        return never("a path begins with a slash", format!("write {}", quote(&format!("/{text}"))));
    }
    if text.contains(['?', '#']) { query("PathPrefix", text) } else { Ok(()) }
}

fn query(name: &str, source: &str) -> Result<(), Never> {
    let (path, query) = source.split_at(source.find(['?', '#']).unwrap_or(source.len()));
    let first = query.trim_start_matches('?').split(['&', '#']).next().unwrap_or_default();
    let hint = match first.split_once('=') {
        _ if first.is_empty() => format!("write {name}({})", quote(path)),
        None => format!("write {name}({}) && Query({})", quote(path), quote(first)),
        Some((key, value)) => format!("write {name}({}) && Query({}, {})", quote(path), quote(key), quote(value)),
    };
    never("a path ends before the query", hint)
}

/// A pattern for methods: they differ by case (RFC 9110 section 9.1).
pub(super) fn method(pattern: &Pattern) -> Result<(), Never> {
    let Some(text) = pattern.literal() else { return Ok(()) };
    let upper = text.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(['|', ',', ' ']).filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        [one] if *one == upper => match METHODS.contains(one) && text != *one {
            true => never("methods are written in capitals", format!("write Method({})", quote(one))),
            false => Ok(()),
        },
        words => never(
            "no method is like that",
            format!("write MethodRegexp({})", quote(&format!("^({})$", words.join("|")))),
        ),
    }
}

/// Those of RFC 9110, and PATCH.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
