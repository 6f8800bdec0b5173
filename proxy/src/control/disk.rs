//! The last table on disk: what a start without the store serves.
//!
//! Two generations, `last` and `last.1`, each whole or not there: versioned, with a SHA-256 over all of it, mode 0600
//! because values may hold secrets. Reading is total: what is damaged, of another version or of another store is
//! refused with a reason. When it was last known to be true is the file's modification time. Not here: when it is
//! written (`keep.rs`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use etna_store::{Batch, Change, Revision};
use sha2::{Digest as _, Sha256};

use super::suspect::Pairs;

/// What is written.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The store it is of, as [`etna_store::Engine::describe`] says.
    pub store: String,
    /// The revision in force.
    pub revision: Revision,
    /// Keys and values as they are stored.
    pub pairs: Pairs,
    /// Which of them the store no longer has, and until when they serve; `None`: not by time.
    pub held: Vec<(Bytes, Option<SystemTime>)>,
}

/// What was read.
#[derive(Debug)]
pub struct Found {
    /// Every pair, at the revision that was in force.
    pub batch: Batch,
    /// Suspects, and how long they still serve.
    pub held: Vec<(Bytes, Option<Duration>)>,
    /// How long ago it was known to be true.
    pub age: Duration,
    /// Whether it is the newer generation.
    pub newest: bool,
}

/// Reads the newest generation that can be used; and why newer ones, if there are, cannot.
pub fn read(dir: &Path, store: &str) -> (Option<Found>, Vec<String>) {
    let mut refused = Vec::new();
    for (newest, path) in [(true, dir.join(NEWEST)), (false, dir.join(PREVIOUS))] {
        match read_file(&path, store) {
            Ok(Some(found)) => return (Some(Found { newest, ..found }), refused),
            Ok(None) => {}
            Err(reason) => refused.push(format!("{}: {reason}", path.display())),
        }
    }
    (None, refused)
}

/// Writes a generation: the newest becomes the previous one if `rotate` says that it is of use.
pub fn write(dir: &Path, kept: &Kept, rotate: bool) -> io::Result<()> {
    // Two processes write here while one replaces the other.
    let temporary = dir.join(format!("{TEMPORARY}{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(&temporary)?;
    let written = encode(kept, BufWriter::with_capacity(BUFFER, &file)).and_then(|()| file.sync_all());
    let placed = written.and_then(|()| {
        let newest = dir.join(NEWEST);
        if rotate {
            match fs::rename(&newest, dir.join(PREVIOUS)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&temporary, &newest)?;
        File::open(dir)?.sync_all()
    });
    if placed.is_err() {
        // What it takes is what is missing, if the disk is full.
        let _ = fs::remove_file(&temporary);
    }
    placed
}

/// Takes away what processes left that were killed while they wrote.
pub fn clean(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY)?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Notes that the newest generation is still true.
pub fn touch(dir: &Path) -> io::Result<()> {
    File::options().append(true).open(dir.join(NEWEST))?.set_modified(SystemTime::now())
}

/// Where the newest generation lies.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(NEWEST)
}

fn read_file(path: &Path, store: &str) -> Result<Option<Found>, String> {
    let said = |error: io::Error| error.to_string();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(said(error)),
    };
    let about = file.metadata().map_err(said)?;
    let modified = about.modified().map_err(said)?;
    if about.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or_default());
    file.take(LONGEST).read_to_end(&mut bytes).map_err(said)?;
    let now = SystemTime::now();
    let (batch, held) = decode(bytes.into(), store, now)?;
    let age = now.duration_since(modified).unwrap_or_default();
    Ok(Some(Found { batch, held, age, newest: true }))
}

/// The file's bytes.
pub fn encode(kept: &Kept, to: impl Write) -> io::Result<()> {
    let mut to = Hashing { to, hash: Sha256::new() };
    to.write_all(MAGIC)?;
    to.write_all(&VERSION.to_le_bytes())?;
    field(&mut to, kept.store.as_bytes())?;
    to.write_all(&kept.revision.0.to_le_bytes())?;
    to.write_all(&(kept.pairs.len() as u64).to_le_bytes())?;
    for (key, value) in &kept.pairs {
        field(&mut to, key)?;
        field(&mut to, value)?;
    }
    to.write_all(&(kept.held.len() as u64).to_le_bytes())?;
    for (key, until) in &kept.held {
        field(&mut to, key)?;
        let until = until.map_or(0, |until| until.duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs().max(1)));
        to.write_all(&until.to_le_bytes())?;
    }
    let Hashing { mut to, hash } = to;
    to.write_all(&hash.finalize())?;
    to.flush()
}

