//! `etnactl proxies`: who follows a store, as far as they announce themselves. Read from the store: they say it there.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use etna_store::{Change, Key};
use serde_json::{Value, json};

use super::{Done, table};
use crate::cli::Cli;
use crate::output::Output;
use crate::status::duration;
use crate::store;

/// What can be done with proxies.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// List those that announce themselves: their addresses, versions, since when, and whether they drain.
    #[command(after_help = "Example:\n  etnactl proxies ls")]
    Ls,
}

/// Does it.
pub(crate) async fn run(cli: &Cli, output: &Output, verb: &Verb) -> Done {
    let Verb::Ls = verb;
    let engine = store::open_to_read(cli).await?;
    let snapshot = engine.snapshot().await.map_err(|error| store::failed(&*engine, "cannot read", &error))?;
    let mut proxies: Vec<Value> = snapshot.changes.iter().filter_map(read).collect();
    proxies.sort_by_key(|proxy| proxy["Id"].as_str().unwrap_or_default().to_owned());
    if output.is_json() {
        output.json(&proxies.into());
        return Ok(ExitCode::SUCCESS);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    proxies.iter_mut().for_each(|proxy| proxy["Up"] = up(proxy, now));
    let columns =
        [("ID", "Id"), ("URL", "URL"), ("STATE", "State"), ("ZONE", "Zone"), ("VERSION", "Version"), ("UP", "Up")];
    table(output, &proxies, &columns);
    Ok(ExitCode::SUCCESS)
}

/// What a proxy says of itself; what cannot be read is shown by its name alone.
fn read(change: &Change) -> Option<Value> {
    let key = Key::parse(&change.key).ok()?;
    let id = key.as_proxy()?;
    let said = change.value.as_ref().and_then(|value| serde_json::from_slice::<Value>(value).ok());
    let mut proxy = said.filter(Value::is_object).unwrap_or_else(|| json!({}));
    proxy["Id"] = id.into();
    if proxy["State"].is_null() {
        proxy["State"] = "up".into();
    }
    Some(proxy)
}

/// For how long it has been there; clocks of machines differ.
fn up(proxy: &Value, now: u64) -> Value {
    let since = proxy["Started"].as_u64().map(|started| now.saturating_sub(started));
    since.map_or(Value::Null, |seconds| duration(&seconds.into()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, value: &str) -> Change {
        Change { key: key.to_owned().into(), value: Some(value.to_owned().into()) }
    }

    #[test]
    fn only_proxies_are_listed_whatever_they_say() {
        let said = read(&change("proxies/core-01", r#"{"URL":"http://a:1","Started":100}"#)).unwrap();
        assert_eq!((&said["Id"], &said["State"]), (&json!("core-01"), &json!("up")));
        assert_eq!(up(&said, 165), json!("1m5s"));
        assert_eq!(up(&said, 10), json!("0.0s"));
        assert_eq!(read(&change("proxies/b", "[1]")).unwrap(), json!({ "Id": "b", "State": "up" }));
        assert_eq!(up(&json!({}), 1), Value::Null);
        for other in ["proxies/a/b", "acme/a", "backends/b/backend", "\u{0}"] {
            assert_eq!(read(&change(other, "{}")), None, "{other:?}");
        }
    }
}
