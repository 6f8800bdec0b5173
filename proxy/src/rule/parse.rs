//! The matchers of rules, as `logic.rs` joins them; arguments are Go string literals.
//!
//! The length is bounded, and so are the sizes of compiled regular expressions, each and together. Beyond vulcand's grammar: `||`, `!`, and our matchers.

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr};

use http::header::HeaderName;
use ipnet::{IpNet, Ipv4Net};
use regex::RegexBuilder;

use super::logic::{self, Leaves, Scanner};
use super::names::{self, Name};
use super::never::{self, Never};
use super::{Expr, Expression, Matcher, Pattern, RuleError, literal};

pub(super) fn parse(source: &str) -> Result<Expr, RuleError> {
    if source.len() > LONGEST {
        return Err(RuleError {
            column: 1,
            message: format!("the rule has {} bytes", source.len()),
            hint: format!("split it: a rule has at most {LONGEST} bytes"),
        });
    }
    logic::read(Parser { scan: Scanner::new(source), room: Cell::new(LARGEST_TOGETHER) })
}

struct Parser<'s> {
    scan: Scanner<'s>,
    /// Bytes that further regular expressions may have, compiled.
    room: Cell<usize>,
}

struct Argument {
    text: String,
    at: usize,
}

impl<'s> Leaves<'s> for Parser<'s> {
    type Leaf = Matcher;
    const WHAT: &'static str = "rule";

    fn scanner(&mut self) -> &mut Scanner<'s> {
        &mut self.scan
    }

    fn leaf(&mut self) -> Result<Matcher, RuleError> {
        self.call()
    }
}