fn field(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a value is longer than 4 GiB"))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(bytes)
}

/// Every pair, and what is held with how long it still serves.
pub type Decoded = (Batch, Vec<(Bytes, Option<Duration>)>);

/// Reads a whole file, which must be of this store. Pure.
///
/// # Errors
/// Why it cannot be used, for people.
pub fn decode(mut bytes: Bytes, store: &str, now: SystemTime) -> Result<Decoded, String> {
    let Some(signed) = bytes.len().checked_sub(DIGEST) else { return Err("it is cut off".into()) };
    let digest = bytes.split_off(signed);
    if !bytes.starts_with(MAGIC) {
        return Err("it is no last table".into());
    }
    // Before the checksum: another version may have another one.
    let mut from = Reader(bytes.slice(MAGIC.len()..));
    match from.u32()? {
        VERSION => {}
        other => return Err(format!("it is of version {other}, and {VERSION} is read")),
    }
    if *Sha256::digest(&bytes) != *digest {
        return Err("its checksum is wrong".into());
    }
    let of = from.field()?;
    if !is_same_store(&String::from_utf8_lossy(&of), store) {
        return Err(format!("it is of another store, {}", String::from_utf8_lossy(&of).escape_debug()));
    }
    let revision = Revision(from.u64()? as i64);
    let count = from.u64()?;
    // A pair takes eight bytes at least, so a count is bounded by what is there.
    let mut changes = Vec::with_capacity(usize::try_from(count).unwrap_or_default().min(from.0.len() / 8));
    for _ in 0..count {
        changes.push(Change { key: from.field()?, value: Some(from.field()?) });
    }
    let mut held = Vec::new();
    for _ in 0..from.u64()? {
        let key = from.field()?;
        let until = from.u64()?;
        let left = |until| (UNIX_EPOCH + Duration::from_secs(until)).duration_since(now).unwrap_or_default();
        held.push((key, (until > 0).then(|| left(until.min(FAR)))));
    }
    if !from.0.is_empty() {
        return Err("something follows its end".into());
    }
    Ok((Batch { revision, changes }, held))
}

