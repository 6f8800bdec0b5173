//! Reading JSON the way Go's `encoding/json` fills a struct, with the place of everything.
//!
//! serde_json checks the syntax once; what is looked at is then read from the text, one level at a time. Names match
//! in any case, unknown ones are passed over, `null` leaves the zero value, the last of several equal names counts.
//! Not copied from Go: merging objects given twice, and replacing lone surrogates.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::duration;
use crate::problem::Flaw;

mod raw;

use raw::{Entries, Items};

/// The longest value that is looked at, in bytes.
pub(crate) const LONGEST_VALUE: usize = 1 << 20;

/// A value's bytes as text. Bytes that are not UTF-8 become U+FFFD, as in Go.
pub(crate) fn text(value: &[u8]) -> Result<Cow<'_, str>, Flaw> {
    if value.len() > LONGEST_VALUE {
        return Err(Flaw::new(
            format!("the value has {} bytes, more than the {LONGEST_VALUE} that are read", value.len()),
            "store a smaller value",
        ));
    }
    Ok(String::from_utf8_lossy(value))
}

/// A JSON value inside a text.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    whole: &'a str,
    text: &'a str,
    /// How a person would call it: `Settings.Timeouts.Read`. Empty for the whole value.
    name: String,
}

impl<'a> Node<'a> {
    /// Checks the syntax of a whole text.
    pub(crate) fn parse(whole: &'a str) -> Result<Node<'a>, Flaw> {
        match serde_json::from_str::<&'a RawValue>(whole) {
            Ok(raw) => Ok(Node { whole, text: raw.get(), name: String::new() }),
            Err(error) => {
                let message = error.to_string();
                let message = message.split(" at line ").next().unwrap_or_default();
                Err(Flaw {
                    reason: format!("not JSON: {message}"),
                    hint: "correct the JSON at this place".into(),
                    line: u32::try_from(error.line()).ok(),
                    column: u32::try_from(error.column().max(1)).ok(),
                    effect: None,
                })
            }
        }
    }

    /// The text as written, without the white space around it.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// A flaw at this place.
    pub(crate) fn flaw(&self, reason: impl Into<String>, hint: impl Into<String>) -> Flaw {
        flaw_at(self.whole, offset(self.whole, self.text), reason.into(), hint.into())
    }

    /// How a person would call it: `Settings.TLS`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_null(&self) -> bool {
        self.text == "null"
    }

    /// The object's fields; none if it is `null`.
    pub(crate) fn fields(&self) -> Result<Fields<'a>, Flaw> {
        let entries = match self.text.as_bytes().first() {
            Some(b'{') => serde_json::from_str::<Entries<'a>>(self.text).map_err(|_| self.unreadable())?.0,
            _ if self.is_null() => Vec::new(),
            _ => return Err(self.wrong("an object")),
        };
        Ok(Fields { entries, of: self.clone(), ours: false })
    }

    /// The array's elements; none if it is `null`.
    pub(crate) fn items(&self) -> Result<Vec<Node<'a>>, Flaw> {
        let items = match self.text.as_bytes().first() {
            Some(b'[') => serde_json::from_str::<Items<'a>>(self.text).map_err(|_| self.unreadable())?.0,
            _ if self.is_null() => Vec::new(),
            _ => return Err(self.wrong("an array")),
        };
        let named = |(index, raw): (usize, &'a RawValue)| Node {
            whole: self.whole,
            text: raw.get(),
            name: format!("{}[{index}]", self.name),
        };
        Ok(items.into_iter().enumerate().map(named).collect())
    }

    pub(crate) fn string(&self) -> Result<String, Flaw> {
        if !self.text.starts_with('"') {
            return Err(self.wrong("a string"));
        }
        serde_json::from_str(self.text).map_err(|_| self.unreadable())
    }

    pub(crate) fn boolean(&self) -> Result<bool, Flaw> {
        match self.text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.wrong("true or false")),
        }
    }

    pub(crate) fn integer(&self) -> Result<i64, Flaw> {
        if !self.text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return Err(self.wrong("a whole number"));
        }
        self.text.parse().map_err(|_| {
            let reason = format!("{} is not a whole number of 64 bits: {}", self.name, clip(self.text));
            self.flaw(reason, "write it without a fraction and an exponent")
        })
    }

    /// A whole number in a range, both ends included.
    pub(crate) fn integer_within(&self, least: i64, most: i64) -> Result<i64, Flaw> {
        let number = self.integer()?;
        if (least..=most).contains(&number) {
            return Ok(number);
        }
        Err(self.flaw(format!("{} is {number}", self.name), format!("choose a number from {least} to {most}")))
    }

    /// A Go duration; `None` for the empty string.
    pub(crate) fn duration(&self) -> Result<Option<Duration>, Flaw> {
        let text = self.string()?;
        if text.is_empty() {
            return Ok(None);
        }
        duration::parse(&text).map(Some).map_err(|error| {
            let reason = format!("{} is {error}: {:?}", self.name, clip(&text));
            self.flaw(reason, "write it like \"5s\", \"300ms\" or \"1m30s\"; units are ns, us, ms, s, m, h")
        })
    }

    pub(crate) fn wrong(&self, wanted: &str) -> Flaw {
        let found = match self.text.as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "true or false",
            Some(b'n') => "null",
            _ => "a number",
        };
        let name = if self.name.is_empty() { "the value" } else { &self.name };
        self.flaw(format!("{name} must be {wanted}, not {found}"), format!("write {wanted} here"))
    }

    fn unreadable(&self) -> Flaw {
        let name = if self.name.is_empty() { "the value" } else { &self.name };
        self.flaw(format!("{name} holds a lone surrogate"), "write the character itself instead of its escape")
    }
}

