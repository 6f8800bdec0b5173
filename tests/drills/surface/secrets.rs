//! Secrets, looked for wherever they could have got to.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use etna_tests::client::{raw, request, send};
use etna_tests::etcd::Etcd;
use etna_tests::process::try_output_of;
use etna_tests::proxy::Proxy;
use etna_tests::scene::Scene;
use etna_tests::wait::{ensure, eventually};
use http_body_util::Full;
use serde_json::json;

use crate::drill::{Length, Outcome};

/// S5. The admin token, the password for etcd, a host's private key. A core dump is looked through for the token alone,
/// before it was ever shown: the password is needed for the next login, and what clients send passes through memory.
pub(super) async fn hidden(length: Length) -> Outcome {
    let etcd = Arc::new(Etcd::start(1).await);
    let mut scene = Scene::alone_on("s5", etcd.clone()).await;
    for args in [&["user", "add", &format!("root:{PASSWORD}")][..], &["auth", "enable"]] {
        etcd.ctl(&[0], args).expect("etcd takes users");
    }
    scene.sign_in("root", PASSWORD).await;
    let (token, password) = (scene.folder().join("token"), scene.folder().join("password"));
    std::fs::write(&token, TOKEN).expect("a token can be written");
    std::fs::write(&password, PASSWORD).expect("a password can be written");
    let path = |path: &Path| path.to_str().expect("a path of ours").to_owned();
    let (token_file, password_file) = (path(&token), path(&password));
    let flags = ["--admin-token-file", &token_file, "--store-user", "root", "--store-password-file", &password_file];
    let proxy =
        Proxy::launch("etna", &scene.store(), &[&flags[..], &["--log", "debug"]].concat(), scene.folder(), LONG).await;
    proxy.until_ready(LONG).await;

    let mut found = Vec::new();
    let mut places = 0;
    let mut look = |place: &str, bytes: &[u8], secrets: &[&str]| {
        places += 1;
        assert!(!bytes.is_empty(), "{place} is empty: nothing was looked through");
        for secret in secrets {
            if bytes.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                found.push(format!("{place} shows {}…", &secret[..6]));
            }
        }
    };
    let core = match length {
        Length::Full => dumped(&scene, proxy.pid()),
        Length::Short => Err("that takes its time".into()),
    };

    // Everything that could leak is done: changes, refusals, errors, a key.
    let host = proxy.admin.to_string();
    let pair = json!({ "Cert": "LS0tQ0VSVC0tLQ==", "Key": KEY });
    let changes = [
        ("/v2/hosts", json!({ "Host": { "Name": "key.test", "Settings": { "KeyPair": pair } } })),
        ("/v2/hosts", json!({ "Host": { "Name": "", "Settings": { "KeyPair": pair } } })),
        ("/v2/backends", json!({ "Backend": { "Id": "b", "Type": "http" } })),
    ];
    let mut shown = Vec::new();
    for (path, body) in changes {
        let asked = request("POST", &host, path).header("authorization", format!("Bearer {TOKEN}"));
        let asked = asked.header("content-type", "application/json").body(Full::from(body.to_string()));
        let answer = send(proxy.admin, asked.expect("a valid request")).await.expect("it answers");
        shown.extend_from_slice(&answer.body);
    }
    scene
        .put("hosts/raw.test/host", json!({ "Name": "raw.test", "Settings": { "KeyPair": pair }, "Unknown": KEY }))
        .await;
    scene.put_raw(b"hosts/bad.test/host", format!("{{\"Settings\":{{\"KeyPair\":\"{KEY}").as_bytes()).await;
    for path in [
        "/",
        "/metrics",
        "/v2/status",
        "/v2/hosts",
        "/v2/hosts/key.test",
        "/v2/hosts/raw.test",
        "/v3/problems",
        "/v3/status",
        "/v3/suspects",
    ] {
        let asked = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        );
        shown.extend_from_slice(raw(proxy.admin, asked.as_bytes()).await.as_bytes());
        let asked = format!("GET {path}?token={TOKEN} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        shown.extend_from_slice(raw(proxy.admin, asked.as_bytes()).await.as_bytes());
    }
    look("the admin API", &shown, &[TOKEN, PASSWORD, KEY]);
    etcd.kill(0);
    etcd.resume(0);
    etcd.ready(0).await;
    eventually("the last table is there", LONG, async || ensure(proxy.last_table().is_some(), "not yet")).await;
    look("the log", proxy.said().as_bytes(), &[TOKEN, PASSWORD, KEY]);
    for name in ["environ", "cmdline", "status", "maps"] {
        let bytes = std::fs::read(format!("/proc/{}/{name}", proxy.pid())).unwrap_or_default();
        look(name, &bytes, &[TOKEN, PASSWORD, KEY]);
    }
    let root = format!("root:{PASSWORD}");
    let dump = etcd.ctl(&[0], &["--user", &root, "get", "--prefix", ""]).expect("etcd reads");
    look("etcd", dump.as_bytes(), &[TOKEN, PASSWORD]);
    let mut open = Vec::new();
    for file in std::fs::read_dir(&proxy.state_dir).expect("the state can be listed").flatten() {
        if !file.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        look("the state", &std::fs::read(file.path()).unwrap_or_default(), &[TOKEN, PASSWORD]);
        use std::os::unix::fs::PermissionsExt as _;
        let mode = file.metadata().map_or(0, |about| about.permissions().mode() & 0o777);
        // Addresses are no secret, and others look there.
        if mode != 0o600 && file.file_name() != "addresses.json" {
            open.push(format!("{} is {mode:o}", file.file_name().display()));
        }
    }
    let sealed = !dump.contains(KEY);
    let figure = format!(
        "{places} places, {} hits {found:?}; state files 0600 {open:?}; core dump: {}; host keys in etcd are {}",
        found.len(),
        match &core {
            Ok(true) => "shows the token".to_owned(),
            Ok(false) => "shows no token".to_owned(),
            Err(error) => format!("not looked through, {error}"),
        },
        if sealed { "sealed" } else { "not sealed yet" }
    );
    let pass = found.is_empty() && open.is_empty() && core != Ok(true);
    Outcome { load: "one after the other".into(), failed: found.len() as u64, figure, pass, ..Outcome::default() }
}

/// Whether all its memory, written to a file, holds the token.
fn dumped(scene: &Scene, pid: u32) -> Result<bool, String> {
    let to = scene.folder().join("core");
    try_output_of(Command::new("gcore").arg("-o").arg(&to).arg(pid.to_string()))?;
    let file = scene.folder().join(format!("core.{pid}"));
    let found = Command::new("grep").args(["-aqF", TOKEN]).arg(&file).status().map_err(|error| error.to_string());
    let known = Command::new("grep").args(["-aqF", "the admin token file"]).arg(&file).status();
    let _ = std::fs::remove_file(file);
    match (found?.code(), known.ok().and_then(|status| status.code())) {
        // What it is sure to hold shows that it was looked through.
        (Some(found @ (0 | 1)), Some(0)) => Ok(found == 0),
        other => Err(format!("grep ended with {other:?}")),
    }
}

const TOKEN: &str = "7a1f0e55ca1ab1edeca7ed0ddba115c01dc0ffee7a1f0e55";
const PASSWORD: &str = "correct-horse-battery-staple-91723";
const KEY: &str = "LS0tUFJJVkFURS1LRVktNzIzOTg0NzItLS0=";
const LONG: std::time::Duration = std::time::Duration::from_secs(20);
