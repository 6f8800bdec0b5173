//! The nouns of the command line: one file each with its flags, and what `ls`, `show`, `rm` have in common.
//!
//! Verbs and flags are vctl's where it has them. The proxy validates; what is said here is only how to ask it.

pub(crate) mod backend;
pub(crate) mod frontend;
pub(crate) mod host;
pub(crate) mod limit;
pub(crate) mod listener;
pub(crate) mod middleware;
pub(crate) mod proxies;
pub(crate) mod secret;
pub(crate) mod server;
pub(crate) mod site;
mod tls;

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use etna_store::Key;
use http::Method;
use serde_json::{Map, Value};

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, Output, cell, clean, leaves};
use crate::status::duration;
use crate::stored;

/// Names one object: `b` or `--id b`.
#[derive(Args, Clone)]
pub(crate) struct One {
    /// Its id.
    #[arg(value_name = "ID", required_unless_present = "id", conflicts_with = "id")]
    name: Option<String>,
    /// Its id, as vctl wants it.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

impl One {
    /// The id.
    pub(crate) fn id(&self) -> &str {
        self.name.as_deref().or(self.id.as_deref()).unwrap_or_default()
    }

    /// The id, ready for a path.
    pub(crate) fn segment(&self) -> String {
        crate::client::segment(self.id())
    }
}

type Done = Result<ExitCode, Failure>;

/// A column of a list: its name, and the field it shows (`Settings.Timeouts.Read`).
type Column = (&'static str, &'static str);

/// `ls`: what a list holds, as a table.
pub(crate) async fn list(client: &Client, output: &Output, path: &str, field: &str, columns: &[Column]) -> Done {
    let answer = client.get(path).await?;
    if output.is_json() {
        output.json(&answer[field]);
        return Ok(ExitCode::SUCCESS);
    }
    table(output, answer[field].as_array().map(Vec::as_slice).unwrap_or_default(), columns);
    Ok(ExitCode::SUCCESS)
}

/// Objects as a table.
pub(crate) fn table(output: &Output, objects: &[Value], columns: &[Column]) {
    let header: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let text = |object: &Value, field: &str| cell(field.split('.').fold(object, |value, part| &value[part]));
    let rows: Vec<Vec<String>> =
        objects.iter().map(|object| columns.iter().map(|(_, field)| text(object, field)).collect()).collect();
    output.table(&header, &rows);
}

/// How many servers each backend has, by id; null from a proxy that does not say.
pub(crate) async fn server_counts(client: &Client) -> Value {
    client.get("/v3/servers").await.unwrap_or_default()["Servers"].take()
}

/// `show`: one object, a line a field.
pub(crate) async fn show(client: &Client, output: &Output, path: &str, key: &Key) -> Done {
    let object = client.get(path).await.map_err(|failure| with_remedy(failure, key))?;
    if output.is_json() {
        output.json(&object);
    } else {
        output.facts(&leaves(&object).into_iter().map(|(name, text)| (name, text, None)).collect::<Vec<_>>());
    }
    Ok(ExitCode::SUCCESS)
}

/// How an object is written: the request, and what it replaces.
pub(crate) struct Write<'a> {
    /// Of the request.
    pub(crate) method: Method,
    /// Of the request.
    pub(crate) path: &'a str,
    /// Of the request: the object, or `{"Backend": …, "TTL": …}`.
    pub(crate) body: &'a Value,
    /// The object's key.
    pub(crate) key: Key,
    /// The object's name in the body, if that is more than the object.
    pub(crate) field: Option<&'static str>,
}

/// `upsert`: writes an object, and says what is gone of the one it replaced.
pub(crate) async fn upsert(client: &Client, output: &Output, write: Write<'_>) -> Done {
    let before = stored::item(client, &write.key).await;
    let object = client.send(write.method, write.path, Some(write.body)).await?;
    if let Some(before) = before {
        let given = write.field.map_or(write.body, |field| &write.body[field]);
        let mut removed = stored::removed(&before.value, given);
        if before.lease.is_some() && write.body["TTL"].as_str().is_none_or(str::is_empty) {
            removed.push("TTL".into());
        }
        if !removed.is_empty() {
            output::complain_softly(&format!("removed, as not given: {}", removed.join(", ")));
        }
    }
    if output.is_json() {
        output.json(&object);
    } else {
        let id = object["Id"].as_str().or(object["Name"].as_str()).unwrap_or_default();
        output::print(&format!("{} {}\n", output.toned(output::Tone::Good, "ok"), clean(id)));
    }
    Ok(ExitCode::SUCCESS)
}

