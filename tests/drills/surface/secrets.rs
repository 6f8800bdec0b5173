//! Secrets, looked for wherever they could have got to.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use etna_store::seal::KeyPair;
use etna_tests::client::{raw, request, send};
use etna_tests::etcd::Etcd;
use etna_tests::process::try_output_of;
use etna_tests::proxy::Proxy;
use etna_tests::scene::Scene;
use etna_tests::tls::Authority;
use etna_tests::wait::{ensure, eventually};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::drill::{Length, Outcome};

/// S5. The admin token, the password for etcd, private keys of hosts, the seal key. A core dump is looked through before
/// anything was sent to the proxy, as that passes through memory; and not for the password, which the next login needs.
/// Keys that are in use are in it, of course, as numbers: what is looked for is their text, and the seal key's.
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
    let authority = Authority::new(scene.folder());
    let seal_key = std::fs::read_to_string(authority.seal_key()).expect("the seal key can be read");
    let (sealed, sent, loose) =
        (authority.issue(&["sealed.test"]), authority.issue(&["key.test"]), authority.issue(&["raw.test"]));
    scene.put("hosts/sealed.test/host", authority.host(&sealed, true)).await;
    let path = |path: &Path| path.to_str().expect("a path of ours").to_owned();
    let (token_file, password_file) = (path(&token), path(&password));
    let flags = ["--admin-token-file", &token_file, "--store-user", "root", "--store-password-file", &password_file];
    let flags = [&flags[..], &["--seal-key", authority.seal_key(), "--listen-https", "127.0.0.1:0"]].concat();
    let proxy =
        Proxy::launch("etna", &scene.store(), &[&flags[..], &["--log", "debug"]].concat(), scene.folder(), LONG).await;
    proxy.until_ready(LONG).await;
    let at = secure(&proxy).expect("it speaks TLS");
    let answered = authority.client().get(at, "sealed.test", "/").await.map(|answer| answer.status);
    assert_eq!(answered, Ok(404), "TLS is spoken with the key, and no frontend is there");
    let keys: Vec<String> = [&sealed, &sent]
        .into_iter()
        .flat_map(texts)
        .chain([seal_key.trim().to_owned(), base64_of_hex(&seal_key)])
        .collect();
    let loose_keys = texts(&loose);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let secrets = [&[TOKEN, PASSWORD][..], &keys].concat();
    let everything: Vec<&str> = secrets.iter().copied().chain(loose_keys.iter().map(String::as_str)).collect();

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
        Length::Full => dumped(&scene, proxy.pid(), &[&[TOKEN][..], &keys].concat()),
        Length::Short => Err("that takes its time".into()),
    };

    // Everything that could leak is done: changes, refusals, errors, a key.
    let host = proxy.admin.to_string();
    let (open, pair) = (in_the_clear(&sent), json!(authority.sealed(&sent)));
    let changes = [
        ("/v2/hosts", json!({ "Host": { "Name": "key.test", "Settings": { "KeyPair": open } } })),
        ("/v2/hosts", json!({ "Host": { "Name": "", "Settings": { "KeyPair": open } } })),
        ("/v2/hosts", json!({ "Host": { "Name": "key.test", "Settings": { "KeyPair": pair } } })),
        ("/v2/backends", json!({ "Backend": { "Id": "b", "Type": "http" } })),
    ];
    let mut shown = Vec::new();
    for (path, body) in changes {
        let asked = request("POST", &host, path).header("authorization", format!("Bearer {TOKEN}"));
        let asked = asked.header("content-type", "application/json").body(Full::from(body.to_string()));
        let answer = send(proxy.admin, asked.expect("a valid request")).await.expect("it answers");
        shown.extend_from_slice(&answer.body);
    }
    let got = eventually("the key that was sent is used", LONG, async || {
        authority.client().get(at, "key.test", "/").await.map(|answer| answer.status)
    })
    .await;
    assert_eq!(got, 404);
    // Put by somebody who does not know that keys are to be sealed.
    let (pair, text) = (in_the_clear(&loose), STANDARD.encode(loose.key()));
    scene
        .put("hosts/raw.test/host", json!({ "Name": "raw.test", "Settings": { "KeyPair": pair }, "Unknown": text }))
        .await;
    scene.put_raw(b"hosts/bad.test/host", format!("{{\"Settings\":{{\"KeyPair\":\"{text}").as_bytes()).await;
    for path in [
        "/",
        "/metrics",
        "/v2/status",
        "/v2/hosts",
        "/v2/hosts/key.test",
        "/v2/hosts/sealed.test",
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
    look("the admin API", &shown, &everything);
    etcd.kill(0);
    etcd.resume(0);
    etcd.ready(0).await;
    eventually("the last table is there", LONG, async || ensure(proxy.last_table().is_some(), "not yet")).await;
    look("the log", proxy.said().as_bytes(), &everything);
    for name in ["environ", "cmdline", "status", "maps"] {
        let bytes = std::fs::read(format!("/proc/{}/{name}", proxy.pid())).unwrap_or_default();
        look(name, &bytes, &everything);
    }
    let root = format!("root:{PASSWORD}");
    let dump = etcd.ctl(&[0], &["--user", &root, "get", "--prefix", ""]).expect("etcd reads");
    look("etcd", dump.as_bytes(), &secrets);
    let mut open = Vec::new();
    for file in std::fs::read_dir(&proxy.state_dir).expect("the state can be listed").flatten() {
        if !file.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        look("the state", &std::fs::read(file.path()).unwrap_or_default(), &secrets);
        use std::os::unix::fs::PermissionsExt as _;
        let mode = file.metadata().map_or(0, |about| about.permissions().mode() & 0o777);
        // Addresses are no secret, and others look there.
        if mode != 0o600 && file.file_name() != "addresses.json" {
            open.push(format!("{} is {mode:o}", file.file_name().display()));
        }
    }
    let figure = format!(
        "{places} places, {} hits {found:?}: tokens, passwords, private keys, the seal key; state files 0600 {open:?}; core dump: {}",
        found.len(),
        match &core {
            Ok(shown) if shown.is_empty() => "shows none".to_owned(),
            Ok(shown) => format!("shows {shown:?}"),
            Err(error) => format!("not looked through, {error}"),
        },
    );
    let pass = found.is_empty() && open.is_empty() && core.as_ref().map_or(true, Vec::is_empty);
    Outcome { load: "one after the other".into(), failed: found.len() as u64, figure, pass, ..Outcome::default() }
}

