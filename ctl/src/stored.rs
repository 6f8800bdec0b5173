//! Objects as they are stored: so that changing one field keeps all others, and who replaces one learns what went.
//!
//! Goes to the store behind the admin API: what that API shows of an object lacks fields only other programs know.

use std::collections::BTreeMap;

use bytes::Bytes;
use etna_store::{Compare, Engine, Error, Item, Key, Op, Txn};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::client::Client;
use crate::failure::Failure;
use crate::store;

/// An object as it is stored; `None` where there is none, or it cannot be read.
pub(crate) async fn item(client: &Client, key: &Key) -> Option<Item> {
    client.engine().await.ok()?.get(&key.path()).await.ok()?
}

/// Sets a server's `State` and keeps all else, its lease too. False if it was so already.
pub(crate) async fn set_state(client: &Client, backend: &str, id: &str, state: &str) -> Result<bool, Failure> {
    let key = Key::Server(backend.into(), id.into());
    let path = key.path();
    if Key::parse(path.as_bytes()).as_ref() != Ok(&key) {
        return Err(Failure::usage("an id is neither empty nor has a slash in it"));
    }
    let engine = client.engine().await?;
    for _ in 0..MOST_ATTEMPTS {
        let found = engine.get(&path).await.map_err(|error| store::failed(&*engine, "cannot read", &error))?;
        let Some(item) = found else { return Err(missing(&*engine, backend, id).await) };
        let Some(value) = with_state(&item.value, state)? else { return Ok(false) };
        let compares = vec![Compare::Unchanged(path.clone(), item.revision)];
        match engine.commit(Txn { compares, ops: vec![Op::Put(path.clone(), value, item.lease)] }).await {
            Ok(_) => return Ok(true),
            // Somebody else changed it, or registered it anew under another lease.
            Err(Error::Conflict | Error::LeaseLost) => {}
            Err(error) => return Err(store::failed(&*engine, "cannot write to", &error)),
        }
    }
    Err(Failure::refused(format!("{path} is changed all the time by somebody else: try again, or stop that one")))
}

/// What an object has that the one in its place was not given, as names: `HealthCheck`, `Settings.Timeouts.Read`.
pub(crate) fn removed(before: &[u8], object: &Value) -> Vec<String> {
    let mut names = Vec::new();
    if let (Ok(Value::Object(before)), Value::Object(object)) = (serde_json::from_slice(before), object) {
        compare("", &before, object, &mut names);
    }
    names
}

fn compare(prefix: &str, before: &Map<String, Value>, object: &Map<String, Value>, names: &mut Vec<String>) {
    for (field, value) in before {
        let name = if prefix.is_empty() { field.clone() } else { format!("{prefix}.{field}") };
        let settings = name.get(..SETTINGS.len()).is_some_and(|start| start.eq_ignore_ascii_case(SETTINGS));
        let given = object.iter().find(|(given, _)| given.eq_ignore_ascii_case(field)).map(|(_, value)| value);
        match (value, given) {
            (Value::Object(value), Some(Value::Object(given))) => compare(&name, value, given, names),
            (_, Some(_)) => {}
            (Value::Object(value), None) if settings => compare(&name, value, &Map::new(), names),
            (value, None) if says_nothing(value, settings) || field.eq_ignore_ascii_case("Id") => {}
            (_, None) => names.push(name),
        }
    }
}

/// vulcand writes every one of its settings, most of them zero; of other fields zero may be what was wanted.
fn says_nothing(value: &Value, setting: bool) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Bool(false) => setting,
        Value::Number(number) => setting && number.as_f64() == Some(0.0),
        _ => false,
    }
}