impl Parser<'_> {
    fn call(&mut self) -> Result<Matcher, RuleError> {
        self.scan.space();
        let start = self.scan.at;
        let rest = self.scan.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let word = &rest[..end];
        if word.is_empty() {
            let found = rest.chars().next().map_or("the end".to_owned(), |c| format!("{c:?}"));
            return Err(self.scan.error(
                &format!("a matcher was expected, not {found}"),
                r#"write for example Host("example.com") && PathPrefix("/shop")"#,
            ));
        }
        let Some(name) = names::find(word) else {
            return Err(self.scan.error(&format!("there is no matcher {word}"), &names::hint(word)));
        };
        self.scan.at += end;
        if !self.scan.take("(") {
            return Err(self.scan.error(&format!("{word} has no arguments"), &format!("write {}", name.example)));
        }
        let mut arguments = vec![self.argument(name)?];
        while self.scan.take(",") {
            // Go allows a comma after the last argument.
            self.scan.space();
            if self.scan.rest().starts_with(')') {
                break;
            }
            arguments.push(self.argument(name)?);
        }
        if !self.scan.take(")") {
            return Err(self.scan.error("the arguments are not closed", "add )"));
        }
        if arguments.len() < name.least || arguments.len() > name.most {
            let message = format!("{word} takes {}, not {}", name.takes(), arguments.len());
            return Err(self.scan.error_at(start, &message, &format!("write {}", name.example)));
        }
        self.matcher(name, &arguments)
    }

    fn argument(&mut self, name: &Name) -> Result<Argument, RuleError> {
        self.scan.space();
        let at = self.scan.at;
        match literal::read(self.scan.rest()) {
            Some(Ok((text, length))) => {
                self.scan.at += length;
                Ok(Argument { text, at })
            }
            Some(Err(flaw)) => Err(self.scan.error_at(at + flaw.at, flaw.message, flaw.hint)),
            None => {
                let hint = format!("write {} (with double quotes or backquotes)", name.example);
                Err(self.scan.error("a string was expected", &hint))
            }
        }
    }

    fn matcher(&self, name: &Name, arguments: &[Argument]) -> Result<Matcher, RuleError> {
        let (Some(first), Some(last)) = (arguments.first(), arguments.last()) else {
            return Err(self.scan.error("the arguments are missing", &format!("write {}", name.example)));
        };
        // A parameter or a cookie may well have an empty value; everything else would be a mistake.
        let may_be_empty = matches!(name.name, "Query" | "Cookie");
        let checked = arguments.iter().take(if may_be_empty { 1 } else { arguments.len() });
        if let Some(empty) = checked.into_iter().find(|argument| argument.text.is_empty()) {
            let message = format!("an argument of {} is empty", name.name);
            return Err(self.scan.error_at(empty.at, &message, &format!("write {}", name.example)));
        }
        let text = |argument: &Argument| -> Box<str> { argument.text.as_str().into() };
        let second = arguments.get(1);
        Ok(match name.name {
            "Host" => Matcher::Host(self.host(first)?),
            "HostRegexp" => Matcher::HostRegexp(self.expression(first, true)?),
            "Path" => Matcher::Path(self.possible(first, '/', never::path)?),
            "PathPrefix" => Matcher::PathPrefix(self.prefix(first)?),
            "PathRegexp" => Matcher::PathRegexp(self.expression(first, false)?),
            "Method" => Matcher::Method(self.possible(first, ' ', never::method)?),
            "MethodRegexp" => Matcher::MethodRegexp(self.expression(first, false)?),
            "Header" => Matcher::Header(self.header(first)?, self.pattern(last, '/')?),
            "HeaderRegexp" => Matcher::HeaderRegexp(self.header(first)?, self.expression(last, false)?),
            "Query" => Matcher::Query(text(first), second.map(text)),
            "QueryOnly" => Matcher::QueryOnly(text(first), text(last)),
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
            return Err(self.scan.error_at(
                argument.at,
                "no host has such a name",
                "write a name like \"example.com\"",
            ));
        }
        self.possible(&Argument { text: host.to_owned(), at: argument.at }, '.', never::host)
    }

    /// A pattern that some request may match.
    fn possible(
        &self,
        argument: &Argument,
        separator: char,
        check: impl Fn(&Pattern) -> Result<(), Never>,
    ) -> Result<Pattern, RuleError> {
        let pattern = self.pattern(argument, separator)?;
        check(&pattern).map_err(|never| self.scan.error_at(argument.at, never.message, &never.hint))?;
        Ok(pattern)
    }

    fn pattern(&self, argument: &Argument, separator: char) -> Result<Pattern, RuleError> {
        Pattern::new(&argument.text, separator).map_err(|placeholder| {
            let message = format!("there is no placeholder <{placeholder}>");
            self.scan.error_at(argument.at, &message, "use <name>, <string:name>, <int:name> or <path:name>")
        })
    }

    fn prefix(&self, argument: &Argument) -> Result<Box<str>, RuleError> {
        never::prefix(&argument.text).map_err(|never| self.scan.error_at(argument.at, never.message, &never.hint))?;
        Ok(argument.text.as_str().into())
    }

    fn segment(&self, argument: &Argument) -> Result<Box<str>, RuleError> {
        if argument.text.contains('/') || matches!(argument.text.as_str(), "." | "..") {
            let hint = "write what stands between two slashes, for example \"wp-admin\"";
            return Err(self.scan.error_at(argument.at, "no segment of a path is like that", hint));
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
                        self.scan.error_at(argument.at, message, SIMPLER)
                    })?);
                    return Ok(Expression(regex));
                }
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(error) => {
                    let reason = error.to_string();
                    let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    let hint = "the syntax is RE2's; it has no look-around and no back-references";
                    return Err(self.scan.error_at(argument.at, &format!("not a regular expression: {reason}"), hint));
                }
            }
        }
        Err(self.scan.error_at(argument.at, "the regular expression is too large", SIMPLER))
    }

    fn header(&self, argument: &Argument) -> Result<HeaderName, RuleError> {
        argument.text.parse().map_err(|_| {
            self.scan.error_at(argument.at, "not a header name", "write it without a colon, for example \"X-Version\"")
        })
    }

    /// IPv4 mapped into IPv6 is IPv4, as it is for clients.
    fn network(&self, argument: &Argument) -> Result<IpNet, RuleError> {
        let network = argument.text.parse::<IpNet>().or_else(|_| argument.text.parse::<IpAddr>().map(IpNet::from));
        let network = network.map_err(|_| {
            self.scan.error_at(argument.at, "not an address or network", "write \"10.0.0.0/8\" or \"2001:db8::1\"")
        })?;
        let IpNet::V6(v6) = network else { return Ok(network) };
        let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
        let v4 = mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
        Ok(v4.map_or(network, IpNet::V4))
    }
}

const LONGEST: usize = 16 * 1024;
/// Sizes of compiled regular expressions, in bytes; none may be larger than the last.
const EXPRESSIONS: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];
/// Of all in one rule: compiling them takes time, and keeping them memory.
const LARGEST_TOGETHER: usize = 8 << 20;
const SIMPLER: &str = "repeat less, or match with fewer and simpler expressions";
