//! The program itself: exit statuses and what it prints.

#![allow(clippy::unwrap_used, reason = "a test ends where its setting fails")]

#[allow(dead_code, unreachable_pub)]
mod daemon;

use std::process::Output;

use daemon::{Daemon, container};
use serde_json::json;
use tokio::process::Command;

const CID: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

async fn sidekick(daemon: &Daemon, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_etna-sidekick"))
        .args(arguments)
        .env_clear()
        .args(["--docker", &daemon.host(), "--machine-id", "m1", "--host-ip", "127.0.0.1"])
        .arg("--state-dir")
        .arg(daemon.dir())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_what_and_why() {
    let daemon = Daemon::start();
    daemon.put(container(CID, "wordpress-1", 1));
    let (status, out, err) = sidekick(&daemon, &["explain", "wordpress-1"]).await;
    assert_eq!(status, 0, "{out}{err}");
    for part in [
        "RULE",
        "etna.enable",
        "one of the original's names",
        "127.0.0.1:1",
        "sites/wordpress.local",
        "backends/wordpress.local-public/servers/m1-fedcba987654-80",
        "does not answer HTTP",
    ] {
        assert!(out.contains(part), "{part} in:\n{out}");
    }

    let mut other = container(&CID.replace('f', "a"), "mysql", 1);
    other["Config"]["Labels"] = json!({"note": "\u{1b}[31m"});
    daemon.put(other);
    let (status, out, _) = sidekick(&daemon, &["explain", "mysql"]).await;
    assert_eq!(status, 1);
    assert!(out.contains("mysql is not ours"), "{out}");

    let (status, _, err) = sidekick(&daemon, &["explain", "nobody"]).await;
    assert_eq!(status, 1);
    assert!(err.contains("knows no container \"nobody\""), "{err}");
    assert!(daemon.requests().iter().all(|request| request.starts_with("GET ")));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_64_and_help_is_0() {
    let daemon = Daemon::start();
    for wrong in [
        &["--nonsense"][..],
        &["explain"],
        &["--default-host", "a:80"],
        &["--store", "nonsense"],
        &["--store", "nonsense", "deregister"],
        &["--log", "x=y=z", "watch"],
    ] {
        let (status, _, err) = sidekick(&daemon, wrong).await;
        assert_eq!(status, 64, "{wrong:?}: {err}");
        assert!(!err.is_empty());
    }
    for right in [&["--help"][..], &["--version"], &["man"], &["completions", "bash"], &["explain", "--help"]] {
        let (status, out, _) = sidekick(&daemon, right).await;
        assert_eq!(status, 0, "{right:?}");
        assert!(out.contains("etna-sidekick"), "{right:?}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn announce_waits_only_so_long() {
    let daemon = Daemon::start();
    let (status, _, err) = sidekick(&daemon, &["announce", "--container", "wordpress-9", "--wait", "300ms"]).await;
    assert_eq!(status, 1);
    assert!(err.contains("wordpress-9 does not run after 300ms"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_that_is_not_there_is_named_with_its_remedy() {
    let daemon = Daemon::start();
    std::fs::remove_file(daemon.socket()).unwrap();
    let (status, _, err) = sidekick(&daemon, &["explain", "wordpress-1"]).await;
    assert_eq!(status, 1);
    assert!(err.contains("docker.sock") && err.contains("is it running"), "{err}");
}
