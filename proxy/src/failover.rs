//! vulcand's failover predicates: whether a request goes to another server, after how an attempt ended. Pure.
//!
//! `IsNetworkError() && RequestMethod() == "GET" && Attempts() < 2`. Grammar and meaning are vulcand's, and `!` is ours.
//! What may be repeated at all (a server that was not tried, a body that is still there, the budget) is decided in
//! `traffic/forward.rs`; a connection that could not be made is no attempt, since nothing was sent.

use http::Method;

use crate::rule::RuleError;
use crate::rule::logic::{self, Leaves, Logic, Scanner};

/// A parsed predicate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predicate(Logic<Test>);

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// How often it was sent so far, from 1.
    pub number: u32,
    /// The answer's status; 502 if there was none, 504 if it did not come in time.
    pub status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    NetworkError,
    Method(bool, Box<str>),
    Attempts(Comparison, i64),
    Status(Comparison, i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Predicate {
    /// Reads a predicate.
    pub fn parse(source: &str) -> Result<Predicate, RuleError> {
        let scan = Scanner::new(source);
        if source.len() > LONGEST {
            return Err(scan.error("the predicate is too long", "write it shorter"));
        }
        logic::read(Parser { scan }).map(Predicate)
    }

    /// Whether the request is to be sent once more.
    pub fn holds(&self, attempt: &Attempt<'_>) -> bool {
        holds(&self.0, attempt)
    }
}

fn holds(expr: &Logic<Test>, attempt: &Attempt<'_>) -> bool {
    match expr {
        Logic::And(all) => all.iter().all(|expr| holds(expr, attempt)),
        Logic::Or(any) => any.iter().any(|expr| holds(expr, attempt)),
        Logic::Not(expr) => !holds(expr, attempt),
        Logic::Is(test) => test.holds(attempt),
    }
}

impl Test {
    fn holds(&self, attempt: &Attempt<'_>) -> bool {
        match self {
            // As vulcand has it, also where the application said so.
            Test::NetworkError => matches!(attempt.status, 502 | 504),
            Test::Method(is, method) => (attempt.method.as_str() == &**method) == *is,
            Test::Attempts(comparison, number) => comparison.holds(i64::from(attempt.number), *number),
            Test::Status(comparison, number) => comparison.holds(i64::from(attempt.status), *number),
        }
    }
}

impl Comparison {
    fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Comparison::Equal => left == right,
            Comparison::Unequal => left != right,
            Comparison::Less => left < right,
            Comparison::AtMost => left <= right,
            Comparison::More => left > right,
            Comparison::AtLeast => left >= right,
        }
    }
}

struct Parser<'s> {
    scan: Scanner<'s>,
}

impl<'s> Leaves<'s> for Parser<'s> {
    type Leaf = Test;
    const WHAT: &'static str = "predicate";

    fn scanner(&mut self) -> &mut Scanner<'s> {
        &mut self.scan
    }

    fn leaf(&mut self) -> Result<Test, RuleError> {
        self.call()
    }
}