/// Whether two descriptions mean one store: endpoints of a cluster come and go, its prefix stays.
fn is_same_store(one: &str, other: &str) -> bool {
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

struct Reader(Bytes);

impl Reader {
    fn take(&mut self, length: usize) -> Result<Bytes, String> {
        if length > self.0.len() { Err("it is cut off".into()) } else { Ok(self.0.split_to(length)) }
    }

    fn u32(&mut self) -> Result<u32, String> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn u64(&mut self) -> Result<u64, String> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn field(&mut self) -> Result<Bytes, String> {
        let length = self.u32()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }
}

struct Hashing<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

const NEWEST: &str = "last";
const PREVIOUS: &str = "last.1";
/// Before the number of the process.
const TEMPORARY: &str = "last.new.";
const MAGIC: &[u8] = b"etna last table\n";
const VERSION: u32 = 1;
const DIGEST: usize = 32;
const LONGEST: u64 = 1 << 30;
const BUFFER: usize = 256 << 10;
/// The year 3000, so that no addition overflows.
const FAR: u64 = 32_503_680_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(revision: i64, pairs: &[(&'static str, &'static str)]) -> Kept {
        let pairs = pairs.iter().map(|(key, value)| (Bytes::from(*key), Bytes::from(*value)));
        Kept {
            store: "etcd://a:1,b:2/v".into(),
            revision: Revision(revision),
            pairs: pairs.collect(),
            held: Vec::new(),
        }
    }

    fn keys(found: Option<&Found>) -> Option<(i64, usize)> {
        found.map(|found| (found.batch.revision.0, found.batch.changes.len()))
    }

    #[test]
    fn what_is_written_is_read_back_and_two_generations_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path(), "x").0.is_none());
        let mut one = kept(1, &[("sites/a", "1"), ("nonsense", "")]);
        one.held =
            vec![("sites/a".into(), None), ("nonsense".into(), Some(SystemTime::now() + Duration::from_secs(60)))];
        write(dir.path(), &one, true).unwrap();
        let (found, refused) = read(dir.path(), "etcd://b:2,c:3/v");
        let found = found.unwrap();
        assert!(refused.is_empty() && found.newest && found.age < Duration::from_secs(60));
        let pairs: Pairs = found.batch.changes.into_iter().map(|it| (it.key, it.value.unwrap())).collect();
        assert_eq!(pairs, one.pairs);
        assert_eq!(found.held[0].1, None);
        assert!(found.held[1].1.is_some_and(|left| left > Duration::from_secs(50)));

        write(dir.path(), &kept(2, &[("sites/a", "2")]), true).unwrap();
        assert_eq!(keys(read(dir.path(), "etcd://a:1,b:2/v").0.as_ref()), Some((2, 1)));
        fs::write(path(dir.path()), "etna last table\nnot so").unwrap();
        let (found, refused) = read(dir.path(), "etcd://a:1/v");
        assert_eq!((keys(found.as_ref()), refused.len()), (Some((1, 2)), 1));
        // A generation that is of no use does not push out the one that is.
        write(dir.path(), &kept(3, &[]), false).unwrap();
        fs::remove_file(path(dir.path())).unwrap();
        assert_eq!(keys(read(dir.path(), "etcd://a:1/v").0.as_ref()), Some((1, 2)));
        use std::os::unix::fs::PermissionsExt as _;
        write(dir.path(), &kept(4, &[]), true).unwrap();
        assert_eq!(fs::metadata(path(dir.path())).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_cut_off_or_flipped_anywhere_is_refused() {
        let mut bytes = Vec::new();
        let mut whole = kept(7, &[("frontends/f/frontend", "{}"), ("sites/s", "{\"a\":1}")]);
        whole.held = vec![("sites/s".into(), None)];
        encode(&whole, &mut bytes).unwrap();
        let store = &whole.store;
        assert!(decode(bytes.clone().into(), store, UNIX_EPOCH).is_ok());
        for length in 0..bytes.len() {
            assert!(decode(bytes[..length].to_vec().into(), store, UNIX_EPOCH).is_err(), "{length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(flipped.into(), store, UNIX_EPOCH).is_err(), "{bit}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(decode(longer.into(), store, UNIX_EPOCH).is_err());
    }

    #[test]
    fn lengths_that_lie_under_a_right_checksum_are_refused() {
        for lie in [u32::MAX, 1 << 31, 17] {
            let mut bytes = [MAGIC, &VERSION.to_le_bytes(), &lie.to_le_bytes(), b"etcd://a:1/v"].concat();
            let digest = Sha256::digest(&bytes);
            bytes.extend_from_slice(&digest);
            assert!(decode(bytes.into(), "etcd://a:1/v", UNIX_EPOCH).is_err());
        }
        let store = b"etcd://a:1/v";
        let length = (store.len() as u32).to_le_bytes();
        let counts = [&1i64.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
        let mut bytes = [MAGIC, &VERSION.to_le_bytes(), &length, store, &counts].concat();
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        assert!(decode(bytes.into(), "etcd://a:1/v", UNIX_EPOCH).is_err());
    }

    #[test]
    fn another_store_and_another_version_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &kept(1, &[]), true).unwrap();
        for other in ["etcd://a:1/w", "etcd://c:1/v", "etcd://a:1?prefix=v", "http://a:1/v", "unix:/a", ""] {
            let (found, refused) = read(dir.path(), other);
            assert!(found.is_none() && refused[0].contains("another store"), "{other}: {refused:?}");
        }
        assert!(read(dir.path(), "etcds://a:1/v").0.is_some());
        let mut bytes = fs::read(path(dir.path())).unwrap();
        bytes[MAGIC.len()] = 2;
        fs::write(path(dir.path()), bytes).unwrap();
        assert!(read(dir.path(), "etcd://a:1/v").1[0].contains("version 2"));
    }

    #[test]
    fn a_full_or_read_only_disk_is_an_error_and_leaves_what_was() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &kept(1, &[]), true).unwrap();
        fs::create_dir(dir.path().join(PREVIOUS)).unwrap();
        assert!(write(dir.path(), &kept(2, &[]), true).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing half written stays");
        assert_eq!(keys(read(dir.path(), "etcd://a:1/v").0.as_ref()), Some((1, 0)));
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(encode(&kept(1, &[]), Full).is_err());
        fs::write(dir.path().join("last.new.4294967295"), "x").unwrap();
        clean(dir.path());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(touch(dir.path()).is_ok() && touch(Path::new("/nonexistent")).is_err());
    }
}
