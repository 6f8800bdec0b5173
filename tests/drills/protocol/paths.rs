//! D9: paths that can be read in two ways. The bytes that were matched are the bytes that are sent, and whatever a
//! server might take for an admin path of WordPress never reaches a public server: neither of a site, nor of ordinary
//! frontends, one with a prefix and one for the host.

use serde_json::json;

use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};

use super::SOON;
use super::oracle::{Oracle, Seen};
use super::wire::Wire;
use crate::drill::{Length, Outcome};

/// Prefixes and separators that servers resolve.
const BEFORE: [&str; 22] = [
    "/",
    "//",
    "///",
    "/./",
    "/.//",
    "/a/../",
    "/a/b/../../",
    "/../",
    "/%2e/",
    "/a/%2e%2e/",
    "/a/.%2e/",
    "/a/%2E./",
    "/wp-content/../",
    "/blog/",
    "/%2f",
    "/a%2f..%2f",
    "/a/..%2f",
    "/a/../%2f",
    "/index.php/../",
    "/a;/../",
    "/.%2f",
    "/%2e%2e%2f",
];
/// What may follow.
const AFTER: [&str; 12] = [
    "",
    "/",
    "//",
    "/index.php",
    "/./index.php",
    "/../wp-admin/",
    "%2f",
    "%2findex.php",
    "/%2e/",
    "?a=b",
    "/admin-ajax.php",
    "/x/../",
];

/// The same name in other letters of the URL alphabet.
fn spellings(name: &str) -> Vec<String> {
    let mut all = vec![name.to_owned()];
    for at in 0..name.len() {
        for upper in [false, true] {
            let byte = name.as_bytes()[at];
            let escape = if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
            all.push(format!("{}{escape}{}", &name[..at], &name[at + 1..]));
        }
    }
    all.push(name.bytes().map(|byte| format!("%{byte:02x}")).collect());
    all
}

/// Other paths; here only what is sent on is looked at, and what they may be taken for.
const OTHERS: [&str; 34] = [
    "/a/..;/b",
    "/%2e%2e/a",
    "/%252e%252e/wp-admin/",
    "//a//b",
    "/a\\b",
    "/\\wp-admin/",
    "/a\\..\\wp-admin/",
    "/wp-admin\\",
    "/%5cwp-admin",
    "/%00",
    "/wp-admin%00",
    "/%0d%0aX:%20y",
    "/a%0a",
    "/%2577p-admin/",
    "/wp%2dadmin%20/",
    "/wp-admin;/",
    "/wp-admin;a=b/",
    "/wp-admin.",
    "/a?b#c",
    "/wp-admin%09/",
    "/wp-admin%2e/",
    "/%77%70-admin/%2e%2e/",
    "/wp-admin/../",
    "/wp-admin/%2e%2e/",
    "/wp-login.php/",
    "/wp-login.php%2f",
    "/wp-login.php;x",
    "/wp-login%2ephp",
    "/WP-ADMIN/",
    "/?q=/wp-admin/",
    "/a?/../wp-admin/",
    "/%c0%af..%c0%afwp-admin/",
    "/%u0077p-admin/",
    "/%e0%80%afwp-admin",
];

pub(super) async fn run(length: Length) -> Outcome {
    let scene = Scene::alone("paths").await;
    let (public, admin) = (Oracle::start().await, Oracle::start().await);
    // A check would be taken for what a path led to.
    for backend in ["public", "admin"] {
        scene.put(&format!("backends/{backend}/backend"), json!({ "Type": "http", "HealthCheck": false })).await;
    }
    scene.put(&server_key("public", "s"), server_at(public.address)).await;
    scene.put(&server_key("admin", "s"), server_at(admin.address)).await;
    let site = json!({"Preset": "wordpress", "Hosts": ["w.test"], "Public": "public", "Admin": "admin", "UploadsFallback": false});
    scene.put("sites/w", site).await;
    let guarded = "Host(`o.test`) && (PathPrefix(`/wp-admin`) || PathPrefix(`/wp-login.php`))";
    scene.put(&frontend_key("guarded"), passing(guarded, "admin")).await;
    scene.put(&frontend_key("open"), passing("Host(`o.test`)", "public")).await;
    let proxy = scene.proxy("etna").await;
    for host in ["w.test", "o.test"] {
        proxy.until_status(host, "/", 200).await;
        proxy.until_status(host, "/wp-admin/", 200).await;
    }

    let mut paths: Vec<String> = OTHERS.map(str::to_owned).to_vec();
    for name in ["wp-admin", "wp-login.php"] {
        for (n, spelling) in spellings(name).iter().enumerate() {
            for (m, before) in BEFORE.iter().enumerate() {
                // Shortened: every spelling, every prefix and every suffix, but not all with all.
                if length == Length::Full || n == 0 || (n + m) % 7 == 0 {
                    paths.extend(
                        AFTER
                            .iter()
                            .enumerate()
                            .filter(|(k, _)| length == Length::Full || (n + m + k) % 4 == 0)
                            .map(|(_, after)| format!("{before}{spelling}{after}")),
                    );
                }
            }
        }
    }
    let mut wrong = Vec::new();
    let mut wire = Wire::open(proxy.listen).await;
    for (path, host) in paths.iter().flat_map(|path| [(path, "w.test"), (path, "o.test")]) {
        public.take();
        admin.take();
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await;
        match wire.reply(false, SOON).await {
            Ok(reply) if reply.closes() => wire = Wire::open(proxy.listen).await,
            Ok(_) => {}
            Err(gone) => {
                wrong.push(format!("{host}{path}: {gone:?}"));
                wire = Wire::open(proxy.listen).await;
            }
        }
        let (public, admin) = (public.take(), admin.take());
        // A prefix guards what begins with it, a site's rules a segment anywhere.
        let most = if host == "w.test" { usize::MAX } else { 1 };
        if !public.is_empty() && may_be_admin(path, most) {
            wrong.push(format!("{host}{path}: reached a public server"));
        }
        for seen in public.iter().chain(&admin) {
            match seen {
                Seen::Clean(request) if request.target == *path => {}
                other => wrong.push(format!("{host}{path}: a server saw {other:?}")),
            }
        }
    }
    let figure = format!("{} paths of two hosts, {} wrong", paths.len(), wrong.len());
    super::outcome("one at a time", 2 * paths.len(), figure, &wrong)
}

/// A frontend that passes the client's host on.
fn passing(route: &str, backend: &str) -> serde_json::Value {
    let mut frontend = frontend(route, backend);
    frontend["Settings"] = json!({ "PassHostHeader": true });
    frontend
}

/// Whether any server might take the path for one of the admin's, by one of its first segments, at most so many: escapes decoded once, with encoded slashes and
/// backslashes as separators or not, dots resolved.
fn may_be_admin(path: &str, most: usize) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let decoded = decode(path);
    [false, true].iter().any(|backslash| {
        [false, true].iter().any(|encoded| {
            let text =
                if *encoded { decoded.clone() } else { decode(&path.replace("%2f", "\u{1}").replace("%2F", "\u{1}")) };
            let text = if *backslash { text.replace('\\', "/") } else { text };
            resolve(&text).iter().take(most).any(|segment| segment == "wp-admin" || segment == "wp-login.php")
        })
    })
}

fn resolve(path: &str) -> Vec<String> {
    let mut segments: Vec<String> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            // A file name ends at NUL for whoever hands it to the system.
            other => segments.push(other.split('\0').next().unwrap_or_default().to_owned()),
        }
    }
    segments
}

fn decode(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.filter(|_| bytes[at] == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
