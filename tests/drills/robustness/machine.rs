//! G7: the disk is full, then cannot be written at all; nobody reads the log. Nobody who asks for a page notices.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use etna_tests::process::try_output_of;
use etna_tests::proxy::Proxy;
use etna_tests::scene::{frontend, frontend_key, server_key};
use serde_json::json;

use crate::bed::{BACKEND, Bed, Needs, Rate};
use crate::drill::{Length, Outcome};
use crate::protocol::wire::Wire;

pub(super) async fn run(length: Length) -> Outcome {
    let (scene, servers) = Bed::parts("machine", &Needs::default()).await;
    let state = scene.folder().join("etna-state");
    std::fs::create_dir_all(&state).expect("a folder");
    let disk = Disk::mount(&state);
    let pipe = scene.folder().join("log");
    try_output_of(Command::new("mkfifo").arg(&pipe)).expect("a pipe");
    // Open for both, so that neither side waits for the other; nobody reads until the end.
    let mut reader = File::options().read(true).write(true).open(&pipe).expect("the pipe opens");
    let plain = Proxy::command("etna", &scene.store(), &["--log", "etna_proxy=debug"], scene.folder());
    let mut command = Command::new("sh");
    command.args(["-c", "pipe=$1; shift; exec \"$@\" 2>\"$pipe\"", "sh"]).arg(&pipe);
    command.arg(plain.get_program()).args(plain.get_args());
    let proxy = Proxy::run("etna", command, scene.folder(), Duration::from_secs(20)).await;
    proxy.until_ready(Duration::from_secs(20)).await;
    let bed = Bed::around(scene, servers, proxy, length).await;
    bed.scene.put(&server_key("dead", "s"), json!({"URL": "http://127.0.0.1:1"})).await;
    bed.scene.put(&frontend_key("dead"), frontend("Host(`dead.test`)", "dead")).await;
    bed.proxy.until_status("dead.test", "/", 502).await;
    let load = bed.load(Rate::L2k).await;

    let mut said = Vec::new();
    let mut pass = true;
    let phases: &[&str] =
        if disk.is_some() { &["full", "read-only"] } else { &["not checked: nothing can be mounted here"] };
    for (number, phase) in phases.iter().enumerate() {
        match *phase {
            "full" => drop(std::fs::write(state.join("filler"), vec![0; 4 << 20])),
            "read-only" => drop(try_output_of(Command::new("mount").args(["-o", "remount,ro"]).arg(&state))),
            _ => {}
        }
        // The store goes on meanwhile: what changes is in force, and wants to be kept.
        let id = format!("new-{number}");
        let revision = bed.scene.put(&frontend_key(&id), frontend(&format!("Host(`{id}.test`)"), BACKEND)).await;
        bed.proxy.until_revision(revision).await;
        load.go_on(length.pick(Duration::from_secs(10), Duration::from_millis(500))).await;
        said.push(format!("disk {phase}"));
    }
    // As much to say as fills any pipe: every request to a server that is not there says so.
    let began = Instant::now();
    let mut wire = Wire::open(bed.proxy.listen).await;
    let mut stuck = 0;
    for _ in 0..length.pick(3000, 1200) {
        wire.send(b"GET / HTTP/1.1\r\nHost: dead.test\r\n\r\n").await;
        if wire.reply(false, Duration::from_secs(20)).await.is_err() {
            stuck += 1;
            wire = Wire::open(bed.proxy.listen).await;
            if stuck == 3 {
                break;
            }
        }
    }
    if stuck > 0 {
        pass = false;
        said.push(format!("{stuck} requests got no answer while the log was full"));
    }
    load.go_on(length.pick(Duration::from_secs(10), Duration::from_millis(800))).await;
    let metrics = tokio::time::timeout(Duration::from_secs(20), bed.proxy.metrics()).await;
    let dropped = metrics.ok().and_then(|metrics| metrics.sum("etna_log_dropped_total", &[]));
    said.push(format!(
        "log unread for {:.0?}: {} events dropped",
        began.elapsed(),
        dropped.map_or("no".into(), |n| n.to_string())
    ));
    let mut unread = vec![0; 1 << 20];
    let held = reader.read(&mut unread).unwrap_or_default();
    said.push(format!("{held} bytes of log in the pipe"));
    if dropped.is_none_or(|dropped| dropped == 0.0) && held >= 60_000 {
        pass = false;
        said.push("a full pipe, and nothing counted as dropped".into());
    }
    let outcome = bed.outcome(load, said.join("; "), pass).await;
    drop(bed);
    drop(disk);
    outcome
}

/// A disk of 256 KiB.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(on: &Path) -> Option<Disk> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "etna-drill"]).arg(on);
        try_output_of(&mut mount).ok().map(|_| Disk(on.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = try_output_of(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}
