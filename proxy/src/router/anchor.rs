//! Where a rule is put: what every request that it matches has in common. An over-approximation, never an under-.

use crate::rule::{Expr, Matcher, Pattern, Rule};

/// The places of a rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Anchors {
    pub(super) hosts: Vec<HostAnchor>,
    pub(super) paths: Vec<PathAnchor>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HostAnchor {
    Exact(Box<str>),
    /// The last one or two labels.
    Suffix(Box<str>),
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathAnchor {
    Exact(Box<str>),
    /// A beginning that ends in a slash.
    Folder(Box<str>),
    Any,
}

impl Anchors {
    pub(super) fn of(rule: &Rule) -> Anchors {
        Anchors { hosts: places(rule.expr(), &host), paths: places(rule.expr(), &path) }
    }
}

/// The two last labels of a host and the last one, as far as it has them.
pub(super) fn last_labels(host: &str) -> [Option<&str>; 2] {
    let one = host.rfind('.').map(|at| &host[at + 1..]);
    let two = host.rfind('.').and_then(|last| host[..last].rfind('.')).map(|at| &host[at + 1..]);
    [two, one]
}

/// A requirement of all is a place of each; alternatives have the places of all of them.
fn places<A: Clone + Ord + Any>(expr: &Expr, of: &impl Fn(&Matcher) -> Vec<A>) -> Vec<A> {
    let places = match expr {
        Expr::Is(matcher) => of(matcher),
        Expr::Not(_) => vec![A::any()],
        Expr::And(all) => {
            let each = all.iter().map(|expr| places(expr, of)).filter(|places| !places.contains(&A::any()));
            each.min_by_key(Vec::len).unwrap_or_else(|| vec![A::any()])
        }
        Expr::Or(any) => {
            let mut all: Vec<A> = any.iter().flat_map(|expr| places(expr, of)).collect();
            all.sort();
            all.dedup();
            all
        }
    };
    // Being in every place and being in one that all requests look at is the same.
    if places.contains(&A::any()) || places.len() > MOST_PLACES { vec![A::any()] } else { places }
}

trait Any {
    fn any() -> Self;
}

impl Any for HostAnchor {
    fn any() -> HostAnchor {
        HostAnchor::Any
    }
}

impl Any for PathAnchor {
    fn any() -> PathAnchor {
        PathAnchor::Any
    }
}

fn host(matcher: &Matcher) -> Vec<HostAnchor> {
    let Matcher::Host(pattern) = matcher else { return vec![HostAnchor::Any] };
    if let Some(name) = pattern.literal() {
        return vec![HostAnchor::Exact(name.into())];
    }
    // Only whole labels: `<x>shop.test` also matches `myshop.test`.
    let suffix = pattern.suffix();
    let whole = suffix.find('.').map(|at| &suffix[at + 1..]).filter(|labels| !labels.is_empty());
    vec![whole.map_or(HostAnchor::Any, |labels| match last_labels(labels) {
        // A host that matches has at least one more label, so it looks at its last two.
        _ if labels.matches('.').count() == 1 => HostAnchor::Suffix(labels.into()),
        [Some(two), _] => HostAnchor::Suffix(two.into()),
        [None, _] => HostAnchor::Suffix(labels.into()),
    })]
}

fn path(matcher: &Matcher) -> Vec<PathAnchor> {
    match matcher {
        Matcher::Path(pattern) => vec![of_pattern(pattern)],
        Matcher::PathPrefix(prefix) if prefix.ends_with('/') => vec![PathAnchor::Folder(prefix.clone())],
        Matcher::PathPrefix(prefix) => {
            vec![PathAnchor::Exact(prefix.clone()), PathAnchor::Folder(format!("{prefix}/").into())]
        }
        Matcher::PathRegexp(expression) => vec![folder(beginning(expression.0.as_str()))],
        _ => vec![PathAnchor::Any],
    }
}

fn of_pattern(pattern: &Pattern) -> PathAnchor {
    match pattern.literal() {
        Some(path) => PathAnchor::Exact(path.into()),
        None => folder(pattern.prefix()),
    }
}

fn folder(prefix: &str) -> PathAnchor {
    match prefix.rfind('/') {
        Some(at) if prefix.starts_with('/') => PathAnchor::Folder(prefix[..=at].into()),
        _ => PathAnchor::Any,
    }
}

/// The literal text with which every match of an expression begins; empty unless it is bound to the beginning.
fn beginning(source: &str) -> &str {
    // An alternative could begin otherwise, and a flag could change what letters mean.
    let Some(rest) = source.strip_prefix('^').filter(|rest| !rest.contains('|')) else { return "" };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '%' | '~');
    let end = rest.find(|c| !plain(c)).unwrap_or(rest.len());
    // What is repeated may also be absent.
    let repeated = rest[end..].starts_with(['*', '?', '{', '+']);
    &rest[..if repeated { end.saturating_sub(1) } else { end }]
}

/// Beyond so many alternatives a rule is put where all requests look.
const MOST_PLACES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rule: &str) -> Anchors {
        Anchors::of(&Rule::parse(rule).unwrap())
    }

    #[test]
    fn hosts_are_found_through_both_operators() {
        let exact = |name: &str| HostAnchor::Exact(name.into());
        assert_eq!(of(r#"(Host("a") || Host("b")) && Path("/x")"#).hosts, [exact("a"), exact("b")]);
        assert_eq!(of(r#"Host("a") || Path("/x")"#).hosts, [HostAnchor::Any]);
        assert_eq!(of(r#"!Host("a")"#).hosts, [HostAnchor::Any]);
        assert_eq!(of(r#"Host("<x>.d1.test")"#).hosts, [HostAnchor::Suffix("d1.test".into())]);
        assert_eq!(of(r#"Host("<x>d1.test")"#).hosts, [HostAnchor::Suffix("test".into())]);
        assert_eq!(of(r#"Host("<x>")"#).hosts, [HostAnchor::Any]);
    }

    #[test]
    fn paths_are_found_by_what_they_begin_with() {
        let paths = |rule: &str| of(rule).paths;
        assert_eq!(paths(r#"Path("/a/b")"#), [PathAnchor::Exact("/a/b".into())]);
        assert_eq!(paths(r#"Path("/a/<x>")"#), [PathAnchor::Folder("/a/".into())]);
        assert_eq!(paths(r#"PathRegexp("^/a/b.*")"#), [PathAnchor::Folder("/a/".into())]);
        assert_eq!(paths(r#"PathRegexp("^/a/*")"#), [PathAnchor::Folder("/".into())]);
        assert_eq!(paths(r#"PathRegexp("^/a|/b")"#), [PathAnchor::Any]);
        assert_eq!(paths(r#"PathRegexp("/a/b")"#), [PathAnchor::Any]);
        assert_eq!(paths(r#"Path("/a") && !Path("/b")"#), [PathAnchor::Exact("/a".into())]);
    }
}
