//! Specificity: which of several matching rules is served.
//!
//! In this order: the frontend's priority; the host (exact, then by pattern or expression, then none); the path (exact,
//! then with placeholders, then a prefix, then an expression, then none), longer literal text first; more further
//! matchers first; for expressions the greater text first, as vulcand orders them. What is left equal is decided by
//! the frontend's name. Of alternatives (`||`) the least specific counts; a negation is one further matcher.

use std::cmp::Ordering;

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
    literal: usize,
    others: usize,
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
    let (path, literal, expression) = match a.path.cmp(&b.path).then(a.literal.cmp(&b.literal)) {
        Ordering::Less => (b.path, b.literal, b.expression),
        Ordering::Equal | Ordering::Greater => (a.path, a.literal, a.expression),
    };
    Weight { host: a.host.max(b.host), path, literal, others: a.others + b.others, expression }
}

fn of_matcher(matcher: &Matcher) -> Weight {
    let none = Weight::default();
    match matcher {
        Matcher::Host(pattern) if pattern.literal().is_some() => Weight { host: 2, ..none },
        Matcher::Host(_) | Matcher::HostRegexp(_) => Weight { host: 1, ..none },
        Matcher::Path(pattern) => {
            let path = if pattern.literal().is_some() { 4 } else { 3 };
            Weight { path, literal: pattern.literal_length(), ..none }
        }
        Matcher::PathPrefix(prefix) => Weight { path: 2, literal: prefix.len(), ..none },
        Matcher::PathRegexp(expression) => {
            let source = expression.0.as_str();
            Weight { path: 1, literal: literal_length(source), expression: source.into(), ..none }
        }
        Matcher::Method(_)
        | Matcher::MethodRegexp(_)
        | Matcher::Header(..)
        | Matcher::HeaderRegexp(..)
        | Matcher::Query(..)
        | Matcher::QueryRegexp(..)
        | Matcher::Cookie(..)
        | Matcher::CookieRegexp(_)
        | Matcher::ClientIp(_)
        | Matcher::Segment(_)
        | Matcher::LastSegment(_) => Weight { others: 1, ..none },
    }
}

/// Bytes of an expression before its first special character.
fn literal_length(source: &str) -> usize {
    let special = |c: char| matches!(c, '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '\\' | '$');
    source.strip_prefix('^').unwrap_or(source).find(special).unwrap_or(source.len())
}
