//! Expressions: leaves joined by `&&`, `||`, `!` and parentheses. The grammar is the same whatever the leaves are.
//!
//! `!` binds tighter than `&&`, `&&` tighter than `||`. Recursive descent, so that an error names its column; the depth
//! is bounded. What a leaf looks like and what it means is its reader's business.

use super::RuleError;

/// An expression. Neither `And` nor `Or` holds one of its own kind, and each holds two or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Logic<L> {
    /// All of them.
    And(Box<[Logic<L>]>),
    /// Any of them.
    Or(Box<[Logic<L>]>),
    /// The opposite.
    Not(Box<Logic<L>>),
    /// A leaf.
    Is(L),
}

/// Reads the leaves of one language.
pub(crate) trait Leaves<'s> {
    /// What a leaf is.
    type Leaf;
    /// What the whole is called in errors.
    const WHAT: &'static str;
    /// Where it reads.
    fn scanner(&mut self) -> &mut Scanner<'s>;
    /// Reads one leaf.
    fn leaf(&mut self) -> Result<Self::Leaf, RuleError>;
}

/// Reads a whole source.
pub(crate) fn read<'s, R: Leaves<'s>>(mut leaves: R) -> Result<Logic<R::Leaf>, RuleError> {
    let expr = either(&mut leaves, 0)?;
    let scanner = leaves.scanner();
    scanner.space();
    if scanner.rest().is_empty() {
        return Ok(expr);
    }
    Err(scanner.error(&format!("there is more after the {}'s end", R::WHAT), "join expressions with && or ||"))
}

fn either<'s, R: Leaves<'s>>(leaves: &mut R, depth: usize) -> Result<Logic<R::Leaf>, RuleError> {
    let mut any = vec![both(leaves, depth)?];
    while leaves.scanner().take("||") {
        any.push(both(leaves, depth)?);
    }
    if any.len() == 1 {
        return Ok(any.remove(0));
    }
    let flat = any.into_iter().flat_map(|expr| if let Logic::Or(inner) = expr { inner } else { Box::new([expr]) });
    Ok(Logic::Or(flat.collect()))
}

fn both<'s, R: Leaves<'s>>(leaves: &mut R, depth: usize) -> Result<Logic<R::Leaf>, RuleError> {
    let mut all = vec![one(leaves, depth)?];
    while leaves.scanner().take("&&") {
        all.push(one(leaves, depth)?);
    }
    if all.len() == 1 {
        return Ok(all.remove(0));
    }
    let flat = all.into_iter().flat_map(|expr| if let Logic::And(inner) = expr { inner } else { Box::new([expr]) });
    Ok(Logic::And(flat.collect()))
}

fn one<'s, R: Leaves<'s>>(leaves: &mut R, depth: usize) -> Result<Logic<R::Leaf>, RuleError> {
    if depth == DEEPEST {
        let message = format!("the {} is nested too deeply", R::WHAT);
        return Err(leaves.scanner().error(&message, "write it with fewer parentheses"));
    }
    if leaves.scanner().take("!") {
        return Ok(Logic::Not(Box::new(one(leaves, depth + 1)?)));
    }
    if !leaves.scanner().take("(") {
        return Ok(Logic::Is(leaves.leaf()?));
    }
    let inner = either(leaves, depth + 1)?;
    if leaves.scanner().take(")") {
        Ok(inner)
    } else {
        Err(leaves.scanner().error("a parenthesis is not closed", "add )"))
    }
}

/// A place in a source.
pub(crate) struct Scanner<'s> {
    source: &'s str,
    /// In bytes.
    pub(crate) at: usize,
}

impl<'s> Scanner<'s> {
    /// At the beginning.
    pub(crate) fn new(source: &'s str) -> Scanner<'s> {
        Scanner { source, at: 0 }
    }

    /// Goes past blanks and a token, if it stands there. A `!` before `=` is another token.
    pub(crate) fn take(&mut self, token: &str) -> bool {
        self.space();
        let taken = self.rest().starts_with(token) && !(token == "!" && self.rest().starts_with("!="));
        if taken {
            self.at += token.len();
        }
        taken
    }

    /// Goes past blanks.
    pub(crate) fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    /// An error here.
    pub(crate) fn error(&self, message: &str, hint: &str) -> RuleError {
        self.error_at(self.at, message, hint)
    }

    /// An error at another place of the source.
    pub(crate) fn error_at(&self, at: usize, message: &str, hint: &str) -> RuleError {
        let column = self.source[..at].chars().count() + 1;
        RuleError { column: u32::try_from(column).unwrap_or(u32::MAX), message: message.into(), hint: hint.into() }
    }
}

const DEEPEST: usize = 32;
