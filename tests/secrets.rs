//! Private keys at rest: what the operator's tools seal is in the store, nowhere in the clear, and outlives a change of
//! the seal key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use etna_store::seal::Keyring;
use etna_tests::binaries::binary;
use etna_tests::process::{pipe, signal};
use etna_tests::proxy::Proxy;
use etna_tests::scene::Scene;
use etna_tests::tls::{Authority, leaf};
use etna_tests::wait::{ensure, eventually};
use serde_json::Value;

/// What `etnactl` says on stdout and stderr, and whether it is content.
async fn etnactl(proxy: &Proxy, arguments: &[&str]) -> (String, String, bool) {
    let mut command = Command::new(binary("etnactl"));
    command.args(["--admin", &format!("http://{}", proxy.admin)]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.success())
}

async fn done(proxy: &Proxy, arguments: &[&str]) -> String {
    let (out, err, content) = etnactl(proxy, arguments).await;
    assert!(content, "{arguments:?}: {out} {err}");
    out
}

/// A certificate and its key, as files.
fn certificate(folder: &Path, name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let file = |ending: &str, text: String| {
        let path = folder.join(format!("{}{ending}", name.replace('*', "any")));
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    (file(".pem", cert.pem()), file("-key.pem", key.serialize_pem()))
}

#[tokio::test]
async fn private_keys_are_sealed_and_outlive_their_seal_key() {
    let scene = Scene::open("secrets").await;
    let folder = scene.folder().to_owned();
    let seal_key = folder.join("seal-key").display().to_string();
    let ring = || Keyring::read(Path::new(&seal_key)).unwrap();
    let made = Command::new(binary("etnactl")).args(["secret", "new-key", "-f", &seal_key]).status().unwrap();
    assert!(made.success());
    let proxy = scene.proxy_with("etna", &["--seal-key", &seal_key]).await;

    // A listener may come before the certificates.
    done(&proxy, &["listener", "upsert", "--id", "tls", "--proto", "https", "--addr", "127.0.0.1:0"]).await;
    let name = "*.shop.test";
    let (cert, key) = certificate(&folder, name);
    let (_, other_key) = certificate(&folder, "other.test");
    let upsert = |key: &str| {
        let line = ["host", "upsert", "--name", name, "--cert", &cert, "--private-key", key, "--seal-key", &seal_key];
        line.map(str::to_owned)
    };
    let wrong = upsert(&other_key);
    let (_, err, content) = etnactl(&proxy, &wrong.each_ref().map(String::as_str)).await;
    assert!(!content && err.contains("the certificate is of another key"), "{err}");
    let right = upsert(&key);
    assert!(done(&proxy, &right.each_ref().map(String::as_str)).await.contains(name));

    let listed = done(&proxy, &["host", "ls", "--seal-key", &seal_key]).await;
    assert!(listed.contains("*.shop.test") && listed.contains("stored") && listed.contains("UNTIL"), "{listed}");
    let shown = done(&proxy, &["-o", "json", "host", "show", "--name", name, "--seal-key", &seal_key]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["Certificate"]["Names"][0], name);
    assert!(shown["Settings"]["HasKeyPair"] == true && shown["Settings"]["KeyPair"].is_null(), "{shown}");

    // Sealed in the store, and nowhere else in any form.
    let stored = async || -> Vec<u8> {
        let text = done(&proxy, &["key", "get", "hosts/*.shop.test/host"]).await;
        let value: Value = serde_json::from_str(&text).unwrap();
        STANDARD.decode(value["Settings"]["KeyPair"].as_str().unwrap()).unwrap()
    };
    let envelope = stored().await;
    assert_eq!(ring().open(&envelope).unwrap().key(), fs::read(&key).unwrap());
    let api = proxy.json("/v2/hosts").await.to_string() + &proxy.json("/v3/status").await.to_string();
    let exported = done(&proxy, &["export"]).await;
    let body = fs::read_to_string(&key).unwrap().lines().nth(1).unwrap().to_owned();
    for text in [&api, &exported, &proxy.said()] {
        assert!(!text.contains(&body) && !text.contains("PRIVATE KEY"), "{text}");
    }
    assert!(!api.contains(&STANDARD.encode(&envelope)));

    // A new key in front of the old one.
    let old = fs::read_to_string(&seal_key).unwrap();
    let new = done(&proxy, &["secret", "new-key"]).await;
    fs::write(&seal_key, format!("{new}{old}")).unwrap();
    // The proxy shares more than the pair; all of it was sealed with the old key.
    let reseal = async || -> Value {
        let said = done(&proxy, &["-o", "json", "secret", "reseal", "--seal-key", &seal_key]).await;
        serde_json::from_str(&said).unwrap()
    };
    let has = |said: &Value| said["Resealed"].as_array().unwrap().contains(&"hosts/*.shop.test/host".into());
    let (first, second) = (reseal().await, reseal().await);
    assert!(has(&first) && first["Failed"].as_array().unwrap().is_empty(), "{first}");
    assert!(!has(&second) && second["Current"].as_u64().unwrap() > 0, "{second}");
    fs::write(&seal_key, new).unwrap();
    assert_eq!(ring().open(&stored().await).unwrap().key(), fs::read(&key).unwrap());
    done(&proxy, &["host", "rm", name]).await;
    assert!(!done(&proxy, &["host", "ls"]).await.contains(name));
}

#[tokio::test]
async fn seal_keys_are_read_again_without_a_restart() {
    let scene = Scene::open("reread").await;
    let authorities = ["first", "second"].map(|name| {
        let folder = scene.folder().join(name);
        fs::create_dir(&folder).unwrap();
        Authority::new(&folder)
    });
    let [first, second] = &authorities;
    let file = first.seal_key();
    let proxy = scene.proxy_with("etna", &["--seal-key", file, "--listen-https", "127.0.0.1:0"]).await;
    let at = proxy.listener("https").await;
    let put = async |by: &Authority, name: &str| {
        let pair = by.issue(&[name]);
        scene.put(&format!("hosts/{name}/host"), by.host(&pair, false)).await;
        leaf(&pair)
    };
    let serves = async |by: &Authority, name: &str, wanted: &[u8]| {
        eventually(&format!("{name} has its certificate"), SOON, async || {
            let served = by.client().certificate(at, name).await?;
            ensure(served == wanted, "another one")
        })
        .await;
    };
    let problems = async |wanted: &[&str]| {
        eventually(&format!("the problems are {wanted:?}"), SOON, async || {
            let told = proxy.problems().await;
            let keys: Vec<&str> = told.iter().map(|problem| problem["key"].as_str().unwrap()).collect();
            ensure(keys == wanted, format!("{told:?}"))
        })
        .await;
    };
    problems(&["--listen-https"]).await;
    let old = put(first, "a.test").await;
    serves(first, "a.test", &old).await;
    problems(&[]).await;
    let new = put(second, "b.test").await;
    problems(&["hosts/b.test/host"]).await;

    let [old_key, new_key] = [first, second].map(|of| fs::read_to_string(of.seal_key()).unwrap());
    fs::write(file, format!("{new_key}\n{old_key}\n")).unwrap();
    signal(proxy.pid(), "HUP");
    problems(&[]).await;
    serves(second, "b.test", &new).await;
    serves(first, "a.test", &old).await;

    // One that cannot be used changes nothing, and does not go unnoticed.
    fs::write(file, "no key").unwrap();
    signal(proxy.pid(), "HUP");
    problems(&[file]).await;
    assert!(proxy.problems().await[0]["reason"].as_str().unwrap().contains("64 hex digits"));
    let next = put(first, "a.test").await;
    serves(first, "a.test", &next).await;

    // Nor does one that nobody writes to hold up those that come after it.
    let aside = format!("{file}.aside");
    fs::rename(file, &aside).unwrap();
    pipe(Path::new(file));
    signal(proxy.pid(), "HUP");
    eventually("the pipe is told", SOON, async || {
        let told = proxy.problems().await;
        ensure(
            told.iter().any(|problem| problem["reason"].as_str().unwrap().contains("no seal key")),
            format!("{told:?}"),
        )
    })
    .await;
    fs::rename(&aside, file).unwrap();

    // What is still sealed with a key that is gone serves on, and is told.
    fs::write(file, &new_key).unwrap();
    signal(proxy.pid(), "HUP");
    problems(&["hosts/a.test/host"]).await;
    serves(first, "a.test", &next).await;
    assert!(!proxy.said().contains(old_key.trim()) && !proxy.said().contains(new_key.trim()));
}

#[tokio::test]
async fn a_seal_key_that_others_can_read_is_refused() {
    let scene = Scene::open("open-seal-key").await;
    let path = scene.folder().join("open");
    fs::write(&path, "0".repeat(64)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let flag = path.display().to_string();
    let mut command = Proxy::command("etna", &scene.store(), &["--seal-key", &flag], scene.folder());
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("chmod o=") && !said.contains(&"0".repeat(64)), "{said}");
    // The same of systemd's, where no file is named.
    let credentials = scene.folder().join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("seal-key"), "no key").unwrap();
    fs::set_permissions(credentials.join("seal-key"), fs::Permissions::from_mode(0o400)).unwrap();
    let mut command = Proxy::command("etna", &scene.store(), &[], scene.folder());
    command.stdin(Stdio::null()).env("CREDENTIALS_DIRECTORY", &credentials);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("64 hex digits, not 6 characters"), "{said}");
}

const SOON: Duration = Duration::from_secs(10);
