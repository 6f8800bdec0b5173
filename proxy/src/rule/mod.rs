//! Rules: when a frontend is chosen.
//!
//! vulcand's language and ours: matchers such as `Host("a.test")` and `PathPrefix("/x")`, joined with `!`, `&&`, `||`
//! (binding in that order) and parentheses; `names.rs` lists them, `matcher.rs` says what each looks at. Differences
//! from vulcand, each where its behaviour is a bug: `HostRegexp` ignores case instead of lower-casing the expression,
//! hosts may be IPv6 addresses, `<int:x>` is at least one digit. A rule is parsed once and then only asked. Pure.
//!
//! Which of several matching rules is served is `rank.rs`; finding candidates is the router's.

mod head;
mod literal;
pub(crate) mod logic;
mod matcher;
mod names;
mod never;
mod parse;
mod pattern;
mod rank;
mod reading;
mod segments;

use std::fmt;
use std::sync::Arc;

pub(crate) use head::cookies;
pub use head::{Head, host_of};
pub(crate) use matcher::{Expression, Matcher};
pub(crate) use pattern::Pattern;
pub use rank::Rank;
pub(crate) use reading::{is_odd, readings};

/// A parsed route expression. Two are equal when they ask the same, however they are written.
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

/// A rule's expression.
pub(crate) type Expr = logic::Logic<Matcher>;

/// Whether a text is a rule, for those who store rules and do not serve them.
pub fn check(source: &str) -> Result<(), RuleError> {
    parse::parse(source).map(drop)
}

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        self.expr == other.expr
    }
}

impl Rule {
    /// Parses a route expression of at most 16 KiB, nested at most 32 deep.
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

    /// How specific it is, in a frontend of that priority.
    pub fn rank(&self, priority: i64) -> Rank {
        Rank::of(&self.expr, priority)
    }

    /// Every part of it with whether that holds, in the order they are written. A negation is one part.
    pub fn explain(&self, head: &Head<'_>) -> Vec<(String, bool)> {
        let mut parts = Vec::new();
        self.expr.explain(head, &mut parts);
        parts
    }

    pub(crate) fn expr(&self) -> &Expr {
        &self.expr
    }
}

/// Prints the expression anew: parsing what is printed gives an equal rule (if it is short enough for one).
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

    fn explain(&self, head: &Head<'_>, parts: &mut Vec<(String, bool)>) {
        match self {
            Expr::And(inner) | Expr::Or(inner) => inner.iter().for_each(|expr| expr.explain(head, parts)),
            Expr::Not(_) | Expr::Is(_) => parts.push((self.to_string(), self.matches(head))),
        }
    }
}

/// With no more parentheses than it needs, so that it is nested no deeper than what was parsed.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::And(all) => join(f, all, " && ", |expr| matches!(expr, Expr::Or(_))),
            Expr::Or(any) => join(f, any, " || ", |_| false),
            Expr::Not(expr) if matches!(**expr, Expr::And(_) | Expr::Or(_)) => write!(f, "!({expr})"),
            Expr::Not(expr) => write!(f, "!{expr}"),
            Expr::Is(matcher) => matcher.fmt(f),
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, inner: &[Expr], with: &str, enclosed: fn(&Expr) -> bool) -> fmt::Result {
    for (at, expr) in inner.iter().enumerate() {
        if at > 0 {
            f.write_str(with)?;
        }
        if enclosed(expr) {
            write!(f, "({expr})")?;
        } else {
            write!(f, "{expr}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
