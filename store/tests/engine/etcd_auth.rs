//! The etcd engine and who may do what: users, roles, tokens that end, certificates.

use std::fs;
use std::path::Path;
use std::process::Command;

use etcd_client::{Client, ConnectOptions, Permission};
use etna_store::engine::Options;
use etna_store::{Error, Txn};
use futures_util::StreamExt as _;
use tempfile::TempDir;

use crate::etcd_process::Etcd;
use crate::suite;

#[tokio::test]
async fn users_and_roles() {
    let etcd = Etcd::start().await;
    let mut root = with_auth(&etcd).await;
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("lb"), "lb-pw\n").unwrap();
    fs::write(files.path().join("viewer"), "viewer-pw").unwrap();
    fs::write(files.path().join("wrong"), "wrong").unwrap();
    let options = |user: &str, file: &str| Options {
        user: Some(user.into()),
        password_file: Some(files.path().join(file)),
        ..Options::default()
    };

    let engine = etna_store::open(&etcd.url(), &options("lb", "lb")).await.unwrap();
    let start = suite::put(&engine, "k", "1").await;
    let lease = engine.grant(std::time::Duration::from_secs(60)).await.unwrap();
    engine.keep(lease).await.unwrap();
    engine.revoke(lease).await.unwrap();
    let mut watch = engine.watch(start).await.unwrap();
    let new = suite::put(&engine, "k", "2").await;
    assert_eq!(suite::next(&mut watch).await.revision, new);

    let viewer = etna_store::open(&etcd.url(), &options("viewer", "viewer")).await.unwrap();
    assert_eq!(viewer.snapshot().await.unwrap().changes.len(), 1);
    assert_denied(viewer.commit(Txn::put("k", "3")).await);

    // Refused is never empty.
    let elsewhere = etna_store::open(&format!("{}/other", etcd.url()), &options("lb", "lb")).await.unwrap();
    assert_denied(elsewhere.snapshot().await);
    let Err(error) = elsewhere.watch(start).await else { panic!("watched") };
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    let wrong = etna_store::open(&etcd.url(), &options("lb", "wrong")).await.unwrap();
    assert_denied(wrong.snapshot().await);
    let nobody = etcd.engine().await;
    assert_denied(nobody.snapshot().await);

    // A new password ends all tokens. The file is read again, so writing it there is enough.
    root.user_change_password("lb", "new-pw").await.unwrap();
    assert_denied(engine.snapshot().await);
    fs::write(files.path().join("lb"), "new-pw").unwrap();
    assert_eq!(engine.snapshot().await.unwrap().changes.len(), 1);
    let new = suite::put(&engine, "k", "4").await;
    assert_eq!(suite::next(&mut watch).await.revision, new, "the watch from before goes on");
}

#[tokio::test]
async fn a_password_is_shown_when_told_to_if_it_is_taken() {
    let etcd = Etcd::start().await;
    let mut root = with_auth(&etcd).await;
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("lb");
    fs::write(&file, "lb-pw").unwrap();
    let options = Options { user: Some("lb".into()), password_file: Some(file.clone()), ..Options::default() };
    let engine = etna_store::open(&etcd.url(), &options).await.unwrap();
    suite::put(&engine, "k", "1").await;
    engine.renew().await.unwrap();
    for (bad, denied) in [("wrong", true), ("", true)] {
        fs::write(&file, bad).unwrap();
        let refused = engine.renew().await.unwrap_err();
        assert_eq!(matches!(refused, Error::Denied { .. }), denied, "{refused:?}");
        suite::put(&engine, "k", "2").await;
    }
    fs::remove_file(&file).unwrap();
    assert!(matches!(engine.renew().await.unwrap_err(), Error::Invalid { .. }));
    suite::put(&engine, "k", "3").await;
    root.user_change_password("lb", "new-pw").await.unwrap();
    fs::write(&file, "new-pw").unwrap();
    engine.renew().await.unwrap();
    suite::put(&engine, "k", "4").await;
}

