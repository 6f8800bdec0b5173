//! `etnactl explain URL`: what the proxy would do with a request, and why.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output::{Output, Tone, cell, clean, print};

/// Flags of `etnactl explain`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    etnactl explain http://blog.example.com/wp-admin/\n  \
    etnactl explain -X POST -H 'Cookie: wordpress_logged_in_1=x' \\\n      \
        http://blog.example.com/wp-json/wp/v2/posts")]
pub(crate) struct Flags {
    /// The request's URL; its host is what the client would send as Host.
    url: String,
    /// The request's method.
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// A header field of the request; may be given more than once.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Address the request comes from.
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
}

/// Asks, and tells.
pub(crate) async fn run(client: &Client, output: &Output, flags: &Flags) -> Result<ExitCode, Failure> {
    let mut path = format!("/v3/explain?method={}&url={}", segment(&flags.method), segment(&flags.url));
    for header in &flags.headers {
        path.push_str(&format!("&header={}", segment(header)));
    }
    if let Some(address) = flags.client {
        path.push_str(&format!("&client={}", segment(&address.to_string())));
    }
    let answer = client.get(&path).await?;
    if output.is_json() {
        output.json(&answer);
    } else {
        tell(output, &answer);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(output: &Output, answer: &Value) {
    let found = !answer["frontend"].is_null();
    let plain = |name: &str, value: &Value| (name.to_owned(), cell(value), None);
    let tone = if found { Tone::Good } else { Tone::Bad };
    let mut facts = Vec::new();
    if found {
        facts.push(("frontend".to_owned(), cell(&answer["frontend"]["id"]), Some(Tone::Good)));
        facts.push(plain("rule", &answer["frontend"]["route"]));
    }
    facts.push(("outcome".to_owned(), cell(&answer["outcome"]), Some(tone)));
    facts.push(plain("why", &answer["why"]));
    if answer["unreadable"].as_array().is_some_and(|unreadable| !unreadable.is_empty()) {
        let text = format!("{} (see `etnactl problems`)", cell(&answer["unreadable"]));
        facts.push(("unreadable rules".to_owned(), text, Some(Tone::Bad)));
    }
    for step in answer["middlewares"].as_array().into_iter().flatten() {
        let text = format!("{} ({}, priority {})", cell(&step["id"]), cell(&step["type"]), cell(&step["priority"]));
        facts.push(("middleware".to_owned(), text, None));
    }
    for name in ["backend", "fallback", "elsewhere"] {
        if !answer[name].is_null() {
            facts.push(plain(name, &answer[name]["id"]));
        }
    }
    if !answer["answers_within"].is_null() {
        facts.push(plain("answers within", &answer["answers_within"]));
    }
    if !answer["failover"].is_null() {
        facts.push(plain("failover", &answer["failover"]));
    }
    if !answer["sticky"].is_null() {
        let text = match answer["sticky"]["server"].as_str() {
            Some(server) => format!("cookie {} names server {server}", cell(&answer["sticky"]["cookie"])),
            None => format!("cookie {} will be set", cell(&answer["sticky"]["cookie"])),
        };
        facts.push(("sticky".to_owned(), text, None));
    }
    if !answer["balancing"].is_null() {
        facts.push(("policy".to_owned(), balancing(&answer["balancing"]), None));
        if answer["balancing"]["panic"] == true {
            facts.push(("panic".to_owned(), "nobody is well: all are asked".into(), Some(Tone::Bad)));
        }
    }
    output.facts(&facts);
    section(
        output,
        "servers, in the order they would be tried",
        &with_handshakes(&answer["servers"]),
        &[
            ("#", "order"),
            ("SERVER", "id"),
            ("URL", "url"),
            ("STATE", "state"),
            ("HEALTH", "health"),
            ("REASON", "reason"),
            ("TIER", "tier"),
            ("ZONE", "zone"),
            ("WEIGHT", "weight"),
            ("SHARE", "share"),
            ("IN FLIGHT", "in_flight"),
            ("NOTE", "note"),
        ],
    );
    section(
        output,
        "frontends that were considered",
        &answer["candidates"],
        &[("FRONTEND", "id"), ("PRIORITY", "priority"), ("RULE", "route"), ("RESULT", "reason")],
    );
}

/// Servers whose notes say, too, why TLS or HTTP/2 could not be agreed upon with them.
fn with_handshakes(servers: &Value) -> Value {
    let mut servers = servers.clone();
    for server in servers.as_array_mut().into_iter().flatten() {
        if let Some(error) = server["handshake_error"].as_str() {
            let note = server["note"].as_str().filter(|note| !note.is_empty());
            server["note"] = note.map_or_else(|| error.to_owned(), |note| format!("{note}; {error}")).into();
        }
    }
    servers
}

/// How a server is chosen, in a line.
fn balancing(balancing: &Value) -> String {
    let mut text = cell(&balancing["policy"]);
    if let Some(on) = balancing["hash_on"].as_str() {
        text.push_str(&format!(" of {on}"));
    }
    let limit = &balancing["limit"];
    if !limit.is_null() {
        let [requests, waiting, queue] = ["requests", "waiting", "queue"].map(|name| cell(&limit[name]));
        text.push_str(&format!(", {requests} requests a server at most, {waiting} of at most {queue} waiting"));
    }
    text
}

fn section(output: &Output, title: &str, items: &Value, columns: &[(&str, &str)]) {
    let Some(items) = items.as_array().filter(|items| !items.is_empty()) else { return };
    print(&format!("\n{}\n", output.toned(Tone::Faint, &clean(title))));
    let header: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let rows: Vec<Vec<String>> =
        items.iter().map(|item| columns.iter().map(|(_, field)| cell(&item[*field])).collect()).collect();
    output.table(&header, &rows);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn notes_say_why_nothing_was_agreed_upon() {
        let servers = json!([
            { "note": "", "handshake_error": "Expired" },
            { "note": "starts slowly", "handshake_error": "Expired" },
            { "note": "starts slowly", "handshake_error": null },
        ]);
        let told = with_handshakes(&servers);
        let notes: Vec<&str> = told.as_array().unwrap().iter().map(|server| server["note"].as_str().unwrap()).collect();
        assert_eq!(notes, ["Expired", "starts slowly; Expired", "starts slowly"]);
        assert_eq!(with_handshakes(&Value::Null), Value::Null);
    }
}