/// A host's value as vulcand's API takes it.
fn in_the_clear(pair: &KeyPair) -> Value {
    json!({ "Cert": STANDARD.encode(pair.cert()), "Key": STANDARD.encode(pair.key()) })
}

/// Parts of a private key, as text, that nothing else has: of its PEM, and of that in base64.
fn texts(pair: &KeyPair) -> Vec<String> {
    let pem = String::from_utf8_lossy(pair.key()).into_owned();
    // Its first line is alike in all keys of a kind.
    let line = pem.lines().nth(2).expect("a key of some lines").to_owned();
    let encoded = STANDARD.encode(pair.key());
    vec![line, encoded[160..220].to_owned()]
}

fn base64_of_hex(hex: &str) -> String {
    let bytes: Vec<u8> = hex
        .trim()
        .as_bytes()
        .chunks(2)
        .filter_map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok())
        .collect();
    assert_eq!(bytes.len(), 32, "a seal key");
    STANDARD.encode(bytes)
}

/// Where it speaks TLS. The admin API is not asked: the token would be shown.
fn secure(proxy: &Proxy) -> Option<SocketAddr> {
    let addresses = std::fs::read(proxy.state_dir.join("addresses.json")).ok()?;
    serde_json::from_slice::<Value>(&addresses).ok()?["listeners"]["https"].as_str()?.parse().ok()
}

/// Which of them all its memory, written to a file, holds.
fn dumped(scene: &Scene, pid: u32, secrets: &[&str]) -> Result<Vec<String>, String> {
    let to = scene.folder().join("core");
    try_output_of(Command::new("gcore").arg("-o").arg(&to).arg(pid.to_string()))?;
    let file = scene.folder().join(format!("core.{pid}"));
    let holds = |text: &str| {
        let status = Command::new("grep").args(["-aqF", text]).arg(&file).status().map_err(|error| error.to_string());
        match status?.code() {
            Some(found @ (0 | 1)) => Ok(found == 0),
            other => Err(format!("grep ended with {other:?}")),
        }
    };
    // What it is sure to hold shows that it was looked through.
    let known = holds("the admin token file");
    let found: Result<Vec<String>, String> = secrets
        .iter()
        .filter_map(|secret| holds(secret).map(|found| found.then(|| format!("{}…", &secret[..6]))).transpose())
        .collect();
    let _ = std::fs::remove_file(&file);
    if known? { found } else { Err("the dump does not hold what it must".into()) }
}

const TOKEN: &str = "7a1f0e55ca1ab1edeca7ed0ddba115c01dc0ffee7a1f0e55";
const PASSWORD: &str = "correct-horse-battery-staple-91723";
const LONG: std::time::Duration = std::time::Duration::from_secs(20);
