//! vulcand's patterns: literal text with `<name>`, `<string:name>`, `<int:name>` and `<path:name>` in it.
//!
//! As in vulcand `<>` and a `<` that is never closed are literal, a placeholder takes all it can and gives nothing back,
//! and a text may be empty. A number has at least one digit (in vulcand it may be empty too). Names are not exported.

/// A pattern, compiled for one kind of value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    source: Box<str>,
    /// None of them: the source is the text that is meant.
    parts: Box<[Part]>,
    /// What a `<string>` does not cross.
    separator: char,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// Anything up to the separator; may be empty.
    Text,
    /// Digits.
    Digits,
    /// Anything to the end.
    Rest,
}

impl Pattern {
    /// Compiles a pattern; `Err` is the inside of a placeholder that there is not.
    pub(crate) fn new(source: &str, separator: char) -> Result<Pattern, String> {
        let mut parts = Vec::new();
        let mut rest = source;
        let mut literal = String::new();
        while let Some(open) = rest.find('<') {
            let Some(close) = rest[open..].find('>').map(|at| open + at) else { break };
            let inside = &rest[open + 1..close];
            literal.push_str(&rest[..open]);
            rest = &rest[close + 1..];
            let part = match inside.split_once(':') {
                None if inside.is_empty() => {
                    literal.push_str("<>");
                    continue;
                }
                None => Part::Text,
                Some(("string", name)) if !name.contains(':') => Part::Text,
                Some(("int", name)) if !name.contains(':') => Part::Digits,
                Some(("path", name)) if !name.contains(':') => Part::Rest,
                Some(_) => return Err(inside.to_owned()),
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(part);
        }
        literal.push_str(rest);
        if !parts.is_empty() && !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Pattern { source: source.into(), parts: parts.into(), separator })
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The text it stands for, when it has no placeholder.
    pub(crate) fn literal(&self) -> Option<&str> {
        self.parts.is_empty().then_some(&self.source)
    }

    /// The text every match begins with.
    pub(crate) fn prefix(&self) -> &str {
        match self.parts.first() {
            None => &self.source,
            Some(Part::Literal(text)) => text,
            Some(_) => "",
        }
    }

    /// The text every match ends with.
    pub(crate) fn suffix(&self) -> &str {
        match self.parts.last() {
            None => &self.source,
            Some(Part::Literal(text)) => text,
            Some(_) => "",
        }
    }

    /// The pieces of literal text in it.
    pub(crate) fn literals(&self) -> impl Iterator<Item = &str> {
        let pieces =
            self.parts.iter().filter_map(|part| if let Part::Literal(text) = part { Some(&**text) } else { None });
        self.literal().into_iter().chain(pieces)
    }

    /// Bytes of literal text in it.
    pub(crate) fn literal_length(&self) -> usize {
        self.literals().map(str::len).sum()
    }

    /// Whether a value matches from end to end. As in vulcand a placeholder takes all it can and gives nothing back.
    pub(crate) fn matches(&self, value: &str) -> bool {
        if self.parts.is_empty() {
            return value == &*self.source;
        }
        let mut rest = value;
        for part in &self.parts {
            let taken = match part {
                Part::Literal(text) if rest.starts_with(&**text) => text.len(),
                Part::Literal(_) => return false,
                Part::Text => rest.find(self.separator).unwrap_or(rest.len()),
                Part::Digits => {
                    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                    if digits == 0 {
                        return false;
                    }
                    digits
                }
                Part::Rest => rest.len(),
            };
            rest = &rest[taken..];
        }
        rest.is_empty()
    }
}
