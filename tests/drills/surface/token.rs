//! Tokens are shown in one place alone; changes leave one line each, whatever they are called.

use std::time::Duration;

use etna_tests::client::{raw, request, send};
use etna_tests::scene::Scene;
use etna_tests::wait::{ensure, eventually};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::drill::{Length, Outcome};

/// S8. Times are not measured: digests are compared, and without a branch (`proxy/src/admin/token.rs`).
pub(super) async fn audited(_length: Length) -> Outcome {
    let scene = Scene::open("s8").await;
    let file = scene.folder().join("token");
    std::fs::write(&file, TOKEN).expect("a token can be written");
    let proxy = scene.proxy_with("etna", &["--admin-token-file", file.to_str().expect("a path of ours")]).await;
    let host = proxy.admin.to_string();
    let mut wrong = Vec::new();
    let mut requests = 0;

    let mut shown: Vec<String> = (0..TOKEN.len()).map(|length| TOKEN[..length].to_owned()).collect();
    shown.extend([format!("{TOKEN}0"), TOKEN.to_uppercase(), format!("{TOKEN} {TOKEN}"), format!("\"{TOKEN}\"")]);
    for token in shown {
        let fields = format!(
            "GET /v3/status HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(proxy.admin, fields.as_bytes()).await;
        requests += 1;
        if !answer.starts_with("HTTP/1.1 401 ") {
            wrong.push(format!("{token:?}: {}", answer.lines().next().unwrap_or_default()));
        }
    }
    for query in ["token", "access_token", "%74oken", "TOKEN", "bearer", "authorization"] {
        let path = format!("/v3/status?{query}={TOKEN}");
        let asked = request("GET", &host, &path).header("authorization", format!("Bearer {TOKEN}"));
        let answer = send(proxy.admin, asked.body(Full::default()).expect("a valid request")).await;
        requests += 1;
        if answer.map_or(0, |answer| answer.status) != 400 {
            wrong.push(format!("{path} is not refused"));
        }
    }

    let before = audit(&proxy.said()).len();
    let evil = "x\r\n{\"level\":\"FORGED\"}\u{1b}[31m\u{7f}\u{85}\u{202e}\u{2066}\u{feff}y";
    let escaped: String = evil.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let changes = [
        ("POST", "/v2/backends".to_owned(), json!({ "Backend": { "Id": "plain", "Type": "http" } })),
        ("POST", "/v2/backends".to_owned(), json!({ "Backend": { "Id": evil, "Type": "http" } })),
        (
            "POST",
            format!("/v2/backends/{escaped}/servers"),
            json!({ "Server": { "Id": evil, "URL": "http://127.0.0.1:1" } }),
        ),
        ("PUT", format!("/v3/sites/{escaped}"), json!({ "Preset": "wordpress" })),
        ("DELETE", format!("/v2/backends/{escaped}"), Value::Null),
        ("DELETE", "/v2/backends/plain".to_owned(), Value::Null),
        ("POST", "/v3/store/commit".to_owned(), json!({ "ops": [{ "delete": evil }] })),
        ("POST", format!("/{escaped}"), Value::Null),
        ("BREW", format!("/{escaped}"), Value::Null),
    ];
    for (method, path, body) in &changes {
        let asked = request(method, &host, path).header("authorization", format!("Bearer {TOKEN}"));
        let asked = asked.header("content-type", "application/json").body(Full::from(body.to_string()));
        let answer = send(proxy.admin, asked.expect("a valid request")).await;
        requests += 1;
        if answer.is_err() {
            wrong.push(format!("{method} {path}: {answer:?}"));
        }
    }
    // The log is written by a thread of its own.
    eventually("the last change is told", Duration::from_secs(20), async || {
        let told = audit(&proxy.said()).len() - before;
        ensure(told >= changes.len(), format!("{told} are"))
    })
    .await;
    let said = proxy.said();
    let lines = audit(&said);
    if lines.len() - before != changes.len() {
        wrong.push(format!("{} changes left {} lines", changes.len(), lines.len() - before));
    }
    let harmful = |c: char| {
        c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if let Some(line) = said.lines().find(|line| line.contains(harmful) || serde_json::from_str::<Value>(line).is_err())
    {
        wrong.push(format!("a line that is none: {line:?}"));
    }
    // A terminal that shows the decoded line sees no such character either.
    let decoded = lines.iter().map(Value::to_string).find(|line| line.contains(harmful) || line.contains("\\u001b"));
    wrong.extend(decoded.map(|line| format!("not escaped: {line}")));
    if lines.iter().any(|line| line["level"] == "FORGED") || said.contains(TOKEN) {
        wrong.push("a line is forged, or the token is logged".into());
    }
    let failed = wrong.len() as u64;
    let figure = format!(
        "{} changes, {} lines; {}",
        changes.len(),
        lines.len() - before,
        wrong.first().map_or("all told and escaped, no token in a URL or a log".to_owned(), Clone::clone)
    );
    Outcome { load: "one after the other".into(), requests, failed, figure, pass: failed == 0 }
}

/// The lines of the trail.
fn audit(said: &str) -> Vec<Value> {
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "audit").collect()
}

const TOKEN: &str = "c0ffee0123456789abcdefc0ffee0123456789abcdef";
