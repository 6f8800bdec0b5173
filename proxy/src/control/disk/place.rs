//! Which files of the state directory are of which store.
//!
//! Every store has names of its own there, so that proxies of several stores that share a directory do not take each
//! other's last table away. What was written when the store had other endpoints is found by what the file says.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// A store's newest generation.
pub(super) fn newest(dir: &Path, store: &str) -> PathBuf {
    let digest = Sha256::digest(store);
    let name = digest.iter().take(4).fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
    dir.join(format!("{PREFIX}-{name:08x}"))
}

/// The generation before.
pub(super) fn previous(dir: &Path, store: &str) -> PathBuf {
    newest(dir, store).with_extension("1")
}

/// What this process writes. Two processes write here while one replaces the other.
pub(super) fn temporary(dir: &Path, store: &str) -> PathBuf {
    newest(dir, store).with_extension(format!("{UNDONE}{}", std::process::id()))
}

/// Generations of the same store under other names, the newest first.
pub(super) fn others(dir: &Path, store: &str) -> Vec<PathBuf> {
    let own = [newest(dir, store), previous(dir, store)];
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let named = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.starts_with(PREFIX) && process_of(name).is_none())
    });
    let mut found: Vec<_> = named
        .map(|entry| entry.path())
        .filter(|path| !own.contains(path) && is_of(path, store))
        .map(|path| (fs::metadata(&path).and_then(|about| about.modified()).ok(), path))
        .collect();
    found.sort_by(|one, other| other.cmp(one));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Takes away what processes left that were killed while they wrote.
pub(super) fn clean(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().filter(|name| name.starts_with(PREFIX)).and_then(process_of);
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Who writes a file that is not done.
fn process_of(name: &str) -> Option<u32> {
    name.split_once('.')?.1.strip_prefix(UNDONE)?.parse().ok()
}

/// Whether a file says that it is of this store; the rest of it is not looked at.
fn is_of(path: &Path, store: &str) -> bool {
    // A pipe in this place would be waited for.
    if !fs::metadata(path).is_ok_and(|about| about.is_file()) {
        return false;
    }
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_HEAD).read_to_end(&mut head));
    read.is_ok() && super::store_of(Bytes::from(head)).is_ok_and(|(of, _)| is_same_store(&of, store))
}

/// Whether two descriptions mean one store: endpoints of a cluster come and go, its prefix stays.
pub(super) fn is_same_store(one: &str, other: &str) -> bool {
    let parts = |text: &str| -> Option<(String, Vec<String>)> {
        let (scheme, rest) = text.split_once("://")?;
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (hosts, prefix) = rest.split_at(at);
        Some((format!("{}{prefix}", scheme.trim_end_matches('s')), hosts.split(',').map(str::to_owned).collect()))
    };
    if one == other {
        return true;
    }
    let (Some((one, hosts)), Some((other, others))) = (parts(one), parts(other)) else { return false };
    one == other && hosts.iter().any(|host| others.contains(host))
}

const PREFIX: &str = "last";
/// Before the number of the process.
const UNDONE: &str = "new.";
const LONGEST_HEAD: u64 = 8 << 10;
