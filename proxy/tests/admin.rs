//! The admin API over real sockets, in front of a store in memory and the real control loop.

// Helpers of tests are tests too.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "admin/guard.rs"]
mod guard;
#[path = "admin/harness.rs"]
mod harness;
#[path = "admin/openapi.rs"]
mod openapi;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use etna_proxy::config::AdminAddress;
use etna_store::Txn;
use etna_store::engine::Options;
use etna_store::seal::{Keyring, SealKey};
use harness::{start, start_alone};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn health_needs_a_table_and_says_what_is_missing() {
    let etna = start_alone(|_| ()).await;
    assert_eq!(etna.get("/healthz").await.status, 200);
    let answer = etna.get("/readyz").await;
    assert_eq!((answer.status, answer.json()["ready"].clone()), (503, json!(false)));
    assert!(answer.json()["reason"].as_str().unwrap().contains("nothing was read yet"), "{}", answer.body);

    let etna = start().await;
    assert_eq!(etna.get("/readyz").await.status, 200);
    etna.state.draining.cancel();
    let answer = etna.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.json()["reason"].as_str().unwrap().starts_with("draining"));
}

#[tokio::test]
async fn connections_that_ask_for_nothing_keep_nobody_out() {
    let etna = start().await;
    let AdminAddress::Tcp(address) = etna.address.clone() else { panic!("it is TCP") };
    let head = format!("Host: {address}\r\nContent-Type: application/json\r\n");
    let hold = async |asked: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(asked.as_bytes()).await.unwrap();
        stream
    };
    let mut watch = hold(&format!("GET /v3/store/watch?after=0 HTTP/1.1\r\n{head}\r\n")).await;
    let mut bytes = [0; 4096];
    assert!(watch.read(&mut bytes).await.unwrap() > 0);
    let half_body = format!("POST /v2/backends HTTP/1.1\r\n{head}Content-Length: 1000\r\n\r\n{{");
    let mut held = Vec::new();
    for asked in ["", "GET /readyz HTTP/1.1\r\nHost: x", &half_body] {
        for _ in 0..300 {
            held.push(hold(asked).await);
        }
        let answer = tokio::time::timeout(SOON, etna.get("/readyz")).await;
        assert_eq!(answer.expect("it answers at once").status, 200, "{asked}");
    }
    // Who waited longest had to go, who follows did not.
    let gone = tokio::time::timeout(SOON, held[0].read(&mut bytes)).await.expect("it is closed");
    assert!(!gone.is_ok_and(|read| read > 0));
    etna.put_key("backends/b/backend", "{}").await;
    let told = tokio::time::timeout(SOON, watch.read(&mut bytes)).await.expect("it is told");
    assert!(told.unwrap() > 0);
}

#[tokio::test]
async fn objects_are_written_read_and_deleted_as_vulcand_does() {
    let etna = start().await;
    etna.blog().await;
    // What was answered is in force: no waiting.
    let frontends = etna.get("/v2/frontends").await.json();
    assert_eq!(frontends["Frontends"][0]["Route"], "Host(\"blog.test\")");
    let frontend = etna.get("/v2/frontends/f").await.json();
    assert_eq!(
        (&frontend["Id"], &frontend["Type"], &frontend["BackendId"]),
        (&json!("f"), &json!("http"), &json!("b"))
    );
    let servers = etna.get("/v2/backends/b/servers").await.json();
    assert_eq!(servers["Servers"].as_array().unwrap().len(), 2);
    assert_eq!(etna.get("/v2/backends/none/servers").await.json(), json!({ "Servers": [] }));

    let limit = json!({ "Middleware": { "Id": "m", "Type": "ratelimit", "Priority": 1,
        "Middleware": { "Requests": 1, "PeriodSeconds": 1, "Burst": 3, "Variable": "client.ip" } } });
    let answer = etna.post("/v2/frontends/f/middlewares", &limit).await;
    assert_eq!((answer.status, answer.json()), (200, limit["Middleware"].clone()), "{}", answer.body);

    let in_use = etna.delete("/v2/backends/b").await;
    assert_eq!((in_use.status, in_use.message()), (409, "can not delete backend 'b', it is in use by [f]".into()));
    assert_eq!(etna.delete("/v2/backends/b/servers/s1").await.message(), "Server deleted");
    assert_eq!(etna.get("/v2/backends/b/servers/s1").await.status, 404);
    assert_eq!(etna.get("/v2/backends/b/servers/s10").await.status, 200);
    assert_eq!(etna.delete("/v2/frontends/f").await.message(), "Frontend deleted");
    assert_eq!(etna.delete("/v2/frontends/f").await.status, 404);
    assert_eq!(etna.delete("/v2/backends/b").await.message(), "Backend deleted");
    assert!(etna.state.engine.snapshot().await.unwrap().changes.is_empty());
}

