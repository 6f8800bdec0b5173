//! A browser that was talked into asking the admin API.

use etna_tests::client::raw;
use etna_tests::scene::Scene;

use crate::drill::{Length, Outcome};

/// S3. Every combination of who is named, who asks, how, and in what type; only what is ours in all of them passes.
pub(super) async fn foreign(length: Length) -> Outcome {
    let scene = Scene::open("s3").await;
    let plain = scene.proxy("plain").await;
    let file = scene.folder().join("token");
    std::fs::write(&file, TOKEN).expect("a token can be written");
    let flags = ["--admin-token-file", file.to_str().expect("a path of ours")];
    let guarded = scene.proxy_with("guarded", &flags).await;

    let mut asked = 0;
    let mut wrong = Vec::new();
    for (proxy, needs) in [(&plain, false), (&guarded, true)] {
        let port = proxy.admin.port();
        let address = proxy.admin.to_string();
        let hosts = [
            (format!("Host: {address}\r\n"), true),
            ("Host: 127.0.0.1\r\n".to_owned(), true),
            (format!("Host: localhost:{port}\r\n"), true),
            (format!("Host: evil.test:{port}\r\n"), false),
            (format!("Host: 127.evil.com:{port}\r\n"), false),
            (format!("Host: 127.0.0.1.evil.test:{port}\r\n"), false),
            (format!("Host: localhost.:{port}\r\n"), false),
            (format!("Host: localhost.evil.test:{port}\r\n"), false),
            (format!("Host: [::1]:{port}\r\n"), false),
            (format!("Host: 2130706433:{port}\r\n"), false),
            (format!("Host: 0x7f.1:{port}\r\n"), false),
            (format!("Host: 0.0.0.0:{port}\r\n"), false),
            (format!("Host: {address}@evil.test\r\n"), false),
            (format!("Host: evil.test@{address}\r\n"), false),
            ("Host: \r\n".to_owned(), false),
            (String::new(), false),
            (format!("Host: {address}\r\nHost: evil.test\r\n"), false),
        ];
        let origins = [
            (String::new(), true),
            ("Origin: http://{HOST}\r\n".to_owned(), true),
            ("Origin: http://evil.test\r\n".to_owned(), false),
            ("Origin: https://{HOST}\r\n".to_owned(), false),
            ("Origin: null\r\n".to_owned(), false),
            ("Origin: http://{HOST}.evil.test\r\n".to_owned(), false),
            ("Origin: http://{HOST}\r\nOrigin: http://evil.test\r\n".to_owned(), false),
        ];
        let types = [
            ("application/json", true),
            ("application/json; charset=utf-8", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("multipart/form-data; boundary=x", false),
            ("text/plain; application/json", false),
            ("", false),
        ];
        let tokens = [(String::new(), !needs), (format!("Authorization: Bearer {TOKEN}\r\n"), true)];
        // At length everything with everything; in short, one thing wrong at a time.
        let faults = length.pick(4, 1);
        for (host, good_host) in &hosts {
            for (origin, good_origin) in &origins {
                for (kind, good_kind) in types {
                    for (token, good_token) in &tokens {
                        let bad =
                            [good_host, good_origin, &good_kind, good_token].iter().filter(|good| !***good).count();
                        if bad > faults {
                            continue;
                        }
                        let name = host
                            .trim()
                            .strip_prefix("Host: ")
                            .unwrap_or_default()
                            .split('\r')
                            .next()
                            .unwrap_or_default();
                        let origin = origin.replace("{HOST}", name);
                        let fields = format!("{host}{origin}{token}");
                        let good = bad == 0;
                        let code = change(proxy.admin, &fields, kind).await;
                        asked += 1;
                        if (code == 200) != good || code >= 500 || code == 0 {
                            wrong.push(format!("{fields:?} {kind:?}: {code}"));
                        }
                        // What only looks needs no type.
                        let good = *good_host && *good_origin && *good_token;
                        let (code, cors) = look(proxy.admin, &fields).await;
                        asked += 1;
                        if (code == 200) != good || cors {
                            wrong.push(format!("GET {fields:?}: {code}, CORS {cors}"));
                        }
                    }
                }
            }
        }
    }
    let figure = match wrong.first() {
        None => "only exactly ours passes; no CORS".to_owned(),
        Some(first) => format!("{} wrong, first {first}", wrong.len()),
    };
    let failed = wrong.len() as u64;
    Outcome { load: "one after the other".into(), requests: asked, failed, figure, pass: wrong.is_empty() }
}

async fn change(to: std::net::SocketAddr, fields: &str, kind: &str) -> u16 {
    let body = r#"{"Backend":{"Id":"b","Type":"http"}}"#;
    let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    let length = body.len();
    let request = format!(
        "POST /v2/backends HTTP/1.1\r\n{fields}{kind}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    code(&raw(to, request.as_bytes()).await)
}

/// The status, and whether the answer lets another site's page read it.
async fn look(to: std::net::SocketAddr, fields: &str) -> (u16, bool) {
    let request = format!("GET /v3/status HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    let answer = raw(to, request.as_bytes()).await;
    (code(&answer), answer.to_ascii_lowercase().contains("access-control-"))
}

fn code(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
