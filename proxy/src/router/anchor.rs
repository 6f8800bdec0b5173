//! Where a rule is put: what every request that it matches has in common. An over-approximation, never an under-.

use http::header::HeaderName;

use crate::rule::{Expr, Matcher, Pattern, Rule};

/// The places of a rule: under each of `outer`, each of `paths`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Anchors {
    pub(super) outer: Vec<OuterAnchor>,
    pub(super) paths: Vec<PathAnchor>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OuterAnchor {
    Host(Box<str>),
    /// The last one or two labels of a host.
    Suffix(Box<str>),
    /// The first value of a header. Only where a rule demands no host.
    Header(HeaderName, Box<str>),
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathAnchor {
    Exact(Box<str>),
    /// Itself and everything below it; without the slash at its end.
    Folder(Box<str>),
    Any,
}

impl Anchors {
    pub(super) fn of(rule: &Rule) -> Anchors {
        let outer = places(rule.expr(), &outer);
        let paths = places(rule.expr(), &path);
        // Many of both would be put in very many places; under so many hosts a rule is just asked.
        let paths = if outer.len() * paths.len() > MOST_PLACES { vec![PathAnchor::Any] } else { paths };
        Anchors { outer, paths }
    }
}

/// The two last labels of a host and the last one, as far as it has them.
pub(super) fn last_labels(host: &str) -> [Option<&str>; 2] {
    let one = host.rfind('.').map(|at| &host[at + 1..]);
    let two = host.rfind('.').and_then(|last| host[..last].rfind('.')).map(|at| &host[at + 1..]);
    [two, one]
}

/// What kinds of places have in common.
trait Anchor: PartialEq + Sized {
    const ANY: Self;

    /// The less, the better a place it is.
    fn crowd(&self) -> u8;
}

impl Anchor for OuterAnchor {
    const ANY: OuterAnchor = OuterAnchor::Any;

    fn crowd(&self) -> u8 {
        match self {
            OuterAnchor::Host(_) => 0,
            OuterAnchor::Suffix(_) => 1,
            OuterAnchor::Header(..) => 2,
            OuterAnchor::Any => 3,
        }
    }
}

impl Anchor for PathAnchor {
    const ANY: PathAnchor = PathAnchor::Any;

    fn crowd(&self) -> u8 {
        match self {
            PathAnchor::Exact(_) => 0,
            PathAnchor::Folder(_) => 1,
            PathAnchor::Any => 2,
        }
    }
}

/// Where all demand something, the best of their places; alternatives have the places of each.
fn places<A: Anchor>(expr: &Expr, of: &impl Fn(&Matcher) -> A) -> Vec<A> {
    let places = match expr {
        Expr::Is(matcher) => vec![of(matcher)],
        Expr::Not(_) => vec![A::ANY],
        Expr::And(all) => {
            let each = all.iter().map(|expr| places(expr, of));
            each.min_by_key(|places| (places.iter().map(A::crowd).max(), places.len())).unwrap_or_default()
        }
        Expr::Or(any) => {
            let mut all: Vec<A> = Vec::new();
            for place in any.iter().flat_map(|expr| places(expr, of)) {
                if !all.contains(&place) {
                    all.push(place);
                }
            }
            all
        }
    };
    // To be in every place and to be in the one where all requests look is the same.
    if places.is_empty() || places.contains(&A::ANY) { vec![A::ANY] } else { places }
}

fn outer(matcher: &Matcher) -> OuterAnchor {
    match matcher {
        Matcher::Host(pattern) => host(pattern),
        Matcher::Header(name, pattern) => match pattern.literal() {
            Some(value) => OuterAnchor::Header(name.clone(), value.into()),
            None => OuterAnchor::Any,
        },
        _ => OuterAnchor::Any,
    }
}

fn host(pattern: &Pattern) -> OuterAnchor {
    if let Some(name) = pattern.literal() {
        return OuterAnchor::Host(name.into());
    }
    // Only whole labels: `<x>shop.test` also matches `myshop.test`. A host that matches has at least one label more, so
    // its last two are looked up when there are two.
    let suffix = pattern.suffix();
    match suffix.split_once('.').map(|(_, labels)| labels) {
        None | Some("") => OuterAnchor::Any,
        Some(labels) => {
            let two = last_labels(labels)[0].unwrap_or(labels);
            OuterAnchor::Suffix(two.into())
        }
    }
}

fn path(matcher: &Matcher) -> PathAnchor {
    match matcher {
        Matcher::Path(pattern) => of_pattern(pattern),
        Matcher::PathPrefix(prefix) => PathAnchor::Folder(prefix.strip_suffix('/').unwrap_or(prefix).into()),
        Matcher::PathRegexp(expression) => folder(beginning(expression.0.as_str())),
        _ => PathAnchor::Any,
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
        Some(at) if prefix.starts_with('/') => PathAnchor::Folder(prefix[..at].into()),
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

const MOST_PLACES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rule: &str) -> Anchors {
        Anchors::of(&Rule::parse(rule).unwrap())
    }

    #[test]
    fn hosts_are_found_through_both_operators() {
        let exact = |name: &str| OuterAnchor::Host(name.into());
        assert_eq!(of(r#"(Host("a") || Host("b") || Host("a")) && Path("/x")"#).outer, [exact("a"), exact("b")]);
        assert_eq!(of(r#"Host("a") || Path("/x")"#).outer, [OuterAnchor::Any]);
        assert_eq!(of(r#"!Host("a")"#).outer, [OuterAnchor::Any]);
        for (rule, suffix) in [
            ("<x>.d1.test", "d1.test"),
            ("<x>.a.d1.test", "d1.test"),
            ("<x>.test", "test"),
            ("<x>d1.test", "test"),
            ("a<x>b.d1.test", "d1.test"),
        ] {
            assert_eq!(of(&format!("Host(`{rule}`)")).outer, [OuterAnchor::Suffix(suffix.into())], "{rule}");
        }
        assert_eq!(of(r#"Host("<x>")"#).outer, [OuterAnchor::Any]);
        assert_eq!(of(r#"Host("test<x>")"#).outer, [OuterAnchor::Any]);
    }

    #[test]
    fn a_header_is_a_place_only_without_a_host() {
        let header = OuterAnchor::Header(HeaderName::from_static("x"), "1".into());
        assert_eq!(of(r#"Header("X", "1") && Path("/")"#).outer, [header]);
        assert_eq!(of(r#"Header("X", "1") && Host("a")"#).outer, [OuterAnchor::Host("a".into())]);
        assert_eq!(of(r#"Header("X", "<y>")"#).outer, [OuterAnchor::Any]);
        assert_eq!(of(r#"HeaderRegexp("X", "1")"#).outer, [OuterAnchor::Any]);
    }

    #[test]
    fn a_rule_of_very_many_places_is_put_in_fewer() {
        let any = |of: fn(usize) -> String| (0..300).map(of).collect::<Vec<_>>().join("||");
        let hosts = any(|n| format!("Host(`{n}`)"));
        let rule = format!("({hosts})&&({})", any(|n| format!("Path(`/{n}`)")));
        let anchors = of(&rule);
        assert_eq!((anchors.outer.len(), anchors.paths), (300, vec![PathAnchor::Any]));
    }

    #[test]
    fn paths_are_found_by_what_they_begin_with() {
        let paths = |rule: &str| of(rule).paths;
        assert_eq!(paths(r#"Path("/a/b")"#), [PathAnchor::Exact("/a/b".into())]);
        assert_eq!(paths(r#"PathPrefix("/a")"#), [PathAnchor::Folder("/a".into())]);
        assert_eq!(paths(r#"PathPrefix("/a/")"#), [PathAnchor::Folder("/a".into())]);
        assert_eq!(paths(r#"PathPrefix("/")"#), [PathAnchor::Folder("".into())]);
        assert_eq!(paths(r#"Path("/a/<x>")"#), [PathAnchor::Folder("/a".into())]);
        assert_eq!(paths(r#"PathRegexp("^/a/b.*")"#), [PathAnchor::Folder("/a".into())]);
        assert_eq!(paths(r#"PathRegexp("^/a/*")"#), [PathAnchor::Folder("".into())]);
        assert_eq!(paths(r#"PathRegexp("^/a|/b")"#), [PathAnchor::Any]);
        assert_eq!(paths(r#"PathRegexp("/a/b")"#), [PathAnchor::Any]);
        assert_eq!(paths(r#"Path("/a") && !Path("/b")"#), [PathAnchor::Exact("/a".into())]);
    }
}
