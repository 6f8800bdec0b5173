//! The grammar of rules: `!` binds tighter than `&&`, `&&` tighter than `||`; arguments are Go string literals.
//!
//! Recursive descent over characters, so that an error names its column. Depth and length are bounded, and so is the
//! size of a compiled regular expression.

use std::net::IpAddr;

use http::header::HeaderName;
use ipnet::IpNet;
use regex::RegexBuilder;

use super::pattern::Pattern;
use super::{Expr, Expression, Matcher, RuleError};

pub(super) fn parse(source: &str) -> Result<Expr, RuleError> {
    if source.len() > LONGEST {
        return Err(RuleError {
            column: 1,
            message: format!("the rule has {} bytes", source.len()),
            hint: format!("split it: a rule has at most {LONGEST} bytes"),
        });
    }
    let mut parser = Parser { source, at: 0, depth: 0 };
    let expr = parser.either()?;
    parser.space();
    if parser.at < source.len() {
        return Err(parser.error("there is more after the rule's end", "join expressions with && or ||"));
    }
    Ok(expr)
}

/// A Go string literal for a text.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

struct Parser<'s> {
    source: &'s str,
    at: usize,
    depth: usize,
}

struct Argument {
    text: String,
    at: usize,
}

impl Parser<'_> {
    fn either(&mut self) -> Result<Expr, RuleError> {
        let mut any = vec![self.both()?];
        while self.take("||") {
            any.push(self.both()?);
        }
        Ok(if any.len() > 1 { Expr::Or(flatten_or(any)) } else { any.remove(0) })
    }

    fn both(&mut self) -> Result<Expr, RuleError> {
        let mut all = vec![self.one()?];
        while self.take("&&") {
            all.push(self.one()?);
        }
        Ok(if all.len() > 1 { Expr::And(flatten_and(all)) } else { all.remove(0) })
    }

    fn one(&mut self) -> Result<Expr, RuleError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.error("the rule is nested too deeply", "write it with fewer parentheses"));
        }
        let expr = if self.take("!") {
            Expr::Not(Box::new(self.one()?))
        } else if self.take("(") {
            let inner = self.either()?;
            if !self.take(")") {
                return Err(self.error("a parenthesis is not closed", "add )"));
            }
            inner
        } else {
            Expr::Is(self.call()?)
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn call(&mut self) -> Result<Matcher, RuleError> {
        self.space();
        let start = self.at;
        let name: String = self.rest().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            let found = self.rest().chars().next().map_or("the end".to_owned(), |c| format!("{c:?}"));
            return Err(self.error(
                &format!("a matcher was expected, not {found}"),
                r#"write for example Host("example.com") && PathPrefix("/shop")"#,
            ));
        }
        self.at += name.len();
        if !NAMES.contains(&name.as_str()) {
            let hint = match nearest(&name) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("use one of {}", NAMES.join(", ")),
            };
            return Err(self.error_at(start, &format!("there is no matcher {name}"), &hint));
        }
        if !self.take("(") {
            return Err(self.error(&format!("{name} has no arguments"), &format!("write {}", example(&name))));
        }
        let mut arguments = Vec::new();
        loop {
            arguments.push(self.literal(&name)?);
            if !self.take(",") {
                break;
            }
        }
        if !self.take(")") {
            return Err(self.error("the arguments are not closed", "add )"));
        }
        self.matcher(&name, start, arguments)
    }

    fn literal(&mut self, matcher: &str) -> Result<Argument, RuleError> {
        self.space();
        let at = self.at;
        let mut chars = self.rest().char_indices();
        match chars.next() {
            Some((_, '`')) => match self.rest()[1..].find('`') {
                Some(end) => {
                    let text = self.rest()[1..1 + end].to_owned();
                    self.at += end + 2;
                    Ok(Argument { text, at })
                }
                None => Err(self.error("a string is not closed", "add `")),
            },
            Some((_, '"')) => {
                let mut text = String::new();
                while let Some((here, c)) = chars.next() {
                    match c {
                        '"' => {
                            self.at += here + 1;
                            return Ok(Argument { text, at });
                        }
                        '\n' => break,
                        '\\' => match escape(&mut chars) {
                            Some(c) => text.push(c),
                            None => {
                                return Err(self.error_at(
                                    at + here,
                                    "there is no such escape",
                                    r"write \\ for a backslash, or put the string in `backquotes`",
                                ));
                            }
                        },
                        c => text.push(c),
                    }
                }
                Err(self.error("a string is not closed", "add \""))
            }
            _ => Err(self.error(
                "a string was expected",
                &format!("write {} (with double quotes or backquotes)", example(matcher)),
            )),
        }
    }

    fn matcher(&self, name: &str, start: usize, arguments: Vec<Argument>) -> Result<Matcher, RuleError> {
        let (least, most) = arity(name);
        if arguments.len() < least || arguments.len() > most {
            let many = |n: usize| if n == 1 { "1 argument".to_owned() } else { format!("{n} arguments") };
            let wants = if most > least { format!("{} or more", many(least)) } else { many(least) };
            let message = format!("{name} takes {wants}, not {}", arguments.len());
            return Err(self.error_at(start, &message, &format!("write {}", example(name))));
        }
        let first = &arguments[0];
        if first.text.is_empty() {
            return Err(self.error_at(first.at, &format!("{name} of nothing"), &format!("write {}", example(name))));
        }
        let text = |argument: &Argument| -> Box<str> { argument.text.as_str().into() };
        let second = arguments.get(1);
        let last = arguments.last().unwrap_or(first);
        Ok(match name {
            "Host" => {
                let host = first.text.to_ascii_lowercase();
                Matcher::Host(self.pattern(&Argument { text: host, at: first.at }, '.')?)
            }
            "HostRegexp" => Matcher::HostRegexp(self.expression(first)?),
            "Path" => Matcher::Path(self.pattern(first, '/')?),
            "PathPrefix" => Matcher::PathPrefix(text(first)),
            "PathRegexp" => Matcher::PathRegexp(self.expression(first)?),
            "Method" => Matcher::Method(self.pattern(first, ' ')?),
            "MethodRegexp" => Matcher::MethodRegexp(self.expression(first)?),
            "Header" => Matcher::Header(self.header(first)?, self.pattern(last, '/')?),
            "HeaderRegexp" => Matcher::HeaderRegexp(self.header(first)?, self.expression(last)?),
            "Query" => Matcher::Query(text(first), second.map(text)),
            "QueryRegexp" => Matcher::QueryRegexp(text(first), self.expression(last)?),
            "Cookie" => Matcher::Cookie(text(first), second.map(text)),
            "CookieRegexp" => Matcher::CookieRegexp(self.expression(first)?),
            "ClientIP" => {
                Matcher::ClientIp(arguments.iter().map(|argument| self.network(argument)).collect::<Result<_, _>>()?)
            }
            "Segment" => Matcher::Segment(arguments.iter().map(text).collect()),
            _ => Matcher::LastSegment(arguments.iter().map(text).collect()),
        })
    }

    fn pattern(&self, argument: &Argument, separator: char) -> Result<Pattern, RuleError> {
        Pattern::new(&argument.text, separator).map_err(|kind| {
            let message = format!("there is no placeholder <{kind}:…>");
            self.error_at(argument.at, &message, "use <name>, <string:name>, <int:name> or <path:name>")
        })
    }

    fn expression(&self, argument: &Argument) -> Result<Expression, RuleError> {
        RegexBuilder::new(&argument.text).size_limit(LARGEST_EXPRESSION).build().map(Expression).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            self.error_at(
                argument.at,
                &format!("not a regular expression: {reason}"),
                "see RE2's syntax; look-around and back-references do not exist in it",
            )
        })
    }

    fn header(&self, argument: &Argument) -> Result<HeaderName, RuleError> {
        argument.text.parse().map_err(|_| {
            self.error_at(argument.at, "not a header name", "write it without a colon, for example \"X-Version\"")
        })
    }

    fn network(&self, argument: &Argument) -> Result<IpNet, RuleError> {
        let network = argument.text.parse::<IpNet>().or_else(|_| argument.text.parse::<IpAddr>().map(IpNet::from));
        network.map_err(|_| {
            self.error_at(argument.at, "not an address or network", "write \"10.0.0.0/8\" or \"2001:db8::1\"")
        })
    }

    fn take(&mut self, token: &str) -> bool {
        self.space();
        // `!` alone: Go has no `!=` between matchers, and neither have we.
        let taken = self.rest().starts_with(token);
        if taken {
            self.at += token.len();
        }
        taken
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn error(&self, message: &str, hint: &str) -> RuleError {
        self.error_at(self.at, message, hint)
    }

    fn error_at(&self, at: usize, message: &str, hint: &str) -> RuleError {
        let column = self.source[..at].chars().count() + 1;
        RuleError { column: u32::try_from(column).unwrap_or(u32::MAX), message: message.into(), hint: hint.into() }
    }
}

