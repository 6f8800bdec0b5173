//! Certificates in a directory, as certbot and others leave them: `NAME.crt` (or `.pem`) with `NAME.key`, or a folder
//! with `fullchain.pem` and `privkey.pem`.
//!
//! They are for the names that are in them; one called `default` serves names that no other is for. What the store has
//! for a host of that very name goes before them. A pair that changes is read again; half of a new one does not fit, and
//! the last good one serves until the other half is there.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use etna_store::file;
use etna_store::object::Id;
use etna_store::seal::KeyPair;
use zeroize::Zeroizing;

use super::certificate::Certificate;

/// What was found: each pair by the host it stands for, `file:DIR/NAME`, or why it cannot be used.
pub type Found = BTreeMap<Id, Result<Certificate, String>>;

/// What pairs look like from outside; differs when one of them may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, [i64; 5])>);

/// Where a pair lies.
struct Place {
    name: String,
    certificate: PathBuf,
    key: PathBuf,
}

/// How the directory looks now, who may read what included. Blocks.
pub fn stamp(dir: &Path) -> io::Result<Stamp> {
    let files = places(dir)?.into_iter().flat_map(|place| [place.certificate, place.key]);
    let stamped = files.map(|file| {
        let seen = std::fs::metadata(&file)
            .map(|seen| [seen.ctime(), seen.ctime_nsec(), seen.ino() as i64, seen.len() as i64, seen.mode().into()]);
        (file, seen.unwrap_or_default())
    });
    Ok(Stamp(stamped.collect()))
}

/// Reads all pairs. Blocks.
pub fn read(dir: &Path) -> io::Result<Found> {
    let pair = |place: Place| {
        let host: Id = format!("file:{}", dir.join(&place.name).display()).into();
        let read = || {
            let certificate = contents(&place.certificate)?;
            let mut key = contents(&place.key)?;
            let pair = KeyPair::new(certificate.to_vec(), std::mem::take(&mut *key));
            Certificate::read(host.clone(), &pair).map_err(|error| error.to_string())
        };
        (host.clone(), read())
    };
    Ok(places(dir)?.into_iter().map(pair).collect())
}

/// Whether the pair of that host serves names that no other is for.
pub fn is_default(host: &str) -> bool {
    host.starts_with("file:") && host.ends_with("/default")
}

fn places(dir: &Path) -> io::Result<Vec<Place>> {
    let mut places = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        let ending = path.extension().and_then(|ending| ending.to_str());
        if path.is_dir() {
            let (certificate, key) = (path.join("fullchain.pem"), path.join("privkey.pem"));
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(&name).to_owned();
            if certificate.exists() {
                places.push(Place { name, certificate, key });
            }
        } else if matches!(ending, Some("crt" | "pem")) {
            places.push(Place { name, key: path.with_extension("key"), certificate: path });
        }
        if places.len() > MOST {
            return Err(io::Error::other(format!("more than {MOST} certificates")));
        }
    }
    places.sort_by(|a, b| a.certificate.cmp(&b.certificate));
    Ok(places)
}

fn contents(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let told = |error: io::Error| format!("{}: {error}", path.display());
    file::read(path, LARGEST).map_err(told)
}

const MOST: usize = 10_000;
const LARGEST: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::testing::pair;
    use super::*;

    #[test]
    fn both_layouts_are_read_and_half_a_pair_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        let (one, two) = (pair(&["one.test"]), pair(&["two.test"]));
        write("one.crt", one.cert());
        write("one.key", one.key());
        std::fs::create_dir(dir.path().join("two.test")).unwrap();
        write("two.test/fullchain.pem", two.cert());
        write("two.test/privkey.pem", two.key());
        write("half.pem", one.cert());
        write("notes.txt", b"no certificate");
        let found = read(dir.path()).unwrap();
        let host = |name: &str| format!("file:{}", dir.path().join(name).display());
        assert_eq!(found.keys().map(|host| &**host).collect::<Vec<_>>(), ["half", "one", "two.test"].map(host));
        assert_eq!(found[&*host("one")].as_ref().unwrap().names, ["one.test".into()]);
        assert!(found[&*host("two.test")].is_ok());
        assert!(found[&*host("half")].as_ref().unwrap_err().contains("half.key"));
        assert!(is_default(&host("default")) && !is_default(&host("one")) && !is_default("default"));

        let before = stamp(dir.path()).unwrap();
        assert_eq!(stamp(dir.path()).unwrap(), before);
        write("half.key", two.key());
        assert_ne!(stamp(dir.path()).unwrap(), before);
        let before = stamp(dir.path()).unwrap();
        std::fs::set_permissions(dir.path().join("half.key"), std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_ne!(stamp(dir.path()).unwrap(), before, "it may be readable now");
        assert!(read(dir.path()).unwrap()[&*host("half")].as_ref().unwrap_err().contains("key"));
        for place in ["/dev/zero", "/dev/full"] {
            std::fs::remove_file(dir.path().join("half.key")).unwrap();
            std::os::unix::fs::symlink(place, dir.path().join("half.key")).unwrap();
            assert!(read(dir.path()).unwrap()[&*host("half")].as_ref().unwrap_err().contains("more than"));
        }
        assert!(read(&dir.path().join("absent")).is_err());
    }
}