/// The stored text with another state, its other fields byte for byte; `None` if it has that state.
fn with_state(value: &[u8], state: &str) -> Result<Option<Bytes>, Failure> {
    let unread = |error: serde_json::Error| {
        Failure::refused(format!("what is stored of it is not a JSON object ({error}): see `etnactl problems`"))
    };
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(value).map_err(unread)?;
    let names: Vec<String> = fields.keys().filter(|name| name.eq_ignore_ascii_case("State")).cloned().collect();
    let has = |text: &RawValue| serde_json::from_str::<String>(text.get()).is_ok_and(|now| now == state);
    let is_so = match names.as_slice() {
        [] => state == UP,
        [name] => fields.get(name).is_some_and(|text| has(text)),
        _ => false,
    };
    if is_so {
        return Ok(None);
    }
    for name in names {
        fields.remove(&name);
    }
    if state != UP {
        fields.insert("State".into(), serde_json::value::to_raw_value(state).map_err(unread)?);
    }
    serde_json::to_vec(&fields).map(|text| Some(text.into())).map_err(unread)
}

async fn missing(engine: &dyn Engine, backend: &str, id: &str) -> Failure {
    let legacy = Key::LegacyServer(backend.into(), id.into()).path();
    if matches!(engine.get(&legacy).await, Ok(Some(_))) {
        return Failure::refused(format!(
            "{legacy} is a bare URL, which has no room for a state: put the server anew with `etnactl server upsert`, \
             then `etnactl key rm {legacy}`"
        ));
    }
    Failure::refused(format!("there is no server {id} in the backend {backend}: see `etnactl server ls`"))
}

/// What a server's `State` is where it says nothing.
pub(crate) const UP: &str = "up";
/// A server that takes no new work.
pub(crate) const DRAINING: &str = "draining";
const SETTINGS: &str = "Settings";
const MOST_ATTEMPTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored(value: &str, state: &str) -> Option<String> {
        with_state(value.as_bytes(), state).unwrap().map(|text| String::from_utf8(text.to_vec()).unwrap())
    }

    #[test]
    fn a_state_changes_alone() {
        let before = r#"{"URL":"http://a:1","Meta":{"n":1.50},"Other":[1, 2]}"#;
        let drained = stored(before, DRAINING).unwrap();
        assert_eq!(drained, r#"{"Meta":{"n":1.50},"Other":[1, 2],"State":"draining","URL":"http://a:1"}"#);
        assert_eq!(stored(&drained, DRAINING), None);
        assert_eq!(stored(&drained, UP).unwrap(), r#"{"Meta":{"n":1.50},"Other":[1, 2],"URL":"http://a:1"}"#);
        assert_eq!(stored(before, UP), None);
        assert_eq!(stored(r#"{"state":"up"}"#, DRAINING).unwrap(), r#"{"State":"draining"}"#);
        assert_eq!(stored(r#"{"State":"up","state":"draining"}"#, UP).unwrap(), "{}");
        assert!(with_state(b"http://a:1", DRAINING).is_err());
    }

    #[test]
    fn what_a_replacement_removes_is_named() {
        let before = json!({
            "Id": "b",
            "Type": "http",
            "HealthCheck": false,
            "zone": "",
            "Settings": { "Timeouts": { "Read": "5s", "Dial": "1s" }, "TLS": null, "KeepAlive": { "Period": "" } },
        });
        let text = before.to_string();
        let given = json!({ "Id": "b", "type": "http", "Settings": { "Timeouts": { "Dial": "2s" } } });
        assert_eq!(removed(text.as_bytes(), &given), ["HealthCheck", "Settings.Timeouts.Read"]);
        assert_eq!(removed(text.as_bytes(), &before), [""; 0]);
        assert_eq!(
            removed(br#"{"Settings":{"PassHostHeader":false,"Limits":{"MaxBodyBytes":0}}}"#, &json!({})),
            [""; 0]
        );
        assert_eq!(removed(br#"{"Weight":0,"Zone":"z"}"#, &json!({ "URL": "x" })), ["Weight", "Zone"]);
        assert_eq!(removed(b"no JSON", &given), [""; 0]);
    }
}