/// `rm`: deletes an object, and says if the proxy does not believe it yet.
pub(crate) async fn remove(client: &Client, output: &Output, path: &str, key: &Key) -> Done {
    let mut answer = client.send(Method::DELETE, path, None).await.map_err(|failure| with_remedy(failure, key))?;
    let held = Held::ask(client).await;
    let held = held.of(key);
    answer["held"] = held.is_some().into();
    if output.is_json() {
        output.json(&answer);
    } else {
        let message = answer["message"].as_str().unwrap_or("deleted");
        output::print(&format!("{} {}\n", output.toned(output::Tone::Good, "ok"), clean(message)));
        if let Some(until) = held {
            let text = format!("held as suspect: serves on {until}; `etnactl suspects --release` ends that");
            output::print(&format!("{}\n", output.toned(output::Tone::Bad, &text)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A refusal that names its object and what to do: the API's texts are vulcand's, and have neither.
pub(crate) fn with_remedy(failure: Failure, key: &Key) -> Failure {
    match failure {
        Failure::Refused(message) if message == "Object not found" => {
            let [noun, parent] = match key {
                Key::Backend(_) => ["backend", ""],
                Key::Server(..) => ["server", " -b BACKEND"],
                Key::Frontend(_) => ["frontend", ""],
                Key::Middleware(..) => ["middleware", " -f FRONTEND"],
                Key::Listener(_) => ["listener", ""],
                Key::Host(_) => ["host", ""],
                Key::Site(_) => ["site", ""],
                _ => return Failure::Refused(message),
            };
            Failure::refused(format!("{key} does not exist: see `etnactl {noun} ls{parent}`"))
        }
        Failure::Refused(message) if message.contains("it is in use by [") => {
            Failure::refused(format!("{message}: first `etnactl frontend rm ID`, or `etnactl site rm ID` for site:ID"))
        }
        other => other,
    }
}

/// What the proxy serves although the store no longer has it.
#[derive(Default)]
pub(crate) struct Held {
    keys: Vec<Key>,
    /// In words, as if of all: whoever is let go of sooner is gone sooner.
    until: String,
}

impl Held {
    /// Asks. Nothing is held by a proxy that does not say.
    pub(crate) async fn ask(client: &Client) -> Held {
        Held::read(&client.get("/v3/suspects").await.unwrap_or_default())
    }

    fn read(answer: &Value) -> Held {
        let items = |name: &str| answer[name].as_array().map(Vec::as_slice).unwrap_or_default();
        let object = |raw: &Value| Key::parse(raw.as_str()?.as_bytes()).ok()?.object();
        let left: Option<Vec<f64>> = items("suspects").iter().map(|case| case["left_seconds"].as_f64()).collect();
        let until = match left {
            Some(left) => format!("for {} at most", duration(&left.into_iter().fold(0.0, f64::max).into())),
            None => "until it is released".into(),
        };
        Held { keys: items("keys").iter().filter_map(object).collect(), until }
    }

    /// Until when an object, or a part of it, is held.
    pub(crate) fn of(&self, key: &Key) -> Option<&str> {
        let is_part = |held: &Key| match (held, key) {
            (Key::Server(owner, _), Key::Backend(id)) | (Key::Middleware(owner, _), Key::Frontend(id)) => owner == id,
            (held, key) => held == key,
        };
        self.keys.iter().any(is_part).then_some(self.until.as_str())
    }
}

/// An object of the fields that were given.
pub(crate) fn given<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// Adds a part that has fields.
pub(crate) fn add(object: &mut Map<String, Value>, name: &str, part: Map<String, Value>) {
    if !part.is_empty() {
        object.insert(name.to_owned(), Value::Object(part));
    }
}

/// What a PEM file holds, as JSON; whether it is one is for the proxy to say.
pub(crate) fn pem(path: Option<&Path>) -> Result<Option<Value>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let text = etna_store::file::text(path);
    text.map(|text| Some(text.as_str().into()))
        .map_err(|error| Failure::unread(format!("cannot read {}: {error}", path.display())))
}

/// A text that was given, as JSON.
pub(crate) fn text(text: &Option<String>) -> Option<Value> {
    text.clone().map(Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_held_is_known_by_its_object() {
        let held = Held::read(&json!({
            "suspects": [{ "left_seconds": 299.0 }, { "left_seconds": 61.0 }],
            "keys": ["backends/b/servers/s", "frontends/f/frontend"],
        }));
        assert_eq!(held.of(&Key::Server("b".into(), "s".into())), Some("for 4m59s at most"));
        assert!(held.of(&Key::Backend("b".into())).is_some() && held.of(&Key::Frontend("f".into())).is_some());
        assert_eq!(held.of(&Key::Server("b".into(), "t".into())), None);
        let for_ever = Held::read(&json!({ "suspects": [{ "left_seconds": null }], "keys": ["sites/s"] }));
        assert_eq!(for_ever.of(&Key::Site("s".into())), Some("until it is released"));
        assert_eq!(Held::read(&Value::Null).of(&Key::Site("s".into())), None);
    }

    #[test]
    fn refusals_name_their_object_and_a_remedy() {
        let said = |message: &str, key: Key| with_remedy(Failure::refused(message), &key).to_string();
        let missing = said("Object not found", Key::Backend("nope".into()));
        assert!(missing.contains("nope") && missing.ends_with("see `etnactl backend ls`"), "{missing}");
        let used = said("can not delete backend 'b', it is in use by [f]", Key::Backend("b".into()));
        assert!(used.contains("`etnactl frontend rm"), "{used}");
        assert_eq!(said("other", Key::Site("s".into())), "other");
    }
}
