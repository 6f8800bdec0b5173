//! Requests that nobody wrote: every path, every method, any body, any length.

use std::time::Duration;

use etna_tests::client::{Connection, raw, request};
use etna_tests::scene::Scene;
use http_body_util::Full;

use crate::drill::{Length, Outcome};

/// S4. The same requests every time. A 5xx, a panic, an answer that is no JSON, or none is a failure.
pub(super) async fn any(length: Length) -> Outcome {
    let scene = Scene::open("s4").await;
    let mut proxy = scene.proxy("etna").await;
    let host = proxy.admin.to_string();
    let mut random = fastrand::Rng::with_seed(0x2545_f491_4f6c_dd1d);
    let mut wrong = Vec::new();
    let mut codes = std::collections::BTreeMap::<u16, u64>::new();
    let count = length.pick(2000, 300);
    let mut connection = None;
    for n in 0..count {
        let path = path(&mut random);
        let method = METHODS[random.usize(..METHODS.len())];
        // It streams for ever, and is right to.
        if method == "GET" && path.starts_with("/v3/store/watch") {
            continue;
        }
        let body = body(&mut random);
        let Ok(asked) =
            request(method, &host, &path).header("content-type", "application/json").body(Full::from(body.clone()))
        else {
            continue;
        };
        let mut open = match connection.take().filter(Connection::is_open) {
            Some(open) => open,
            None => Connection::open(proxy.admin).await.expect("it takes connections"),
        };
        match tokio::time::timeout(Duration::from_secs(12), open.send(asked)).await {
            Ok(Ok(answer)) => {
                *codes.entry(answer.status).or_default() += 1;
                let kind = answer.header("content-type");
                let json = kind.starts_with("application/json")
                    && serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok();
                let fits = json
                    || !matches!(answer.status, 400..) && (kind.starts_with("text/") || kind == "application/jsonl")
                    || method == "HEAD";
                if answer.status >= 500 || !fits {
                    wrong.push(format!("#{n} {method} {path} {body:?}: {} {kind} {}", answer.status, answer.text()));
                }
                connection = Some(open);
            }
            Ok(Err(error)) => wrong.push(format!("#{n} {method} {path} {body:?}: {error}")),
            Err(_) => wrong.push(format!("#{n} {method} {path} {body:?}: no answer")),
        }
    }
    for bytes in lengths(&host) {
        let answer = tokio::time::timeout(Duration::from_secs(15), raw(proxy.admin, &bytes)).await;
        let code =
            answer.map_or(0, |answer| answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(400));
        if !(400..500).contains(&code) {
            wrong.push(format!("{:?}: {code}", String::from_utf8_lossy(&bytes[..bytes.len().min(160)])));
        }
    }
    let alive = proxy.runs() && proxy.admin_get("/healthz").await.is_ok_and(|answer| answer.status == 200);
    let panicked = proxy.said().contains("panicked");
    let shown: Vec<String> = codes.iter().map(|(code, count)| format!("{code}×{count}")).collect();
    let mut figure = format!("{}; alive {alive}, panicked {panicked}", shown.join(" "));
    if let Some(first) = wrong.first() {
        figure.push_str(&format!("; first wrong: {}", first.chars().take(400).collect::<String>()));
    }
    Outcome {
        load: "one after the other".into(),
        requests: count,
        failed: wrong.len() as u64,
        figure,
        pass: wrong.is_empty() && alive && !panicked,
    }
}