/// An object's fields, in the order written.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    entries: Vec<(Cow<'a, str>, &'a RawValue)>,
    of: Node<'a>,
    ours: bool,
}

impl<'a> Fields<'a> {
    /// For an object of ours, where `uploads_fallback` is `UploadsFallback` too.
    pub(crate) fn ours(self) -> Fields<'a> {
        Fields { ours: true, ..self }
    }

    /// The field of that name that counts; `None` if absent or `null`.
    pub(crate) fn get(&self, name: &str) -> Option<Node<'a>> {
        let found = self.entries.iter().rev().find(|(key, value)| self.same(key, name) && value.get() != "null");
        found.map(|(_, value)| self.node(name, value))
    }

    pub(crate) fn string(&self, name: &str) -> Result<String, Flaw> {
        self.get(name).map(|node| node.string()).transpose().map(Option::unwrap_or_default)
    }

    /// A string that must be there and not be empty.
    pub(crate) fn required(&self, name: &str, example: &str) -> Result<String, Flaw> {
        let hint = || format!("write {example}");
        let full = self.name_of(name);
        match self.get(name) {
            None => Err(self.of.flaw(format!("{full} is missing"), hint())),
            Some(node) => match node.string()? {
                text if text.is_empty() => Err(node.flaw(format!("{full} is empty"), hint())),
                text => Ok(text),
            },
        }
    }

    pub(crate) fn integer(&self, name: &str) -> Result<i64, Flaw> {
        self.get(name).map(|node| node.integer()).transpose().map(Option::unwrap_or_default)
    }

    pub(crate) fn boolean(&self, name: &str) -> Result<bool, Flaw> {
        self.get(name).map(|node| node.boolean()).transpose().map(Option::unwrap_or_default)
    }

    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>, Flaw> {
        self.get(name).map(|node| node.duration()).transpose().map(Option::flatten)
    }

    /// An object; without fields if absent.
    pub(crate) fn object(&self, name: &str) -> Result<Fields<'a>, Flaw> {
        match self.get(name) {
            Some(node) => node.fields(),
            None => {
                let of = Node { name: self.name_of(name), ..self.of.clone() };
                Ok(Fields { entries: Vec::new(), of, ours: false })
            }
        }
    }

    /// Every field as a name and a value: for objects whose names are free.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, Node<'a>)> {
        self.entries.iter().map(|(key, value)| (key.as_ref(), self.node(key, value)))
    }

    /// Refuses any name that is not among the known ones: for objects that are ours.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Flaw> {
        let unknown = self.entries.iter().find(|(key, _)| !known.iter().any(|known| self.same(key, known)));
        let Some((key, value)) = unknown else { return Ok(()) };
        let hint = match nearest(key, known) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("known are {}", known.join(", ")),
        };
        let place = match key {
            // The opening quote stands before it.
            Cow::Borrowed(key) => offset(self.of.whole, key).saturating_sub(1),
            Cow::Owned(_) => offset(self.of.whole, value.get()),
        };
        Err(flaw_at(self.of.whole, place, format!("unknown field {:?}", self.name_of(&clip(key))), hint))
    }

    /// A flaw of the object as a whole.
    pub(crate) fn flaw(&self, reason: impl Into<String>, hint: impl Into<String>) -> Flaw {
        self.of.flaw(reason, hint)
    }

    fn same(&self, written: &str, name: &str) -> bool {
        written.eq_ignore_ascii_case(name)
            || (self.ours && written.contains('_') && written.replace('_', "").eq_ignore_ascii_case(name))
    }

    fn node(&self, name: &str, value: &'a RawValue) -> Node<'a> {
        Node { whole: self.of.whole, text: value.get(), name: self.name_of(name) }
    }

    fn name_of(&self, name: &str) -> String {
        if self.of.name.is_empty() { name.into() } else { format!("{}.{name}", self.of.name) }
    }
}