#[tokio::test]
async fn a_token_that_ended_is_renewed() {
    let mut etcd = Etcd::start().await;
    with_auth(&etcd).await;
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("lb");
    fs::write(&file, "lb-pw\n").unwrap();
    let options = Options { user: Some("lb".into()), password_file: Some(file), ..Options::default() };
    let engine = etna_store::open(&etcd.url(), &options).await.unwrap();
    let start = suite::put(&engine, "k", "1").await;
    // Simple tokens are kept in memory: a new process knows none of them.
    etcd.kill();
    etcd.run().await;
    let mut watch = suite::eventually_watch(&engine, start).await;
    let new = suite::put(&engine, "k", "2").await;
    assert_eq!(suite::next(&mut watch).await.revision, new);
}

#[tokio::test]
async fn a_user_where_there_are_none_is_told() {
    let etcd = Etcd::start().await;
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("pw");
    fs::write(&file, "pw").unwrap();
    let options = Options { user: Some("lb".into()), password_file: Some(file), ..Options::default() };
    let engine = etna_store::open(&etcd.url(), &options).await.unwrap();
    assert_denied(engine.snapshot().await);
    let options = Options { password_file: None, ..options };
    let Err(error) = etna_store::open(&etcd.url(), &options).await else { panic!("opened") };
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
}

#[tokio::test]
async fn certificates() {
    let pki = pki();
    let at = |name: &str| pki.path().join(name).to_str().unwrap().to_owned();
    let flags = [
        "--client-cert-auth",
        "--trusted-ca-file",
        &at("ca.pem"),
        "--cert-file",
        &at("server.pem"),
        "--key-file",
        &at("server.key"),
    ];
    let etcd = Etcd::start_with("https", &flags).await;
    let url = format!("etcds://127.0.0.1:{}", etcd.port);
    let options = Options {
        ca_file: Some(at("ca.pem").into()),
        cert_file: Some(at("client.pem").into()),
        key_file: Some(at("client.key").into()),
        ..Options::default()
    };
    let engine = etna_store::open(&url, &options).await.unwrap();
    assert_eq!(engine.describe(), format!("{url}/vulcand"));
    let start = suite::put(&engine, "k", "1").await;
    let mut watch = engine.watch(start).await.unwrap();
    let new = suite::put(&engine, "k", "2").await;
    assert_eq!(suite::next(&mut watch).await.revision, new);

    // Another certificate, then one that is none.
    leaf(pki.path(), "ca", "client", "DNS:next", "clientAuth");
    engine.renew().await.unwrap();
    suite::put(&engine, "k", "3").await;
    let good = fs::read(at("client.pem")).unwrap();
    for bad in [&b"no certificate"[..], &fs::read(at("other-ca.pem")).unwrap()] {
        fs::write(at("client.pem"), bad).unwrap();
        let refused = engine.renew().await.unwrap_err();
        assert!(!refused.to_string().is_empty());
        suite::put(&engine, "k", "4").await;
    }
    fs::write(at("client.pem"), good).unwrap();
    engine.renew().await.unwrap();

    let strangers = [
        Options { cert_file: None, key_file: None, ..options.clone() },
        Options { ca_file: Some(at("other-ca.pem").into()), ..options.clone() },
    ];
    for options in strangers {
        let engine = etna_store::open(&url, &options).await.unwrap();
        let error = engine.snapshot().await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    }
    for broken in
        [Options { key_file: None, ..options.clone() }, Options { ca_file: Some(at("none").into()), ..options }]
    {
        let Err(error) = etna_store::open(&url, &broken).await else { panic!("opened") };
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    }
}

