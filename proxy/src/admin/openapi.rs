//! `GET /v3/openapi.json`: the admin API in OpenAPI's words (version 3.1), for programs that make clients of it.
//!
//! The operations are the table below, a line each, which a test holds against the routers; the schemas are in
//! `openapi.json`, which another holds against what is answered. Both describe; neither is asked what to accept.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::reply::{self, Refusal};

/// The endpoint.
pub(super) async fn openapi() -> Result<Response, Refusal> {
    match document() {
        Ok(document) => Ok(reply::json(&document)),
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// One thing that can be asked: what is sent, and what comes back if it is done.
struct Operation(&'static str, &'static str, Sent, Answered, &'static str);

enum Sent {
    Nothing,
    /// The schema of the body.
    Body(&'static str),
    /// An object by its name, as vulcand has it: `{"Backend": {…}}`.
    Named(&'static str),
    /// The same with how long it lives, `"TTL": "30s"`.
    Expiring(&'static str),
}

enum Answered {
    /// The schema of the JSON.
    One(&'static str),
    /// Many of a schema, by a name: `{"Backends": […]}`.
    Many(&'static str, &'static str),
    /// JSON by the line, and the schema of a line.
    Lines(&'static str),
    /// Text of this type.
    Text(&'static str),
}

use Answered::{Lines, Many, One, Text};
use Sent::{Body, Expiring, Named, Nothing};

const OPERATIONS: &[Operation] = &[
    Operation("get", "/", Nothing, Text("text/html"), "The status page, for people"),
    Operation("get", "/healthz", Nothing, One("Live"), "Whether the process lives"),
    Operation("get", "/readyz", Nothing, One("Ready"), "Whether requests can be served; 503 if not"),
    Operation("get", "/metrics", Nothing, Text("text/plain"), "Metrics for Prometheus"),
    Operation("get", "/v1/status", Nothing, One("VulcandStatus"), "As vulcand answers it"),
    Operation("get", "/v2/status", Nothing, One("VulcandStatus"), "As vulcand answers it"),
    Operation("get", "/v2/backends", Nothing, Many("Backends", "Backend"), "List backends"),
    Operation("post", "/v2/backends", Named("Backend"), One("Backend"), "Create or replace a backend"),
    Operation("get", "/v2/backends/{id}", Nothing, One("Backend"), "Show a backend"),
    Operation("delete", "/v2/backends/{id}", Nothing, One("Message"), "Delete a backend and its servers"),
    Operation("get", "/v2/backends/{id}/servers", Nothing, Many("Servers", "Server"), "List a backend's servers"),
    Operation("post", "/v2/backends/{id}/servers", Expiring("Server"), One("Server"), "Create or replace a server"),
    Operation("get", "/v2/backends/{id}/servers/{server}", Nothing, One("Server"), "Show a server"),
    Operation("delete", "/v2/backends/{id}/servers/{server}", Nothing, One("Message"), "Delete a server"),
    Operation("get", "/v2/frontends", Nothing, Many("Frontends", "Frontend"), "List frontends, those of sites too"),
    Operation("post", "/v2/frontends", Expiring("Frontend"), One("Frontend"), "Create or replace a frontend"),
    Operation("get", "/v2/frontends/{id}", Nothing, One("Frontend"), "Show a frontend"),
    Operation("delete", "/v2/frontends/{id}", Nothing, One("Message"), "Delete a frontend and its middlewares"),
    Operation(
        "get",
        "/v2/frontends/{id}/middlewares",
        Nothing,
        Many("Middlewares", "Middleware"),
        "List a frontend's middlewares, in the order they run",
    ),
    Operation(
        "post",
        "/v2/frontends/{id}/middlewares",
        Expiring("Middleware"),
        One("Middleware"),
        "Create or replace a middleware",
    ),
    Operation("get", "/v2/frontends/{id}/middlewares/{middleware}", Nothing, One("Middleware"), "Show a middleware"),
    Operation("delete", "/v2/frontends/{id}/middlewares/{middleware}", Nothing, One("Message"), "Delete a middleware"),
    Operation("get", "/v2/hosts", Nothing, Many("Hosts", "Host"), "List hosts, those of sites too"),
    Operation("post", "/v2/hosts", Named("Host"), One("Host"), "Create or replace a host"),
    Operation("get", "/v2/hosts/{id}", Nothing, One("Host"), "Show a host, by its name"),
    Operation("delete", "/v2/hosts/{id}", Nothing, One("Message"), "Delete a host, by its name"),
    Operation("get", "/v2/listeners", Nothing, Many("Listeners", "Listener"), "List stored listeners"),
    Operation("post", "/v2/listeners", Named("Listener"), One("Listener"), "Create or replace a listener"),
    Operation("get", "/v2/listeners/{id}", Nothing, One("Listener"), "Show a listener"),
    Operation("delete", "/v2/listeners/{id}", Nothing, One("Message"), "Delete a listener: it drains"),
    Operation("get", "/v3/status", Nothing, One("Status"), "What it serves, and whether it follows its store"),
    Operation("get", "/v3/problems", Nothing, Many("problems", "Problem"), "What is stored and not served as written"),
    Operation("get", "/v3/explain", Nothing, One("Explanation"), "What would happen to a request, and why"),
    Operation("get", "/v3/suspects", Nothing, One("Suspects"), "What vanished in a mass and serves on"),
    Operation("post", "/v3/suspects/release", Body("Nothing"), One("Released"), "Believe that it is gone, everywhere"),
    Operation("get", "/v3/health", Nothing, Many("backends", "BackendHealth"), "How servers are, and why"),
    Operation("get", "/v3/servers", Nothing, One("ServerCounts"), "How many servers each backend has"),
    Operation("get", "/v3/openapi.json", Nothing, One("Nothing"), "This document"),
    Operation("get", "/v3/sites", Nothing, Many("Sites", "Site"), "List sites"),
    Operation("get", "/v3/sites/{id}", Nothing, One("Site"), "Show a site as it is stored, with its ETag"),
    Operation("put", "/v3/sites/{id}", Body("Site"), One("Site"), "Create or replace a site"),
    Operation("delete", "/v3/sites/{id}", Nothing, One("Message"), "Delete a site; its backends stay"),
    Operation("get", "/v3/store/snapshot", Nothing, Lines("Line"), "Every pair of the store, at one revision"),
    Operation("get", "/v3/store/watch", Nothing, Lines("Line"), "Revisions as they happen; a beat every 2 s at least"),
    Operation("get", "/v3/store/key", Nothing, One("Found"), "One key as it stands now"),
    Operation("post", "/v3/store/commit", Body("Transaction"), One("Done"), "Write a transaction"),
    Operation("post", "/v3/store/grant", Body("Grant"), One("Done"), "Grant a lease"),
    Operation("post", "/v3/store/keep", Body("Lease"), One("Done"), "Renew a lease"),
    Operation("post", "/v3/store/revoke", Body("Lease"), One("Done"), "End a lease, and what lives under it"),
];

fn document() -> Result<Value, serde_json::Error> {
    let schemas: Value = serde_json::from_str(include_str!("openapi.json"))?;
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.1).or_insert_with(|| json!({}));
        path[operation.0] = operation.shown();
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": { "title": "Etna's admin API", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT },
        "servers": [{ "url": "http://127.0.0.1:8182" }],
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas,
        },
    }))
}

impl Operation {
    fn shown(&self) -> Value {
        let Operation(method, path, sent, answered, summary) = self;
        let refused = if path.starts_with("/v3/store/") { "StoreRefusal" } else { "Message" };
        let mut shown = json!({
            "summary": summary,
            "tags": [tag(path)],
            "parameters": parameters(method, path),
            "responses": {
                "200": { "description": "Done.", "content": answered.content() },
                "default": { "description": "Not done, and what to do.", "content": content(&schema(refused)) },
            },
        });
        if *path == "/readyz" {
            shown["responses"]["503"] = json!({ "description": "Not ready.", "content": content(&schema("Ready")) });
        }
        if let Some(body) = sent.schema() {
            let required = !matches!(sent, Body("Nothing"));
            shown["requestBody"] = json!({ "required": required, "content": content(&body) });
        }
        shown
    }
}

impl Sent {
    fn schema(&self) -> Option<Value> {
        let named = |name: &str| json!({ "type": "object", "required": [name], "properties": { name: schema(name) } });
        match self {
            Nothing => None,
            Body(name) => Some(schema(name)),
            Named(name) => Some(named(name)),
            Expiring(name) => {
                let mut named = named(name);
                named["properties"]["TTL"] = schema("Duration");
                Some(named)
            }
        }
    }
}

impl Answered {
    fn content(&self) -> Value {
        match self {
            One(name) => content(&schema(name)),
            Many(name, of) => {
                let many = json!({ "type": "array", "items": schema(of) });
                content(&json!({ "type": "object", "required": [name], "properties": { *name: many } }))
            }
            Lines(name) => json!({ "application/jsonl": { "schema": schema(name) } }),
            Text(kind) => json!({ *kind: { "schema": { "type": "string" } } }),
        }
    }
}

fn content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// What operations are grouped by: the last noun of the path.
fn tag(path: &str) -> &'static str {
    let nouns = ["middlewares", "frontends", "servers", "backends", "hosts", "listeners", "sites", "store"];
    nouns.into_iter().find(|noun| path.split('/').any(|part| part == *noun)).unwrap_or("status")
}

/// Those of the path, of the query and, for sites, of the header.
fn parameters(method: &str, path: &str) -> Vec<Value> {
    let shown = |place: &str, name: &str, required: bool, kind: &str, text: &str| {
        let schema = json!({ "type": kind });
        json!({ "in": place, "name": name, "required": required, "description": text, "schema": schema })
    };
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut all: Vec<Value> = names.map(|name| shown("path", name, true, "string", "Its id.")).collect();
    match (method, path) {
        ("get", "/v3/explain") => {
            all.push(shown("query", "url", true, "string", "The request's URL; http:// may be left out."));
            all.push(shown("query", "method", false, "string", "GET if not given."));
            all.push(shown("query", "header", false, "string", "`Name: value`; may be repeated."));
            all.push(shown("query", "client", false, "string", "The client's IP address."));
            all.push(shown("query", "listener", false, "string", "Where it comes in."));
        }
        ("get", "/v3/health") => all.push(shown("query", "backend", false, "string", "All servers of this one.")),
        ("get", "/v3/store/watch") => {
            all.push(shown("query", "after", true, "integer", "The last revision that was seen."));
        }
        ("get", "/v3/store/key") => all.push(shown("query", "key", true, "string", "The key, below the prefix.")),
        ("put" | "delete", "/v3/sites/{id}") => {
            all.push(shown("header", "If-Match", false, "string", "Only if it still has this ETag; 412 if not."));
            all.push(shown("header", "If-None-Match", false, "string", "`*`: only if there is none; 412 if there is."));
        }
        _ => {}
    }
    all
}

const ABOUT: &str = "Below /v2 as vulcand has it, below /v3 Etna's own. Names of fields of /v2 and of sites are read \
    in any case. What is written is checked, stored, and answered once it is in force. Changes are sent as \
    application/json, to an IP address or localhost. The token is asked for where etna has --admin-token-file.";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What a source's `.route("/path", get(…).post(…))` say.
    fn routes(source: &str) -> BTreeSet<(String, String)> {
        let source = source.split("#[cfg(test)]").next().unwrap();
        let mut found = BTreeSet::new();
        for route in source.split(".route(").skip(1) {
            // To the end of the function at the latest.
            let route = route.split("\n}\n").next().unwrap();
            let path = route.split('"').nth(1).unwrap();
            for method in ["get", "post", "put", "delete", "patch", "any"] {
                let words = route.split(|c: char| !c.is_ascii_alphanumeric() && !"_:(".contains(c));
                if words.clone().any(|word| word.split_inclusive('(').any(|call| call == format!("{method}("))) {
                    found.insert((method.to_owned(), path.to_owned()));
                }
            }
        }
        found
    }

    #[test]
    fn every_route_is_described_and_nothing_else_is() {
        let sources = [include_str!("mod.rs"), include_str!("objects/mod.rs"), include_str!("store_api.rs")];
        let routed: BTreeSet<_> = sources.into_iter().flat_map(routes).collect();
        let described: BTreeSet<_> =
            OPERATIONS.iter().map(|operation| (operation.0.to_owned(), operation.1.to_owned())).collect();
        assert_eq!(described, routed);
        assert_eq!(described.len(), OPERATIONS.len(), "each once");
        assert!(routed.len() > 40, "the sources are read");
    }

    #[test]
    fn every_schema_is_there_and_used() {
        fn referred<'v>(value: &'v Value, found: &mut BTreeSet<&'v str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).and_then(|to| to.rsplit('/').next()));
                    fields.values().for_each(|value| referred(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| referred(value, found)),
                _ => {}
            }
        }
        let document = document().unwrap();
        let mut used = BTreeSet::new();
        referred(&document, &mut used);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        assert_eq!(schemas.keys().map(String::as_str).collect::<BTreeSet<_>>(), used);
    }
}