impl Parser<'_> {
    fn call(&mut self) -> Result<Test, RuleError> {
        self.scan.space();
        let start = self.scan.at;
        let word: String = self.scan.rest().chars().take_while(char::is_ascii_alphanumeric).collect();
        self.scan.at += word.len();
        let Some(name) = NAMES.iter().find(|name| **name == word) else {
            self.scan.at = start;
            let near = NAMES.iter().find(|name| name.eq_ignore_ascii_case(&word));
            let hint = near.map_or(format!("use {}", NAMES.join("(), ") + "()"), |near| format!("write {near}()"));
            return Err(self.scan.error(&format!("there is no function {word:?}"), &hint));
        };
        if !self.scan.take("(") || !self.scan.take(")") {
            return Err(self.scan.error(&format!("{name} has no parentheses"), &format!("write {name}()")));
        }
        match *name {
            "IsNetworkError" => Ok(Test::NetworkError),
            "RequestMethod" => {
                let example = r#"compare it: RequestMethod() == "GET""#;
                self.scan.space();
                let before = self.scan.at;
                let is = match self.comparison() {
                    Some(Comparison::Equal) => true,
                    Some(Comparison::Unequal) => false,
                    _ => {
                        self.scan.at = before;
                        return Err(self.scan.error("== or != was expected", example));
                    }
                };
                Ok(Test::Method(is, self.text(example)?))
            }
            name => {
                let example = format!("compare it: {name}() < {}", if name == "Attempts" { 2 } else { 500 });
                let comparison = self.comparison();
                let comparison = comparison.ok_or_else(|| self.scan.error("a comparison was expected", &example))?;
                let number = self.number(&example)?;
                Ok(if name == "Attempts" {
                    Test::Attempts(comparison, number)
                } else {
                    Test::Status(comparison, number)
                })
            }
        }
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let known = [
            ("==", Comparison::Equal),
            ("!=", Comparison::Unequal),
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("<", Comparison::Less),
            (">", Comparison::More),
        ];
        known.into_iter().find_map(|(token, comparison)| self.scan.take(token).then_some(comparison))
    }

    /// A string between double quotes or backquotes. No method needs an escape.
    fn text(&mut self, example: &str) -> Result<Box<str>, RuleError> {
        self.scan.space();
        let quote = self.scan.rest().chars().next().filter(|c| matches!(c, '"' | '`'));
        let quote = quote.ok_or_else(|| self.scan.error("a string was expected", example))?;
        let inside = &self.scan.rest()[1..];
        let end =
            inside.find(quote).ok_or_else(|| self.scan.error("the string is not closed", &format!("add {quote}")))?;
        let text: Box<str> = inside[..end].into();
        if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(self.scan.error("no method is called that", example));
        }
        self.scan.at += end + 2;
        Ok(text)
    }

    fn number(&mut self, example: &str) -> Result<i64, RuleError> {
        self.scan.space();
        let length = self.scan.rest().bytes().take_while(u8::is_ascii_digit).count();
        let number = self.scan.rest()[..length].parse();
        let number = number.map_err(|_| self.scan.error("a whole number was expected", example))?;
        self.scan.at += length;
        Ok(number)
    }
}

const NAMES: [&str; 4] = ["IsNetworkError", "RequestMethod", "Attempts", "ResponseCode"];
const LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holds(source: &str, method: Method, number: u32, status: u16) -> bool {
        Predicate::parse(source).unwrap().holds(&Attempt { method: &method, number, status })
    }

    #[test]
    fn vulcands_predicates() {
        let default = r#"IsNetworkError() && RequestMethod() == "GET" && Attempts() < 2"#;
        assert!(holds(default, Method::GET, 1, 502));
        assert!(holds(default, Method::GET, 1, 504));
        assert!(!holds(default, Method::GET, 2, 502));
        assert!(!holds(default, Method::POST, 1, 502));
        assert!(!holds(default, Method::GET, 1, 503));
        assert!(holds("Attempts() <= 2 && ResponseCode() == 503", Method::POST, 2, 503));
        assert!(holds("(ResponseCode() >= 500 || IsNetworkError())", Method::PUT, 9, 500));
        assert!(holds("Attempts() <= 1 || ResponseCode() != 200 && Attempts() > 3", Method::GET, 1, 200));
        assert!(holds("!(RequestMethod() != `POST`)&&!IsNetworkError()", Method::POST, 1, 200));
    }

    #[test]
    fn flaws_name_column_and_remedy() {
        for (source, column, message, hint) in [
            ("", 1, "there is no function", "use IsNetworkError()"),
            ("isNetworkError()", 1, "there is no function", "write IsNetworkError()"),
            ("IsNetworkError", 15, "IsNetworkError has no parentheses", "write"),
            ("IsNetworkError() &&", 20, "there is no function", ""),
            ("Attempts()", 11, "a comparison was expected", "compare it: Attempts() < 2"),
            ("Attempts() < x", 14, "a whole number", "compare it"),
            ("Attempts() < 99999999999999999999", 14, "a whole number", ""),
            ("RequestMethod() < `GET`", 17, "== or != was expected", "compare it"),
            ("RequestMethod() == GET", 20, "a string was expected", "compare it"),
            ("RequestMethod() == \"GET", 20, "the string is not closed", "add \""),
            ("(IsNetworkError()", 18, "a parenthesis is not closed", "add )"),
            ("IsNetworkError() Attempts() < 2", 18, "there is more", "join"),
        ] {
            let error = Predicate::parse(source).unwrap_err();
            assert!(error.message.starts_with(message), "{source}: {}", error.message);
            assert!(error.hint.starts_with(hint), "{source}: {}", error.hint);
            assert_eq!(error.column, column, "{source}");
        }
        assert!(Predicate::parse(&"(".repeat(4000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[IsNetworkErrorAttempsRqudMhodCn()!&|<>=\"` 0-9GETé]{0,60}") {
            if let Err(error) = Predicate::parse(&text) {
                prop_assert!(error.column as usize <= text.chars().count() + 1);
            }
        }
    }
}
