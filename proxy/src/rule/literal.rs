//! Go's string literals, in which the arguments of rules are written: `"…"` with escapes, and `…` between backquotes.
//!
//! As Go reads them, except that a string must come out as UTF-8.

/// Why a text does not begin with a literal.
pub(super) struct Flaw {
    /// Where, in bytes from the literal's beginning.
    pub(super) at: usize,
    pub(super) message: &'static str,
    pub(super) hint: &'static str,
}

/// Reads the literal that a text begins with: what it stands for, and its length in bytes. `None`: there is none.
pub(super) fn read(text: &str) -> Option<Result<(String, usize), Flaw>> {
    match text.as_bytes().first() {
        Some(b'`') => Some(raw(text)),
        Some(b'"') => Some(interpreted(text)),
        _ => None,
    }
}

/// A literal for a text: between backquotes where that spares escapes.
pub(super) fn quote(text: &str) -> String {
    if text.contains(['"', '\\']) && !text.contains(|c: char| c == '`' || c.is_control()) {
        return format!("`{text}`");
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn raw(text: &str) -> Result<(String, usize), Flaw> {
    let (inside, _) = text[1..].split_once('`').ok_or(Flaw { at: 0, message: UNCLOSED, hint: "add `" })?;
    // Go drops carriage returns here.
    Ok((inside.replace('\r', ""), inside.len() + 2))
}

fn interpreted(text: &str) -> Result<(String, usize), Flaw> {
    let mut bytes = Vec::new();
    let mut at = 1;
    loop {
        let rest = &text[at..];
        match rest.chars().next() {
            None | Some('\n') => return Err(Flaw { at: 0, message: UNCLOSED, hint: "add \"" }),
            Some('"') => {
                let read = String::from_utf8(bytes).map_err(|_| Flaw {
                    at: 0,
                    message: "the string is not UTF-8",
                    hint: r"\x and octal escapes stand for bytes; write \u00ff for a character",
                })?;
                return Ok((read, at + 1));
            }
            Some('\\') => {
                at += escape(rest, &mut bytes).ok_or(Flaw {
                    at,
                    message: "there is no such escape",
                    hint: r"write \\ for a backslash, or put the string in `backquotes`",
                })?;
            }
            Some(c) => {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                at += c.len_utf8();
            }
        }
    }
}

/// Reads the escape that a text begins with and returns its length.
fn escape(text: &str, into: &mut Vec<u8>) -> Option<usize> {
    let kind = *text.as_bytes().get(1)?;
    let plain = match kind {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'v' => 0x0b,
        b'\\' | b'"' => kind,
        b'0'..=b'7' => return number(text, 1, 3, 8).and_then(|value| byte(value, 4, into)),
        b'x' => return number(text, 2, 2, 16).and_then(|value| byte(value, 4, into)),
        b'u' => return number(text, 2, 4, 16).and_then(|value| character(value, 6, into)),
        b'U' => return number(text, 2, 8, 16).and_then(|value| character(value, 10, into)),
        _ => return None,
    };
    into.push(plain);
    Some(2)
}

fn number(text: &str, from: usize, digits: usize, radix: u32) -> Option<u32> {
    let digits = text.get(from..from + digits)?;
    let plain = digits.bytes().all(|digit| char::from(digit).is_digit(radix));
    if plain { u32::from_str_radix(digits, radix).ok() } else { None }
}

fn byte(value: u32, length: usize, into: &mut Vec<u8>) -> Option<usize> {
    into.push(u8::try_from(value).ok()?);
    Some(length)
}

fn character(value: u32, length: usize, into: &mut Vec<u8>) -> Option<usize> {
    into.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes());
    Some(length)
}

const UNCLOSED: &str = "a string is not closed";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(literal: &str) -> Option<String> {
        read(literal)?.ok().filter(|(_, length)| *length == literal.len()).map(|(text, _)| text)
    }

    #[test]
    fn literals_are_read_as_go_reads_them() {
        assert_eq!(text(r#""a\u0062\x63\144\n\"\\""#).as_deref(), Some("abcd\n\"\\"));
        assert_eq!(text(r#""\U0001F600\xc3\xa9\303\251""#).as_deref(), Some("😀éé"));
        assert_eq!(text("`a\\d\r\n\"`").as_deref(), Some("a\\d\n\""));
        for wrong in [
            "\"",
            "\"\\\"",
            "`",
            "\"a\nb\"",
            r#""\q""#,
            r#""\'""#,
            r#""\x4""#,
            r#""\x+4""#,
            r#""\400""#,
            r#""\19""#,
            r#""\ud800""#,
            r#""\U00110000""#,
            r#""\xff""#,
            "\"\\é\"",
            "'a'",
            "",
        ] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_back(any in "\\PC{0,20}|[\"`\\\\\\x00-\\x1f\\x7f-\\xa0é]{0,12}") {
            prop_assert_eq!(text(&quote(&any)), Some(any));
        }
    }
}
