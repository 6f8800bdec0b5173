//! The file of the embedded store: a redb database with four tables.
//!
//! It is read once, when opened, and written by difference: whatever leads from one [`Core`] to the next is one
//! transaction with one sync. A process killed at any moment leaves the last whole transaction.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use bytes::Bytes;
use imbl::ordmap::DiffItem;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition, TableError,
};
use tokio::time::Instant;

use super::codec;
use crate::engine::core::Core;
use crate::engine::{Error, LeaseId, Revision};

/// The open file, locked against other processes.
#[derive(Debug)]
pub(super) struct Disk(Database);

impl Disk {
    /// Opens or makes the file in `dir`, and fills `core`, which is empty, with what it holds.
    pub(super) fn open(dir: &Path, mut core: Core, now: Instant) -> Result<(Disk, Core), Error> {
        let path = dir.join(FILE);
        let file = open_file(dir, &path).map_err(|error| unreadable(&path, &error))?;
        let disk = match Database::builder().set_cache_size(CACHE).create_file(file) {
            Ok(database) => Disk(database),
            Err(error) => return Err(unopened(&path, &error)),
        };
        match disk.load(&mut core, now) {
            Ok(Loaded::Whole) => Ok((disk, core)),
            Ok(Loaded::Newer(format)) => Err(Error::Invalid {
                reason: format!(
                    "{} has format {format}, this version reads up to {FORMAT}: run the newer version that wrote it",
                    path.display()
                ),
            }),
            Ok(Loaded::Damaged(what)) => Err(damaged(&path, what)),
            Err(error) => Err(damaged(&path, &error.to_string())),
        }
    }

    /// Writes what leads from one core to the next.
    pub(super) fn write(&self, before: &Core, after: &Core) -> Result<(), Box<redb::Error>> {
        self.try_write(before, after).map_err(Box::new)
    }

