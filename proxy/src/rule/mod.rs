//! Rules: when a frontend is chosen.
//!
//! vulcand's language (`Host("a") && Path("/x")`, `<name>` patterns, Go string literals) and ours (`||`, `!`,
//! `PathPrefix`, `Query`, `Cookie`, `ClientIP`, `Segment`, …). A rule is parsed once and then only asked. Pure. How the
//! most specific of several matching rules is found is `rank.rs`; finding candidates is the router's.

mod head;
mod parse;
mod pattern;
mod rank;

use std::fmt;
use std::sync::Arc;

use http::header::HeaderName;
use ipnet::IpNet;
use regex::Regex;

pub use head::{Head, host_of};
pub(crate) use pattern::Pattern;
pub use rank::Rank;

/// A parsed route expression.
#[derive(Clone, Debug)]
pub struct Rule {
    source: Arc<str>,
    expr: Expr,
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct RuleError {
    /// Where, from 1, in characters.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    /// All of them.
    And(Vec<Expr>),
    /// Any of them.
    Or(Vec<Expr>),
    /// The opposite.
    Not(Box<Expr>),
    /// A matcher.
    Is(Matcher),
}

/// What a matcher looks at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Matcher {
    /// `Host`: in lower case, without port.
    Host(Pattern),
    /// `HostRegexp`
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
    /// `Header`
    Header(HeaderName, Pattern),
    /// `HeaderRegexp`: an absent field counts as empty, as in vulcand.
    HeaderRegexp(HeaderName, Expression),
    /// `Query`: present, or with this value.
    Query(Box<str>, Option<Box<str>>),
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

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        self.expr == other.expr
    }
}

impl Rule {
    /// Parses a route expression.
    pub fn parse(source: &str) -> Result<Rule, RuleError> {
        Ok(Rule { source: source.into(), expr: parse::parse(source)? })
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether a request matches.
    pub fn matches(&self, head: &Head<'_>) -> bool {
        self.expr.matches(head)
    }

    /// How specific it is.
    pub fn rank(&self, priority: i64) -> Rank {
        Rank::of(&self.expr, priority)
    }

    /// Every matcher with whether it matched, in the order they are written.
    pub fn explain(&self, head: &Head<'_>) -> Vec<(String, bool)> {
        let mut all = Vec::new();
        self.expr.each(&mut |matcher| all.push((matcher.to_string(), matcher.matches(head))));
        all
    }

    pub(crate) fn expr(&self) -> &Expr {
        &self.expr
    }
}

/// Prints the expression anew: parsing what is printed gives an equal rule.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expr.fmt(f)
    }
}

impl Expr {
    fn matches(&self, head: &Head<'_>) -> bool {
        match self {
            Expr::And(all) => all.iter().all(|expr| expr.matches(head)),
            Expr::Or(any) => any.iter().any(|expr| expr.matches(head)),
            Expr::Not(expr) => !expr.matches(head),
            Expr::Is(matcher) => matcher.matches(head),
        }
    }

    fn each<'e>(&'e self, look: &mut impl FnMut(&'e Matcher)) {
        match self {
            Expr::And(inner) | Expr::Or(inner) => inner.iter().for_each(|expr| expr.each(look)),
            Expr::Not(expr) => expr.each(look),
            Expr::Is(matcher) => look(matcher),
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |f: &mut fmt::Formatter<'_>, inner: &[Expr], with: &str| {
            f.write_str("(")?;
            for (at, expr) in inner.iter().enumerate() {
                if at > 0 {
                    f.write_str(with)?;
                }
                expr.fmt(f)?;
            }
            f.write_str(")")
        };
        match self {
            Expr::And(inner) => join(f, inner, " && "),
            Expr::Or(inner) => join(f, inner, " || "),
            Expr::Not(expr) => write!(f, "!{expr}"),
            Expr::Is(matcher) => matcher.fmt(f),
        }
    }
}

