//! Changes of a store out of bytes: what the targets `value` and `table` are made of.
//!
//! Bytes 0x1d, 0x1e and 0x1f separate groups, records and fields, as ASCII names them: a batch is a group, a change a
//! record of a key and, unless the key is deleted, a value. A key of one letter stands for one of [`KEYS`].

use bytes::Bytes;
use etna_store::{Batch, Change, Revision};

/// Keys that get into each other's way in every manner.
const KEYS: [&str; 26] = [
    "backends/b/backend",
    "backends/b/servers/s",
    "backends/b/servers/t",
    "backends/c",
    "frontends/f/frontend",
    "frontends/f/middlewares/m",
    "frontends/f/middlewares/n",
    "frontends/h.l/frontend",
    "frontends/h.l",
    "hosts/h/host",
    "hosts/h/options",
    "hosts/H/keypair",
    "hosts/h/locations/l/path",
    "hosts/h/locations/l/upstream",
    "hosts/h/locations/l/options",
    "hosts/h/locations/l/middlewares/ratelimit/m",
    "hosts/h/listeners/l",
    "listeners/l",
    "listeners/k",
    "sites/a",
    "sites/b",
    "upstreams/b/options",
    "upstreams/b/endpoints/s",
    "upstreams/b/endpoints/e",
    "proxies/p",
    "nonsense",
];

/// At most 16 batches of at most 32 changes.
pub fn batches(data: &[u8]) -> Vec<Batch> {
    let groups = data.split(|byte| *byte == 0x1d).take(16);
    let records = |group: &[u8]| group.split(|byte| *byte == 0x1e).take(32).map(change).collect();
    (1..).zip(groups).map(|(at, group)| Batch { revision: Revision(at), changes: records(group) }).collect()
}

fn change(record: &[u8]) -> Change {
    let mut fields = record.splitn(2, |byte| *byte == 0x1f);
    let key = match fields.next().unwrap_or_default() {
        [letter @ b'a'..=b'z'] => Bytes::from_static(KEYS[usize::from(letter - b'a')].as_bytes()),
        key => Bytes::copy_from_slice(key),
    };
    Change { key, value: fields.next().map(Bytes::copy_from_slice) }
}