/// At most about 60 characters of a text that goes into a message.
pub(crate) fn clip(text: &str) -> Cow<'_, str> {
    if text.len() <= 60 {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", cut(text, 60)))
}

/// The beginning of a text, at most so many bytes of it.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

/// The known word a written one was probably meant to be.
pub(crate) fn nearest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let written: Vec<char> = written.chars().take(41).flat_map(char::to_lowercase).collect();
    let near = known.iter().map(|known| (distance(&written, &known.to_lowercase()), *known)).min()?;
    (near.0 <= 2 && near.0 < written.len()).then_some(near.1)
}

/// How many letters must be put in, left out or exchanged.
fn distance(from: &[char], to: &str) -> usize {
    let mut row: Vec<usize> = (0..=from.len()).collect();
    for (line, letter) in to.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], line + 1);
        for (column, other) in from.iter().enumerate() {
            let exchanged = corner + usize::from(*other != letter);
            corner = row[column + 1];
            row[column + 1] = exchanged.min(corner + 1).min(row[column] + 1);
        }
    }
    row[from.len()]
}

/// Where `part`, a piece of `whole`, begins in it.
fn offset(whole: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize).min(whole.len())
}

fn flaw_at(whole: &str, offset: usize, reason: String, hint: String) -> Flaw {
    let before = &whole.as_bytes()[..offset];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let column = 1 + String::from_utf8_lossy(&before[start..]).chars().count();
    Flaw { reason, hint, line: u32::try_from(line).ok(), column: u32::try_from(column).ok(), effect: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(text: &str) -> Fields<'_> {
        Node::parse(text).unwrap().fields().unwrap()
    }

    #[test]
    fn names_match_in_any_case_and_the_last_one_counts() {
        let fields = fields(r#"{"url":"a","URL":"b","\u0055rl":"c","Url":null,"other":[{}]}"#);
        assert_eq!(fields.string("URL").unwrap(), "c");
        assert_eq!(fields.string("Absent").unwrap(), "");
        assert!(!fields.boolean("Absent").unwrap());
    }

    #[test]
    fn a_wrong_type_is_named_with_its_place() {
        let fields = fields("{\n  \"ä\": 1, \"Route\": 5\n}");
        let flaw = fields.string("Route").unwrap_err();
        assert_eq!(flaw.reason, "Route must be a string, not a number");
        assert_eq!((flaw.line, flaw.column), (Some(2), Some(20)));
    }

    #[test]
    fn an_unknown_name_gets_a_suggestion() {
        let text = "{\"cooky\": 1}";
        let flaw = fields(text).only(&["Cookie"]).unwrap_err();
        assert_eq!(flaw.hint, "did you mean \"Cookie\"?");
        assert_eq!((flaw.line, flaw.column), (Some(1), Some(2)));
        assert!(fields("{\"cookie\":1,\"CO_OKIE\":2}").ours().only(&["Cookie"]).is_ok());
        assert!(fields("{\"CO_OKIE\":2}").get("Cookie").is_none());
        assert_eq!(fields("{\"x\":1}").only(&["Cookie"]).unwrap_err().hint, "known are Cookie");
    }

    #[test]
    fn integers_are_whole_and_64_bits() {
        let fields = fields(r#"{"a":1.0,"b":1e3,"c":9223372036854775808,"d":-0,"e":-9223372036854775808}"#);
        for name in ["a", "b", "c"] {
            assert!(fields.integer(name).is_err(), "{name}");
        }
        assert_eq!(fields.integer("d").unwrap(), 0);
        assert_eq!(fields.integer("e").unwrap(), i64::MIN);
    }

    #[test]
    fn broken_json_is_named_with_its_place() {
        let flaw = Node::parse("{\"a\":\n 1,}").unwrap_err();
        assert_eq!(flaw.line, Some(2));
        assert!(flaw.reason.starts_with("not JSON: key must be a string"), "{}", flaw.reason);
        assert!(Node::parse(&"[".repeat(500_000)).is_err());
        assert!(Node::parse("{} {}").is_err());
        assert!(Node::parse("").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[{}\\[\\]\",:a-c0-9.eE\\\\u -]{0,40}") {
            let good = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(Node::parse(&text).is_ok(), good);
            if let Ok(node) = Node::parse(&text) {
                let _ = (node.fields(), node.items(), node.string(), node.integer(), node.duration());
                if let Ok(fields) = node.fields() {
                    let _ = (fields.only(&["a"]), fields.get("a"), fields.all().count());
                }
            }
        }
    }
}
