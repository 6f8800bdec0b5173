//! vulcand's patterns: literal text with `<name>`, `<string:name>`, `<int:name>` and `<path:name>` in it.

/// A pattern, compiled for one kind of value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    source: Box<str>,
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
    /// Compiles a pattern; `Err` says which placeholder is unknown.
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
                None | Some(("string", _)) => Part::Text,
                Some(("int", _)) => Part::Digits,
                Some(("path", _)) => Part::Rest,
                Some((other, _)) => return Err(other.to_owned()),
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(part);
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Pattern { source: source.into(), parts: parts.into(), separator })
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The text it stands for, when it has no placeholder.
    pub(crate) fn literal(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The text every match begins with.
    pub(crate) fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(text)) => text,
            _ => "",
        }
    }

    /// The text every match ends with.
    pub(crate) fn suffix(&self) -> &str {
        match self.parts.last() {
            Some(Part::Literal(text)) => text,
            _ => "",
        }
    }

    /// Bytes of literal text in it.
    pub(crate) fn literal_length(&self) -> usize {
        let length = |part: &Part| if let Part::Literal(text) = part { text.len() } else { 0 };
        self.parts.iter().map(length).sum()
    }

    /// Whether a value matches from end to end. As in vulcand a placeholder takes all it can and gives nothing back.
    pub(crate) fn matches(&self, value: &str) -> bool {
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