/// Heads and lengths that lie.
fn lengths(host: &str) -> Vec<Vec<u8>> {
    let post = |fields: &str, body: &str| {
        format!("POST /v2/backends HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{fields}\r\n{body}")
            .into_bytes()
    };
    vec![
        post("Content-Length: 99999999999999999999\r\n", "{}"),
        post("Content-Length: -1\r\n", "{}"),
        post("Content-Length: 4294967296\r\n", "{}"),
        post("Content-Length: 2\r\nContent-Length: 3\r\n", "{}x"),
        post("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\n{}"),
        post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"),
        post(&"X-Pad: y\r\n".repeat(500), ""),
        post(&format!("X-Pad: {}\r\n", "y".repeat(200_000)), ""),
        format!("GET /{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "a".repeat(100_000)).into_bytes(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
    ]
}

fn path(random: &mut fastrand::Rng) -> String {
    let pattern = PATHS[random.usize(..PATHS.len())];
    let mut path = String::new();
    for part in pattern.split_inclusive("{}") {
        path.push_str(part.trim_end_matches("{}"));
        if part.ends_with("{}") {
            path.push_str(IDS[random.usize(..IDS.len())]);
        }
    }
    if random.usize(..4) == 0 {
        path.push_str(QUERIES[random.usize(..QUERIES.len())]);
    }
    path
}

/// Something like what is expected there, something else, or no JSON at all.
fn body(random: &mut fastrand::Rng) -> String {
    match random.usize(..8) {
        0 => String::new(),
        1 => "{".into(),
        2 => "[".repeat(2000),
        3 => format!("\"{}\"", "x".repeat(random.usize(..10_000))),
        _ => {
            let mut text = SHAPES[random.usize(..SHAPES.len())].to_owned();
            while text.contains('?') {
                text = text.replacen('?', VALUES[random.usize(..VALUES.len())], 1);
            }
            text
        }
    }
}

const METHODS: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"];
const PATHS: [&str; 36] = [
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/status",
    "/v2/status",
    "/v3/status",
    "/v3/problems",
    "/v3/explain",
    "/v3/explain?method={}&url={}&header={}",
    "/v3/suspects",
    "/v3/suspects/release",
    "/v3/openapi.json",
    "/v2/backends",
    "/v2/backends/{}",
    "/v2/backends/{}/servers",
    "/v2/backends/{}/servers/{}",
    "/v2/frontends",
    "/v2/frontends/{}",
    "/v2/frontends/{}/middlewares",
    "/v2/frontends/{}/middlewares/{}",
    "/v2/hosts",
    "/v2/hosts/{}",
    "/v2/listeners",
    "/v2/listeners/{}",
    "/v3/sites",
    "/v3/sites/{}",
    "/v3/store/snapshot",
    "/v3/store/watch?after={}",
    "/v3/store/key?key={}",
    "/v3/store/commit",
    "/v3/store/grant",
    "/v3/store/keep",
    "/v3/store/revoke",
    "/{}",
    "/v2/{}/{}/{}/{}",
];
const IDS: [&str; 22] = [
    "a",
    "b",
    "f",
    "%00",
    "%2f",
    "%2F..%2f",
    "..",
    ".",
    "%ff%fe",
    "%",
    "%zz",
    "a%20b",
    "%E2%80%AE",
    "%0d%0aX:y",
    "-1",
    "0",
    "9223372036854775807",
    "18446744073709551616",
    "%F0%9F%92%A9",
    "http://a.test/",
    "http://[::",
    "backends/b/backend",
];
const QUERIES: [&str; 8] =
    ["?", "?ttl=1s", "?ttl=-1", "?version=99999999999999999999", "?a=b&a=c", "?%", "?hold=x&force=true", "?after="];
const SHAPES: [&str; 20] = [
    r#"{"Backend":{"Id":?,"Type":?,"Settings":{"Timeouts":{"Read":?,"Dial":?},"KeepAlive":{"Period":?}}}}"#,
    r#"{"Server":{"Id":?,"URL":?,"Weight":?,"State":?}}"#,
    r#"{"Frontend":{"Id":?,"Type":"http","BackendId":?,"Route":?,"Settings":{"Limits":{"MaxMemBodyBytes":?}}}}"#,
    r#"{"Middleware":{"Id":?,"Type":"ratelimit","Priority":?,"Middleware":{"PeriodSeconds":?,"Requests":?,"Burst":?,"Variable":?}}}"#,
    r#"{"Middleware":{"Id":"m","Type":?,"Middleware":?}}"#,
    r#"{"Host":{"Name":?,"Settings":{"KeyPair":{"Cert":?,"Key":?},"Default":?}}}"#,
    r#"{"Listener":{"Id":?,"Protocol":?,"Address":{"Network":?,"Address":?},"Scope":?}}"#,
    r#"{"Preset":"wordpress","Hosts":[?,?],"Public":?,"Admin":?}"#,
    r#"{"Preset":?,"Hosts":?}"#,
    r#"{"compares":[{"absent":?}],"ops":[{"put":[?,?,?]}]}"#,
    r#"{"compares":?,"ops":?}"#,
    r#"{"ops":[{"put":{"key":?,"value":?,"lease":?}},{"delete":?}]}"#,
    r#"{"ttl_ms":?}"#,
    r#"{"lease":?}"#,
    r#"{"Id":?}"#,
    "{}",
    "[?]",
    "?",
    r#"{"Backend":?,"Server":?,"Frontend":?}"#,
    r#"{"\u0000":?,"":?}"#,
];
const VALUES: [&str; 24] = [
    "null",
    "true",
    "0",
    "-1",
    "1e400",
    "1.5",
    "9223372036854775808",
    "\"\"",
    "\"a\"",
    "\"b\"",
    "\"http\"",
    "[]",
    "{}",
    "[[]]",
    "\"10s\"",
    "\"-5s\"",
    "\"Host(`a.test`)\"",
    "\"Host(`\"",
    "\"http://127.0.0.1:1\"",
    "\"\\u0000\\r\\n\"",
    "\"\\ud800\"",
    "\"\\u202e\"",
    "\"tcp\"",
    "\"127.0.0.1:99999\"",
];