    fn try_write(&self, before: &Core, after: &Core) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        {
            let mut items = transaction.open_table(ITEMS)?;
            for change in before.items.diff(&after.items) {
                match change {
                    DiffItem::Add(key, item) | DiffItem::Update { new: (key, item), .. } => {
                        items.insert(&key[..], &codec::encode_item(item)[..])?;
                    }
                    DiffItem::Remove(key, _) => _ = items.remove(&key[..])?,
                }
            }
            let mut history = transaction.open_table(HISTORY)?;
            let mut seen = before.revision.max(after.compacted);
            while let Ok(Some(batch)) = after.after(seen) {
                seen = batch.revision;
                let bytes = codec::encode_changes(&batch)
                    .ok_or_else(|| redb::Error::Corrupted("a change is too large to write".into()))?;
                history.insert(seen.0, &bytes[..])?;
            }
            if before.compacted < after.compacted {
                history.retain_in(..=after.compacted.0, |_, _| false)?;
            }
            let mut leases = transaction.open_table(LEASES)?;
            for (id, lease) in &after.leases {
                if !before.leases.contains_key(id) {
                    leases.insert(id.0, lease.ttl)?;
                }
            }
            for id in before.leases.keys() {
                if !after.leases.contains_key(id) {
                    leases.remove(id.0)?;
                }
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert("format", FORMAT)?;
            meta.insert("revision", after.revision.0)?;
            meta.insert("compacted", after.compacted.0)?;
            meta.insert("next_lease", after.next_lease)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn load(&self, core: &mut Core, now: Instant) -> Result<Loaded, redb::Error> {
        let transaction = self.0.begin_read()?;
        let meta = match transaction.open_table(META) {
            // New: the first write makes all tables. Reading makes none, so that a full disk can still be read.
            Err(TableError::TableDoesNotExist(_)) => return Ok(Loaded::Whole),
            meta => meta?,
        };
        let number = |name: &str| -> Result<Option<i64>, redb::Error> { Ok(meta.get(name)?.map(|n| n.value())) };
        let Some(format) = number("format")? else { return Ok(Loaded::Whole) };
        if format > FORMAT {
            return Ok(Loaded::Newer(format));
        }
        let (Some(revision), Some(compacted), Some(next_lease)) =
            (number("revision")?, number("compacted")?, number("next_lease")?)
        else {
            return Ok(Loaded::Damaged("its revision is missing"));
        };
        (core.revision, core.compacted, core.next_lease) = (Revision(revision), Revision(compacted), next_lease);
        for entry in transaction.open_table(LEASES)?.iter()? {
            let (id, ttl) = entry?;
            core.restore_lease(LeaseId(id.value()), ttl.value(), now);
        }
        for entry in transaction.open_table(ITEMS)?.iter()? {
            let (key, value) = entry?;
            let item = codec::decode_item(value.value()).filter(|item| item.revision <= core.revision);
            if !item.is_some_and(|item| core.restore_item(Bytes::copy_from_slice(key.value()), item)) {
                return Ok(Loaded::Damaged("an item cannot be read"));
            }
        }
        for entry in transaction.open_table(HISTORY)?.iter()? {
            let (at, changes) = entry?;
            let at = Revision(at.value());
            match codec::decode_changes(at, changes.value()) {
                Some(batch) if core.compacted < at && at <= core.revision => core.restore_history(batch),
                _ => return Ok(Loaded::Damaged("a revision cannot be read")),
            }
        }
        Ok(Loaded::Whole)
    }
}

enum Loaded {
    Whole,
    Newer(i64),
    Damaged(&'static str),
}

/// Whether there is anything to write.
pub(super) fn differ(before: &Core, after: &Core) -> bool {
    before.revision != after.revision
        || before.next_lease != after.next_lease
        || before.leases.len() != after.leases.len()
}

fn open_file(dir: &Path, path: &Path) -> io::Result<File> {
    let new = !path.exists();
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if new {
        // Else a crash of the machine could lose the file's name.
        File::open(dir)?.sync_all()?;
    }
    Ok(file)
}

/// The store's file cannot be what it was: what happened, and the way out.
pub(super) fn damaged(path: &Path, what: &str) -> Error {
    let path = path.display();
    let reason = format!(
        "{path} is damaged or no store of etna ({what}): move it away, start again, and import the last export with \
         `etnactl import`"
    );
    Error::Invalid { reason }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let context = format!("cannot open {}: {error}", path.display());
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Error::Denied { reason: format!("{context}; run as the user who owns it, or give another directory") }
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists | ErrorKind::IsADirectory => {
            Error::Invalid { reason: format!("{context}; give a directory") }
        }
        _ => Error::Unavailable { context, source: None },
    }
}

fn unopened(path: &Path, error: &DatabaseError) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen => Error::Unavailable {
            context: format!(
                "{} {IN_USE}: stop it, or reach it as http://HOST:8182 or unix:/PATH.sock instead, or give another \
                 directory",
                path.display()
            ),
            source: None,
        },
        DatabaseError::Storage(StorageError::Io(error)) if !is_of_content(error) => unreadable(path, error),
        other => damaged(path, &other.to_string()),
    }
}

/// The library reports some damage as an I/O error.
fn is_of_content(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::InvalidInput)
}

/// The file's name in the store's directory.
pub(super) const FILE: &str = "etna.redb";
pub(super) const IN_USE: &str = "is open in another process";
const FORMAT: i64 = 1;
/// In bytes. Little is enough: reading happens in memory.
const CACHE: usize = 16 << 20;

/// Key to item.
const ITEMS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("items");
/// Revision to changes.
const HISTORY: TableDefinition<'_, i64, &[u8]> = TableDefinition::new("history");
/// Lease to its time in seconds.
const LEASES: TableDefinition<'_, i64, u32> = TableDefinition::new("leases");
const META: TableDefinition<'_, &str, i64> = TableDefinition::new("meta");
