//! The grammar of rules: `!` binds tighter than `&&`, `&&` tighter than `||`; arguments are Go string literals.
//!
//! Recursive descent, so that an error names its column. Depth and length are bounded, and so are the sizes of
//! compiled regular expressions, each and together. Beyond vulcand's grammar: `||`, `!`, and our matchers.

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr};

use http::header::HeaderName;
use ipnet::{IpNet, Ipv4Net};
use regex::RegexBuilder;

use super::names::{self, Name};
use super::{Expr, Expression, Matcher, Pattern, RuleError, literal};

pub(super) fn parse(source: &str) -> Result<Expr, RuleError> {
    if source.len() > LONGEST {
        return Err(RuleError {
            column: 1,
            message: format!("the rule has {} bytes", source.len()),
            hint: format!("split it: a rule has at most {LONGEST} bytes"),
        });
    }
    let mut parser = Parser { source, at: 0, depth: 0, room: Cell::new(LARGEST_TOGETHER) };
    let expr = parser.either()?;
    parser.space();
    if parser.at < source.len() {
        return Err(parser.error("there is more after the rule's end", "join expressions with && or ||"));
    }
    Ok(expr)
}

struct Parser<'s> {
    source: &'s str,
    at: usize,
    depth: usize,
    /// Bytes that further regular expressions may have, compiled.
    room: Cell<usize>,
}

struct Argument {
    text: String,
    at: usize,
}

impl<'s> Parser<'s> {
    fn either(&mut self) -> Result<Expr, RuleError> {
        let mut any = vec![self.both()?];
        while self.take("||") {
            any.push(self.both()?);
        }
        if any.len() == 1 {
            return Ok(any.remove(0));
        }
        let flat = any.into_iter().flat_map(|expr| if let Expr::Or(inner) = expr { inner } else { Box::new([expr]) });
        Ok(Expr::Or(flat.collect()))
    }

    fn both(&mut self) -> Result<Expr, RuleError> {
        let mut all = vec![self.one()?];
        while self.take("&&") {
            all.push(self.one()?);
        }
        if all.len() == 1 {
            return Ok(all.remove(0));
        }
        let flat = all.into_iter().flat_map(|expr| if let Expr::And(inner) = expr { inner } else { Box::new([expr]) });
        Ok(Expr::And(flat.collect()))
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
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let word = &rest[..end];
        if word.is_empty() {
            let found = rest.chars().next().map_or("the end".to_owned(), |c| format!("{c:?}"));
            return Err(self.error(
                &format!("a matcher was expected, not {found}"),
                r#"write for example Host("example.com") && PathPrefix("/shop")"#,
            ));
        }
        let Some(name) = names::find(word) else {
            return Err(self.error(&format!("there is no matcher {word}"), &names::hint(word)));
        };
        self.at += end;
        if !self.take("(") {
            return Err(self.error(&format!("{word} has no arguments"), &format!("write {}", name.example)));
        }
        let mut arguments = vec![self.argument(name)?];
        while self.take(",") {
            // Go allows a comma after the last argument.
            self.space();
            if self.rest().starts_with(')') {
                break;
            }
            arguments.push(self.argument(name)?);
        }
        if !self.take(")") {
            return Err(self.error("the arguments are not closed", "add )"));
        }
        if arguments.len() < name.least || arguments.len() > name.most {
            let message = format!("{word} takes {}, not {}", name.takes(), arguments.len());
            return Err(self.error_at(start, &message, &format!("write {}", name.example)));
        }
        self.matcher(name, &arguments)
    }

    fn argument(&mut self, name: &Name) -> Result<Argument, RuleError> {
        self.space();
        let at = self.at;
        match literal::read(self.rest()) {
            Some(Ok((text, length))) => {
                self.at += length;
                Ok(Argument { text, at })
            }
            Some(Err(flaw)) => Err(self.error_at(at + flaw.at, flaw.message, flaw.hint)),
            None => {
                let hint = format!("write {} (with double quotes or backquotes)", name.example);
                Err(self.error("a string was expected", &hint))
            }
        }
    }

    fn matcher(&self, name: &Name, arguments: &[Argument]) -> Result<Matcher, RuleError> {
        let (Some(first), Some(last)) = (arguments.first(), arguments.last()) else {
            return Err(self.error("the arguments are missing", &format!("write {}", name.example)));
        };
        // A parameter or a cookie may well have an empty value; everything else would be a mistake.
        let may_be_empty = matches!(name.name, "Query" | "Cookie");
        let checked = arguments.iter().take(if may_be_empty { 1 } else { arguments.len() });
        if let Some(empty) = checked.into_iter().find(|argument| argument.text.is_empty()) {
            let message = format!("an argument of {} is empty", name.name);
            return Err(self.error_at(empty.at, &message, &format!("write {}", name.example)));
        }
        let text = |argument: &Argument| -> Box<str> { argument.text.as_str().into() };
        let second = arguments.get(1);
        Ok(match name.name {
            "Host" => Matcher::Host(self.host(first)?),
            "HostRegexp" => Matcher::HostRegexp(self.expression(first, true)?),
            "Path" => Matcher::Path(self.pattern(first, '/')?),
            "PathPrefix" => Matcher::PathPrefix(self.prefix(first)?),
            "PathRegexp" => Matcher::PathRegexp(self.expression(first, false)?),
            "Method" => Matcher::Method(self.pattern(first, ' ')?),
            "MethodRegexp" => Matcher::MethodRegexp(self.expression(first, false)?),
            "Header" => Matcher::Header(self.header(first)?, self.pattern(last, '/')?),
            "HeaderRegexp" => Matcher::HeaderRegexp(self.header(first)?, self.expression(last, false)?),
            "Query" => Matcher::Query(text(first), second.map(text)),
            "QueryRegexp" => Matcher::QueryRegexp(text(first), self.expression(last, false)?),
            "Cookie" => Matcher::Cookie(text(first), second.map(text)),
            "CookieRegexp" => Matcher::CookieRegexp(self.expression(first, false)?),
            "ClientIP" => Matcher::ClientIp(self.each(arguments, Self::network)?),
            "Segment" => Matcher::Segment(self.each(arguments, Self::segment)?),
            _ => Matcher::LastSegment(self.each(arguments, Self::segment)?),
        })
    }

