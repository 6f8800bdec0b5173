//! The store's reader of JSON (`store/src/json`), through the doors it stands behind: objects and export files.
//!
//! It must find the same syntax errors as serde_json, and name places that are there.

use etna_store::{dump, model};
use serde_json::Value;
use serde_json::value::RawValue;

/// Every kind of object that is JSON.
const KEYS: [&str; 12] = [
    "hosts/h/host",
    "listeners/l",
    "backends/b/backend",
    "backends/b/servers/s",
    "frontends/f/frontend",
    "frontends/f/middlewares/m",
    "sites/s",
    "hosts/h/locations/l/options",
    "hosts/h/locations/l/middlewares/k/m",
    "hosts/h/options",
    "upstreams/u/options",
    "upstreams/u/endpoints/e",
];

/// Any text.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
    let lines = u32::try_from(text.bytes().filter(|byte| *byte == b'\n').count()).unwrap() + 1;
    for key in KEYS {
        let remarks = match model::check(key.as_bytes(), data) {
            Ok(remarks) => {
                assert!(is_json || key.ends_with("endpoints/e"), "{key} takes what is no JSON: {text}");
                remarks
            }
            Err(problem) => {
                assert!(!is_json || !problem.reason.starts_with("not JSON"), "{problem:?}");
                vec![problem]
            }
        };
        for problem in remarks {
            assert!(!problem.reason.is_empty() && !problem.hint.is_empty(), "{problem:?}");
            assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem:?} of {lines} lines");
            assert!(problem.column.is_none_or(|column| column > 0), "{problem:?}");
            assert!(problem.reason.len() < 4096, "{problem:?}");
        }
    }
    mapping(text);
}

/// The text as an export file by hand: the values must be those that serde_json finds.
fn mapping(text: &str) {
    let Ok(batch) = dump::read(text) else { return };
    let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(text) else { return };
    let is_entry =
        |name: &String| ["key", "key_base64", "revision"].iter().any(|known| name.eq_ignore_ascii_case(known));
    if fields.keys().any(is_entry) {
        return;
    }
    assert_eq!(batch.changes.len(), fields.len());
    for change in &batch.changes {
        let key = std::str::from_utf8(&change.key).unwrap();
        let value = change.value.as_deref().unwrap();
        match &fields[key] {
            Value::String(text) => assert_eq!(text.as_bytes(), value),
            other => assert_eq!(serde_json::from_slice::<Value>(value).unwrap(), *other),
        }
    }
}
