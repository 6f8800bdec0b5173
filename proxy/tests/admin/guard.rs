//! Who may ask the admin API: by which name, from which page, with which token, over which socket.

use std::sync::Arc;

use etna_proxy::admin;
use etna_proxy::config::AdminAddress;
use etna_proxy::control::State;
use etna_store::Engine;
use etna_store::engine::Options;

use super::harness::{config, start, start_alone};

#[tokio::test]
async fn only_our_own_names_are_answered() {
    let etna = start().await;
    let port = etna.host().rsplit_once(':').unwrap().1.to_owned();
    for host in ["evil.test", "127.evil.com", "localhost.", "[::1]", "127.0.0.1.evil.test", "", "a\r\nHost: localhost"]
    {
        let answer = etna.raw(&format!("GET /v3/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(answer.status, 403, "{host:?}");
    }
    let answer = etna.raw("GET /v3/status HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert!(matches!(answer.status, 400 | 403), "no host: {}", answer.status);
    let answer =
        etna.raw("GET http://evil.test/v3/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(answer.status, 403);
    for host in ["localhost".to_owned(), format!("localhost:{port}"), format!("127.0.0.1:{port}")] {
        let answer = etna.raw(&format!("GET /v3/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(answer.status, 200, "{host}");
    }
}

#[tokio::test]
async fn probes_and_scrapes_may_ask_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "a-long-enough-token\n").unwrap();
    let open = start().await;
    let guarded = start_alone(|config| config.admin_token_file = Some(token)).await;
    let shown = "Authorization: Bearer a-long-enough-token\r\n";
    for (etna, request, status) in [
        (&open, "GET /healthz HTTP/1.1\r\nHost: core-01:8182\r\n", 200),
        (&open, "GET /readyz HTTP/1.1\r\nHost: core-01:8182\r\n", 200),
        (&open, "GET /readyz HTTP/1.0\r\n", 200),
        (&open, "GET /healthz HTTP/1.1\r\nHost: core-01\r\nOrigin: http://evil\r\n", 403),
        (&open, "POST /healthz HTTP/1.1\r\nHost: core-01\r\n", 403),
        (&open, "GET /metrics HTTP/1.1\r\nHost: core-01\r\n", 403),
        (&open, &format!("GET /metrics HTTP/1.1\r\nHost: core-01\r\n{shown}"), 403),
        (&guarded, "GET /metrics HTTP/1.1\r\nHost: core-01\r\n", 403),
        (&guarded, &format!("GET /metrics HTTP/1.1\r\nHost: core-01\r\n{shown}"), 200),
        (&guarded, &format!("GET /v3/status HTTP/1.1\r\nHost: core-01\r\n{shown}"), 403),
    ] {
        let answer = etna.raw(&format!("{request}Connection: close\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{request}");
        assert!(status != 403 || request.contains("Origin") || answer.message().contains("IP address"), "{request}");
    }
    let starting = guarded.get("/readyz").await;
    assert!(starting.status == 503 && !starting.body.contains("memory:"), "no word of the store: {}", starting.body);
}

#[tokio::test]
async fn the_store_behind_it_is_reached_by_name() {
    let etna = start().await;
    let port = etna.host().rsplit_once(':').unwrap().1.to_owned();
    // A name to the resolver, and no address to Rust.
    let by_name = etna_store::open(&format!("http://127.1:{port}"), &Options::default()).await.unwrap();
    by_name.snapshot().await.unwrap();
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let etna = start().await;
    let body = r#"{"Backend":{"Id":"b","Type":"http"}}"#;
    let host = etna.host();
    for (fields, status) in [
        ("Content-Type: application/json\r\nOrigin: http://evil\r\n".to_owned(), 403),
        ("Content-Type: application/json\r\nOrigin: null\r\n".to_owned(), 403),
        ("Content-Type: text/plain\r\n".to_owned(), 415),
        ("Content-Type: application/x-www-form-urlencoded\r\n".to_owned(), 415),
        (String::new(), 415),
        (format!("Content-Type: application/json\r\nOrigin: http://{host}\r\n"), 200),
    ] {
        let answer = etna.ask("POST", "/v2/backends", &fields, body).await;
        assert_eq!(answer.status, status, "{fields:?}");
        assert!(!answer.head.contains("access-control"), "{}", answer.head);
    }
    let answer = etna.ask("OPTIONS", "/v2/backends", "Origin: http://evil\r\n", "").await;
    assert_eq!(answer.status, 403);
    assert!(!answer.head.contains("access-control"));
}

#[tokio::test]
async fn the_token_guards_everything_but_health() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "a-long-enough-token\n").unwrap();
    let etna = start_alone(|config| config.admin_token_file = Some(token)).await;
    assert_eq!(etna.get("/healthz").await.status, 200);
    assert_eq!(etna.get("/readyz").await.status, 503);
    for path in ["/", "/metrics", "/v3/status", "/v2/frontends", "/v3/store/snapshot", "/nothing"] {
        assert_eq!(etna.get(path).await.status, 401, "{path}");
        let shown = etna.ask("GET", path, "Authorization: Bearer a-long-enough-token\r\n", "").await;
        assert_ne!(shown.status, 401, "{path}");
    }
    assert_eq!(etna.ask("GET", "/v3/status", "Authorization: Bearer a-long-enough-tokem\r\n", "").await.status, 401);
    let answer = etna.ask("GET", "/v3/status?token=a-long-enough-token", "", "").await;
    assert_eq!(answer.status, 400);
    assert!(!answer.body.contains("a-long-enough-token"));
}

#[tokio::test]
async fn nobody_is_reachable_from_elsewhere_without_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(AdminAddress::Tcp("0.0.0.0:0".parse().unwrap()), dir.path());
    let engine: Arc<dyn Engine> = etna_store::open("memory:", &Options::default()).await.unwrap();
    let Err(error) = admin::bind(&config, Arc::new(State::new(engine))).await else { panic!("it was bound") };
    assert!(error.to_string().contains("--admin-token-file"), "{error}");
}

#[tokio::test]
async fn a_unix_socket_serves_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etna.sock");
    let etna = start_alone(|config| config.admin = AdminAddress::Unix(path.clone())).await;
    assert_eq!(etna.get("/healthz").await.status, 200);
    assert_eq!(etna.raw("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.status, 200);
}