#[tokio::test]
async fn bad_input_is_told_and_nothing_is_written() {
    let etna = start().await;
    etna.blog().await;
    let before = etna.state.engine.snapshot().await.unwrap();
    let frontend = |route: &str| json!({ "Frontend": { "Id": "x", "Type": "http", "BackendId": "b", "Route": route } });
    let bad_rule = etna.post("/v2/frontends", &frontend("Host(\"a\") && Pth(\"/\")")).await;
    assert_eq!(bad_rule.status, 400, "{}", bad_rule.body);
    assert!(
        bad_rule.message().contains("frontends/x/frontend") && bad_rule.message().contains("column"),
        "{}",
        bad_rule.body
    );
    let no_backend = json!({ "Frontend": { "Id": "x", "Type": "http", "BackendId": "no", "Route": "Host(\"a\")" } });
    assert_eq!(etna.post("/v2/frontends", &no_backend).await.status, 404);
    for (path, body, status) in [
        ("/v2/backends", json!({ "Backend": { "Id": "x", "Type": "tcp" } }), 400),
        ("/v2/backends", json!({ "Backend": { "Id": "a/servers/b", "Type": "http" } }), 400),
        ("/v2/backends", json!({ "Server": { "Id": "x" } }), 400),
        ("/v2/backends", json!([]), 400),
        ("/v2/backends/b/servers", json!({ "Server": { "Id": "x", "URL": "nonsense" } }), 400),
        ("/v2/backends/b/servers", json!({ "Server": { "Id": "x", "URL": "http://a:1" }, "TTL": "soon" }), 400),
        ("/v2/backends/b%2Fc/servers", json!({ "Server": { "Id": "x", "URL": "http://a:1" } }), 400),
        ("/v2/frontends/f/middlewares", json!({ "Middleware": { "Id": "m", "Type": "frob", "Middleware": {} } }), 400),
        (
            "/v2/frontends/no/middlewares",
            json!({ "Middleware": { "Id": "m", "Type": "connlimit",
            "Middleware": { "Connections": 1, "Variable": "client.ip" } } }),
            404,
        ),
        (
            "/v2/hosts",
            json!({ "Host": { "Name": "a.test", "Settings": { "KeyPair": { "Key": "a", "Cert": "b" } } } }),
            400,
        ),
        (
            "/v2/listeners",
            json!({ "Listener": { "Id": "l", "Protocol": "https",
            "Address": { "Network": "tcp", "Address": "0.0.0.0:443" },
            "Settings": { "TLS": { "MaxVersion": "VersionTLS11" } } } }),
            400,
        ),
    ] {
        let answer = etna.post(path, &body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        assert!(!answer.message().is_empty());
    }
    assert_eq!(etna.ask("POST", "/v2/backends", "Content-Type: application/json\r\n", "{").await.status, 400);
    for (method, path) in [("GET", "/v2/nothing"), ("DELETE", "/v2/backends"), ("GET", "/v3/store/nothing")] {
        let answer = etna.ask(method, path, "", "").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (404, r#"{"message":"Object not found"}"#),
            "{method} {path}"
        );
    }
    let huge = "Content-Type: application/json\r\nContent-Length: 3000000\r\n";
    assert_eq!(etna.ask("POST", "/v2/backends", huge, "").await.status, 413);
    assert_eq!(etna.state.engine.snapshot().await.unwrap(), before);
}

#[tokio::test]
async fn a_server_with_a_time_to_live_goes_by_itself() {
    let etna = start().await;
    let server = json!({ "Server": { "Id": "s", "URL": "http://127.0.0.1:81" }, "TTL": "4s" });
    assert_eq!(etna.post("/v2/backends/b/servers", &server).await.status, 200);
    assert!(etna.state.engine.get("backends/b/servers/s").await.unwrap().unwrap().lease.is_some());
    let deadline = Instant::now() + Duration::from_secs(40);
    while etna.get("/v2/backends/b/servers/s").await.status != 404 {
        assert!(Instant::now() < deadline, "it is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn keys_of_the_old_layout_and_broken_ones_can_be_deleted() {
    let etna = start().await;
    etna.put_key("upstreams/u/endpoints/e", "http://127.0.0.1:81").await;
    etna.put_key("hosts/a.test/locations/home/path", "/.*").await;
    etna.put_key("hosts/a.test/locations/home/upstream", "u").await;
    etna.put_key("frontends/bad/frontend", "{").await;
    assert_eq!(etna.get("/v2/frontends/a.test.home").await.status, 200);
    assert_eq!(etna.delete("/v2/frontends/a.test.home").await.status, 200);
    assert_eq!(etna.delete("/v2/frontends/bad").await.status, 200);
    assert_eq!(etna.delete("/v2/backends/u").await.status, 200);
    assert!(etna.state.engine.snapshot().await.unwrap().changes.is_empty());
}

#[tokio::test]
async fn a_host_never_shows_its_key() {
    let etna = start().await;
    let sealed =
        json!({ "Host": { "Name": "a.test", "Settings": { "Default": true, "KeyPair": "c2VhbGVkIHNlY3JldA==" } } });
    let answer = etna.post("/v2/hosts", &sealed).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    for answer in [answer, etna.get("/v2/hosts").await, etna.get("/v2/hosts/A.test").await] {
        assert!(answer.body.contains("\"HasKeyPair\":true") && !answer.body.contains("c2VhbGVk"), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_key_pair_in_the_clear_is_sealed_or_refused() {
    let etna = start().await;
    let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    let (cert, key) = (STANDARD.encode(made.cert.pem()), STANDARD.encode(made.signing_key.serialize_pem()));
    // As vctl sends it.
    let settings = json!({ "Default": false, "AutoCert": null, "KeyPair": { "Key": key, "Cert": cert },
        "OCSP": { "Enabled": false, "Period": "1h0m0s", "Responders": null, "SkipSignatureCheck": false } });
    let host = json!({ "Host": { "Name": "a.test", "Settings": settings } });
    let refused = etna.post("/v2/hosts", &host).await;
    assert!(refused.status == 400 && refused.message().contains("--seal-key"), "{}", refused.body);
    assert!(!refused.body.contains(&key));
    assert!(etna.state.engine.snapshot().await.unwrap().changes.is_empty());

    let ring = Keyring::new(SealKey::generate().unwrap());
    etna.state.set_keyring(Some(Arc::new(ring.clone())));
    let taken = etna.post("/v2/hosts", &host).await;
    assert!(taken.status == 200 && taken.body.contains("\"HasKeyPair\":true"), "{}", taken.body);
    let stored = etna.state.engine.get("hosts/a.test/host").await.unwrap().unwrap().value;
    let text = std::str::from_utf8(&stored).unwrap();
    assert!(!text.contains(&key) && !taken.body.contains(&key), "{text}");
    let stored: serde_json::Value = serde_json::from_str(text).unwrap();
    let sealed = STANDARD.decode(stored["Settings"]["KeyPair"].as_str().unwrap()).unwrap();
    assert_eq!(ring.open(&sealed).unwrap().key(), made.signing_key.serialize_pem().as_bytes());
    assert_eq!(stored["Settings"]["OCSP"]["Period"], "1h0m0s");

    // One that does not fit.
    let other = STANDARD.encode(rcgen::KeyPair::generate().unwrap().serialize_pem());
    let pair = json!({ "Key": other, "Cert": cert });
    let unfit = etna.post("/v2/hosts", &json!({ "Host": { "Name": "a.test", "Settings": { "KeyPair": pair } } })).await;
    assert!(unfit.status == 400 && !unfit.body.contains(&other), "{}", unfit.body);
}

#[tokio::test]
async fn sites_are_changed_by_one_operator_at_a_time() {
    let etna = start().await;
    let json = "Content-Type: application/json\r\n";
    let site = r#"{"Preset":"wordpress","Hosts":["blog.test"],"Public":"p"}"#;
    let created = etna.ask("PUT", "/v3/sites/blog", &format!("{json}If-None-Match: *\r\n"), site).await;
    assert_eq!(created.status, 200, "{}", created.body);
    assert_eq!(etna.ask("PUT", "/v3/sites/blog", &format!("{json}If-None-Match: *\r\n"), site).await.status, 412);
    let shown = etna.get("/v3/sites/blog").await;
    assert_eq!(shown.json()["Public"], "p");
    let tag = shown.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    let changed = site.replace("\"p\"", "\"q\"");
    let condition = format!("{json}If-Match: {tag}\r\n");
    assert_eq!(etna.ask("PUT", "/v3/sites/blog", &condition, &changed).await.status, 200);
    assert_eq!(etna.ask("PUT", "/v3/sites/blog", &condition, site).await.status, 412);
    assert_eq!(etna.get("/v3/sites").await.json()["Sites"][0]["Public"], "q");
    let derived = etna.get("/v2/frontends").await.json()["Frontends"][0]["Id"].as_str().unwrap().to_owned();
    assert_eq!(etna.delete(&format!("/v2/frontends/{derived}")).await.status, 409);
    assert_eq!(etna.ask("PUT", "/v3/sites/bad", json, r#"{"Preset":"wordpress","Hostz":[]}"#).await.status, 400);
    assert_eq!(etna.delete("/v3/sites/blog").await.status, 200);
    assert_eq!(etna.get("/v3/sites/blog").await.status, 404);
}

#[tokio::test]
async fn status_problems_and_the_page_tell_what_is_served() {
    let etna = start().await;
    etna.blog().await;
    etna.put_key("frontends/<b>/frontend", "{").await;
    let status = etna.get("/v3/status").await.json();
    assert_eq!(status["counts"]["frontends"], 1);
    assert_eq!(status["counts"]["servers"], 2);
    assert_eq!((&status["ready"], &status["following"], &status["problems"]), (&json!(true), &json!(true), &json!(1)));
    assert_eq!(status["pid"], std::process::id());
    let problems = etna.get("/v3/problems").await;
    assert_eq!(problems.json()["problems"][0]["key"], "frontends/<b>/frontend");
    let page = etna.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    assert!(page.body.contains("frontends/&lt;b&gt;/frontend") && !page.body.contains("<script"), "{}", page.body);
    assert_eq!(etna.get("/v2/status").await.body, r#"{"Status":"ok"}"#);
}

#[tokio::test]
async fn metrics_are_well_formed_and_show_what_served() {
    let etna = start().await;
    etna.blog().await;
    let idle = etna.get("/metrics").await;
    assert_eq!(idle.status, 200);
    assert!(!idle.body.contains("etna_requests_total"), "{}", idle.body);
    let table = etna.state.live.table();
    let frontend = table.router.get("f").unwrap();
    frontend.requests().record(http::StatusCode::OK, Duration::from_millis(3));
    frontend.requests().record(http::StatusCode::BAD_GATEWAY, Duration::from_secs(60));
    table.backend(frontend.backend).unwrap().servers[0].live.connect_errors.add(2);
    let text = etna.get("/metrics").await.body;
    for line in [
        "etna_requests_total{frontend=\"f\",backend=\"b\",class=\"2xx\"} 1",
        "etna_requests_total{frontend=\"f\",backend=\"b\",class=\"5xx\"} 1",
        "etna_request_duration_seconds_bucket{frontend=\"f\",le=\"0.005\"} 1",
        "etna_request_duration_seconds_bucket{frontend=\"f\",le=\"30\"} 1",
        "etna_request_duration_seconds_bucket{frontend=\"f\",le=\"+Inf\"} 2",
        "etna_request_duration_seconds_sum{frontend=\"f\"} 60.003",
        "etna_request_duration_seconds_count{frontend=\"f\"} 2",
        "etna_server_connect_errors_total{backend=\"b\",server=\"s1\"} 2",
        "etna_store_following 1",
        "etna_ready 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let mut families: Vec<&str> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("# TYPE ").map(|rest| rest.split(' ').next().unwrap()) {
            Some(name) => {
                assert!(!families.contains(&name), "{name} twice");
                families.push(name);
            }
            None if line.starts_with('#') => {}
            None => assert!(line.starts_with(families.last().unwrap()), "{line} is outside of its family"),
        }
    }
}

#[tokio::test]
async fn explain_says_which_frontend_why_and_where_to() {
    let etna = start().await;
    etna.blog().await;
    let admin = json!({ "Frontend": { "Id": "admin", "Type": "http", "BackendId": "b",
        "Route": "Host(\"blog.test\") && PathPrefix(\"/wp-admin\")" } });
    assert_eq!(etna.post("/v2/frontends", &admin).await.status, 200);
    let ask = async |query: &str| etna.get(&format!("/v3/explain?{query}")).await.json();

    let found = ask("url=http%3A%2F%2Fblog.test%2Fwp-admin%2F").await;
    assert_eq!((&found["frontend"]["id"], &found["outcome"]), (&json!("admin"), &json!("forwarded to backend b")));
    let candidates = found["candidates"].as_array().unwrap();
    let other = candidates.iter().find(|candidate| candidate["id"] == "f").unwrap();
    assert_eq!((&other["matches"], &other["chosen"]), (&json!(true), &json!(false)));
    assert!(other["reason"].as_str().unwrap().contains("more specific"), "{other}");
    let servers = found["servers"].as_array().unwrap();
    assert_eq!(servers.iter().map(|server| server["order"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert!(servers.iter().all(|server| server["state"] == "up"));

    assert_eq!(ask("url=http://blog.test/").await["frontend"]["id"], "f");
    let nothing = ask("url=http://other.test/").await;
    assert_eq!((&nothing["frontend"], &nothing["outcome"]), (&Value::Null, &json!("404, no route")));
    assert!(nothing["why"].as_str().unwrap().contains("2 frontends"), "{nothing}");
    assert_eq!(etna.get("/v3/explain").await.status, 400);
    assert_eq!(etna.get("/v3/explain?url=http://a/&heder=x").await.status, 400);
}

#[tokio::test]
async fn what_the_store_is_written_through_is_seen_by_it() {
    let etna = start().await;
    let AdminAddress::Tcp(address) = &etna.address else { panic!("not TCP") };
    let remote = etna_store::open(&format!("http://{address}"), &Options::default()).await.unwrap();
    remote.commit(Txn::put("backends/b/servers/s", r#"{"URL":"http://127.0.0.1:81"}"#)).await.unwrap();
    assert_eq!(remote.snapshot().await.unwrap().changes.len(), 1);
    assert_eq!(remote.get("backends/b/servers/s").await.unwrap().unwrap().value.len(), 29);
}

/// Less than who says nothing is given before its connection is closed.
const SOON: Duration = Duration::from_secs(9);
