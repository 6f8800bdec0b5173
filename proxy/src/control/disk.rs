//! The last table on disk: what a start without the store serves.
//!
//! Two generations of each store, `last-…` and `last-….1`, each whole or not there: versioned, with a SHA-256 over all
//! of it, mode 0600 because values may hold secrets. Reading is total: what is damaged, of another version or of another
//! store is refused with a reason. When it was last known to be true is the file's modification time. Not here: when it
//! is written (`keep.rs`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use etna_store::{Batch, Change, Revision};
use sha2::{Digest as _, Sha256};

use super::suspect::Pairs;

mod place;

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
    let own = [(true, place::newest(dir, store)), (false, place::previous(dir, store))];
    let others = place::others(dir, store).into_iter().map(|path| (false, path));
    for (newest, path) in own.into_iter().chain(others) {
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
    let temporary = place::temporary(dir, &kept.store);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(&temporary)?;
    let written = encode(kept, BufWriter::with_capacity(BUFFER, &file)).and_then(|()| file.sync_all());
    let placed = written.and_then(|()| {
        let newest = place::newest(dir, &kept.store);
        if rotate {
            match fs::rename(&newest, place::previous(dir, &kept.store)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&temporary, &newest)?;
        for outdated in place::others(dir, &kept.store) {
            let _ = fs::remove_file(outdated);
        }
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
    place::clean(dir);
}

/// Notes that the newest generation is still true.
pub fn touch(dir: &Path, store: &str) -> io::Result<()> {
    File::options().append(true).open(place::newest(dir, store))?.set_modified(SystemTime::now())
}

/// Where a store's newest generation lies.
pub fn path(dir: &Path, store: &str) -> PathBuf {
    place::newest(dir, store)
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
    // Before the checksum: another version may have another one.
    let head = store_of(bytes.clone());
    if head.is_ok() && *Sha256::digest(&bytes) != *digest {
        return Err("its checksum is wrong".into());
    }
    let (of, mut from) = head?;
    if !place::is_same_store(&of, store) {
        return Err(format!("it is of another store, {}", of.escape_debug()));
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

/// The store that a file says it is of, and what follows.
fn store_of(bytes: Bytes) -> Result<(String, Reader), String> {
    if !bytes.starts_with(MAGIC) {
        return Err("it is no last table".into());
    }
    let mut from = Reader(bytes.slice(MAGIC.len()..));
    match from.u32()? {
        VERSION => {}
        other => return Err(format!("it is of version {other}, and {VERSION} is read")),
    }
    let of = from.field()?;
    Ok((String::from_utf8_lossy(&of).into_owned(), from))
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

    const STORE: &str = "etcd://a:1,b:2/v";

    fn kept(revision: i64, pairs: &[(&'static str, &'static str)]) -> Kept {
        let pairs = pairs.iter().map(|(key, value)| (Bytes::from(*key), Bytes::from(*value)));
        Kept { store: STORE.into(), revision: Revision(revision), pairs: pairs.collect(), held: Vec::new() }
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
        let (found, refused) = read(dir.path(), STORE);
        let found = found.unwrap();
        assert!(refused.is_empty() && found.newest && found.age < Duration::from_secs(60));
        let pairs: Pairs = found.batch.changes.into_iter().map(|it| (it.key, it.value.unwrap())).collect();
        assert_eq!(pairs, one.pairs);
        assert_eq!(found.held[0].1, None);
        assert!(found.held[1].1.is_some_and(|left| left > Duration::from_secs(50)));

        write(dir.path(), &kept(2, &[("sites/a", "2")]), true).unwrap();
        assert_eq!(keys(read(dir.path(), "etcd://a:1,b:2/v").0.as_ref()), Some((2, 1)));
        fs::write(path(dir.path(), STORE), "etna last table\nnot so").unwrap();
        let (found, refused) = read(dir.path(), STORE);
        assert_eq!((keys(found.as_ref()), refused.len()), (Some((1, 2)), 1));
        // A generation that is of no use does not push out the one that is.
        write(dir.path(), &kept(3, &[]), false).unwrap();
        fs::remove_file(path(dir.path(), STORE)).unwrap();
        assert_eq!(keys(read(dir.path(), "etcd://a:1/v").0.as_ref()), Some((1, 2)));
        use std::os::unix::fs::PermissionsExt as _;
        write(dir.path(), &kept(4, &[]), true).unwrap();
        assert_eq!(fs::metadata(path(dir.path(), STORE)).unwrap().permissions().mode() & 0o777, 0o600);
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
            assert!(found.is_none() && refused.is_empty(), "{other}: {refused:?}");
            let bytes = fs::read(path(dir.path(), STORE)).unwrap();
            assert!(decode(bytes.into(), other, UNIX_EPOCH).is_err_and(|why| why.contains("another store")));
        }
        assert!(read(dir.path(), "etcds://a:1/v").0.is_some());
        let mut bytes = fs::read(path(dir.path(), STORE)).unwrap();
        bytes[MAGIC.len()] = 2;
        fs::write(path(dir.path(), STORE), bytes).unwrap();
        assert!(read(dir.path(), STORE).1[0].contains("version 2"));
    }

    #[test]
    fn stores_that_share_a_directory_do_not_take_each_others_table() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &kept(1, &[("sites/a", "1")]), true).unwrap();
        for revision in 10..14 {
            let other = Kept { store: "etcd://a:1,b:2/other".into(), ..kept(revision, &[]) };
            write(dir.path(), &other, true).unwrap();
        }
        assert_eq!(keys(read(dir.path(), STORE).0.as_ref()), Some((1, 1)));
        assert_eq!(keys(read(dir.path(), "etcd://a:1,b:2/other").0.as_ref()), Some((13, 0)));
        // An endpoint more: what was kept before is found, and goes when there is something newer.
        let grown = Kept { store: "etcd://a:1,b:2,c:3/v".into(), ..kept(2, &[]) };
        assert_eq!(keys(read(dir.path(), &grown.store).0.as_ref()), Some((1, 1)));
        write(dir.path(), &grown, false).unwrap();
        assert!(!path(dir.path(), STORE).exists());
        assert_eq!(keys(read(dir.path(), STORE).0.as_ref()), Some((2, 0)));
    }

    #[test]
    fn a_full_or_read_only_disk_is_an_error_and_leaves_what_was() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &kept(1, &[]), true).unwrap();
        fs::create_dir(place::previous(dir.path(), STORE)).unwrap();
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
        fs::write(dir.path().join("last-0.new.4294967295"), "x").unwrap();
        clean(dir.path());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(touch(dir.path(), STORE).is_ok() && touch(Path::new("/nonexistent"), STORE).is_err());
    }
}
