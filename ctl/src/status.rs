//! `etnactl status` and `etnactl problems`.

use std::process::ExitCode;

use serde_json::Value;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, Tone, cell, clean, print};

/// How the proxy is.
pub(crate) async fn status(client: &Client, output: &Output) -> Result<ExitCode, Failure> {
    let status = client.get("/v3/status").await?;
    if output.is_json() {
        output.json(&status);
        return Ok(ExitCode::SUCCESS);
    }
    let yes = |name: &str| status[name].as_bool().unwrap_or(false);
    let state = match (yes("draining"), yes("ready")) {
        (true, _) => ("draining", Tone::Bad),
        (false, true) => ("ready", Tone::Good),
        (false, false) => ("not ready", Tone::Bad),
    };
    let following = if yes("following") { ("yes", Tone::Good) } else { ("no", Tone::Bad) };
    let problems = status["problems"].as_u64().unwrap_or(0);
    let counts = &status["counts"];
    let plain = |name: &str, text: String| (name.to_owned(), text, None);
    let mut facts = vec![
        ("state".to_owned(), state.0.to_owned(), Some(state.1)),
        plain("version", format!("{} (pid {})", cell(&status["version"]), cell(&status["pid"]))),
        plain("up since", format!("{} ago", duration(&status["uptime_seconds"]))),
        plain("store", cell(&status["store"])),
        ("following".to_owned(), following.0.to_owned(), Some(following.1)),
        plain("revision", revision(&status)),
    ];
    if !status["error"].is_null() {
        facts.push(("error".to_owned(), cell(&status["error"]), Some(Tone::Bad)));
    }
    if yes("from_disk") {
        let text = "the last table on disk: the store was not read yet".to_owned();
        facts.push(("serving".to_owned(), text, Some(Tone::Bad)));
    }
    for case in status["suspect"].as_array().into_iter().flatten() {
        let text = format!("{} keys: {} (see `etnactl suspects`)", cell(&case["keys"]), cell(&case["why"]));
        facts.push(("suspect".to_owned(), text, Some(Tone::Bad)));
    }
    for name in ["frontends", "backends", "servers", "sites"] {
        facts.push(plain(name, cell(&counts[name])));
    }
    if let Some(n) = counts["sites_without_server"].as_u64().filter(|n| *n > 0) {
        let text = format!("{} ({n} without a server: see `etnactl site ls`)", cell(&counts["sites"]));
        facts.pop();
        facts.push(("sites".to_owned(), text, Some(Tone::Bad)));
    }
    facts.extend(health(&status["health"]));
    for (id, address) in status["listeners"].as_object().into_iter().flatten() {
        facts.push(plain("listening", format!("{} ({id})", cell(address))));
    }
    facts.extend(announcement(&status["announcement"]));
    let (text, tone) = match problems {
        0 => ("none".to_owned(), Tone::Good),
        n => (format!("{n} (see `etnactl problems`)"), Tone::Bad),
    };
    facts.push(("problems".to_owned(), text, Some(tone)));
    output.facts(&facts);
    Ok(ExitCode::SUCCESS)
}

/// How it is announced to the tier in front, if it is to be.
fn announcement(announcement: &Value) -> Option<(String, String, Option<Tone>)> {
    let place = announcement["places"].as_array()?.first()?;
    let (state, tone) = match place["state"].as_str() {
        Some("announced") if place["error"].is_null() => ("announced".to_owned(), Tone::Good),
        Some("draining") => ("draining".to_owned(), Tone::Bad),
        Some("announced") => ("announced, and in doubt (see `etnactl problems`)".to_owned(), Tone::Bad),
        _ => ("not announced (see `etnactl problems`)".to_owned(), Tone::Bad),
    };
    let text = format!("{} {state} in {}", cell(&announcement["id"]), cell(&place["store"]));
    Some(("in front".to_owned(), text, Some(tone)))
}

/// The revision in force, and how old it may be.
fn revision(status: &Value) -> String {
    match (&status["revision"], &status["age_seconds"]) {
        (Value::Null, _) => "none: the store was not read yet".into(),
        (revision, Value::Null) => cell(revision),
        (revision, age) => format!("{} (heard of {} ago)", cell(revision), duration(age)),
    }
}

/// How servers are, if the proxy says so.
fn health(health: &Value) -> Option<(String, String, Option<Tone>)> {
    let not_well = health["not_well"].as_u64()?;
    let panicking: Vec<String> = health["panic"].as_array().into_iter().flatten().map(cell).collect();
    let (text, tone) = match (not_well, panicking.as_slice()) {
        (0, _) if health["checked"] == 0 => ("nothing is checked".to_owned(), Tone::Faint),
        (0, _) => ("all well".to_owned(), Tone::Good),
        (n, []) => (format!("{n} not well (see `etnactl server ls`)"), Tone::Bad),
        (n, ids) => (format!("{n} not well, and none well in {}", ids.join(", ")), Tone::Bad),
    };
    Some(("health".to_owned(), text, Some(tone)))
}

