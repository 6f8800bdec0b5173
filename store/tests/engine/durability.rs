//! What was acknowledged is there, whenever the process is killed.
//!
//! The test runs itself as a child that commits numbered keys from several tasks and prints each number once it is
//! acknowledged; it is killed at a random moment, and every printed number must be in the store.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use etna_store::engine::embedded;
use etna_store::{Batch, Error, Txn};

use crate::suite;

#[tokio::test]
async fn no_acknowledged_write_is_lost_to_a_kill() {
    if let Ok(dir) = std::env::var(CHILD_DIR) {
        return write_for_ever(&dir).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    let mut revision = etna_store::Revision::default();
    for round in 0..ROUNDS {
        let mut child = Running(spawn(dir.path().to_str().unwrap()));
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        // Random enough: how many are let through before the kill.
        let enough = 1 + (std::process::id() as usize * 31 + round * 17) % 120;
        let killer = async {
            tokio::task::spawn_blocking(move || {
                let mut numbers = Vec::new();
                for line in lines {
                    let Some(number) = line.unwrap().strip_prefix(MARK).map(|n| n.parse::<u64>().unwrap()) else {
                        continue;
                    };
                    numbers.push(number);
                    if numbers.len() == enough {
                        child.0.kill().unwrap();
                    }
                }
                numbers
            })
            .await
            .unwrap()
        };
        let numbers = tokio::time::timeout(LONGEST_ROUND, killer).await.expect("the child writes");
        assert!(numbers.len() >= enough, "the child ended by itself after {} writes", numbers.len());
        acknowledged.extend(numbers);

        let engine = embedded::open(dir.path()).await.unwrap();
        let snapshot = engine.snapshot().await.unwrap();
        assert!(snapshot.revision > revision);
        revision = snapshot.revision;
        for number in &acknowledged {
            assert!(has(&snapshot, *number), "round {round}: write {number} is lost");
        }
        // A watcher that saw nothing yet sees every one of them.
        let mut watch = engine.watch(etna_store::Revision(0)).await.unwrap();
        for expected in 1..=revision.0 {
            assert_eq!(suite::next(&mut watch).await.revision.0, expected);
        }
    }
}

/// A limit on the size of files stands for a full disk.
#[tokio::test]
async fn a_full_disk_is_an_error_and_loses_nothing() {
    if let Ok(dir) = std::env::var(CHILD_DIR) {
        return fill_up(&dir).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new("sh");
    child
        .args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "durability::a_full_disk_is_an_error_and_loses_nothing", "--nocapture"])
        .env(CHILD_DIR, dir.path());
    let output = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Vec<u64> = text.lines().filter_map(|line| line.strip_prefix(MARK)?.parse().ok()).collect();
    assert!(!numbers.is_empty());
    let snapshot = embedded::open(dir.path()).await.unwrap().snapshot().await.unwrap();
    for number in numbers {
        assert!(has(&snapshot, number), "write {number} is lost");
    }
}

async fn fill_up(dir: &str) {
    let engine = embedded::open(dir.as_ref()).await.unwrap();
    let mut refused = 0;
    for number in 0..1000 {
        let before = engine.snapshot().await.unwrap();
        match engine.commit(Txn::put(format!("n/{number}"), "v".repeat(100_000))).await {
            Ok(_) => println!("\n{MARK}{number}"),
            Err(Error::Unavailable { context, .. }) => {
                assert!(context.contains("free space"), "{context}");
                refused += 1;
                let after = engine.snapshot().await.unwrap();
                assert!(after.revision >= before.revision && after.changes.len() >= before.changes.len());
            }
            Err(error) => panic!("{error:?}"),
        }
        if refused == 5 {
            return;
        }
    }
    panic!("the disk never was full");
}

async fn write_for_ever(dir: &str) {
    let engine = embedded::open(dir.as_ref()).await.unwrap();
    let start = u64::try_from(engine.snapshot().await.unwrap().revision.0).unwrap() * 1000;
    let next = Arc::new(std::sync::atomic::AtomicU64::new(start));
    let writers = (0..8).map(|_| {
        let (engine, next) = (engine.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                engine.commit(Txn::put(format!("n/{number}"), "v".repeat(200))).await.unwrap();
                let mut out = std::io::stdout().lock();
                if writeln!(out, "\n{MARK}{number}").and_then(|()| out.flush()).is_err() {
                    return;
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

fn has(snapshot: &Batch, number: u64) -> bool {
    let key = format!("n/{number}");
    snapshot.changes.binary_search_by(|change| change.key[..].cmp(key.as_bytes())).is_ok()
}

fn spawn(dir: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "durability::no_acknowledged_write_is_lost_to_a_kill", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CHILD_DIR: &str = "ETNA_DURABILITY_DIR";
const MARK: &str = "acknowledged ";
const ROUNDS: usize = 25;
const LONGEST_ROUND: Duration = Duration::from_secs(60);
