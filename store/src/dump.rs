//! The export file: keys and values as text that people can read, edit and keep.
//!
//! One JSON object a line, `{"key":"…","value":{…}}`, with the value as it is if it is a JSON object on one line, else
//! as a string, else as `"base64":"…"`. [`read`] gives back exactly what [`write()`] was given. It also reads what one
//! writes by hand: a single JSON object from keys to values, over as many lines as one likes.
//!
//! Not here: what keys and values mean.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::engine::{Batch, Change, Revision};
use crate::json::{Fields, Node};
use crate::problem::Flaw;

/// Why a text is not an export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason} ({hint})")]
pub struct DumpError {
    /// The line, from 1.
    pub line: u32,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

/// Writes a batch as lines, the first of which tells its revision.
pub fn write(batch: &Batch) -> String {
    let mut text = format!("{{\"revision\":{}}}\n", batch.revision.0);
    for change in &batch.changes {
        match std::str::from_utf8(&change.key) {
            Ok(key) => text.push_str(&format!("{{\"key\":{}", quoted(key))),
            Err(_) => text.push_str(&format!("{{\"key_base64\":\"{}\"", STANDARD.encode(&change.key))),
        }
        match change.value.as_deref().map(|value| (std::str::from_utf8(value), value)) {
            None => text.push_str(",\"deleted\":true"),
            Some((Ok(value), _)) if is_line_of_json(value) => text.push_str(&format!(",\"value\":{value}")),
            Some((Ok(value), _)) => text.push_str(&format!(",\"value\":{}", quoted(value))),
            Some((Err(_), value)) => text.push_str(&format!(",\"base64\":\"{}\"", STANDARD.encode(value))),
        }
        text.push_str("}\n");
    }
    text
}

/// Reads what [`write()`] wrote, or one JSON object from keys to values.
pub fn read(text: &str) -> Result<Batch, DumpError> {
    if let Ok(node) = Node::parse(text) {
        let fields = node.fields().map_err(|flaw| error(1, flaw))?;
        let is_entry = ["key", "key_base64", "revision"].iter().any(|name| fields.get(name).is_some());
        if !is_entry {
            return mapping(&fields);
        }
    } else if text.lines().find(|line| !line.trim().is_empty()).is_some_and(|line| Node::parse(line).is_err()) {
        // Not lines either: the place in the whole is what helps.
        return Err(Node::parse(text).err().map_or_else(malformed, |flaw| error(1, flaw)));
    }
    let mut batch = Batch::default();
    for (number, line) in (1..).zip(text.lines()) {
        if !line.trim().is_empty() {
            entry(line, &mut batch).map_err(|flaw| error(number, flaw))?;
        }
    }
    Ok(batch)
}

fn entry(line: &str, batch: &mut Batch) -> Result<(), Flaw> {
    let fields = Node::parse(line)?.fields()?;
    fields.only(&["key", "key_base64", "value", "base64", "deleted", "revision"])?;
    let key = match (fields.get("key"), fields.get("key_base64")) {
        (Some(key), None) => Bytes::from(key.string()?),
        (None, Some(key)) => decoded(&key)?,
        (None, None) if fields.get("revision").is_some() => {
            batch.revision = Revision(fields.integer("revision")?);
            return Ok(());
        }
        _ => return Err(fields.flaw("the line has no key, or two", r#"write {"key":"…","value":…}"#)),
    };
    let value = match (fields.get("value"), fields.get("base64"), fields.boolean("deleted")?) {
        (Some(value), None, false) => Some(plain(&value)?),
        (None, Some(value), false) => Some(decoded(&value)?),
        (None, None, true) => None,
        _ => return Err(fields.flaw("the line has no value, or several", r#"write {"key":"…","value":…}"#)),
    };
    batch.changes.push(Change { key, value });
    Ok(())
}

fn mapping(fields: &Fields<'_>) -> Result<Batch, DumpError> {
    let mut batch = Batch::default();
    let mut seen = std::collections::HashSet::new();
    for (key, node) in fields.all() {
        if !seen.insert(key) {
            let flaw = node.flaw(format!("key {key:?} is there twice"), "keep one of the two");
            return Err(error(1, flaw));
        }
        if node.is_null() {
            return Err(error(1, node.flaw(format!("key {key:?} has no value"), "remove the key, or write its value")));
        }
        let value = plain(&node).map_err(|flaw| error(1, flaw))?;
        batch.changes.push(Change { key: Bytes::from(key.to_owned()), value: Some(value) });
    }
    Ok(batch)
}

/// A string stands for its text, anything else for itself as written.
fn plain(node: &Node<'_>) -> Result<Bytes, Flaw> {
    if node.text().starts_with('"') { node.string().map(Bytes::from) } else { Ok(Bytes::from(node.text().to_owned())) }
}

fn decoded(node: &Node<'_>) -> Result<Bytes, Flaw> {
    let bytes = STANDARD.decode(node.string()?);
    bytes
        .map(Bytes::from)
        .map_err(|error| node.flaw(format!("not base64: {error}"), "use standard base64 with padding"))
}

fn is_line_of_json(value: &str) -> bool {
    value.starts_with('{') && value.ends_with('}') && !value.contains(['\n', '\r']) && Node::parse(value).is_ok()
}

fn quoted(text: &str) -> Cow<'static, str> {
    serde_json::Value::from(text).to_string().into()
}

/// A flaw's line counts from where its text begins.
fn error(first: u32, flaw: Flaw) -> DumpError {
    let line = first.saturating_add(flaw.line.unwrap_or(1).saturating_sub(1));
    DumpError { line, reason: flaw.reason, hint: flaw.hint }
}

fn malformed() -> DumpError {
    DumpError { line: 1, reason: "not an export".into(), hint: "write one JSON object a line".into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(key: &[u8], value: &[u8]) -> Change {
        Change { key: Bytes::copy_from_slice(key), value: Some(Bytes::copy_from_slice(value)) }
    }

    #[test]
    fn an_export_reads_well() {
        let changes = vec![
            change(b"backends/b/servers/s", br#"{"URL": "http://a"}"#),
            change(b"upstreams/u/endpoints/e", b"http://a\n"),
            change(b"acme/\xff", b"\xff"),
            Change { key: Bytes::from("gone"), value: None },
        ];
        let batch = Batch { revision: Revision(7), changes };
        let text = write(&batch);
        let lines = [
            r#"{"revision":7}"#,
            r#"{"key":"backends/b/servers/s","value":{"URL": "http://a"}}"#,
            r#"{"key":"upstreams/u/endpoints/e","value":"http://a\n"}"#,
            r#"{"key_base64":"YWNtZS//","base64":"/w=="}"#,
            r#"{"key":"gone","deleted":true}"#,
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        assert_eq!(read(&text), Ok(batch));
        assert_eq!(read(""), Ok(Batch::default()));
    }

    #[test]
    fn a_mapping_by_hand() {
        let text =
            "{\n  \"sites/a\": {\n    \"Preset\": \"wordpress\"\n  },\n  \"hosts/h/locations/l/path\": \"/\"\n}\n";
        let batch = read(text).unwrap();
        assert_eq!(batch.changes[0], change(b"sites/a", b"{\n    \"Preset\": \"wordpress\"\n  }"));
        assert_eq!(batch.changes[1], change(b"hosts/h/locations/l/path", b"/"));
        assert_eq!(read("{}"), Ok(Batch::default()));
        assert_eq!(read(r#"{"key":"a","value":{}}"#).unwrap().changes, [change(b"a", b"{}")]);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, line, reason) in [
            ("{\n \"a\": {}\n \"b\": {}\n}", 3, "not JSON"),
            ("{\"a\":{},\n\"a\":{}}", 2, "key \"a\" is there twice"),
            ("{\"a\":\nnull}", 2, "key \"a\" has no value"),
            ("{\"key\":\"a\",\"value\":{}}\n\n{\"key\":\"b\"}", 3, "the line has no value"),
            ("{\"key\":\"a\",\"value\":{}}\n{\"key\":\"b\",\"valeu\":1}", 2, "unknown field \"valeu\""),
            ("{\"key\":\"a\",\"value\":{}}\n{", 2, "not JSON"),
            ("{\"key\":\"a\",\"base64\":\"*\"}", 1, "not base64"),
            ("[]", 1, "the value must be an object"),
            ("key: a", 1, "not JSON"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.reason.starts_with(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            revision in any::<i64>(),
            pairs in prop::collection::vec(
                (
                    prop_oneof!["[a-z/]{1,9}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..9)],
                    prop::option::of(prop_oneof![
                        r#"\{("[a-z]": ?[0-9],?[ \n]?)?\}"#.prop_map(String::into_bytes),
                        ".{0,9}".prop_map(String::into_bytes),
                        prop::collection::vec(any::<u8>(), 0..9),
                    ]),
                ),
                0..5,
            )
        ) {
            let changes = pairs
                .into_iter()
                .map(|(key, value)| Change { key: key.into(), value: value.map(Bytes::from) })
                .collect();
            let batch = Batch { revision: Revision(revision), changes };
            prop_assert_eq!(read(&write(&batch)), Ok(batch));
        }

        #[test]
        fn any_text_is_an_export_or_an_error(text in "[{}\":,a-z\\[\\]\n 0-9]{0,60}") {
            let _ = read(&text);
        }
    }
}
