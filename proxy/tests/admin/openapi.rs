//! What the document at `/v3/openapi.json` says of answers, held against the answers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Etna, start};

/// Everything that is wrong with a value by a schema of the document, of which only the keywords that it uses are known.
/// A field that is not described is wrong.
fn faults(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|to| to.strip_prefix("#/components/schemas/")) {
        return faults(document, &document["components"]["schemas"][name], value, at, found);
    }
    if let Some(any) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let fits = |schema: &Value| {
            let mut found = Vec::new();
            faults(document, schema, value, at, &mut found);
            found.is_empty()
        };
        if !any.iter().any(fits) {
            found.push(format!("{at}: {value} is none of {schema}"));
        }
        return;
    }
    let is_one_of = |values: &Value| values.as_array().is_none_or(|values| values.contains(value));
    if !schema["const"].is_null() && schema["const"] != *value || !is_one_of(&schema["enum"]) {
        found.push(format!("{at}: {value} is not of {schema}"));
    }
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{at}: {other} is no type"),
    };
    let fits = match &schema["type"] {
        Value::String(kind) => is(kind),
        Value::Array(kinds) => kinds.iter().any(|kind| is(kind.as_str().unwrap())),
        _ => schema["const"].is_string(),
    };
    if !fits {
        found.push(format!("{at}: {value} is no {}", schema["type"]));
        return;
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        if value.is_object() && value.get(required.as_str().unwrap()).is_none() {
            found.push(format!("{at} lacks {required}"));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let (known, others) = (&schema["properties"], &schema["additionalProperties"]);
        match known.get(name) {
            Some(schema) => faults(document, schema, field, &format!("{at}.{name}"), found),
            None if others.is_object() => faults(document, others, field, &format!("{at}.{name}"), found),
            None if known.is_object() => found.push(format!("{at}.{name} is not described")),
            None => {}
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        let schema = schema["prefixItems"].get(index).unwrap_or(&schema["items"]);
        faults(document, schema, item, &format!("{at}[{index}]"), found);
    }
}

/// Sends what must be as it is described, and so must its answer.
async fn posted(etna: &Etna, document: &Value, path: &str, body: &Value) {
    let operation = &document["paths"][path.replace("/full/", "/{id}/").replace("/f/", "/{id}/")]["post"];
    let schema = |message: &Value| message["content"]["application/json"]["schema"].clone();
    let answer = etna.post(path, body).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    let mut found = Vec::new();
    faults(document, &schema(&operation["requestBody"]), body, path, &mut found);
    faults(document, &schema(&operation["responses"]["200"]), &answer.json(), path, &mut found);
    assert!(found.is_empty(), "{found:#?}");
}

/// Something of each kind, with all that can be said of it.
async fn fill(etna: &Etna, document: &Value) {
    etna.blog().await;
    let backend = json!({ "Id": "full", "Type": "http", "Policy": "hash", "HashOn": "path", "SlowStart": "1s",
        "DrainTimeout": "1m", "Limit": { "Requests": 5, "Queue": 5, "Wait": "1s" }, "Sticky": { "Cookie": "c" },
        "HealthCheck": { "Type": "tcp", "Interval": "1h" },
        "Settings": { "Protocol": "h2", "ProxyProtocol": "PROXY_V2", "Timeouts": { "Idle": "7s", "Total": "1m" },
            "TLS": { "InsecureSkipVerify": true } } });
    let server = json!({ "Id": "s1", "URL": "http://127.0.0.1:83", "Weight": 3, "Priority": 2, "Zone": "z",
        "State": "draining", "Meta": { "a": "b" } });
    let frontend = json!({ "Id": "full", "Type": "http", "BackendId": "full", "Route": "Host(\"full.test\")",
        "Priority": 3, "Sticky": true, "OnClientAbort": "continue", "Https": "auto", "Hsts": 60,
        "Settings": { "PassHostHeader": true, "FailoverPredicate": "IsNetworkError()" } });
    let limit = json!({ "Id": "m", "Type": "ratelimit", "Priority": 1,
        "Middleware": { "Requests": 1, "PeriodSeconds": 1, "Burst": 1, "Variable": "client.ip", "RateVar": "" } });
    let connections =
        json!({ "Id": "n", "Type": "connlimit", "Middleware": { "Connections": 1, "Variable": "client.ip" } });
    let host = json!({ "Name": "full.test", "Settings": { "Default": true, "Acme": { "Email": "a@full.test" } } });
    for (path, body) in [
        ("/v2/backends", json!({ "Backend": backend })),
        ("/v2/backends/full/servers", json!({ "Server": server })),
        ("/v2/frontends", json!({ "Frontend": frontend })),
        ("/v2/frontends/f/middlewares", json!({ "Middleware": limit })),
        ("/v2/frontends/f/middlewares", json!({ "Middleware": connections })),
        ("/v2/hosts", json!({ "Host": host })),
    ] {
        posted(etna, document, path, &body).await;
    }
    let commit = json!({ "compares": [{ "absent": "k" }], "ops": [{ "put": ["k", "djE=", null] }, { "delete": "l" }] });
    for (path, body) in [
        ("/v3/store/commit", commit),
        ("/v3/store/grant", json!({ "ttl_ms": 60_000 })),
        ("/v3/suspects/release", json!({})),
    ] {
        posted(etna, document, path, &body).await;
    }
    for (key, value) in [
        ("listeners/l", r#"{"Protocol":"http","Address":{"Network":"tcp","Address":"127.0.0.1:0"}}"#),
        ("sites/site", r#"{"Preset":"wordpress","Hosts":["site.test"],"Public":"b","Admin":"full","Acme":{}}"#),
        ("frontends/bad/frontend", "{"),
    ] {
        etna.put_key(key, value).await;
    }
}

#[tokio::test]
async fn answers_are_as_they_are_described() {
    let etna = start().await;
    let document = etna.get("/v3/openapi.json").await.json();
    fill(&etna, &document).await;
    assert_eq!(document["openapi"], "3.1.0");
    let ids = BTreeMap::from([
        ("backends", "full"),
        ("frontends", "f"),
        ("hosts", "full.test"),
        ("listeners", "l"),
        ("sites", "site"),
    ]);
    let (mut found, mut checked) = (Vec::new(), 0);
    for (path, operations) in document["paths"].as_object().unwrap() {
        let Some(operation) = operations.get("get").filter(|_| path != "/v3/store/watch") else { continue };
        let noun = path.split('/').nth(2).unwrap_or_default();
        let mut asked = path.replace("{id}", ids.get(noun).copied().unwrap_or_default());
        asked = asked.replace("{server}", "s1").replace("{middleware}", "m");
        asked.push_str(match path.as_str() {
            "/v3/explain" => "?url=http://site.test/wp-login.php",
            "/v3/store/key" => "?key=sites/site",
            "/v3/health" => "?backend=full",
            _ => "",
        });
        let answer = etna.get(&asked).await;
        assert_eq!(answer.status, 200, "{asked}: {}", answer.body);
        let (kind, content) = operation["responses"]["200"]["content"].as_object().unwrap().iter().next().unwrap();
        assert!(answer.head.contains(&format!("content-type: {kind}")), "{asked}: {}", answer.head);
        let values: Vec<Value> = match kind.as_str() {
            "application/json" => vec![answer.json()],
            "application/jsonl" => answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            _ => continue,
        };
        for value in values {
            faults(&document, &content["schema"], &value, &asked, &mut found);
        }
        checked += 1;
    }
    assert!(found.is_empty(), "{found:#?}");
    assert!(checked > 25, "{checked}");
    assert!(etna.get("/v3/problems").await.json()["problems"].as_array().is_some_and(|all| !all.is_empty()));
}

#[tokio::test]
async fn what_is_not_described_is_found() {
    let etna = start().await;
    let document = etna.get("/v3/openapi.json").await.json();
    let schema = json!({ "$ref": "#/components/schemas/Server" });
    for (server, faulty) in [
        (json!({ "Id": "s", "URL": "http://a" }), false),
        (json!({ "Id": "s" }), true),
        (json!({ "Id": "s", "URL": "http://a", "More": 1 }), true),
        (json!({ "Id": "s", "URL": "http://a", "State": "gone" }), true),
        (json!({ "Id": "s", "URL": 1 }), true),
    ] {
        let mut found = Vec::new();
        faults(&document, &schema, &server, "", &mut found);
        assert_eq!(!found.is_empty(), faulty, "{server}: {found:?}");
    }
}