/// The authority of clients changes, so that nothing but the new certificate is taken.
#[tokio::test]
async fn a_client_certificate_that_was_replaced_is_shown_to_the_next_connection() {
    let pki = pki();
    let at = |name: &str| pki.path().join(name).to_str().unwrap().to_owned();
    fs::copy(at("ca.pem"), at("clients.pem")).unwrap();
    let flags = [
        "--client-cert-auth",
        "--trusted-ca-file",
        &at("clients.pem"),
        "--cert-file",
        &at("server.pem"),
        "--key-file",
        &at("server.key"),
    ];
    let mut etcd = Etcd::start_with("https", &flags).await;
    let options = Options {
        ca_file: Some(at("ca.pem").into()),
        cert_file: Some(at("client.pem").into()),
        key_file: Some(at("client.key").into()),
        ..Options::default()
    };
    let engine = etna_store::open(&format!("etcds://127.0.0.1:{}", etcd.port), &options).await.unwrap();
    let start = suite::put(&engine, "k", "1").await;
    let mut watch = engine.watch(start).await.unwrap();

    fs::copy(at("other-ca.pem"), at("clients.pem")).unwrap();
    etcd.kill();
    etcd.run().await;
    let ended = loop {
        match watch.next().await.expect("it ends with an error") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, Error::Unavailable { .. }), "{ended:?}");
    // Refused is never empty.
    for _ in 0..3 {
        let refused = engine.snapshot().await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable { .. }), "{refused:?}");
    }
    leaf(pki.path(), "other-ca", "client", "DNS:etna", "clientAuth");
    let mut watch = suite::eventually_watch(&engine, start).await;
    assert_eq!(engine.snapshot().await.unwrap().changes.len(), 1);
    let new = suite::put(&engine, "k", "2").await;
    assert_eq!(suite::next(&mut watch).await.revision, new);
}

fn assert_denied<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Denied { .. })), "{result:?}");
}

/// Makes users `root`, `lb` (writes below `/vulcand/`) and `viewer` (reads there), and switches authentication on.
async fn with_auth(etcd: &Etcd) -> Client {
    let mut client = etcd.client().await;
    client.role_add("root").await.unwrap();
    for (user, permission) in [
        ("lb", Permission::read_write("/vulcand/").with_prefix()),
        ("viewer", Permission::read("/vulcand/").with_prefix()),
    ] {
        client.role_add(user).await.unwrap();
        client.role_grant_permission(user, permission).await.unwrap();
    }
    for user in ["root", "lb", "viewer"] {
        client.user_add(user, format!("{user}-pw"), None).await.unwrap();
        client.user_grant_role(user, user).await.unwrap();
    }
    client.auth_enable().await.unwrap();
    let options = ConnectOptions::new().with_user("root", "root-pw");
    Client::connect([format!("127.0.0.1:{}", etcd.port)], Some(options)).await.unwrap()
}

/// An authority, a server and a client certificate by it, and another authority.
fn pki() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path(), "ca");
    authority(dir.path(), "other-ca");
    leaf(dir.path(), "ca", "server", "IP:127.0.0.1", "serverAuth,clientAuth");
    leaf(dir.path(), "ca", "client", "DNS:etna", "clientAuth");
    dir
}

fn authority(dir: &Path, name: &str) {
    openssl(
        dir,
        &[
            "req",
            "-x509",
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.pem"),
            "-days",
            "30",
            "-subj",
            &format!("/CN={name}"),
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ],
    );
}

fn leaf(dir: &Path, by: &str, name: &str, alternative: &str, usage: &str) {
    let extensions = format!("subjectAltName={alternative}\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n");
    fs::write(dir.join("extensions"), extensions).unwrap();
    openssl(
        dir,
        &[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &format!("{name}.key"),
            "-out",
            "request",
            "-subj",
            &format!("/CN={name}"),
        ],
    );
    openssl(
        dir,
        &[
            "x509",
            "-req",
            "-in",
            "request",
            "-CA",
            &format!("{by}.pem"),
            "-CAkey",
            &format!("{by}.key"),
            "-CAcreateserial",
            "-days",
            "30",
            "-out",
            &format!("{name}.pem"),
            "-extfile",
            "extensions",
        ],
    );
}

fn openssl(dir: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(dir).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run openssl ({error}): apt-get install openssl"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