/// An escape of Go's string literals, after the backslash.
fn escape(chars: &mut std::str::CharIndices<'_>) -> Option<char> {
    let (_, kind) = chars.next()?;
    let count = match kind {
        'n' => return Some('\n'),
        't' => return Some('\t'),
        'r' => return Some('\r'),
        'a' => return Some('\u{7}'),
        'b' => return Some('\u{8}'),
        'f' => return Some('\u{c}'),
        'v' => return Some('\u{b}'),
        '\\' | '"' => return Some(kind),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return None,
    };
    let digits: String = chars.by_ref().take(count).map(|(_, c)| c).collect();
    let plain = digits.len() == count && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if plain { char::from_u32(u32::from_str_radix(&digits, 16).ok()?) } else { None }
}

fn flatten_and(all: Vec<Expr>) -> Vec<Expr> {
    all.into_iter().flat_map(|expr| if let Expr::And(inner) = expr { inner } else { vec![expr] }).collect()
}

fn flatten_or(any: Vec<Expr>) -> Vec<Expr> {
    any.into_iter().flat_map(|expr| if let Expr::Or(inner) = expr { inner } else { vec![expr] }).collect()
}

fn arity(name: &str) -> (usize, usize) {
    match name {
        "Header" | "HeaderRegexp" | "QueryRegexp" => (2, 2),
        "Query" | "Cookie" => (1, 2),
        "ClientIP" | "Segment" | "LastSegment" => (1, MOST_ARGUMENTS),
        _ => (1, 1),
    }
}

