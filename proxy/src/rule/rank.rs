//! Specificity: which of several matching rules is served.
//!
//! In this order: the frontend's priority; the host (exact, then by pattern or expression, then none); the path (exact,
//! then with placeholders, then a prefix, then an expression, then none), longer literal text first; more further
//! matchers first; for expressions the greater text first, as vulcand orders them. What is left equal is decided by
//! the frontend's name. Of alternatives (`||`) the least specific counts; a negation is one further matcher.

use super::{Expr, Matcher};

/// How specific a rule is: the greatest of those that match is served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    priority: i64,
    weight: Weight,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Weight {
    host: u8,
    path: u8,
    literal: u32,
    /// No rule is long enough for more.
    others: u16,
    expression: Box<str>,
}

impl Rank {
    pub(super) fn of(expr: &Expr, priority: i64) -> Rank {
        Rank { priority, weight: weigh(expr) }
    }
}

fn weigh(expr: &Expr) -> Weight {
    match expr {
        Expr::And(all) => all.iter().map(weigh).fold(Weight::default(), and),
        Expr::Or(any) => any.iter().map(weigh).min().unwrap_or_default(),
        Expr::Not(_) => Weight { others: 1, ..Weight::default() },
        Expr::Is(matcher) => of_matcher(matcher),
    }
}

fn and(a: Weight, b: Weight) -> Weight {
    // A second host or path matcher narrows the rule further, as any other matcher does.
    let second = u16::from(a.host.min(b.host) > 0) + u16::from(a.path.min(b.path) > 0);
    let (path, literal, expression) = (a.path, a.literal, a.expression).max((b.path, b.literal, b.expression));
    Weight { host: a.host.max(b.host), path, literal, others: a.others + b.others + second, expression }
}

fn of_matcher(matcher: &Matcher) -> Weight {
    let none = Weight::default();
    match matcher {
        Matcher::Host(pattern) if pattern.literal().is_some() => Weight { host: 2, ..none },
        Matcher::Host(_) | Matcher::HostRegexp(_) => Weight { host: 1, ..none },
        Matcher::Path(pattern) => {
            let path = if pattern.literal().is_some() { 4 } else { 3 };
            Weight { path, literal: length(pattern.literal_length()), ..none }
        }
        Matcher::PathPrefix(prefix) => Weight { path: 2, literal: length(prefix.len()), ..none },
        Matcher::PathRegexp(expression) => {
            let source = expression.0.as_str();
            Weight { path: 1, literal: length(literal_length(source)), expression: source.into(), ..none }
        }
        Matcher::Method(_)
        | Matcher::MethodRegexp(_)
        | Matcher::Header(..)
        | Matcher::HeaderRegexp(..)
        | Matcher::Query(..)
        | Matcher::QueryOnly(..)
        | Matcher::QueryRegexp(..)
        | Matcher::Cookie(..)
        | Matcher::CookieRegexp(_)
        | Matcher::ClientIp(_)
        | Matcher::Segment(_)
        | Matcher::LastSegment(_) => Weight { others: 1, ..none },
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Bytes of an expression before its first special character.
fn literal_length(source: &str) -> usize {
    let special = |c: char| matches!(c, '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '\\' | '$');
    source.strip_prefix('^').unwrap_or(source).find(special).unwrap_or(source.len())
}

#[cfg(test)]
mod tests {
    use super::super::Rule;

    #[test]
    fn the_order_is_as_documented() {
        let best_first = [
            (1, r#"Method("GET")"#),
            (0, r#"Host("a") && Path("/long")"#),
            (0, r#"Host("a") && Path("/x") && Method("GET")"#),
            (0, r#"Host("a") && Path("/x")"#),
            (0, r#"Host("a") && Path("/x/<long>/name")"#),
            (0, r#"Host("a") && PathPrefix("/x/y")"#),
            (0, r#"Host("a") && PathPrefix("/x")"#),
            (0, r#"Host("a") && PathRegexp("^/x/y.*")"#),
            (0, r#"Host("a") && PathRegexp("^/x.*")"#),
            (0, r#"Host("a") && !Method("GET") && Query("x")"#),
            (0, r#"Host("a") && !Method("GET")"#),
            (0, r#"Host("a") || Host("b")"#),
            (0, r#"Host("<x>.a") && Path("/x")"#),
            (0, r#"HostRegexp("a") && Host("<x>")"#),
            (0, r#"HostRegexp("a")"#),
            (0, r#"Path("/x") && PathRegexp("x")"#),
            (0, r#"Path("/x")"#),
            (0, r#"PathRegexp("/b")"#),
            (0, r#"PathRegexp("/a")"#),
            (0, r#"Segment("a") && Method("GET")"#),
            (0, r#"Segment("a") || Host("a")"#),
            (-1, r#"Host("a") && Path("/x")"#),
        ];
        for pair in best_first.windows(2) {
            let rank = |(priority, rule): (i64, &str)| Rule::parse(rule).unwrap().rank(priority);
            assert!(rank(pair[0]) > rank(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn the_order_of_writing_does_not_matter() {
        let rank = |rule: &str| Rule::parse(rule).unwrap().rank(0);
        assert_eq!(
            rank(r#"PathRegexp("/a.") && PathRegexp("/b.")"#),
            rank(r#"PathRegexp("/b.") && PathRegexp("/a.")"#)
        );
        assert_eq!(rank(r#"Path("/x") && Host("a")"#), rank(r#"Host("a") && Path("/x")"#));
    }
}