    fn each<T>(
        &self,
        arguments: &[Argument],
        read: impl Fn(&Self, &Argument) -> Result<T, RuleError>,
    ) -> Result<Box<[T]>, RuleError> {
        arguments.iter().map(|argument| read(self, argument)).collect()
    }

    /// In the form in which [`super::host_of`] gives the request's.
    fn host(&self, argument: &Argument) -> Result<Pattern, RuleError> {
        let host = argument.text.to_ascii_lowercase();
        let host = host.trim_end_matches('.');
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = inside.filter(|inside| inside.parse::<Ipv6Addr>().is_ok()).unwrap_or(host);
        if host.is_empty() {
            return Err(self.error_at(argument.at, "no host has such a name", "write a name like \"example.com\""));
        }
        self.pattern(&Argument { text: host.to_owned(), at: argument.at }, '.')
    }

    fn pattern(&self, argument: &Argument, separator: char) -> Result<Pattern, RuleError> {
        Pattern::new(&argument.text, separator).map_err(|placeholder| {
            let message = format!("there is no placeholder <{placeholder}>");
            self.error_at(argument.at, &message, "use <name>, <string:name>, <int:name> or <path:name>")
        })
    }

    fn prefix(&self, argument: &Argument) -> Result<Box<str>, RuleError> {
        if argument.text.starts_with('/') {
            return Ok(argument.text.as_str().into());
        }
        let hint = format!("write {}", literal::quote(&format!("/{}", argument.text)));
        Err(self.error_at(argument.at, "a path begins with a slash", &hint))
    }

    fn segment(&self, argument: &Argument) -> Result<Box<str>, RuleError> {
        if argument.text.contains('/') || matches!(argument.text.as_str(), "." | "..") {
            let hint = "write what stands between two slashes, for example \"wp-admin\"";
            return Err(self.error_at(argument.at, "no segment of a path is like that", hint));
        }
        Ok(argument.text.as_str().into())
    }

    fn expression(&self, argument: &Argument, any_case: bool) -> Result<Expression, RuleError> {
        // A compiled expression does not tell its size: the least limit that it fits into is taken for it.
        for limit in EXPRESSIONS {
            let mut builder = RegexBuilder::new(&argument.text);
            builder.size_limit(limit).case_insensitive(any_case);
            match builder.build() {
                Ok(regex) => {
                    let room = self.room.get().checked_sub(limit);
                    self.room.set(room.ok_or_else(|| {
                        let message = "the regular expressions of the rule are too large together";
                        self.error_at(argument.at, message, SIMPLER)
                    })?);
                    return Ok(Expression(regex));
                }
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(error) => {
                    let reason = error.to_string();
                    let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    let hint = "the syntax is RE2's; it has no look-around and no back-references";
                    return Err(self.error_at(argument.at, &format!("not a regular expression: {reason}"), hint));
                }
            }
        }
        Err(self.error_at(argument.at, "the regular expression is too large", SIMPLER))
    }

    fn header(&self, argument: &Argument) -> Result<HeaderName, RuleError> {
        argument.text.parse().map_err(|_| {
            self.error_at(argument.at, "not a header name", "write it without a colon, for example \"X-Version\"")
        })
    }

    /// IPv4 mapped into IPv6 is IPv4, as it is for clients.
    fn network(&self, argument: &Argument) -> Result<IpNet, RuleError> {
        let network = argument.text.parse::<IpNet>().or_else(|_| argument.text.parse::<IpAddr>().map(IpNet::from));
        let network = network.map_err(|_| {
            self.error_at(argument.at, "not an address or network", "write \"10.0.0.0/8\" or \"2001:db8::1\"")
        })?;
        let IpNet::V6(v6) = network else { return Ok(network) };
        let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
        let v4 = mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
        Ok(v4.map_or(network, IpNet::V4))
    }

    fn take(&mut self, token: &str) -> bool {
        self.space();
        let taken = self.rest().starts_with(token);
        if taken {
            self.at += token.len();
        }
        taken
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &'s str {
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

const LONGEST: usize = 16 * 1024;
const DEEPEST: usize = 32;
/// Sizes of compiled regular expressions, in bytes; none may be larger than the last.
const EXPRESSIONS: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];
/// Of all in one rule: compiling them takes time, and keeping them memory.
const LARGEST_TOGETHER: usize = 8 << 20;
const SIMPLER: &str = "repeat less, or match with fewer and simpler expressions";