impl Matcher {
    fn matches(&self, head: &Head<'_>) -> bool {
        match self {
            Matcher::Host(pattern) => pattern.matches(head.host),
            Matcher::HostRegexp(expression) => expression.0.is_match(head.host),
            Matcher::Path(pattern) => pattern.matches(head.path),
            Matcher::PathPrefix(prefix) => has_prefix(head.path, prefix),
            Matcher::PathRegexp(expression) => expression.0.is_match(head.path),
            Matcher::Method(pattern) => pattern.matches(head.method.as_str()),
            Matcher::MethodRegexp(expression) => expression.0.is_match(head.method.as_str()),
            Matcher::Header(name, pattern) => head.header(name).is_some_and(|value| pattern.matches(value)),
            Matcher::HeaderRegexp(name, expression) => expression.0.is_match(head.header(name).unwrap_or_default()),
            Matcher::Query(name, None) => head.query().any(|(key, _)| key == **name),
            Matcher::Query(name, Some(value)) => head.query().any(|(key, is)| key == **name && is == **value),
            Matcher::QueryRegexp(name, expression) => {
                head.query().any(|(key, value)| key == **name && expression.0.is_match(&value))
            }
            Matcher::Cookie(name, None) => head.cookies().any(|(key, _)| key == &**name),
            Matcher::Cookie(name, Some(value)) => head.cookies().any(|(key, is)| key == &**name && is == &**value),
            Matcher::CookieRegexp(expression) => head.cookies().any(|(key, _)| expression.0.is_match(key)),
            Matcher::ClientIp(networks) => networks.iter().any(|network| network.contains(&head.client)),
            Matcher::Segment(names) => {
                head.segments().iter().any(|segment| names.iter().any(|name| *segment == *name.as_bytes()))
            }
            Matcher::LastSegment(names) => {
                head.segments().last().is_some_and(|segment| names.iter().any(|name| *segment == *name.as_bytes()))
            }
        }
    }
}

/// Whether a path is below a prefix: `/x` holds `/x` and `/x/…`, not `/xy`; a prefix that ends in `/` is just one.
fn has_prefix(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = |text: &str| parse::quote(text);
        let list = |items: &[Box<str>]| items.iter().map(|item| quote(item)).collect::<Vec<_>>().join(", ");
        match self {
            Matcher::Host(pattern) => write!(f, "Host({})", quote(pattern.source())),
            Matcher::HostRegexp(expression) => write!(f, "HostRegexp({})", quote(expression.0.as_str())),
            Matcher::Path(pattern) => write!(f, "Path({})", quote(pattern.source())),
            Matcher::PathPrefix(prefix) => write!(f, "PathPrefix({})", quote(prefix)),
            Matcher::PathRegexp(expression) => write!(f, "PathRegexp({})", quote(expression.0.as_str())),
            Matcher::Method(pattern) => write!(f, "Method({})", quote(pattern.source())),
            Matcher::MethodRegexp(expression) => write!(f, "MethodRegexp({})", quote(expression.0.as_str())),
            Matcher::Header(name, pattern) => write!(f, "Header(\"{name}\", {})", quote(pattern.source())),
            Matcher::HeaderRegexp(name, expression) => {
                write!(f, "HeaderRegexp(\"{name}\", {})", quote(expression.0.as_str()))
            }
            Matcher::Query(name, None) => write!(f, "Query({})", quote(name)),
            Matcher::Query(name, Some(value)) => write!(f, "Query({}, {})", quote(name), quote(value)),
            Matcher::QueryRegexp(name, expression) => {
                write!(f, "QueryRegexp({}, {})", quote(name), quote(expression.0.as_str()))
            }
            Matcher::Cookie(name, None) => write!(f, "Cookie({})", quote(name)),
            Matcher::Cookie(name, Some(value)) => write!(f, "Cookie({}, {})", quote(name), quote(value)),
            Matcher::CookieRegexp(expression) => write!(f, "CookieRegexp({})", quote(expression.0.as_str())),
            Matcher::ClientIp(networks) => {
                let networks: Vec<String> = networks.iter().map(|network| format!("\"{network}\"")).collect();
                write!(f, "ClientIP({})", networks.join(", "))
            }
            Matcher::Segment(names) => write!(f, "Segment({})", list(names)),
            Matcher::LastSegment(names) => write!(f, "LastSegment({})", list(names)),
        }
    }
}

#[cfg(test)]
mod tests;