/// What is not served as written.
pub(crate) async fn problems(client: &Client, output: &Output, fail: bool) -> Result<ExitCode, Failure> {
    let answer = client.get("/v3/problems").await?;
    let problems = answer["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    if output.is_json() {
        output.json(&answer);
    } else if problems.is_empty() {
        print(&format!("{}\n", output.toned(Tone::Good, "everything is served as written")));
    } else {
        print(&problems.iter().map(|problem| describe(output, problem)).collect::<String>());
    }
    Ok(if fail && !problems.is_empty() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// What vanished in a mass and is held; or, with `release`, the end of that.
pub(crate) async fn suspects(client: &Client, output: &Output, release: bool) -> Result<ExitCode, Failure> {
    if release {
        let answer = client.send(http::Method::POST, "/v3/suspects/release", Some(&Value::Null)).await?;
        if output.is_json() {
            output.json(&answer);
            return Ok(ExitCode::SUCCESS);
        }
        let others = match answer["others_told"].as_bool() {
            Some(true) => "the other proxies were told",
            _ => "the store could not be told: release them at every other proxy too",
        };
        print(&format!("{} keys released; {others}\n", cell(&answer["released"])));
        return Ok(ExitCode::SUCCESS);
    }
    let answer = client.get("/v3/suspects").await?;
    let cases = answer["suspects"].as_array().map(Vec::as_slice).unwrap_or_default();
    if output.is_json() {
        output.json(&answer);
    } else if cases.is_empty() {
        print(&format!("{}\n", output.toned(Tone::Good, "nothing is held as suspect")));
    } else {
        let until = |case: &Value| match &case["left_seconds"] {
            Value::Null => "you release it".to_owned(),
            left => format!("in {}", duration(left)),
        };
        let row = |case: &Value| {
            let since = format!("{} ago", duration(&case["since_seconds"]));
            vec![cell(&case["keys"]), cell(&case["why"]), since, until(case), cell(&case["example"])]
        };
        output.table(&["KEYS HELD", "WHY", "SINCE", "UNTIL", "EXAMPLE"], &cases.iter().map(row).collect::<Vec<_>>());
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(output: &Output, problem: &Value) -> String {
    let place = match (problem["line"].as_u64(), problem["column"].as_u64()) {
        (Some(line), Some(column)) => format!(":{line}:{column}"),
        (None, Some(column)) => format!(":{column}"),
        (Some(line), None) => format!(":{line}"),
        (None, None) => String::new(),
    };
    let text = |name: &str| clean(&cell(&problem[name]));
    format!(
        "{}\n  what    {}\n  remedy  {}\n  until   {}\n",
        output.toned(Tone::Bad, &format!("{}{place}", text("key"))),
        text("reason"),
        text("hint"),
        text("effect")
    )
}

/// Seconds for people.
pub(crate) fn duration(seconds: &Value) -> String {
    let Some(seconds) = seconds.as_f64().filter(|seconds| *seconds >= 0.0) else { return "?".into() };
    // Whole seconds from here on: the fraction is dropped on purpose.
    let whole = seconds as u64;
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, _) => format!("{seconds:.1}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes}m"),
        (days, hours, ..) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn health_is_told_where_it_is_known() {
        assert_eq!(health(&Value::Null), None);
        assert_eq!(health(&json!({ "not_well": 0, "checked": 0 })).unwrap().1, "nothing is checked");
        let text =
            |not_well: u64, panicking: Value| health(&json!({ "not_well": not_well, "panic": panicking })).unwrap().1;
        assert_eq!(text(0, json!([])), "all well");
        assert_eq!(health(&json!({ "not_well": 0, "checked": 0, "panic": [] })).unwrap().1, "nothing is checked");
        assert!(text(1, json!([])).starts_with("1 not well (see"));
        assert_eq!(text(2, json!(["blog"])), "2 not well, and none well in blog");
    }

    #[test]
    fn an_announcement_is_told_where_there_is_one() {
        assert_eq!(announcement(&Value::Null), None);
        let told = |state: &str, error: Value| {
            let place = json!({ "store": "etcd://a/front", "state": state, "error": error });
            announcement(&json!({ "id": "core-01", "places": [place] })).unwrap().1
        };
        assert_eq!(told("announced", Value::Null), "core-01 announced in etcd://a/front");
        assert!(
            told("announced", json!("x")).contains("in doubt") && told("absent", json!("x")).contains("not announced")
        );
    }

    #[test]
    fn a_revision_that_was_not_read_is_none() {
        let text = |status: Value| revision(&status);
        assert_eq!(text(json!({ "revision": null, "age_seconds": null })), "none: the store was not read yet");
        assert_eq!(text(json!({ "revision": 7, "age_seconds": 2.0 })), "7 (heard of 2.0s ago)");
    }

    #[test]
    fn durations_are_short() {
        for (seconds, text) in
            [(0.04, "0.0s"), (59.96, "60.0s"), (61.0, "1m1s"), (7_260.0, "2h1m"), (180_000.0, "2d2h")]
        {
            assert_eq!(duration(&json!(seconds)), text);
        }
        assert_eq!(duration(&Value::Null), "?");
    }
}