fn example(name: &str) -> String {
    let arguments = match name {
        "Host" => r#""example.com""#,
        "HostRegexp" => r#""^[a-z]+\\.example\\.com$""#,
        "Method" => r#""GET""#,
        "MethodRegexp" => r#""GET|HEAD""#,
        "Header" => r#""X-Version", "2""#,
        "HeaderRegexp" => r#""User-Agent", "curl.*""#,
        "Query" => r#""page""#,
        "QueryRegexp" => r#""page", "^[0-9]+$""#,
        "Cookie" => r#""session""#,
        "CookieRegexp" => r#""^wordpress_logged_in_""#,
        "ClientIP" => r#""10.0.0.0/8""#,
        "Segment" => r#""wp-admin""#,
        "LastSegment" => r#""admin-ajax.php""#,
        "PathRegexp" => r#""/shop/.*""#,
        _ => r#""/shop""#,
    };
    format!("{name}({arguments})")
}

/// The matcher whose name differs least, if it differs little.
fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let close = |known: &&&str| {
        let known = known.to_ascii_lowercase();
        distance(&lower, &known) <= 2 || lower == known.replace("regexp", "regex")
    };
    NAMES.iter().find(|known| known.eq_ignore_ascii_case(name)).or_else(|| NAMES.iter().find(close)).copied()
}

/// Levenshtein's distance of two short words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(32).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

const NAMES: &[&str] = &[
    "Host",
    "HostRegexp",
    "Path",
    "PathPrefix",
    "PathRegexp",
    "Method",
    "MethodRegexp",
    "Header",
    "HeaderRegexp",
    "Query",
    "QueryRegexp",
    "Cookie",
    "CookieRegexp",
    "ClientIP",
    "Segment",
    "LastSegment",
];
const LONGEST: usize = 16 * 1024;
const DEEPEST: usize = 32;
const MOST_ARGUMENTS: usize = 64;
const LARGEST_EXPRESSION: usize = 1 << 20;
