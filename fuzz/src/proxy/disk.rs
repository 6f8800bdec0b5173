//! `etna_proxy::control::disk`: whatever lies where the last table should, is one or is refused; what is read is written
//! as the same.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use etna_proxy::control::disk::{Kept, decode, encode};
use etna_store::Model;
use sha2::{Digest as _, Sha256};

/// A whole file; and, for no fuzzer guesses a checksum, what stands between a file's version and its checksum.
pub fn check(data: &[u8]) {
    taken(Bytes::copy_from_slice(data));
    let mut signed = [b"etna last table\n\x01\0\0\0", data].concat();
    let digest = Sha256::digest(&signed);
    signed.extend_from_slice(&digest);
    taken(signed.into());
}

fn taken(file: Bytes) {
    let Ok((batch, held)) = decode(file.clone(), STORE, UNIX_EPOCH) else { return };
    let size: usize = batch.changes.iter().map(|change| change.key.len() + 8).sum();
    assert!(size < file.len(), "more came out than went in");
    Model::default().replace(&batch);
    let pairs = batch.changes.iter().map(|change| (change.key.clone(), change.value.clone().unwrap()));
    let kept = Kept {
        store: STORE.into(),
        revision: batch.revision,
        pairs: pairs.collect(),
        held: held.iter().map(|(key, left)| (key.clone(), left.map(|left: Duration| UNIX_EPOCH + left))).collect(),
    };
    let mut written = Vec::new();
    encode(&kept, &mut written).unwrap();
    let (again, held_again) = decode(written.into(), STORE, UNIX_EPOCH).unwrap();
    assert_eq!((again.revision, held_again), (batch.revision, held));
    // A key that is there twice is written once.
    let written = again.changes.iter().map(|change| (change.key.clone(), change.value.clone().unwrap()));
    assert!(written.eq(kept.pairs), "other pairs were written");
}

const STORE: &str = "etcd://a:1,b:2/v";
